"""Whole runs whose snapshot lies encrypted in a store: killed, resumed with the same one, adopted; nothing is left."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest

from runbook.journal import Line
from runbook.lab import Lab
from runbook.snapshots.sealing import Sealed
from runbook.snapshots.sidecar import SUFFIX, Sidecar, Stored, new_name
from runbook.snapshots.store_files import Files
from tests.lab.conftest import eventually
from tests.lab.kit import BUMP, Desk
from tests.lab.test_restore import begins, ends

pytestmark = pytest.mark.lab


class Keeper(Desk):
    """A responder whose snapshots are kept in a directory, encrypted; the identity lies elsewhere."""

    def __init__(self, lab: Lab, home: Path) -> None:
        super().__init__(lab, home)
        for name in ("store", "tmp"):
            (home / name).mkdir()
        self.store = Files(home / "store")
        self.identity = pyrage.x25519.Identity.generate()
        self.keys = home / "keys.txt"
        self.keys.write_text(f"{self.identity}\n")

    def write_plan(self, **changes: Any) -> Path:
        source = {"from": f"{self.store.url}?latest=verified", "identityFile": str(self.keys)}
        return super().write_plan(**{"snapshot": source, **changes})

    def keep(self, *, hours: float = 1) -> str:
        """Seal the snapshot that was taken last, as one that is so many hours old; its name in the store."""
        at = datetime.now(UTC) - timedelta(hours=hours)
        name = new_name("lab", at, compressed=True, encrypted=True)
        recipients = (str(self.identity.to_public()),)
        sealed = Sealed(pieces(self.snapshot), recipients)
        self.store.write(name, sealed)
        stored = Stored(sealed.stored.size, sealed.stored.sha256, "zstd", recipients)
        when, now = at.isoformat(), datetime.now(UTC).isoformat()
        told = Sidecar(name, "lab", when, sealed.plain.sha256, sealed.plain.size, stored, 1, verified=now)
        self.store.write(name + SUFFIX, [told.json().encode()])
        self.snapshot.unlink()
        return name

    def assert_nothing_left(self) -> None:
        """No plain copy on this machine, and what opens one is written nowhere."""
        assert list((self.home / "tmp").iterdir()) == []
        for path in (self.home / "state").rglob("*"):
            assert not path.is_file() or str(self.identity).encode() not in path.read_bytes()


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def copies(pid: int, tmp: Path) -> list[str]:
    """The files below ``tmp`` that a process holds open."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = os.readlink(fd)
        except OSError:
            continue
        found += [link] if link.startswith(str(tmp)) else []
    return found


@pytest.fixture
def desk(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("RUNBOOK_AGE_IDENTITY", raising=False)
    return Keeper(lab, tmp_path)


def found(desk: Keeper) -> str:
    """Which snapshot the journal says that the run has."""
    return str(desk.lines()[0]["snapshot_found"]).rpartition("/")[2]


def test_the_latest_one_to_the_end(desk: Keeper) -> None:
    before = desk.tree()
    desk.write_plan()
    revision = desk.take_snapshot()
    name = desk.keep()
    desk.runbook("validate", desk.plan)
    digest = desk.runbook("preview", desk.plan).stdout.splitlines()[-1]
    checked = desk.runbook("preview", "--check", desk.plan)
    assert checked.stdout.splitlines()[-1] == digest
    assert f"as found at {desk.store.url}/{name} now" in checked.stdout
    desk.runbook("run", desk.plan, "--approve", digest.removeprefix("digest: "), code=2)
    done = desk.runbook("run", desk.plan, "--yes")
    assert f"{desk.store.url}?latest=verified is {name}: taken " in done.stderr
    desk.assert_restored(revision + BUMP)
    assert desk.status()["snapshot"] == f"{desk.store.url}/{name}"
    said = done.stdout + done.stderr + "".join(map(str, desk.lines())) + checked.stderr
    assert not any(f"/proc/{n}" in said for n in range(1, 10))
    desk.assert_nothing_left()
    desk.runbook("finish", "--yes")
    assert desk.tree() == before


def test_a_store_on_a_node(desk: Keeper) -> None:
    url = "host://m2/opt/backup/store"
    desk.write_plan(snapshot={"from": f"{url}?latest=verified", "identityFile": str(desk.keys)})
    revision = desk.take_snapshot()
    name = desk.keep()
    desk.lab.exec("m2", ["mkdir", "-p", "-m", "700", "/opt/backup/store"], check=True)
    try:
        for path in (desk.home / "store").iterdir():
            put = ["sh", "-c", "cat > /opt/backup/store/$1", "sh", path.name]
            desk.lab.exec_bytes("m2", put, input=path.read_bytes())
        desk.kill_at(("run", desk.plan, "--yes"), begins("StageSnapshot"))
        desk.runbook("resume")
        desk.assert_restored(revision + BUMP)
        assert desk.status()["snapshot"] == f"{url}/{name}"
        desk.assert_nothing_left()
        desk.runbook("finish", "--yes")
    finally:
        desk.lab.exec("m2", ["rm", "-r", "/opt/backup/store"], check=True)


def test_killed_before_it_is_staged_and_in_the_outage(desk: Keeper) -> None:
    """The same snapshot is taken again, although a newer one was verified meanwhile; then none is needed any more."""
    desk.write_plan()
    revision = desk.take_snapshot()
    name = desk.keep()
    desk.kill_at(("run", desk.plan, "--yes"), begins("StageSnapshot"))
    desk.assert_nothing_left()
    assert found(desk) == name
    desk.put("era", "of a newer snapshot")
    desk.lab.snapshot(desk.snapshot)
    newer = desk.keep(hours=0.01)
    assert newer != name
    seen = len(desk.lines())
    desk.kill_at(("resume",), ends("SwapData"), after=seen)
    for path in (desk.home / "store").iterdir():
        path.unlink()
    desk.keys.unlink()
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    assert found(desk) == name
    desk.assert_nothing_left()
    desk.runbook("finish", "--yes")


def test_taken_over_on_another_machine(desk: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that machine's own identity: the plan's file is not there."""
    desk.write_plan()
    revision = desk.take_snapshot()
    name = desk.keep()
    desk.kill_at(("run", desk.plan, "--yes"), begins("StageSnapshot"))
    run = desk.status()["run"]
    desk.keys.rename(tmp_path / "other.txt")
    (desk.home / "state").rename(desk.home / "lost")
    ssh = ["--identity-file", str(desk.lab.identity), "--known-hosts-file", str(desk.lab.known_hosts)]
    hosts = [word for host in desk.lab.nodes for word in ("--host", f"root@{host.ip}")]
    desk.runbook("adopt", *hosts, *ssh)
    halted = desk.runbook("resume", run, code=4)
    assert "keys.txt, cannot be read: No such file" in halted.stderr
    assert "export RUNBOOK_AGE_IDENTITY" in halted.stderr or "ls -l" in halted.stderr
    monkeypatch.setenv("RUNBOOK_AGE_IDENTITY", str(tmp_path / "other.txt"))
    desk.runbook("resume", run)
    desk.assert_restored(revision + BUMP)
    assert found(desk) == name
    desk.assert_nothing_left()
    desk.runbook("finish", run, "--yes")


def test_a_large_one_goes_through_the_systems_ssh(
    fresh_lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that sends it reads a file that has no name; it is killed with it open, and nothing is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("RUNBOOK_AGE_IDENTITY", raising=False)
    desk = Keeper(fresh_lab(nodes=1), tmp_path)
    desk.write_plan()
    pki = "/etc/kubernetes/pki/etcd"
    put = f"etcdctl --cacert={pki}/ca.crt --cert={pki}/server.crt --key={pki}/server.key put /noise/$1"
    for number in range(36):
        data = base64.b64encode(os.urandom(900_000))
        desk.lab.exec_bytes("m1", ["sh", "-c", put, "sh", str(number)], input=data)
    revision = desk.take_snapshot()
    plain = hashlib.sha256(desk.snapshot.read_bytes()).hexdigest()
    assert desk.snapshot.stat().st_size > 32 << 20
    desk.keep()
    process = desk.popen("run", desk.plan, "--yes")
    eventually("the copy is open", lambda: copies(process.pid, tmp_path / "tmp"), within=60, every=0.002)
    assert list((tmp_path / "tmp").iterdir()) == []
    eventually("staging has begun", lambda: any(map(begins("StageSnapshot"), desk.lines())), within=60, every=0.01)
    assert copies(process.pid, tmp_path / "tmp")
    process.kill()
    process.communicate(timeout=30)
    desk.assert_nothing_left()
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    first: Line = desk.lines()[0]
    assert first["snapshot_sha256"] == plain
    desk.assert_nothing_left()


def test_what_is_wrong_in_the_store_is_refused_before_a_run(desk: Keeper) -> None:
    before = desk.tree()
    desk.write_plan()
    desk.take_snapshot()
    name = desk.keep()
    path = desk.home / "store" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused = desk.runbook("run", desk.plan, "--yes", "--output", "json", code=3)
    assert json.loads(refused.stdout.splitlines()[-1])["exit_code"] == 3
    assert f"{desk.store.url}/{name}: " in refused.stderr
    told = desk.runbook("preview", "--check", desk.plan, code=3).stdout
    assert f"{desk.store.url}/{name}: " in told.partition("CHECKED JUST NOW")[2]
    assert desk.lines() == []
    desk.assert_nothing_left()
    assert desk.tree() == before

"""A snapshot on a host's disk is looked into as one on this machine is, and nothing of it is left here or there."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.checks import Finding, Severity, all_checks
from runbook.lab import Lab
from runbook.plan import Plan, Snapshot, Verify
from tests.lab import test_checks_lab as kit
from tests.lab.conftest import eventually
from tests.lab.kit import Desk

pytestmark = pytest.mark.lab
plan = kit.plan
snapshot = kit.snapshot
THERE = Path("/opt/backup/etcd.db")
OF_CONTENT = ("SnapshotWhole", "SnapshotContent", "KnownObjects", "Encryption", "Bump", "WhatIsLost")


@pytest.fixture
def there(lab: Lab, plan: Plan) -> Iterator[Plan]:
    """The plan, for a snapshot on m2's disk."""
    lab.exec("m2", ["mkdir", "-p", str(THERE.parent)], check=True)
    yield replace(plan, snapshot=Snapshot(f"host://m2{THERE}", THERE, node="m2"))
    lab.exec("m2", ["rm", "-rf", str(THERE.parent)], check=True)


def bring(lab: Lab, snapshot: Path) -> None:
    """Onto m2's disk, with its date."""
    script = 'umask 077; cat > "$1"; touch -d "@$2" "$1"'
    written = str(snapshot.stat().st_mtime)
    lab.exec_bytes("m2", ["sh", "-ec", script, "sh", str(THERE), written], snapshot.read_bytes())


def asked(lab: Lab, plan: Plan) -> list[Finding]:
    return kit.survey(lab, plan, checks=[c for c in all_checks("preflight") if c.id() in ("Reachable", *OF_CONTENT)])


def of(found: Sequence[Finding]) -> list[tuple[str, str, Severity, str]]:
    """What they say but of the living cluster, and of the file itself, which lies elsewhere."""
    elsewhere = ("Reachable", "WhatIsLost", "SnapshotWhole")
    return [(f.check, f.host, f.severity, f.saw) for f in found if f.check not in elsewhere]


def test_the_checks_say_the_same_of_it(lab: Lab, plan: Plan, there: Plan, tmp_path: Path) -> None:
    path = kit.encrypted(lab, tmp_path / "enc.db")
    bring(lab, path)
    verify = Verify(secrets=("default/known", "default/none"))
    here = replace(plan, snapshot=Snapshot(str(path), path), verify=verify)
    with kit.configured(lab, here) as configured:
        far = replace(there, nodes=configured.nodes, verify=verify)
        plain, found = asked(lab, configured), asked(lab, far)
    assert kit.told(found) == {("Encryption", "m3", "blocks"), ("KnownObjects", "", "warns")}
    assert kit.told(plain) == kit.told(found)
    # the living revision grows from one asking to the next
    assert [t for t in of(found) if t[0] != "Bump"] == [t for t in of(plain) if t[0] != "Bump"]
    saw = {f.check: f.saw for f in found}
    assert "Secret default/none" in saw["KnownObjects"]
    assert "live keys (" in saw["SnapshotContent"]
    assert "by its newest Lease" in saw["WhatIsLost"]
    assert saw["SnapshotWhole"].startswith(f"{THERE}: ")
    assert not any(kit.SECRET in f.saw + f.do for f in found)


def test_all_are_silent_on_a_healthy_one(lab: Lab, there: Plan, snapshot: Path) -> None:
    bring(lab, snapshot)
    plan = replace(there, verify=Verify(secrets=("default/known",), rbac=("clusterrole/cluster-admin",)))
    found = kit.survey(lab, plan)
    assert kit.told(found) == set()
    assert {f.check for f in found} >= {*OF_CONTENT}


def reader_of(parent: int) -> int:
    """The process that fetches for this one, once it has a copy open that has no name; 0 before."""
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or f"PPid:\t{parent}\n" not in (entry / "status").read_text():
                continue
            if any("(deleted)" in os.readlink(fd) and fd.stat().st_size for fd in (entry / "fd").iterdir()):
                return int(entry.name)
        except OSError:
            continue
    return 0


@pytest.mark.parametrize("output", ["text", "json"])
def test_who_waits_for_it_is_told_how_far_it_is(
    lab: Lab, tmp_path: Path, there: Plan, snapshot: Path, output: str
) -> None:
    desk = Desk(lab, tmp_path)
    desk.write_plan(snapshot={"from": there.snapshot.source})
    bring(lab, snapshot)
    # sparse: it takes seconds to come over, and is no snapshot any more
    lab.exec("m2", ["truncate", "-s", "2G", str(THERE)], check=True)
    done = desk.runbook("preview", desk.plan, "--check", "--output", output, code=3)
    told = [line for line in done.stderr.splitlines() if line.startswith("reading the snapshot on m2: ")]
    may = r"[^:]*: (nothing has come yet|\d+ of 2048 MiB|all 2048 MiB have come, .*)"
    assert told, done.stderr
    assert all(re.fullmatch(may, line) for line in told), done.stderr
    assert any("2048 MiB" in line for line in told), done.stderr
    assert "reading the snapshot" not in done.stdout
    if output == "json":
        assert json.loads(done.stdout)["exit_code"] == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_nothing_is_left_of_it(
    lab: Lab, tmp_path: Path, there: Plan, snapshot: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(lab, tmp_path)
    desk.write_plan(snapshot={"from": there.snapshot.source})
    bring(lab, snapshot)
    # sparse: it takes seconds to come over, and no room there
    lab.exec("m2", ["truncate", "-s", "2G", str(THERE)], check=True)
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    process = desk.popen("preview", desk.plan, "--check")
    try:
        eventually("it is being fetched", lambda: reader_of(process.pid), 20, 0.02)
        reader = reader_of(process.pid)
        assert list(place.iterdir()) == []
        process.send_signal(number)
        process.communicate(timeout=20)
    finally:
        process.kill()
    eventually("the reader has ended", lambda: not Path(f"/proc/{reader}").exists(), 5)
    assert list(place.iterdir()) == []
    cat = ["sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep '^cat /opt'"]
    eventually("nothing is read there any more", lambda: lab.exec("m2", cat).returncode == 1, 10)
    assert process.returncode == (130 if number == signal.SIGINT else -number)

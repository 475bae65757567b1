"""The commands on stored snapshots, typed as a responder types them, on directories of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from runbook.snapshots.shipping import Facts, ship
from runbook.snapshots.sidecar import SUFFIX, Sidecar
from runbook.snapshots.store_files import Files
from tests.unit.bolt_kit import keyspace, snapshot
from tests.unit.store_kit import SAMPLE

IDENTITY = pyrage.x25519.Identity.generate()
KEY = str(IDENTITY.to_public())
GOOD = snapshot(keyspace([(n, b"/registry/pods/default/p%d" % n, os.urandom(300)) for n in range(1, 400)]))


class Desk:
    """A directory with a store, a backup plan and an identity in it."""

    def __init__(self, home: Path) -> None:
        self.home, self.store = home, Files(home / "store")
        self.store.path.mkdir(mode=0o700)
        (home / "identity.txt").write_text(f"{IDENTITY}\n")
        self.plan = home / "a plan.yaml"
        self.write()

    def write(self, **spec: Any) -> None:
        node = {"name": "m1", "host": "192.0.2.1", "peerURLs": ["https://192.0.2.1:2380"]}
        own = {"store": {"url": self.store.url}, "encrypt": {"recipients": [KEY]}, "nodes": [node]}
        plan = {"apiVersion": "runbook/v1", "kind": "EtcdBackup", "metadata": {"name": "prod"}, "spec": own | spec}
        self.plan.write_text(yaml.safe_dump(plan))

    def put(self, days: float = 0, cluster: str = "prod", data: bytes = GOOD, revision: int = 399) -> Sidecar:
        at = datetime.now(UTC) - timedelta(days=days)
        return ship(self.store, [data], Facts(cluster, at, revision, {"pods": 399}), [KEY])

    def popen(self, *words: object) -> subprocess.Popen[str]:
        env = {**os.environ, "RUNBOOK_STATE_DIR": str(self.home / "state"), "TMPDIR": str(self.home)}
        env |= {"RUNBOOK_AGE_IDENTITY": str(self.home / "identity.txt")}
        argv = [sys.executable, "-m", "runbook.cli", "snapshot", *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv, env=env, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=self.home
        )

    def type(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        process = self.popen(*words)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"{words}: exit {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess([str(w) for w in words], code, out, err)

    def json(self, *words: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.type(*words, "--output", "json").stdout)
        return found

    def left(self) -> list[str]:
        known = {"store", "identity.txt", self.plan.name, "state"}
        return sorted(n for n in os.listdir(self.home) if n not in known)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_verify_finds_damaged_is_no_longer_the_newest_nor_kept_in_a_good_ones_place(desk: Desk) -> None:
    old, new = desk.put(days=2), desk.put()
    damage(desk.store.path / new.name)
    assert desk.json("list", desk.plan)["newest"] == new.name
    desk.type("verify", f"{desk.store.url}/{new.name}", code=3)
    listed = desk.json("list", desk.plan)
    assert listed["newest"] == old.name
    assert [s["good"] for s in listed["snapshots"]] == [True, False]
    desk.write(keep={"last": 1, "daily": 0, "weekly": 0, "monthly": 0})
    pruned = desk.json("prune", desk.plan, "--dry-run")
    assert old.name in [v["name"] for v in pruned["kept"]]
    assert desk.json("verify", f"{desk.store.url}?latest=verified")["name"] == old.name


def test_a_wrong_key_says_nothing_of_the_snapshot(desk: Desk) -> None:
    told = desk.put()
    other = desk.home / "other.txt"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    done = desk.type("verify", f"{desk.store.url}/{told.name}", "--identity-file", other, code=3)
    other.unlink()
    assert "cannot be decrypted" in done.stderr
    assert "export RUNBOOK_AGE_IDENTITY=FILE" in done.stderr
    assert desk.json("list", desk.plan)["newest"] == told.name


def test_what_was_never_verified_is_so_once_it_is_proven(desk: Desk) -> None:
    told = desk.put()
    path = desk.store.path / (told.name + SUFFIX)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verified": ""}))
    assert desk.json("list", desk.plan)["newest"] is None
    desk.type("verify", f"{desk.store.url}/{told.name}")
    assert desk.json("list", desk.plan)["newest"] == told.name


def test_in_one_place_each_plan_has_its_own_newest(desk: Desk) -> None:
    mine, other = desk.put(days=30), desk.put(cluster="prod-eu1")
    listed = desk.json("list", desk.plan)
    assert listed["newest"] == mine.name
    assert any("older than two intervals" in w for w in listed["warnings"])
    assert other.name in [s["name"] for s in listed["snapshots"]]
    proof = desk.json("verify", f"{desk.store.url}?latest=verified", "--plan", desk.plan)
    assert proof["name"] == mine.name
    refused = desk.type("verify", f"{desk.store.url}?latest=verified", code=3)
    assert "has snapshots of 2 clusters: prod, prod-eu1" in refused.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_no_part_of_a_plain_snapshot_stays_whatever_ends_a_fetch(desk: Desk, how: signal.Signals) -> None:
    """The store is a pipe's end, so that it stops half-way."""
    told = desk.put()
    path = desk.store.path / told.name
    data = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    process = desk.popen("fetch", f"{desk.store.url}/{told.name}")
    with path.open("wb") as end:
        end.write(data[: len(data) // 2])
        end.flush()
        deadline = time.monotonic() + 20
        while "fetching" not in (process.stderr.readline() if process.stderr else ""):
            assert time.monotonic() < deadline
        time.sleep(0.5)
        process.send_signal(how)
        process.communicate(timeout=20)
    assert process.returncode in (-how, 130)
    assert desk.left() == []


def test_a_fetched_one_has_its_name_only_once_it_is_whole(desk: Desk) -> None:
    told = desk.put()
    done = desk.json("fetch", f"{desk.store.url}/{told.name}")
    plain = desk.home / told.name.removesuffix(".zst.age")
    assert done["file"] == plain.name
    assert plain.read_bytes() == GOOD
    assert plain.stat().st_mode & 0o777 == 0o600
    desk.type("fetch", f"{desk.store.url}/{told.name}", code=2)
    plain.unlink()
    damage(desk.store.path / told.name)
    desk.type("fetch", f"{desk.store.url}/{told.name}", code=3)
    assert desk.left() == []


def test_a_store_that_may_only_be_read_is_told_of_and_the_proof_too(desk: Desk) -> None:
    told = desk.put()
    path = desk.store.path / (told.name + SUFFIX)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verified": "2026-01-01T00:00:00Z"}))
    subprocess.run(["chattr", "+i", str(path)], check=False)
    try:
        path.open("ab").close()
    except PermissionError:
        pass
    else:
        pytest.skip("no immutable files on this file system")
    try:
        done = desk.type("verify", f"{desk.store.url}/{told.name}")
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    assert "its sidecar still says when it was verified before" in done.stderr
    assert "its sidecar says the same" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"apiVersion": "runbook/v1", "kind": "EtcdSnapshot", "at": "0001-01-01T00:00:00+23:59"}',
        "\x00\xff",
        '"' + "x" * 100,
    ],
)
def test_one_odd_sidecar_ends_nothing(desk: Desk, text: str) -> None:
    good = desk.put()
    odd = desk.put(days=1)
    path = desk.store.path / (odd.name + SUFFIX)
    if text.startswith("{"):
        path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(text)))
    else:
        path.write_text(text)
    listed = desk.json("list", desk.plan)
    assert listed["newest"] == good.name
    assert "its sidecar cannot be used" in next(s["why"] for s in listed["snapshots"] if s["name"] == odd.name)
    desk.type("prune", desk.plan, "--dry-run")
    assert desk.json("verify", f"{desk.store.url}?latest=verified")["name"] == good.name


def test_a_cluster_s_name_in_a_sidecar_cannot_steer_a_terminal(desk: Desk) -> None:
    told = desk.put()
    path = desk.store.path / (told.name + SUFFIX)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cluster": "\x1b[2Jx"}))
    assert "\x1b" not in desk.type("list", desk.plan).stdout
    assert desk.json("list", desk.plan)["newest"] is None


@pytest.mark.parametrize(
    "words",
    [
        ("list", "s3://AKIA:SECRETKEY@bucket/x"),
        ("verify", "s3://AKIA:SECRETKEY@bucket/x/a.db"),
        ("fetch", "s3://AKIA:SECRETKEY@bucket/x?latest=verified"),
        ("save", "s3://AKIA:SECRETKEY@bucket/x"),
        ("push", "PLAIN", "STORE", "--name", "prod", "--recipient", "AGE-SECRET-KEY-1SECRETKEY"),
    ],
)
def test_no_secret_that_was_mistyped_is_repeated(desk: Desk, words: tuple[str, ...]) -> None:
    plain = desk.home / "state.db"
    plain.write_bytes(GOOD)
    given = [str(plain) if w == "PLAIN" else desk.store.url if w == "STORE" else w for w in words]
    process = desk.popen(*given)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (2, 3)
    assert "SECRETKEY" not in out + err
    assert os.listdir(desk.store.path) == []


def test_metrics_tell_of_a_store_that_cannot_even_be_opened(desk: Desk) -> None:
    metrics = desk.home / "store" / "metrics"
    metrics.mkdir()
    desk.write(metrics=str(metrics), store={"url": "s3://bucket/x"})
    os.environ.pop("AWS_PROFILE", None)
    process = subprocess.run(
        [sys.executable, "-m", "runbook.cli", "snapshot", "save", str(desk.plan)],
        env={**os.environ, "AWS_PROFILE": "nobody", "HOME": str(desk.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 3, process.stderr
    text = (metrics / "runbook_snapshot_prod.prom").read_text()
    assert 'runbook_snapshot_last_run_success{cluster="prod"} 0\n' in text


def test_whatever_is_to_be_typed_is_quoted(desk: Desk) -> None:
    desk.store.path.rmdir()
    done = desk.type("save", desk.plan, code=3)
    assert f"runbook snapshot list '{desk.plan}'" in done.stderr


def test_an_orphaned_sidecar_alone_is_asked_about_by_its_name(desk: Desk) -> None:
    told = desk.put()
    kept = desk.put()
    (desk.store.path / told.name).unlink()
    assert f"{told.name} is gone" in desk.type("list", desk.plan).stderr
    desk.type("prune", desk.plan, code=2)
    desk.type("prune", desk.plan, "--yes")
    assert sorted(os.listdir(desk.store.path)) == [kept.name, kept.name + SUFFIX]


def test_what_a_pushed_file_does_not_tell_is_left_open(desk: Desk) -> None:
    """The cluster version that stands in it (3.5.0) is not the version of the member's program (3.5.16)."""
    made = desk.json("push", SAMPLE, desk.plan)
    assert (made["etcd"], made["kubernetes"], made["member"]) == ("", "", "")
    assert (made["revision"], made["cluster"]) == (51, "prod")


def test_a_push_tries_the_store_before_it_proves_a_file_that_may_be_large(desk: Desk) -> None:
    desk.store.path.rmdir()
    done = desk.type("push", SAMPLE, desk.plan, code=3)
    assert "make the directory, or mount it" in done.stderr
    assert "whole" not in done.stderr.partition("\n")[0]
    assert not desk.store.path.exists()

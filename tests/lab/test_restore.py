"""Whole runs on the lab, typed as a responder types them: restored, killed anywhere, resumed, rolled back, finished."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.journal import Line
from runbook.lab import Lab
from tests.lab.kit import BUMP, Desk

pytestmark = pytest.mark.lab


@pytest.fixture
def desk(lab: Lab, tmp_path: Path) -> Desk:
    """The shared lab, with a new snapshot and a plan."""
    return Desk(lab, tmp_path)


def test_a_whole_run_and_its_finish(desk: Desk) -> None:
    before = desk.tree()
    desk.write_plan()
    revision = desk.take_snapshot()
    digest = desk.runbook("preview", desk.plan).stdout.splitlines()[-1].removeprefix("digest: ")
    done = desk.runbook("run", desk.plan, "--approve", digest)
    assert "complete" in done.stdout
    desk.assert_restored(revision + BUMP)
    status = desk.status()
    assert status["state"] == "complete"
    assert 0 < status["outage_seconds"] < 120
    assert set(status["hosts"]) == {"m1", "m2", "m3"}
    assert any("finish" in command for command in status["next"])
    again = desk.runbook("resume", status["run"])
    assert "complete" in again.stdout
    desk.runbook("finish", status["run"], code=2)  # nobody there to confirm
    desk.runbook("finish", status["run"], "--yes")
    assert desk.tree() == before
    desk.runbook("rollback", status["run"], "--discard-writes", code=2)
    desk.assert_restored(revision + BUMP)


def begins(step: str, host: str = "") -> Callable[[Line], bool]:
    return lambda line: line["event"] == "begin" and line["step"] == step and line["host"].startswith(host)


def ends(step: str) -> Callable[[Line], bool]:
    return lambda line: line["event"] == "end" and line["step"] == step


def reaches(step: str, state: str) -> Callable[[Line], bool]:
    return lambda line: line["event"] == "step" and line["step"] == step and line["to"] == state


POINTS = {
    "staging": begins("StageSnapshot"),
    "restoring aside": begins("RestoreAside", "m2"),
    "first manifest parked": begins("StopControllers"),
    "stopping etcd": begins("StopEtcd", "m3"),
    "swap announced": reaches("SwapData", "ACTING"),
    "swap on one host": ends("SwapData"),
    "etcd starting": begins("StartEtcd", "m1"),
    "API servers starting": begins("StartApiServers"),
    "verifying": reaches("VerifyCluster", "ACTING"),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_resumed(desk: Desk, point: str) -> None:
    desk.write_plan()
    revision = desk.take_snapshot()
    desk.kill_at(("run", desk.plan, "--yes"), POINTS[point])
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    assert desk.status()["state"] == "complete"
    desk.runbook("finish", "--yes")


BACK = ["restoring aside", "stopping etcd", "swap on one host", "etcd starting"]


@pytest.mark.parametrize("point", BACK)
def test_killed_and_rolled_back(desk: Desk, point: str) -> None:
    before = desk.tree()
    desk.write_plan()
    desk.take_snapshot()
    least = desk.revision("m1")
    desk.kill_at(("run", desk.plan, "--yes"), POINTS[point])
    desk.runbook("rollback")
    desk.assert_old(least)
    if desk.status()["closed"] is False:
        desk.runbook("finish", "--yes")
    assert desk.tree() == before


def test_rollback_after_the_end_needs_consent(desk: Desk) -> None:
    desk.write_plan()
    desk.take_snapshot()
    least = desk.revision("m1")
    desk.runbook("run", desk.plan, "--yes")
    refused = desk.runbook("rollback", code=2)
    assert "--discard-writes" in refused.stderr
    desk.runbook("rollback", "--discard-writes")
    ready = ["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "--raw", "/readyz"]
    answers = {host.name: desk.lab.exec(host.name, ready).stdout for host in desk.lab.nodes}
    assert answers == {"m1": "ok", "m2": "ok", "m3": "ok"}, "it ends when the old cluster serves again"
    desk.assert_old(least)
    discarded = desk.lab.exec("m1", ["sh", "-c", "ls -d /var/lib/etcd/.*.discarded/member"], check=True)
    assert discarded.stdout.strip()
    desk.runbook("finish", "--yes")


@pytest.mark.parametrize("step", ["StartEtcd", "SwapData", "RestoreAside"])
def test_killed_while_rolling_back(desk: Desk, step: str) -> None:
    desk.write_plan()
    desk.take_snapshot()
    least = desk.revision("m1")
    desk.kill_at(("run", desk.plan, "--yes"), reaches("StartEtcd", "DONE"))
    seen = len(desk.lines())
    desk.kill_at(("rollback",), reaches(step, "UNDOING"), after=seen)
    desk.runbook("resume")
    desk.assert_old(least)
    desk.runbook("finish", "--yes")


def test_killed_twice_in_a_row(desk: Desk) -> None:
    desk.write_plan()
    revision = desk.take_snapshot()
    desk.kill_at(("run", desk.plan, "--yes"), ends("SwapData"))
    seen = len(desk.lines())
    desk.kill_at(("resume",), begins("StartEtcd"), after=seen)
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")


@pytest.mark.parametrize(
    ("number", "point"), [(signal.SIGINT, "stopping etcd"), (signal.SIGTERM, "restoring aside")], ids=str
)
def test_interrupted(desk: Desk, number: signal.Signals, point: str) -> None:
    desk.write_plan()
    revision = desk.take_snapshot()
    process = desk.popen("run", desk.plan, "--yes")
    while process.poll() is None and not any(POINTS[point](line) for line in desk.lines()):
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "runbook resume" in err
    assert desk.status()["state"] == "halted"
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")


def test_a_run_is_not_rolled_back_under_a_later_one(desk: Desk) -> None:
    desk.write_plan()
    desk.take_snapshot()
    desk.runbook("run", desk.plan, "--yes")
    first = desk.status()["run"]
    revision = desk.take_snapshot()
    desk.runbook("run", desk.plan, "--yes")
    second = desk.status()["run"]
    refused = desk.runbook("rollback", first, "--discard-writes", code=3)
    assert second in refused.stderr
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", second, "--yes")
    desk.runbook("finish", first, "--yes")


def test_a_host_that_restarts_in_the_outage(desk: Desk) -> None:
    desk.write_plan()
    revision = desk.take_snapshot()
    desk.kill_at(("run", desk.plan, "--yes"), reaches("SwapData", "DONE"))
    desk.lab.crash("m2")
    halted = desk.runbook("resume", code=4)
    assert "m2" in halted.stderr
    assert "runbook resume" in halted.stderr
    desk.lab.boot("m2")
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")


def test_as_a_user_with_sudo(desk: Desk) -> None:
    ssh = {"user": "ops", "identityFile": str(desk.lab.identity), "knownHostsFile": str(desk.lab.known_hosts)}
    desk.write_plan(ssh=ssh)
    revision = desk.take_snapshot()
    desk.kill_at(("run", desk.plan, "--yes"), begins("SwapData"))
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")


def test_the_snapshot_may_lie_on_a_host(desk: Desk) -> None:
    revision = desk.take_snapshot()
    desk.lab.exec_bytes(
        "m2", ["sh", "-c", "mkdir -p /opt/backup; cat > /opt/backup/etcd.db"], input=desk.snapshot.read_bytes()
    )
    desk.write_plan(snapshot={"from": "host://m2/opt/backup/etcd.db"})
    desk.runbook("run", desk.plan, "--yes")
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")
    assert desk.lab.exec("m2", ["test", "-e", "/opt/backup/etcd.db"]).returncode == 0


def test_a_finish_that_ends_half_way_is_no_way_back(desk: Desk) -> None:
    desk.write_plan()
    revision = desk.take_snapshot()
    desk.runbook("run", desk.plan, "--yes")
    desk.lab.unplug("m3")
    try:
        desk.runbook("finish", "--yes", code=4)
    finally:
        desk.lab.plug("m3")
    status = desk.status()
    assert status["next"] == [f"runbook finish {status['run']}"]
    assert "no way back" in desk.runbook("status").stdout
    desk.runbook("rollback", "--discard-writes", code=2)
    desk.runbook("finish", "--yes")
    desk.lab.wait_healthy(60)  # m3 has been alone for a while, and TCP tries ever more seldom
    desk.assert_restored(revision + BUMP)


def test_json_is_one_line_an_event(desk: Desk) -> None:
    desk.write_plan()
    desk.take_snapshot()
    done = desk.runbook("run", desk.plan, "--yes", "--output", "json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["state"] == "complete"
    desk.runbook("finish", "--yes")


def test_one_node_is_the_same_procedure(fresh_lab: Callable[..., Lab], tmp_path: Path) -> None:
    desk = Desk(fresh_lab(nodes=1), tmp_path)
    desk.write_plan()
    revision = desk.take_snapshot()
    desk.kill_at(("run", desk.plan, "--yes"), begins("StartEtcd"))
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    desk.runbook("rollback", "--discard-writes")
    desk.assert_old(revision)


def test_a_lost_worker_leaves_a_doubt(fresh_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """The control plane is restored and checked all the same; the run is unverified, not halted."""
    desk = Desk(fresh_lab(nodes=1, workers=1), tmp_path)
    worker = next(h for h in desk.lab.hosts if h.worker)
    desk.write_plan(workers=[worker.ip])
    revision = desk.take_snapshot()
    desk.kill_at(("run", desk.plan, "--yes"), begins("StopEtcd"))
    desk.lab.crash(worker.name)
    said = desk.runbook("resume", code=7)
    assert worker.ip in said.stderr
    desk.assert_restored(revision + BUMP)
    assert desk.status()["state"] == "unverified"
    desk.lab.boot(worker.name)
    desk.runbook("resume")
    assert desk.status()["state"] == "complete"


def test_a_wal_directory_apart(fresh_lab: Callable[..., Lab], tmp_path: Path) -> None:
    desk = Desk(fresh_lab(nodes=3, workers=1, wal_dir="/var/lib/etcd-wal/wal"), tmp_path)
    worker = next(h for h in desk.lab.hosts if h.worker)
    desk.write_plan(paths={"walDir": "/var/lib/etcd-wal/wal"}, workers=[worker.ip])
    revision = desk.take_snapshot()
    least = desk.revision("m1")
    desk.kill_at(("run", desk.plan, "--yes"), ends("SwapData"))
    desk.runbook("rollback")
    desk.assert_old(least)
    desk.runbook("finish", "--yes")
    desk.runbook("run", desk.plan, "--yes")
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")
    left = desk.lab.exec("m1", ["find", "/var/lib/etcd", "/var/lib/etcd-wal/wal", "-name", ".*"], check=True)
    assert left.stdout == ""

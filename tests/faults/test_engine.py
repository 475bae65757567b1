"""The engine: killed at any line, twice, in a rollback, interrupted; two of them; and hosts that do not come back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.journal import Line
from tests.faults.kit import Row, begins, ends, reaches

pytestmark = pytest.mark.timeout(1200)
BACK = ("rollback", "--discard-writes")
LOCK = "/var/lib/etcd-runbook.lock"


def typed(row: Row) -> tuple[str | Path, ...]:
    return "run", row.plan, "--yes"


POINTS: dict[str, Callable[[Line], bool]] = {
    "not bound to a snapshot yet": reaches("CheckEverything", "ACTING"),
    "locking": begins("LockHosts", "m2"),
    "a manifest saved": ends("SaveManifests"),
    "restoring aside": begins("RestoreAside", "m3"),
    "controllers stop": begins("StopControllers", "m1"),
    "API servers stopped": reaches("StopApiServers", "DONE"),
    "etcd stops": ends("StopEtcd", "m1"),
    "in the swap": begins("SwapData", "m2"),
    "one etcd started": ends("StartEtcd", "m1"),
    "etcd proven": reaches("StartEtcd", "DONE"),
    "API servers start": begins("StartApiServers", "m1"),
    "kubelets restart": begins("RestartKubelets", "m2"),
}


@pytest.mark.parametrize("point", list(POINTS))
def test_killed_then_resumed(row: Row, point: str) -> None:
    """The engine is killed with SIGKILL, then resumed | at a sample of lines of the journal."""
    row.kill_when(typed(row), POINTS[point])
    row.runbook("resume")
    row.restored()


@pytest.mark.parametrize("point", list(POINTS))
def test_killed_then_rolled_back(row: Row, point: str) -> None:
    """The engine is killed with SIGKILL, then rolled back | at a sample of lines of the journal."""
    row.kill_when(typed(row), POINTS[point])
    row.runbook(*BACK)
    row.rolled_back()


def test_killed_twice(row: Row) -> None:
    """The engine is killed, and its successor too | in the swap, and while etcd starts."""
    row.kill_when(typed(row), ends("SwapData"))
    row.kill_when(("resume",), begins("StartEtcd"))
    row.runbook("resume")
    row.restored()


@pytest.mark.parametrize("point", ["StartEtcd", "SwapData", "StopEtcd", "RestoreAside"])
def test_killed_in_a_rollback(row: Row, point: str) -> None:
    """The engine is killed while it rolls back, then resumed | at the undoing of a step."""
    row.kill_when(typed(row), reaches("StartEtcd", "DONE"))
    # On a busy machine the kill comes late, when an API server was started already; else the option is harmless.
    row.kill_when(BACK, reaches(point, "UNDOING"))
    row.runbook("resume")
    row.rolled_back()


@pytest.mark.third
def test_two_engines(row: Row) -> None:
    """A second engine is started on the run | in the outage."""

    def second() -> None:
        for command in (("resume",), ("rollback",), ("resume", "--without", "m3")):
            refused = row.runbook(*command, code=6)
            assert "is being worked on by process" in refused.stderr

    row.during(typed(row), begins("StopEtcd"), second)
    row.restored()


def interrupt(row: Row, *pauses: float) -> tuple[int, str]:
    """Ctrl-C at the swap, and again after each pause; the exit code and the words."""
    process = row.popen(*typed(row))
    limit = time.monotonic() + 300
    while process.poll() is None and not any(begins("SwapData")(x) for x in row.lines()):
        assert time.monotonic() < limit
        time.sleep(0.003)
    process.send_signal(signal.SIGINT)
    for pause in pauses:
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def test_ctrl_c(row: Row) -> None:
    """Ctrl-C | in the swap."""
    code, said = interrupt(row)
    assert code == 130, said
    assert "runbook resume" in said
    assert row.status()["state"] == "halted"
    row.runbook("resume")
    row.restored()


def test_ctrl_c_twice(row: Row) -> None:
    """Ctrl-C, and once more at once | in the swap."""
    code, said = interrupt(row, 0.01)
    assert code in (130, -signal.SIGINT), said
    assert "Traceback" not in said
    assert row.status()["state"] in ("halted", "outage")
    row.runbook("resume")
    row.restored()


@pytest.mark.third
def test_a_stale_lock(row: Row) -> None:
    """The lock of another run lies on a host | before the run."""
    text = '{"run": "other-20260101t000000z-beef", "holder": "ada@bastion", "since": "2026-01-01T00:00:00Z"}'
    row.later(lambda: row.sh("m3", f"! grep -q ada {LOCK} || rm {LOCK}", check=False))
    row.sh("m3", f"echo '{text}' > {LOCK}")
    done = row.runbook(*typed(row), code=6)
    for word in ("m3", "ada@bastion", "other-20260101t000000z-beef"):
        assert word in done.stderr
    assert row.sh("m3", f"cat {LOCK}").strip() == text
    row.untouched()


def test_rolled_back_while_a_restore_still_runs(row: Row) -> None:
    """Rolled back while a command of the killed engine still runs on a host | restoring beside the living data."""
    row.slow_restore("m2", 15)
    row.kill_when(typed(row), lambda line: begins("RestoreAside", "m2")(line) and row.restoring("m2"))
    assert row.restoring("m2")
    row.runbook("rollback")
    assert not row.restoring("m2")
    row.rolled_back()
    for node in row.lab.nodes:
        assert row.sh(node.name, "ls -A /var/lib/etcd").split() == ["member"]


def test_a_later_run_is_in_the_way(row: Row) -> None:
    """An earlier run is to be rolled back | after a later run."""
    row.runbook(*typed(row))
    first = row.status()["run"]
    row.snapshot_revision = row.take_snapshot()
    row.runbook(*typed(row))
    second = row.status()["run"]
    refused = row.runbook("rollback", first, "--discard-writes", code=3)
    assert second in refused.stderr
    row.runbook("finish", first, "--yes")
    row.restored()


# Hosts that do not come back, or only much later.


def comes_back(row: Row, *command: str) -> None:
    """The absent host is still owed its steps; it gets them when it is back."""
    assert row.status()["absent"] == ["m3"]
    still = row.runbook(*command, code=4)
    assert "m3" in still.stderr
    row.runbook("finish", "--yes", code=2)
    row.boot("m3")
    row.runbook(*command)
    assert row.status()["absent"] == []


@pytest.mark.third
def test_without_a_host_from_the_beginning(row: Row) -> None:
    """One host is dead, and the run goes without it; later it is back | from the beginning."""
    row.lab.crash("m3")
    refused = row.runbook(*typed(row), code=3)
    assert "m3" in refused.stderr
    row.runbook(*typed(row), "--without", "m3")
    assert row.status()["state"] == "complete"
    for host in ("m1", "m2"):
        assert row.get(host, "era") == "kept"
    comes_back(row, "resume")
    row.restored()


@pytest.mark.parametrize("step", ["RestoreAside", "StopEtcd", "SwapData", "StartEtcd"])
def test_without_a_host_that_died_on_the_way(row: Row, step: str) -> None:
    """One host dies, the run goes on without it; later it is back | after a step, before and in the outage."""
    row.kill_when(typed(row), reaches(step, "DONE"))
    row.lab.crash("m3")
    halted = row.runbook("resume", code=4)
    assert "m3" in halted.stderr
    row.runbook("resume", "--without", "m3")
    assert row.status()["state"] == "complete"
    comes_back(row, "resume")
    row.restored()


@pytest.mark.parametrize("step", ["StopApiServers", "SwapData"])
def test_rolled_back_without_a_host(row: Row, step: str) -> None:
    """One host dies, and it is rolled back without it; later it is back | after a step of the outage."""
    row.kill_when(typed(row), reaches(step, "DONE"))
    row.lab.crash("m3")
    row.runbook("rollback", code=4)
    row.runbook("rollback", "--without", "m3")
    assert row.status()["state"] == "rolled-back"
    assert row.get("m1", "era") == "lost"
    comes_back(row, "rollback")
    row.rolled_back()


def test_rolled_back_after_a_run_without_a_host(row: Row) -> None:
    """A run that was complete without a dead host is rolled back; later that host is back | after the end."""
    row.lab.crash("m3")
    row.runbook(*typed(row), "--without", "m3")
    row.runbook(*BACK)
    assert row.get("m1", "era") == "lost"
    comes_back(row, *BACK)
    row.rolled_back()

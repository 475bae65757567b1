"""Power cuts: of one host, before, in and after the outage; of all hosts at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.journal import Line
from tests.faults.kit import Row, begins, ends, reaches

pytestmark = pytest.mark.timeout(1800)
PATIENCE = {"command": "30s", "stop": "60s", "quorum": "60s", "restore": "60s"}
"""A dead host is given up sooner than by default."""


def typed(row: Row) -> tuple[str | Path, ...]:
    row.write_plan(timeouts=PATIENCE)
    return "run", row.plan, "--yes"


@pytest.mark.third
def test_one_host_has_no_power_before(row: Row) -> None:
    """One host has no power | before the run."""
    row.lab.crash("m2")
    done = row.runbook(*typed(row), code=3)
    assert "m2" in done.stderr
    assert row.status()["closed"]
    row.boot("m2")
    row.lab.wait_healthy(120)
    row.untouched()


POINTS: dict[str, Callable[[Line], bool]] = {
    "staging the snapshot": begins("StageSnapshot", "m2"),
    "stopping etcd": begins("StopEtcd", "m2"),
    "in the swap": begins("SwapData", "m2"),
    "etcd starts": begins("StartEtcd", "m2"),
    "API servers start": begins("StartApiServers", "m2"),
}


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=pytest.mark.third) if p == "in the swap" else p for p in POINTS]
)
def test_one_host_loses_power(row: Row, point: str) -> None:
    """The power of one host is cut | while preparing, in the swap, while etcd and the API servers start."""
    done = row.during(typed(row), POINTS[point], lambda: row.lab.crash("m2"), code=4)
    assert "m2" in done.stderr
    assert "runbook resume" in done.stderr
    row.boot("m2")
    row.runbook("resume")
    row.restored()


def test_one_host_loses_power_and_all_is_undone(row: Row) -> None:
    """The power of one host is cut, then rolled back | in the swap."""
    row.during(typed(row), begins("SwapData", "m2"), lambda: row.lab.crash("m2"), code=4)
    row.boot("m2")
    row.runbook("rollback")
    row.rolled_back()


def test_one_host_loses_power_afterwards(row: Row) -> None:
    """The power of one host is cut | after the run."""
    row.runbook(*typed(row))
    row.lab.crash("m2")
    row.boot("m2")
    row.restored()


def test_all_hosts_lose_power(row: Row) -> None:
    """The power of all hosts is cut at once | in the swap."""
    names = [h.name for h in row.lab.nodes]

    def cut() -> None:
        for name in names:
            row.lab.crash(name)

    done = row.during(typed(row), ends("SwapData", "m1"), cut, code=4)
    for name in (*names, "runbook resume"):
        assert name in done.stderr
    row.boot(*names)
    row.runbook("resume")
    row.restored()


def test_all_hosts_and_the_engine_lose_power(row: Row) -> None:
    """The power of all hosts and of the responder is cut at once | when etcd has started."""
    row.kill_when(typed(row), reaches("StartEtcd", "DONE"))
    names = [h.name for h in row.lab.nodes]
    for name in names:
        row.lab.crash(name)
    row.boot(*names)
    row.runbook("resume")
    row.restored()

"""The responder's machine is lost, or another one takes over."""

from __future__ import annotations

import pytest

from tests.faults.kit import Row, begins, reaches
from tests.lab.kit import BUMP


@pytest.mark.parametrize(
    "step",
    ["StageSnapshot", "StopControllers", "StopEtcd", pytest.param("SwapData", marks=pytest.mark.third), "StartApiServers"],
)
def test_the_laptop_is_lost(row: Row, step: str) -> None:
    """The responder's whole disk is lost | at the begin of a step, before, in, and at the end of the outage."""
    row.kill_at(("run", row.plan, "--yes"), begins(step))
    second = row.lose_laptop()
    said = second.adopt()
    assert "taken over" in said
    assert "Type next:     runbook resume" in said
    if step != "StageSnapshot":
        assert "still going on" in second.runbook("status").stdout
    second.runbook("resume")
    assert "never stopped" not in second.runbook("report").stdout
    second.restored()
    row.outcome = second.outcome


def test_the_laptop_is_lost_and_the_rest_is_undone(row: Row) -> None:
    """The responder's whole disk is lost, then rolled back elsewhere | in the swap."""
    row.kill_at(("run", row.plan, "--yes"), begins("SwapData"))
    second = row.lose_laptop()
    second.adopt("m2")
    second.runbook("rollback")
    second.rolled_back()
    row.outcome = second.outcome


def test_the_old_engine_wakes_up(row: Row) -> None:
    """The old engine wakes up after an adopt | in the outage."""
    row.kill_at(("run", row.plan, "--yes"), reaches("StopEtcd", "ACTING"))
    second = row.another_machine()
    second.adopt()
    woken = row.runbook("resume", code=6)
    assert "a newer engine has taken this run over" in woken.stderr
    again = row.runbook("rollback", code=6)
    assert "a newer engine has taken this run over" in again.stderr
    second.runbook("resume")
    second.restored()
    row.outcome = second.outcome


@pytest.mark.parametrize("how", ["resume", pytest.param("rollback", marks=pytest.mark.third)])
def test_the_old_engine_wakes_up_when_all_is_over(row: Row, how: str) -> None:
    """The old engine wakes up after another machine has ended the run | nothing of it is left on the hosts."""
    row.kill_at(("run", row.plan, "--yes"), reaches("StopEtcd", "ACTING"))
    second = row.another_machine()
    second.adopt()
    second.runbook(how)
    (second.restored if how == "resume" else second.rolled_back)()
    woken = row.runbook("resume", code=6)
    assert "was ended without this machine" in woken.stderr
    assert "nothing of it is left on m1, m2, m3" in woken.stderr
    row.lab.wait_healthy(5)
    if how == "resume":
        row.assert_restored(row.snapshot_revision + BUMP)
    else:
        row.assert_old(row.least)
    row.outcome = f"{second.outcome}, and not touched again"

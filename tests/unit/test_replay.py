"""What a journal says when it is replayed, and the sentences for where it stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook.lifecycle import STEP_STATES
from runbook.replay import replay

START = datetime(2026, 4, 9, 14, 0, 0, tzinfo=UTC)
RUN = "prod-20260409t140000z-0001"


def book(*events: tuple[float, dict[str, Any]]) -> list[dict[str, Any]]:
    lines = []
    for number, (second, event) in enumerate(events, start=1):
        at = (START + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
        lines.append({"seq": number, "at": at, "epoch": 1, "prev": "", **event})
    return lines


def step(name: str, to: str) -> dict[str, Any]:
    return {"event": "step", "step": name, "from": "?", "to": to, "trigger": "proceed", "saw": {}}


def begin(name: str) -> dict[str, Any]:
    return {"event": "begin", "step": name, "host": "m1", "key": "k", "action": "…"}


def state(source: str, to: str, why: str = "") -> dict[str, Any]:
    return {"event": "state", "from": source, "to": to, "why": why}


OUTAGE = (
    (9.0, state("preparing", "outage")),
    (10.0, begin("StopControllers")),
    (12.0, step("StopControllers", "DONE")),
    (13.0, begin("StopApiServers")),
)


def test_the_outage_begins_with_the_first_action_and_ends_when_the_last_api_server_is_ready() -> None:
    past = replay(book(*OUTAGE, (20.0, step("StartApiServers", "ACTING")), (31.5, step("StartApiServers", "DONE"))))
    assert past.outage_seconds() == 21.5
    assert not past.in_outage


def test_the_outage_goes_on_while_it_lasts() -> None:
    past = replay(book(*OUTAGE))
    assert past.in_outage
    assert past.outage_seconds(START + timedelta(seconds=70)) == 60


def test_a_rollback_of_a_serving_cluster_is_a_second_outage() -> None:
    served, back = (30, step("StartApiServers", "DONE")), (100, state("complete", "rolling-back"))
    past = replay(book(*OUTAGE, served, back, (101, begin("StartControllers")), (110, begin("StartApiServers"))))
    assert past.in_outage
    lines = book(*OUTAGE, served, back, (110, begin("StartApiServers")), (125, step("StopApiServers", "UNDONE")))
    assert replay(lines).outage_seconds() == 20 + 15


def test_an_outage_that_only_the_hosts_know_of_began_after_the_last_line_before() -> None:
    recorded = {"event": "begun", "step": "StopControllers", "host": "m1", "key": "k", "epoch": 2}
    by_adopt = {**step("StopControllers", "UNKNOWN"), "trigger": "adopt", "epoch": 2}
    begins = (9.0, state("preparing", "outage")), (10.0, step("StopControllers", "ACTING"))
    for learned in (recorded, by_adopt):
        lines = book(*begins, (60.0, {"event": "adopted", "epoch": 2}), (60.1, learned))
        past = replay(lines)
        assert past.in_outage
        assert past.outage_seconds(START + timedelta(seconds=70)) == 60


def test_there_is_no_outage_before_something_was_stopped() -> None:
    past = replay(book((1, step("RestoreAside", "DONE")), (2, step("StopControllers", "ACTING"))))
    assert past.outage_seconds() == 0
    assert not past.in_outage


def test_the_outage_ends_when_the_old_api_servers_are_back() -> None:
    past = replay(book(*OUTAGE, (15, step("StopApiServers", "UNDOING")), (40, step("StopApiServers", "UNDONE"))))
    assert past.outage_seconds() == 30


def test_the_current_step_is_the_last_that_changed() -> None:
    past = replay(
        book((1, step("LockHosts", "DONE")), (2, step("StopEtcd", "ACTING")), (3, step("LockHosts", "UNDONE")))
    )
    assert past.current == "LockHosts"
    assert past.steps == {"StopEtcd": "ACTING", "LockHosts": "UNDONE"}
    assert replay([]).current == ""


@pytest.mark.parametrize("to", STEP_STATES)
def test_a_step_has_begun_once_it_may_have_acted(to: str) -> None:
    past = replay(book((1, step("StopEtcd", to))))
    assert past.begun("StopEtcd") == (to not in ("PENDING", "BLOCKED"))
    assert not past.begun("SwapData")


def test_a_halted_run_knows_from_where() -> None:
    past = replay(book((1, state("planned", "preparing")), (2, state("outage", "halted", "a cable"))))
    assert (past.state, past.halted_from, past.why) == ("halted", "outage", "a cable")


def test_closed_and_accepted() -> None:
    past = replay(book((1, {"event": "accepted"}), (2, {"event": "closed"})))
    assert past.accepted
    assert past.closed

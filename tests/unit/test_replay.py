"""What a journal says when it is replayed, and the sentences for where it stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook import situation
from runbook.lifecycle import RUN_STATES, STEP_STATES, Verdict, View
from runbook.procedures.kubeadm import STEPS
from runbook.replay import Replay, replay

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


# The three sentences.

ORDER = [s.id() for s in STEPS]


def at_step(name: str, to: str, run_state: str) -> Replay:
    """A run that stands at a step, with all before it done."""
    done = [(float(i), step(s, "DONE")) for i, s in enumerate(ORDER[: ORDER.index(name)])]
    return replay(book(*done, (50, step(name, to)), (51, state("outage", run_state, "because"))))


@pytest.mark.parametrize("run_state", RUN_STATES)
@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize("to", ["ACTING", "FAILED", "UNKNOWN", "BLOCKED", "STUCK"])
def test_every_state_has_its_three_sentences(run_state: str, name: str, to: str) -> None:
    past = at_step(name, to, run_state)
    said = situation.describe(past, RUN, {"m1": View(Verdict.NO, "etcd still runs"), "m2": View(Verdict.UNKNOWN)})
    assert "m1: etcd still runs" in said["true"]
    assert "m2: did not answer" in said["true"]
    assert name in said["true"]
    assert said["means"]
    assert said["next"]
    assert all(command.startswith("runbook ") for command in said["next"])


def test_a_rollback_asks_for_consent_from_the_first_api_server_on() -> None:
    for name in ORDER:
        back = [c for c in situation.commands(at_step(name, "FAILED", "halted"), RUN) if "rollback" in c]
        assert back, name
        wanted = ORDER.index(name) >= ORDER.index("StartApiServers")
        assert all(("--discard-writes" in c) == wanted for c in back), (name, back)


VALID = {
    "complete": {"report", "finish", "rollback"},
    "unverified": {"resume", "finish", "rollback"},
    "rolled-back": {"report", "finish"},
    "rolling-back": {"resume", "rollback"},
    "stuck": {"rollback", "resume"},
    "halted": {"resume", "rollback", "status"},
}


@pytest.mark.parametrize(("run_state", "allowed"), VALID.items())
def test_only_commands_that_are_valid_there_are_named(run_state: str, allowed: set[str]) -> None:
    for name in ORDER:
        for command in situation.commands(at_step(name, "FAILED", run_state), RUN):
            assert command.split()[1] in allowed, command
            assert RUN in command


def test_a_closed_run_has_only_a_new_one_after_it() -> None:
    assert situation.commands(replay(book((1, {"event": "closed"}))), RUN) == ("runbook run PLAN",)


@pytest.mark.parametrize(
    ("name", "to", "means"),
    [
        ("RestoreAside", "FAILED", "nothing of it was stopped"),
        ("StopControllers", "FAILED", "controllers are stopped"),
        ("StopApiServers", "ACTING", "API is down"),
        ("SwapData", "FAILED", "old data is kept"),
        ("StopEtcd", "FAILED", "old data is in its place"),
        ("StartApiServers", "UNKNOWN", "API is down"),
        ("StartControllers", "FAILED", "restored cluster serves"),
    ],
)
def test_what_it_means_for_the_cluster(name: str, to: str, means: str) -> None:
    assert means in situation.meaning(at_step(name, to, "halted"))

"""Which run is meant where none is named: never a guess that changes something, and never a riddle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runbook import choice, runs
from runbook.errors import UsageError
from runbook.runs import Run


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_STATE_DIR", str(tmp_path))


STEPS = {"complete": "VerifyCluster", "unverified": "VerifyCluster", "halted": "StopEtcd", "stuck": "SwapData"}


def made(run_id: str, state: str, age: float = 0.0, *, closed: bool = False) -> Run:
    """A run in that state, so many seconds old."""
    run = runs.create(run_id, b"plan", {"plan": "x", "plan_file": "/p.yaml", "nodes": ["m1"], "version": "0"})
    with run.locked() as journal:
        for step in ("LockHosts", "StopControllers", "StartApiServers" if state != "halted" else "StopApiServers"):
            line: dict[str, Any] = {"from": "ACTING", "to": "DONE", "trigger": "proceed", "saw": {"m1": "yes"}}
            journal.append("step", line, step=step)
        before = "outage" if state == "halted" else "verifying"
        journal.append("state", {"from": before, "to": state, "why": "asked for" if state == "rolled-back" else ""})
        if closed:
            journal.append("closed")
    stamp = 1_775_000_000 - age
    os.utime(run.journal_path, (stamp, stamp))
    return run


VERBS = ("resume", "rollback", "status", "finish", "report")


@pytest.mark.parametrize("verb", VERBS)
def test_the_only_open_run_is_meant(verb: str) -> None:
    only = made("a-1", "complete")
    made("b-1", "complete", closed=True)
    assert choice.find(None, verb) == only


@pytest.mark.parametrize("state", ["halted", "unverified", "stuck", "outage", "rolling-back"])
@pytest.mark.parametrize("verb", ["resume", "rollback", "status"])
def test_the_only_run_that_is_part_way_is_meant(verb: str, state: str) -> None:
    made("old-1", "complete", age=9)
    meant = made("b-1", state, age=5)
    made("new-1", "rolled-back")
    assert choice.find(None, verb) == meant


@pytest.mark.parametrize("verb", ["resume", "rollback"])
def test_two_that_are_part_way_are_listed_with_their_states_and_commands(verb: str) -> None:
    made("a-1", "halted", age=5)
    made("b-1", "stuck")
    made("old-1", "complete", age=9)
    with pytest.raises(UsageError) as caught:
        choice.find(None, verb)
    error = caught.value
    assert [line.split()[:2] for line in error.message.splitlines()[1:]] == [["b-1", "stuck"], ["a-1", "halted"]]
    assert error.true == "nothing was changed"
    wanted = {"resume": ("runbook resume b-1", "runbook resume a-1")}
    wanted["rollback"] = ("runbook rollback b-1 --discard-writes", "runbook rollback a-1")
    assert error.next == wanted[verb]


def test_a_rollback_never_guesses_among_complete_runs() -> None:
    made("a-1", "complete", age=5)
    made("b-1", "complete")
    with pytest.raises(UsageError) as caught:
        choice.find(None, "rollback")
    assert caught.value.next == ("runbook rollback b-1 --discard-writes", "runbook rollback a-1 --discard-writes")


@pytest.mark.parametrize("verb", ["resume", "rollback"])
def test_runs_that_are_over_are_not_offered(verb: str) -> None:
    made("a-1", "rolled-back", age=5)
    made("b-1", "rolled-back")
    with pytest.raises(UsageError, match=f"none of the open runs is one to {verb}") as caught:
        choice.find(None, verb)
    assert caught.value.next == ("runbook status b-1", "runbook status a-1")


def test_status_takes_the_newest_that_is_part_way_and_tells_of_the_others() -> None:
    made("a-1", "halted", age=5)
    meant = made("b-1", "unverified", age=4)
    made("c-1", "complete")
    found = choice.find(None, "status")
    assert found == meant
    assert choice.others(found) == [{"run": "c-1", "state": "complete"}, {"run": "a-1", "state": "halted"}]


def test_status_of_complete_runs_is_the_newest() -> None:
    made("a-1", "complete", age=5)
    newest = made("b-1", "complete")
    assert choice.find(None, "status") == newest


def test_what_cannot_be_taken_back_is_never_guessed() -> None:
    made("a-1", "complete", age=5)
    made("b-1", "halted")
    with pytest.raises(UsageError) as caught:
        choice.find(None, "finish")
    assert caught.value.next == ("runbook finish a-1",), "a halted run cannot be finished"
    assert "name the one to finish. The only one:\n  a-1" in caught.value.message


def test_a_report_is_asked_for_by_name() -> None:
    made("a-1", "complete", age=5)
    made("b-1", "halted")
    with pytest.raises(UsageError) as caught:
        choice.find(None, "report")
    assert caught.value.next == ("runbook report b-1", "runbook report a-1")


def test_a_damaged_journal_may_be_the_one_that_is_meant() -> None:
    damaged = made("a-1", "complete", age=5)
    damaged.journal_path.write_text("x\ny\n")
    made("b-1", "halted")
    with pytest.raises(UsageError) as caught:
        choice.find(None, "resume")
    assert "its journal is damaged" in caught.value.message


@pytest.mark.parametrize("name", [None, "nosuch"])
def test_to_diagnose_without_a_run_takes_a_plan(name: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        choice.find(name, "diagnose")
    assert caught.value.next[0].startswith("runbook diagnose PLAN")
    with pytest.raises(UsageError) as caught:
        choice.find(name, "status")
    assert not any("diagnose" in words for words in caught.value.next)


def test_no_run_at_all_and_none_that_is_open() -> None:
    with pytest.raises(UsageError, match="no run is known on this machine"):
        choice.find(None, "status")
    made("a-1", "complete", closed=True)
    with pytest.raises(UsageError) as caught:
        choice.find(None, "resume")
    assert caught.value.next == ("runbook report a-1",)


def test_where_all_are_closed_status_takes_the_newest_and_nothing_else_does() -> None:
    """Whoever has just finished a run, and asks how things stand, has made no mistake."""
    made("a-1", "complete", age=5, closed=True)
    newest = made("b-1", "rolled-back", closed=True)
    assert choice.find(None, "status") == newest
    assert choice.all_closed() == 2
    for verb in ("resume", "rollback", "finish", "report", "diagnose"):
        with pytest.raises(UsageError, match="no run is open, all have been closed"):
            choice.find(None, verb)
    made("c-1", "complete", age=9)
    assert choice.all_closed() == 0


def test_a_damaged_journal_is_not_closed() -> None:
    made("a-1", "complete", closed=True)
    damaged = made("b-1", "complete", age=5, closed=True)
    damaged.journal_path.write_text("x\ny\n")
    assert choice.find(None, "status") == damaged, "the responder must hear of it"
    assert choice.all_closed() == 0


def test_of_many_runs_the_newest_are_listed_and_the_others_counted() -> None:
    for number in range(8):
        made(f"a-{number}", "complete", age=number, closed=True)
    with pytest.raises(UsageError) as caught:
        choice.find(None, "report")
    assert caught.value.next == tuple(f"runbook report a-{number}" for number in range(5))
    assert "or one of 3 older ones: runbook runs" in caught.value.message


def test_by_name() -> None:
    first, second = made("prod-1", "complete", age=3), made("prod-12", "halted")
    made("prod-13", "halted")
    assert choice.find("prod-1", "resume") == first, "an exact id, though it begins another"
    assert choice.find("prod-12", "resume") == second
    with pytest.raises(UsageError, match="'prod' fits more than one run"):
        choice.find("prod", "resume")
    with pytest.raises(UsageError, match="no run begins with 'x'"):
        choice.find("x", "resume")
    with pytest.raises(UsageError) as caught:
        choice.find("prod-20260409t140000z-3f2a", "finish")
    assert not any("finish" in command for command in caught.value.next), "another run is not what was meant"
    assert "runbook adopt --host [user@]HOST --run prod-20260409t140000z-3f2a" in caught.value.next[0]


def test_a_prefix_that_fits_several_offers_those_for_which_the_command_can_work() -> None:
    made("prod-1", "rolled-back", age=9)
    made("prod-2", "complete", age=8)
    made("prod-3", "halted", age=7, closed=True)
    for verb in ("resume", "finish"):
        with pytest.raises(UsageError) as caught:
            choice.find("prod", verb)
        wanted = {"finish": ("runbook finish prod-2", "runbook finish prod-1")}
        assert caught.value.next == wanted.get(verb, tuple(f"runbook status prod-{n}" for n in (3, 2, 1)))
    assert "none of the runs that 'prod' fits is one to resume" in _said("prod", "resume")
    made("prod-4", "stuck", age=6)
    made("prod-5", "halted", age=5)
    for name in ("prod", "x"):
        with pytest.raises(UsageError) as caught:
            choice.find(name, "resume")
        assert caught.value.next == ("runbook resume prod-5", "runbook resume prod-4")
    assert len(_said("prod", "status").splitlines()) == 6


def _said(name: str, verb: str) -> str:
    with pytest.raises(UsageError) as caught:
        choice.find(name, verb)
    return caught.value.message


# Who is at work on a run.


def test_an_engine_is_at_work_while_it_holds_the_run() -> None:
    run = made("a-1", "halted")
    assert run.engine() is None
    with run.locked():
        found = run.engine()
        assert found is not None
        assert (found.pid, found.holder) == (os.getpid(), runs.holder())
        assert str(found).startswith(f"process {os.getpid()} of {runs.holder()} on this machine, since 20")
        assert set(found.document()) == {"pid", "holder", "since"}
    assert run.engine() is None
    assert runs.create("b-1", b"", {}).engine() is None, "no engine was ever begun"


def test_a_look_at_the_lock_keeps_no_engine_from_starting() -> None:
    """`status` shares the lock for a moment; whoever wants to work waits that moment out."""
    import fcntl
    import threading

    run = made("a-1", "halted")
    with open(run.path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with run.locked():
            pass

"""What may be done with a run, by its journal alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runbook import __version__, judging, situation
from runbook.errors import UsageError
from runbook.replay import Replay

RUN = "r-1"
JUDGES: tuple[Callable[[Replay], str], ...] = (
    lambda past: judging.resume(past, RUN),
    lambda past: judging.rollback(past, RUN, discard=True),
)


def past(state: str, **more: Any) -> Replay:
    header = {"version": __version__, "nodes": ["m1", "m2", "m3"]}
    return Replay(run=RUN, state=state, header=header, lines=[{"event": "run", "at": "2026-04-09T14:00:00Z"}], **more)


@pytest.mark.parametrize("more", [{"finishing": True}, {"finishing": True, "closed": True}])
def test_a_rollback_that_was_cut_off_while_it_tidied_up_goes_on(more: dict[str, bool]) -> None:
    """Of a failed preparation the engine removes everything itself, and only then says that it is rolled back."""
    cut_off = past("rolling-back", rollback_why="preparing failed: m1: no room", **more)
    assert judging.resume(cut_off, RUN) == ""
    assert judging.rollback(cut_off, RUN, discard=False) == ""
    if not cut_off.closed:
        assert situation.commands(cut_off, RUN) == (f"runbook resume {RUN}",)


@pytest.mark.parametrize("state", ["complete", "unverified", "halted"])
def test_nothing_goes_on_once_finish_has_begun(state: str) -> None:
    finishing = past(state, finishing=True, absent={"m3": {}})
    for judge in JUDGES:
        with pytest.raises(UsageError, match="has begun to remove") as caught:
            judge(finishing)
        assert caught.value.next[0].startswith(f"runbook finish {RUN}")
    assert judging.finish(finishing, RUN, accept=False) == ""


@pytest.mark.parametrize("state", ["complete", "unverified", "halted"])
def test_a_closed_run_is_over(state: str) -> None:
    closed = past(state, finishing=True, closed=True, absent={"m3": {"LockHosts": "DONE"}})
    assert "closed" in judging.resume(closed, RUN)
    assert "closed" in judging.finish(closed, RUN, accept=True)


def test_a_complete_run_that_owes_is_resumed_and_one_that_owes_nothing_is_not() -> None:
    assert judging.resume(past("complete", absent={"m3": {}}), RUN) == ""
    assert judging.resume(past("complete"), RUN) == "this run is complete and owes nothing"


def test_another_version_does_not_go_on() -> None:
    other = Replay(run=RUN, state="halted", header={"version": "0.0"})
    for judge in JUDGES:
        with pytest.raises(UsageError, match=r"was begun by runbook 0\.0"):
            judge(other)
    with pytest.raises(UsageError, match="has no first line"):
        judging.resume(Replay(), RUN)


@pytest.mark.parametrize(("state", "words"), [("outage", "is in the outage"), ("rolling-back", "is on its way back")])
def test_a_state_is_told_in_words(state: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"{RUN} {words}: finish follows a complete run"):
        judging.finish(past(state), RUN, accept=False)

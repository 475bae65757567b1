"""Who waits for a store that says nothing is told so, seldom, and only of what the store keeps waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from runbook.snapshots import silence
from runbook.snapshots.beside import Beside, Feed, ahead
from runbook.snapshots.silence import Silence
from runbook.snapshots.stores import NotThere, StoreTrouble

URL = "s3://bucket/prod"


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(silence, "time", SimpleNamespace(monotonic=lambda: self.now))

    def passes(self, still: Silence, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            still.look()


def failed(clock: Clock, still: Silence, nothing: str, most: float, seconds: int, error: StoreTrouble) -> None:
    """So long a wait, which then ends with that error."""
    with contextlib.suppress(StoreTrouble), still.waiting(nothing, most):
        clock.passes(still, seconds)
        raise error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_word_after_fifteen_seconds_and_then_ever_more_seldom(clock: Clock) -> None:
    told: list[str] = []
    still = Silence(URL, told.append)
    with still.waiting("confirmed nothing", 240):
        clock.passes(still, 14)
        assert told == []
        clock.passes(still, 236)
    assert told == [
        f"{URL}: has confirmed nothing for 15 s; waiting, 4 min at most",
        f"{URL}: has confirmed nothing for 30 s; waiting, 4 min at most",
        f"{URL}: has confirmed nothing for 1 min; waiting, 4 min at most",
        f"{URL}: has confirmed nothing for 2 min; waiting, 4 min at most",
        f"{URL}: has confirmed nothing for 4 min; waiting",
    ]


def test_what_moves_begins_anew_and_what_the_store_does_not_keep_waiting_is_not_counted(clock: Clock) -> None:
    told: list[str] = []
    still = Silence(URL, told.append)
    for _ in range(10):
        with still.waiting("confirmed nothing", 240):
            clock.passes(still, 14)
        clock.now += 100  # for the next piece, which a host is slow to give
    failed(clock, still, "not answered", 30, 14, NotThere("no such file", ""))  # which is an answer
    with still.waiting("not answered", 30):
        clock.passes(still, 14)
    assert told == []


def test_a_failure_that_is_tried_again_is_the_same_silence(clock: Clock) -> None:
    told: list[str] = []
    still = Silence(URL, told.append)
    silent = StoreTrouble("it does not answer", "")
    failed(clock, still, "sent nothing", 180, 14, silent)
    failed(clock, still, "not answered", 120, 2, silent)
    assert told == [f"{URL}: has not answered for 15 s; waiting, 2 min 14 s at most"]
    clock.now += 60  # much later, something else is asked
    with still.waiting("not answered", 120):
        clock.passes(still, 14)
    assert len(told) == 1


def test_whoever_waits_looks_meanwhile() -> None:
    looks = list[int]()
    Beside(lambda: time.sleep(0.7)).result(lambda: looks.append(1))
    assert 2 <= len(looks) <= 4

    feed, looks = Feed(1), []
    taker = Beside(lambda: time.sleep(0.7))
    assert feed.give(b"taken", taker, lambda: looks.append(1))
    assert looks == []
    assert not feed.give(b"not taken", taker, lambda: looks.append(1))
    assert 2 <= len(looks) <= 4

    def slow() -> Iterator[bytes]:
        time.sleep(0.7)
        yield b"at last"

    looks = []
    assert list(ahead(slow(), 2, lambda: looks.append(1))) == [b"at last"]
    assert 2 <= len(looks) <= 4

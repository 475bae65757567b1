"""What a host has just shown need not be asked again: only the same question, only for a moment, only if idle."""

from __future__ import annotations

import pytest

from runbook.hands import FRESH, Shown
from runbook.step import Command, Probe, Question


class Watch:
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def question(word: str, says: str = "") -> Question:
    return Question(says or f"{word} is so", Command((word,), changes=False), lambda _: "")


A, B, C = question("a"), question("b"), question("c")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def shown(watch: Watch) -> Shown:
    """m1 has just said yes to A and B."""
    made = Shown(watch)
    made.keep({"m1": Probe((A, B))}, {"m1": watch.now})
    return made


def test_only_what_was_shown_is_left_out(shown: Shown) -> None:
    assert shown.rest("m1", Probe((A, C, B), 7)) == Probe((C,), 7)


def test_another_host_has_shown_nothing(shown: Shown) -> None:
    assert shown.rest("m2", Probe((A,))) == Probe((A,))


def test_the_same_command_with_another_claim_is_another_question(shown: Shown) -> None:
    other = question("a", "a is otherwise")
    assert shown.rest("m1", Probe((other,))) == Probe((other,))


def test_an_old_answer_does_not_count(shown: Shown, watch: Watch) -> None:
    watch.now += FRESH + 0.1
    assert shown.rest("m1", Probe((A,))) == Probe((A,))


def test_nothing_is_known_once_something_was_done(shown: Shown) -> None:
    shown.forget()
    assert shown.rest("m1", Probe((A,))) == Probe((A,))


def test_the_next_postcondition_takes_the_place_of_the_last(shown: Shown, watch: Watch) -> None:
    shown.keep({"m1": Probe((C,))}, {"m1": watch.now})
    assert shown.rest("m1", Probe((A, C))) == Probe((A,))

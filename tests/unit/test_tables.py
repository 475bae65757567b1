"""Plain text for people: one way to write a duration and a moment, everywhere."""

from __future__ import annotations

import pytest

from runbook.errors import NOTE, RunbookError, bare
from runbook.tables import duration, stamp


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (3.94, "3.9 s"),
        (42.0, "42 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (90, "1 min 30 s"),
        (180.0, "3 min"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_duration(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_moment() -> None:
    assert stamp("2026-04-09T14:02:00.123456Z") == "2026-04-09 14:02:00 UTC"
    assert stamp("2026-04-09T16:02:00+02:00") == "2026-04-09 14:02:00 UTC"
    assert stamp("some time ago") == "some time ago"
    assert stamp("") == ""


def test_an_error_ends_with_its_sentences_below_each_other() -> None:
    error = RunbookError(
        "no", true="m1: a\nm2: b", means="c", next=(f"runbook x{NOTE}why", f"runbook longer{NOTE}how", "ask them")
    )
    assert str(error).splitlines() == [
        "no",
        "What is true:  m1: a",
        "               m2: b",
        "What it means: c",
        "Type next:     runbook x        # why",
        "               runbook longer   # how",
        "               ask them",
    ]
    assert error.document()["next"] == ["runbook x", "runbook longer", "ask them"]
    assert bare("runbook x") == "runbook x"

"""Who waits for a snapshot that comes over from a host is told how far it is, on standard error."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook import waiting
from runbook.checks import Finding
from runbook.snapshots import reading
from tests.fake.desk import Desk


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Time runs faster; a snapshot is under way."""
    for name, seconds in (("FIRST", 0.05), ("EVERY", 0.2), ("REDRAWN", 0.02)):
        monkeypatch.setattr(waiting, name, seconds)
    monkeypatch.setattr(reading, "coming", lambda: "the snapshot on m1: 120 of 500 MiB")
    return monkeypatch


LINE = "reading the snapshot on m1: 120 of 500 MiB"


def said(stream: io.StringIO, seconds: float) -> str:
    with waiting.told(stream):
        time.sleep(seconds)
    return stream.getvalue()


def test_lines_that_come_seldom_where_nothing_can_be_written_over(quick: pytest.MonkeyPatch) -> None:
    text = said(io.StringIO(), 0.5)
    assert set(text.splitlines()) == {LINE}
    assert 2 <= len(text.splitlines()) <= 3


def test_one_line_on_a_terminal_which_is_gone_in_the_end(quick: pytest.MonkeyPatch) -> None:
    quick.setenv("TERM", "xterm")
    quick.delenv("NO_COLOR", raising=False)
    text = said(Terminal(), 0.3)
    assert text.startswith(f"{waiting.CLEAR}{LINE}{waiting.CLEAR}")
    assert text.endswith(waiting.CLEAR)
    assert "\n" not in text
    quick.setenv("NO_COLOR", "1")
    assert waiting.CLEAR not in said(Terminal(), 0.3)


def test_nothing_where_it_is_quick_or_nothing_comes(quick: pytest.MonkeyPatch) -> None:
    assert said(io.StringIO(), 0.0) == ""
    quick.setattr(reading, "coming", lambda: "")
    assert said(io.StringIO(), 0.2) == ""


def test_a_stream_that_is_gone_stops_nothing(quick: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    with waiting.told(stream):
        time.sleep(0.2)


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_preview_with_checks_says_it_on_standard_error_alone(
    quick: pytest.MonkeyPatch, tmp_path: Path, output: str
) -> None:
    desk = Desk(tmp_path, quick)

    def slowly(*_: object, tell: Callable[[str], None]) -> list[Finding]:
        tell("asking m1: all else\x1b[2J")
        time.sleep(0.2)
        return []

    quick.setattr("runbook.checks.survey.inspect", slowly)
    typed = desk.type("preview", str(desk.plan_path), "--check", "--output", output)
    assert LINE in typed.err.splitlines()
    assert "asking m1: all else\ufffd[2J" in typed.err.splitlines()
    assert "asking" not in typed.out.partition("SCRIPTS")[0].partition('"scripts"')[0]
    assert "reading" not in typed.out.partition("SCRIPTS")[0].partition('"scripts"')[0]

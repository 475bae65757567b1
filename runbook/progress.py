"""Listeners of the journal's lines: what a person, or a program, sees while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from runbook.checks import Finding
    from runbook.errors import RunbookError
    from runbook.journal import Line
    from runbook.plan import Plan
    from runbook.replay import Replay
    from runbook.step import Step


class Progress(Protocol):
    """A listener. It never raises: a view that breaks must not stop a run."""

    def start(self, plan: Plan, steps: Sequence[Step], run: str, past: Sequence[Line] = ()) -> None:
        """Before the first line; ``past`` are the lines of the run's earlier engines."""

    def __call__(self, line: Line) -> None:
        """One line of the journal, safe on the disk; called from several threads, one at a time."""

    def stop(self, error: RunbookError | None, past: Replay) -> None:
        """After the last line. The error's own text is not shown: that is the caller's to print."""


def make(output: str, stream_err: TextIO, stream_out: TextIO) -> Progress:
    """The right one: JSON lines on ``stream_out``; else on ``stream_err`` a live view or, off a terminal, lines."""
    raise NotImplementedError


def findings_table(findings: Sequence[Finding], hosts: Sequence[str]) -> str:
    """Checks down, hosts across, a mark per cell, then what is not well and what to do; plain text."""
    raise NotImplementedError


def findings_document(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings for programs."""
    raise NotImplementedError

"""The timeline of a run, from its journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runbook.journal import Line
    from runbook.plan import Plan
    from runbook.replay import Replay


def document(lines: Sequence[Line], past: Replay, plan: Plan | None = None) -> dict[str, Any]:
    """The report for programs. With the plan it also names what remains on the hosts, and what to do by hand."""
    raise NotImplementedError


def markdown(lines: Sequence[Line], past: Replay, plan: Plan | None = None) -> str:
    """The report for people."""
    raise NotImplementedError

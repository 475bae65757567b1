"""Where a run stands, what is true on each host, and the next command to type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runbook.journal import Line
    from runbook.replay import Replay


def document(lines: Sequence[Line], past: Replay, hosts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """For programs; ``hosts`` is what the hosts said just now, where they were asked."""
    raise NotImplementedError


def text(document: Mapping[str, Any]) -> str:
    """For people."""
    raise NotImplementedError


def runs_table(documents: Sequence[Mapping[str, Any]]) -> str:
    """One line a run, the newest first as given."""
    raise NotImplementedError

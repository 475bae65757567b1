"""What a journal says, replayed: the run's state, each step's, the outage clock, what was consented to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runbook.journal import Line

STOPS_FIRST, SERVES_AGAIN, OLD_SERVES_AGAIN = "StopControllers", "StartApiServers", "StopApiServers"
"""The outage begins with the first manifest parked, and ends when the last API server is ready (new, or old again)."""


@dataclass
class Replay:
    """The derived state. ``steps`` is by step id, in the order in which they began."""

    run: str = ""
    state: str = "planned"
    halted_from: str = ""
    why: str = ""
    rollback_why: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    closed: bool = False
    accepted: bool = False
    outage_from: datetime | None = None
    outage_to: datetime | None = None

    def outage_seconds(self, now: datetime | None = None) -> float:
        """How long the API was, or has been, down; 0 where it never was."""
        if self.outage_from is None:
            return 0.0
        end = self.outage_to or now or datetime.now(UTC)
        return round((end - self.outage_from).total_seconds(), 3)

    def begun(self, step: str) -> bool:
        """Whether the step was ever begun: it acted, or may have."""
        return self.steps.get(step, "PENDING") not in ("PENDING", "BLOCKED")

    @property
    def current(self) -> str:
        """The step that the run stands at: the last that changed its state; "" before the first."""
        return next(reversed(self.steps), "")


def at(line: Line) -> datetime:
    """The time of a line."""
    return datetime.fromisoformat(line["at"])


def replay(lines: Sequence[Line]) -> Replay:
    """Replay the lines; unknown events are passed over, so that older programs can read newer journals."""
    past = Replay()
    for line in lines:
        event = line["event"]
        if event == "run":
            past.header = dict(line)
            past.run = line["run"]
        elif event == "state":
            _state(past, line)
        elif event == "step":
            past.steps.pop(line["step"], None)
            past.steps[line["step"]] = line["to"]
            _outage(past, line)
        elif event == "begin" and line.get("step") == STOPS_FIRST and past.outage_from is None:
            past.outage_from = at(line)
        elif event == "closed":
            past.closed = True
        elif event == "accepted":
            past.accepted = True
    return past


def _state(past: Replay, line: Line) -> None:
    past.state, past.why = line["to"], line.get("why", "")
    if line["to"] == "rolling-back" and line["from"] != "stuck":
        past.rollback_why = past.why
    if line["to"] == "halted":
        past.halted_from = line["from"]


def _outage(past: Replay, line: Line) -> None:
    step, to = line["step"], line["to"]
    if past.outage_from is None:
        return
    if (step == SERVES_AGAIN and to in ("DONE", "SKIPPED")) or (step == OLD_SERVES_AGAIN and to == "UNDONE"):
        past.outage_to = at(line)
    elif step == SERVES_AGAIN and to == "UNDOING":
        past.outage_to = None

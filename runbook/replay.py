"""What a journal says, replayed: the run's state, each step's, the outage clock, what was consented to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runbook.journal import Line

STOPS_FIRST, SERVES_AGAIN, OLD_SERVES_AGAIN = "StopControllers", "StartApiServers", "StopApiServers"
"""The outage begins with the first manifest parked, and ends when the last API server is ready (new, or old again)."""

ETCD_STOPS = "StartEtcd"
"""The step which, undone, keeps what is about to be discarded."""

ADOPTED = "adopt"
"""The trigger of a step's line that was written from what the hosts themselves had recorded."""

LOCKS_FIRST = "LockHosts"
"""The first step that leaves anything on a host."""

FOUND = "snapshot_found"
"""The first line's word for which snapshot of a store the run has, as its URL there; later engines take the same."""

PREPARING_FAILED = "preparing failed"
"""How the reason begins of a rollback that nobody asked for."""


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
    finishing: bool = False
    """`finish` has begun to remove what the run left on the hosts: from here on there is no way back."""
    accepted: bool = False
    served: bool = False
    """A restored API server was, or may have been, told to start: there may be writes to lose."""
    consented: bool = False
    """Somebody has agreed that what the restored cluster was told is thrown away."""
    by_hand: tuple[str, ...] = ()
    """The manual card of the hosts on which a rollback is stuck."""
    superseded: str = ""
    """The hosts have refused this journal's engine for a newer one: the command that takes the run back; else ""."""
    superseded_at: datetime | None = None
    elsewhere: bool = False
    """The run was ended without this journal: by another machine, or by hand."""
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    """The nodes that the run goes on without, and the state of each step on each of them: what they are owed."""
    left: dict[str, str] = field(default_factory=dict)
    """The hosts without which the run was closed, and why: what it left there is there still."""
    owners: tuple[str, ...] = ()
    """The words of all engines that worked on this journal: what they claimed, a later one may claim again."""
    settings_base: str = ""
    """Where the relative paths of the settings begin that a ``resume --plan`` brought; "" where none did."""
    outages: list[tuple[datetime, datetime | None]] = field(default_factory=list)
    lines: Sequence[Line] = field(default=(), repr=False, compare=False)
    """What was replayed."""

    def outage_seconds(self, now: datetime | None = None) -> float:
        """How long the control plane was, or has been, down, all outages of the run together; 0 where it never was.

        Where another machine took the run over: until then, for what came after this journal does not know.
        """
        known = now or self.known_until
        ends = [(start, end or known) for start, end in self.outages]
        return round(sum((end - start).total_seconds() for start, end in ends), 3)

    @property
    def known_until(self) -> datetime:
        """Until when this journal knows what is: now, or when another machine had taken the run over."""
        return self.superseded_at or datetime.now(UTC)

    @property
    def outage_from(self) -> datetime | None:
        """When the newest outage began; None where there was none."""
        return self.outages[-1][0] if self.outages else None

    @property
    def outage_to(self) -> datetime | None:
        """When the newest outage ended; None where there was none, or it lasts."""
        return self.outages[-1][1] if self.outages else None

    @property
    def in_outage(self) -> bool:
        """Whether the control plane is down now."""
        return bool(self.outages) and self.outages[-1][1] is None

    @property
    def outdated(self) -> bool:
        """Whether the run goes on, or has ended, without this journal: what is now is known elsewhere."""
        return bool(self.superseded) or self.elsewhere

    @property
    def never_began(self) -> bool:
        """Its directory was made, and its engine ended before the journal's first line: no host knows of it."""
        return bool(self.run) and not self.lines

    @property
    def refused(self) -> bool:
        """A check said no, or preparing failed, and what had been prepared was removed: the run never began in earnest.

        Its state is ``rolled-back``, for that is what was done; to a person it is a run that was refused.
        """
        return self.state == "rolled-back" and self.rollback_why.startswith(PREPARING_FAILED)

    def begun(self, step: str) -> bool:
        """Whether the step was ever begun: it acted, or may have."""
        return self.steps.get(step, "PENDING") not in ("PENDING", "BLOCKED")

    def holds(self, absent: str) -> bool:
        """Whether an absent node may hold something of the run: its lock, at least, was asked of it."""
        return self.absent[absent].get(LOCKS_FIRST, "PENDING") not in ("PENDING", "BLOCKED")

    @property
    def discarded_on(self) -> str:
        """The host on which a rollback kept what it discarded as a snapshot, where it could: the first that took part.

        "" where an API server was never started, so that there was nothing to keep, or etcd is not stopped again yet.
        """
        undone = [s for s in self.lines if s["event"] == "step" and s["step"] == ETCD_STOPS and "joining" not in s]
        seen = (undone[-1].get("saw") or {}) if undone and undone[-1]["to"] == "UNDONE" else {}
        return next(iter(seen), "") if self.served else ""

    @property
    def current(self) -> str:
        """The step that the run stands at: the last that changed its state; "" before the first."""
        return next(reversed(self.steps), "")


def at(line: Line) -> datetime:
    """The time of a line."""
    return datetime.fromisoformat(line["at"])


def replay(lines: Sequence[Line]) -> Replay:
    """Replay the lines; unknown events are passed over, so that older programs can read newer journals."""
    past = Replay(lines=lines)
    for line in lines:
        event = line["event"]
        if event == "run":
            past.header = dict(line)
            past.run = line["run"]
        elif event == "bound":  # what the first line could not say yet
            past.header |= {key: line[key] for key in ("snapshot_sha256", "preview_digest")}
        elif event == "state":
            _state(past, line)
        elif event == "step" and "joining" in line:
            past.absent.setdefault(line["joining"], {})[line["step"]] = line["to"]
        elif event == "step":
            past.served |= line["step"] == SERVES_AGAIN and line["to"] in ("ACTING", "UNKNOWN", "DONE", "SKIPPED")
            past.steps.pop(line["step"], None)
            past.steps[line["step"]] = line["to"]
            if line["step"] == STOPS_FIRST and line["trigger"] == ADOPTED:
                _outage_begins(past, line)
            _outage(past, line)
        elif event in ("begin", "begun") and past.state in ("outage", "rolling-back"):
            _outage_begins(past, line)
        elif event in ("engine", "adopted"):
            if event == "adopted":
                past.superseded, past.superseded_at = "", None
            past.owners = (*past.owners, *([line["owner"]] if line.get("owner") else []))
        elif event == "absent":
            past.absent |= {name: dict(past.steps) for name in line["hosts"] if name not in past.absent}
        elif event == "present":
            past.absent.pop(line["host"], None)
        elif event == "finishing":
            past.finishing = True
        elif event == "settings":
            past.settings_base = line["base"]
        elif event == "closed":
            past.closed = True
            past.elsewhere = bool(line.get("elsewhere"))
            past.superseded_at = past.superseded_at or (at(line) if past.elsewhere else None)
            past.left = dict(line.get("without") or {})
        elif event == "accepted":
            past.accepted = True
        elif event == "consent":
            past.consented = True
        elif event == "card":
            past.by_hand = tuple(line["lines"])
        elif event == "superseded":
            past.superseded, past.superseded_at = line["adopt"], past.superseded_at or at(line)
    return past


def _state(past: Replay, line: Line) -> None:
    past.state, past.why, past.by_hand = line["to"], line.get("why", ""), ()
    if line["to"] == "rolling-back" and line["from"] != "stuck":
        past.rollback_why = past.why
    if line["to"] == "rolled-back" and past.in_outage:  # begun, and taken back before an API server was stopped
        past.outages[-1] = (past.outages[-1][0], at(line))
    if line["to"] == "halted":
        past.halted_from = line["from"]


def _outage_begins(past: Replay, line: Line) -> None:
    """With the first manifest parked: forward by stopping the controllers, backward by stopping what was started.

    Where only the hosts know of it: after the last line that was written before it was learned of them.
    """
    stops = SERVES_AGAIN if past.state == "rolling-back" else STOPS_FIRST
    if line.get("step") != stops or past.in_outage:
        return
    earlier = [before for before in past.lines if before["epoch"] < line["epoch"]]
    learned = line["event"] != "begin" and bool(earlier)
    past.outages.append((at(earlier[-1] if learned else line), None))


def _outage(past: Replay, line: Line) -> None:
    """With the last API server ready, the restored one or the old one again."""
    step, to = line["step"], line["to"]
    served = (step == SERVES_AGAIN and to in ("DONE", "SKIPPED")) or (step == OLD_SERVES_AGAIN and to == "UNDONE")
    if past.in_outage and served:
        past.outages[-1] = (past.outages[-1][0], at(line))

"""The two state machines, as tables, and nothing else imports ``transitions``.

``transitions`` 0.9.3 does four things that these tables rely on, or guard against: a callback that raises before the
state change leaves the state as it was, so nothing runs unrecorded; the initial state fires no callback, so replaying
has no effect of its own; when no guard passes, a trigger quietly returns False, so every source ends with an unguarded
row; and an exception in ``finalize_event`` is swallowed, so nothing is done there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from transitions import EventData, Machine

from runbook.log import redact
from runbook.step import Step

logging.getLogger("transitions").setLevel(logging.ERROR)
# It warns of every trigger that a model spells out as a method of its own, which is what StepRun wants.


class Verdict(StrEnum):
    """What a host says to a probe: READY where it is not done but may start, UNKNOWN where it did not answer."""

    YES = "yes"
    READY = "ready"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class View:
    """One host's answer, and what was seen where it is not yes."""

    verdict: Verdict
    saw: str = ""

    def __post_init__(self) -> None:
        if self.saw:  # it goes to terminals, and into mails
            object.__setattr__(self, "saw", redact(self.saw))


YES, READY = View(Verdict.YES), View(Verdict.READY)
Views = Mapping[str, View]

STEP_STATES = ("PENDING", "SKIPPED", "ACTING", "DONE", "BLOCKED", "FAILED", "UNKNOWN", "UNDOING", "UNDONE", "STUCK")
FINISHED = ("DONE", "SKIPPED")
"""Where a step has nothing left to do."""

Row = dict[str, Any]


def _rows(trigger: str, *table: tuple[str | tuple[str, ...], str, str]) -> list[Row]:
    rows: list[Row] = []
    for source, dest, guard in table:
        sources = [source] if isinstance(source, str) else list(source)
        rows += [
            {"trigger": trigger, "source": s, "dest": dest, "conditions": [guard] if guard else []} for s in sources
        ]
    return rows


STEP_TRANSITIONS: list[Row] = [
    *_rows(
        "proceed",
        ("PENDING", "SKIPPED", "done_everywhere"),
        ("PENDING", "ACTING", "every_host_ready_or_done"),
        ("PENDING", "BLOCKED", ""),
        ("ACTING", "DONE", "done_everywhere"),
        ("ACTING", "FAILED", "a_host_says_no"),
        ("ACTING", "UNKNOWN", ""),
        ("UNDOING", "UNDONE", "undone_everywhere"),
        ("UNDOING", "STUCK", ""),
    ),
    *_rows(
        "resume",
        ("BLOCKED", "PENDING", ""),
        (("ACTING", "FAILED", "UNKNOWN"), "ACTING", ""),
        (("UNDOING", "STUCK"), "UNDOING", ""),
    ),
    *_rows("rollback", (tuple(s for s in STEP_STATES if s != "UNDONE"), "UNDOING", "")),
]
"""The step, one model for the whole cluster; the first guard that passes wins."""

RUN_STATES = (
    "planned",
    "preparing",
    "outage",
    "verifying",
    "complete",
    "unverified",
    "halted",
    "rolling-back",
    "rolled-back",
    "stuck",
)

_ACTIVE = ("planned", "preparing", "outage", "verifying")

RUN_TRANSITIONS: list[Row] = [
    *_rows("prepare", ("planned", "preparing", "")),
    *_rows("cut", ("preparing", "outage", "prepared_everywhere"), ("preparing", "halted", "")),
    *_rows("verify", ("outage", "verifying", "")),
    *_rows("complete", ("verifying", "complete", "")),
    *_rows("doubt", ("verifying", "unverified", "")),
    *_rows("halt", (_ACTIVE, "halted", "")),
    *_rows(
        "resume",
        ("halted", "preparing", "halted_while_preparing"),
        ("halted", "outage", "halted_in_outage"),
        ("halted", "verifying", ""),
        ("unverified", "verifying", ""),
        ("stuck", "rolling-back", ""),
    ),
    *_rows(
        "rollback",
        ((*_ACTIVE, "complete", "unverified", "halted", "stuck", "rolling-back"), "rolling-back", ""),
    ),
    *_rows("undone", ("rolling-back", "rolled-back", "")),
    *_rows("stick", ("rolling-back", "stuck", "")),
]
"""The run, as the responder thinks of it. ``halted`` remembers from which state."""


class Crew(Protocol):
    """What a step's machine needs done: the engine's hands."""

    def observe(self, step: Step, state: str) -> Views:
        """What each host says: ready or done, done, or undone, as the state asks."""

    def record_step(self, step: Step, source: str, dest: str, trigger: str, views: Views) -> None:
        """Write the journal; raising leaves the state as it was."""

    def act(self, step: Step) -> None:
        """Settle, then carry out the step where it is not done."""

    def undo(self, step: Step) -> None:
        """Settle, then take the step back everywhere."""


class Recorder(Protocol):
    """What the run's machine asks for: the engine."""

    def record_run(self, source: str, dest: str, why: str) -> None:
        """Write the journal; raising leaves the state as it was."""

    def prepared_everywhere(self) -> bool:
        """Every prepare step is done on every host: the barrier."""


def _ends(event: EventData) -> tuple[str, str]:
    """From which state to which; there is always a transition where a change is about to be recorded."""
    if event.transition is None or event.transition.dest is None:
        raise RuntimeError(f"{event.event.name}: a change of state without its ends")
    return event.transition.source, event.transition.dest


class StepRun:
    """One step of one run. ``views`` is what was last seen, by host."""

    state: str

    def __init__(self, step: Step, crew: Crew, state: str = "PENDING") -> None:
        self.step, self.crew = step, crew
        self.views: Views = {}
        self.machine = Machine(
            model=self,
            states=list(STEP_STATES),
            transitions=STEP_TRANSITIONS,
            initial=state,
            auto_transitions=False,
            send_event=True,
            prepare_event="observe",
            before_state_change="record",
        )

    def proceed(self) -> bool:
        """One row of the table."""
        return bool(self.trigger("proceed"))  # type: ignore[attr-defined]  # added to the model by transitions

    def resume(self) -> bool:
        """Go on from where an earlier engine, or a failure, left the step."""
        return bool(self.trigger("resume"))  # type: ignore[attr-defined]

    def rollback(self) -> bool:
        """Take the step back."""
        return bool(self.trigger("rollback"))  # type: ignore[attr-defined]

    # Hooks.

    def observe(self, event: EventData) -> None:
        """Ask each probe once for each trigger that decides by probes."""
        self.views = self.crew.observe(self.step, self.state) if event.event.name == "proceed" else {}

    def record(self, event: EventData) -> None:
        """The journal line comes before the change of state, and so before any action."""
        source, dest = _ends(event)
        self.crew.record_step(self.step, source, dest, event.event.name, self.views)

    def on_enter_ACTING(self, _: EventData) -> None:
        """Act."""
        self.crew.act(self.step)

    def on_enter_UNDOING(self, _: EventData) -> None:
        """Undo."""
        self.crew.undo(self.step)

    # Guards.

    def _all(self, *allowed: Verdict) -> bool:
        return all(view.verdict in allowed for view in self.views.values())

    def done_everywhere(self, _: EventData) -> bool:
        """Every host shows the postcondition; a host that is merely ready does not."""
        return self._all(Verdict.YES)

    def every_host_ready_or_done(self, _: EventData) -> bool:
        """Every host may start, or need not."""
        return self._all(Verdict.YES, Verdict.READY)

    def undone_everywhere(self, _: EventData) -> bool:
        """Nothing of the step remains on any host."""
        return self._all(Verdict.YES)

    def a_host_says_no(self, _: EventData) -> bool:
        """A host answered, and it is not as it should be."""
        return any(view.verdict is Verdict.NO for view in self.views.values())


class RunState:
    """The run as a whole."""

    state: str

    def __init__(self, crew: Recorder, state: str = "planned", halted_from: str = "") -> None:
        self.crew, self.halted_from = crew, halted_from
        self.machine = Machine(
            model=self,
            states=list(RUN_STATES),
            transitions=RUN_TRANSITIONS,
            initial=state,
            auto_transitions=False,
            send_event=True,
            before_state_change="record",
        )

    def go(self, trigger: str, why: str = "") -> bool:
        """Fire a trigger of the table, with the reason for the journal."""
        return bool(self.trigger(trigger, why=why))  # type: ignore[attr-defined]

    def record(self, event: EventData) -> None:
        """The journal line comes first."""
        source, dest = _ends(event)
        self.crew.record_run(source, dest, str(event.kwargs.get("why", "")))
        if dest == "halted":
            self.halted_from = source

    def prepared_everywhere(self, _: EventData) -> bool:
        """The barrier before the outage."""
        return self.crew.prepared_everywhere()

    def halted_while_preparing(self, _: EventData) -> bool:
        """Nothing had been stopped."""
        return self.halted_from in ("planned", "preparing")

    def halted_in_outage(self, _: EventData) -> bool:
        """The control plane was, or is, down."""
        return self.halted_from == "outage"


def drawing() -> str:
    """Both tables as Mermaid state diagrams and Markdown tables, drawn from the tables themselves."""
    out = []
    for name, initial, rows in (("run", "planned", RUN_TRANSITIONS), ("step", "PENDING", STEP_TRANSITIONS)):
        out += [f"**The {name}**", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {_id(initial)}"]
        out += [f"    {_id(r['source'])} --> {_id(r['dest'])}: {_label(r)}" for r in rows]
        out += ["```", "", "| trigger | from | to | if |", "|---|---|---|---|"]
        out += [f"| {r['trigger']} | {r['source']} | {r['dest']} | {_guard(r) or 'otherwise'} |" for r in rows]
        out.append("")
    return "\n".join(out)


def _id(state: str) -> str:
    return state.replace("-", "_")


def _guard(row: Row) -> str:
    return " and ".join(row["conditions"]).replace("_", " ")


def _label(row: Row) -> str:
    guard = _guard(row)
    return f"{row['trigger']} [{guard}]" if guard else str(row["trigger"])


BEGIN, END = "<!-- lifecycle:begin -->", "<!-- lifecycle:end -->"


def drawn_into(text: str) -> str:
    """The text with the drawing between its two markers; ValueError where they are missing."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"it needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{drawing()}\n{END}{tail}"


def main(arguments: Sequence[str]) -> int:
    """``python -m runbook.lifecycle README.md`` draws both tables into the file; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m runbook.lifecycle FILE", file=sys.stderr)
        return 2
    file = Path(arguments[0])
    try:
        text = drawn_into(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{file}: {error}", file=sys.stderr)
        return 2
    file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

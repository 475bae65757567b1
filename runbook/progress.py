"""Listeners of the journal's lines: what a person, or a program, sees while a run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from runbook.board import Board
from runbook.replay import Replay
from runbook.tables import columns, duration, printable, utc

if TYPE_CHECKING:
    from runbook.checks import Finding
    from runbook.errors import RunbookError
    from runbook.journal import Line
    from runbook.plan import Plan
    from runbook.step import Step

PATIENCE = 15.0
"""Seconds of silence after which ``Plain`` says what is being waited for."""


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
    if output == "json":
        return Json(stream_out)
    if _is_terminal(stream_err):
        from runbook.live import Live

        return Live(stream_err)
    return Plain(stream_err)


def _is_terminal(stream: TextIO) -> bool:
    dumb = os.environ.get("TERM", "") in ("", "dumb")
    return stream.isatty() and not os.environ.get("NO_COLOR") and not dumb


def ending(error: RunbookError | None, past: Replay, seconds: float) -> str:
    """How it ended, in one line."""
    was = "is down, so far" if past.in_outage else "was down"
    down = f"; the API {was} for {duration(past.outage_seconds())}" if past.outages else ""
    failed = f" with exit code {error.code}" if error else ""
    return f"{past.state}{', closed' if past.closed else ''}{failed} after {duration(seconds)}{down}"


class Plain:
    """One line for each event worth one: the time since the start, the outage clock, step, host, what."""

    def __init__(self, stream: TextIO, patience: float = PATIENCE) -> None:
        self.stream, self.patience = stream, patience
        self.board: Board | None = None
        self.began = datetime.now(UTC)
        self.spoke = self.began
        self._mutex = threading.RLock()
        self._over = threading.Event()

    def start(self, plan: Plan, steps: Sequence[Step], run: str, past: Sequence[Line] = ()) -> None:
        """The head, and from now on a word wherever there is a long silence."""
        self.board = Board(plan, steps, past)
        self.began = self.spoke = datetime.now(UTC)
        self._say(f"{run}: {len(steps)} steps, hosts {', '.join(self.board.hosts)}; began {utc(self.began)}")
        if self.patience:
            threading.Thread(target=self._watch, name="progress", daemon=True).start()

    def __call__(self, line: Line) -> None:
        """Say what is worth saying of it."""
        with self._mutex, contextlib.suppress(Exception):
            for sentence in self.board.take(line) if self.board else ():
                self._say(sentence)

    def stop(self, error: RunbookError | None, past: Replay) -> None:
        """The last line."""
        self._over.set()
        with self._mutex:
            self._say(f"ended: {ending(error, past, (datetime.now(UTC) - self.began).total_seconds())}")

    def tick(self, now: datetime) -> None:
        """Say what is being waited for, where nothing was said for long."""
        with self._mutex, contextlib.suppress(Exception):
            row = self.board.current() if self.board else None
            if self.board is None or row is None or (now - self.spoke).total_seconds() < self.patience:
                return
            since = (now - row.began).total_seconds() if row.began else 0.0
            waiting = printable(self.board.waiting_for())
            self._say(f"{self.board.label(row)} … {duration(since)} so far, waiting for {waiting}")

    def _watch(self) -> None:
        while not self._over.wait(min(self.patience, 1.0)):
            self.tick(datetime.now(UTC))

    def _say(self, text: str) -> None:
        now = datetime.now(UTC)
        past = self.board.past if self.board else Replay()
        down = ""
        if past.in_outage and past.outage_from:
            down = f" [API down {_clock((now - past.outage_from).total_seconds())}]"
        self.spoke = now
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"+{_clock((now - self.began).total_seconds())}{down} {text}\n")
            self.stream.flush()


def _clock(seconds: float) -> str:
    whole = max(0, int(seconds))
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole % 3600 // 60:02}:{whole % 60:02}"


class Json:
    """Each event as one JSON line, as the journal has it; the last line is the ``result``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.run = ""
        self._mutex = threading.Lock()

    def start(self, plan: Plan, steps: Sequence[Step], run: str, past: Sequence[Line] = ()) -> None:
        """What is about to be done."""
        self.run = run
        listed = [{"id": s.id(), "title": s.title(), "phase": str(s.phase)} for s in steps]
        hosts = [n.name for n in plan.nodes] + [w.name for w in plan.workers]
        self._write({"at": _now(), "event": "start", "plan": plan.name, "hosts": hosts, "steps": listed})

    def __call__(self, line: Line) -> None:
        """The line, without its link to the one before."""
        with contextlib.suppress(Exception):
            self._write({key: value for key, value in line.items() if key != "prev"})

    def stop(self, error: RunbookError | None, past: Replay) -> None:
        """The result: state, exit code, and where it failed what is true, what it means, what to type next."""
        failure: dict[str, Any] = {"error": None}
        if error:
            failure = {"error": error.message, "true": error.true, "means": error.means, "next": list(error.next)}
            failure |= {"by_hand": list(error.by_hand)} if error.by_hand else {}
        self._write(
            {
                "at": _now(),
                "event": "result",
                "state": past.state,
                "step": past.current,
                "exit_code": error.code if error else 0,
                "outage_seconds": past.outage_seconds(),
                "closed": past.closed,
                **failure,
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        with self._mutex, contextlib.suppress(OSError, ValueError):
            self.stream.write(json.dumps({**line, "run": self.run}, default=str) + "\n")
            self.stream.flush()


def _now() -> str:
    from runbook.journal import now

    return now()


# Findings.

MARKS = {"ok": "✓", "warns": "!", "blocks": "✗", "held": "✗"}
_WORST = ("held", "blocks", "warns", "ok")


def findings_grid(findings: Sequence[Finding], hosts: Sequence[str]) -> list[list[str]]:
    """A heading, then a row for each check: a mark for each host, and for the plan or this machine."""
    here = [""] if any(not f.host for f in findings) else []
    places = [*dict.fromkeys([*hosts, *(f.host for f in findings if f.host)]), *here]
    cells: dict[str, dict[str, str]] = {}
    for f in findings:
        row = cells.setdefault(f.check, {})
        before = row.get(f.host, "ok")
        row[f.host] = min(before, str(f.severity), key=_WORST.index)
    grid = [["check", *(place or "plan" for place in places)]]
    return grid + [[check, *(MARKS.get(row.get(p, ""), " ") for p in places)] for check, row in cells.items()]


def findings_table(findings: Sequence[Finding], hosts: Sequence[str]) -> str:
    """Checks down, hosts across, a mark per cell, then what is not well and what to do; plain text."""
    titles = _titles({f.check for f in findings})
    rows = [[titles.get(row[0], row[0]), *row[1:]] for row in findings_grid(findings, hosts)]
    lines = columns([[printable(cell) for cell in row] for row in rows])
    told = [f for f in findings if f.severity != "ok"]
    for f in sorted(told, key=lambda f: _WORST.index(str(f.severity))):
        lines += ["", printable(f"{MARKS[f.severity]} {f.severity}: {f.host or 'plan'}: {f.check}: {f.saw}")]
        lines += [f"  do: {printable(f.do)}"] if f.do else []
    bad = sum(f.severity in ("blocks", "held") for f in told)
    verdict = f"{bad} finding{'s' if bad > 1 else ''} in the way of a restore" if bad else "nothing is in the way"
    warned = len(told) - bad
    return "\n".join([*lines, "", f"{verdict}{f', {warned} worth knowing' if warned else ''}"])


def _titles(ids: set[str]) -> dict[str, str]:
    """The checks' titles; a check that is not known keeps its id."""
    from runbook.checks import all_checks

    return {c.id(): c.title() for group in ("preflight", "verify") for c in all_checks(group) if c.id() in ids}


def findings_document(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings for programs."""
    return [
        {"check": f.check, "host": f.host or None, "severity": str(f.severity), "saw": f.saw, "do": f.do}
        for f in findings
    ]

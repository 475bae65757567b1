"""Listeners of the journal's lines: what a person, or a program, sees while a run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from runbook.board import Board
from runbook.replay import Replay
from runbook.tables import duration, printable, utc

if TYPE_CHECKING:
    from runbook.errors import RunbookError
    from runbook.journal import Line
    from runbook.plan import Plan
    from runbook.step import Action, Binding, Command, Result, Step
    from runbook.transport import Copy, RunHosts, Witness

PATIENCE = 15.0
"""Seconds of silence after which ``Plain`` says what is being waited for."""


class Progress(Protocol):
    """A listener. It never raises: a view that breaks must not stop a run."""

    def start(
        self, plan: Plan, steps: Sequence[Step], run: str, past: Sequence[Line] = (), bound: Binding | None = None
    ) -> None:
        """Before the first line; ``past`` are the lines of the run's earlier engines, ``bound`` as of the run."""

    def __call__(self, line: Line) -> None:
        """One line of the journal, safe on the disk; called from several threads, one at a time."""

    def answered(self, host: str, command: Command, result: Result) -> None:
        """What a host said to a question: it tells what a wait is waiting for."""

    def stop(self, error: RunbookError | None, past: Replay) -> None:
        """After the last line. The error's own text is not shown: that is the caller's to print."""


def make(output: str, stream_err: TextIO, stream_out: TextIO) -> Progress:
    """The right one: JSON lines on ``stream_out``; else on ``stream_err`` a live view or, off a terminal, lines."""
    if output == "json":
        return Json(stream_out)
    if is_terminal(stream_err):
        from runbook.live import Live

        return Live(stream_err)
    return Plain(stream_err)


def is_terminal(stream: TextIO) -> bool:
    """Whether what was written may be written over there."""
    dumb = os.environ.get("TERM", "") in ("", "dumb")
    return stream.isatty() and not os.environ.get("NO_COLOR") and not dumb


def ending(error: RunbookError | None, past: Replay, seconds: float) -> str:
    """How it ended, in one line."""
    from runbook.situation import outage

    down = f"; {outage(past)}" if past.outages else ""
    failed = f" with exit code {error.code}" if error else ""
    state = "refused" if past.refused else f"{past.state}{', closed' if past.closed else ''}"
    if past.outdated:
        state = f"{past.state} when {'ended' if past.closed else 'taken over'} elsewhere"
    return f"{state}{failed} after {duration(seconds)}{down}"


class Watched:
    """Hosts whose answers a view hears too, so that it can say what a wait is waiting for."""

    def __init__(self, hosts: RunHosts, hear: Callable[[str, Command, Result], None]) -> None:
        self.hosts, self.hear = hosts, hear

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        """See :meth:`runbook.transport.Hosts.ask`."""
        answers = self.hosts.ask(asks)
        for host, results in answers.items():
            for command, result in zip(asks[host], results, strict=False):
                self.hear(host, command, result)
        return answers

    def act(self, actions: Mapping[str, Sequence[Action]], key: str, witness: Witness) -> dict[str, Result]:
        """See :meth:`runbook.transport.Hosts.act`."""
        return self.hosts.act(actions, key, witness)

    def settle(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        """See :meth:`runbook.transport.Hosts.settle`."""
        return self.hosts.settle(hosts, wait)

    def keep(self, copies: Mapping[str, Sequence[Copy]]) -> dict[str, Result]:
        """See :meth:`runbook.transport.RunHosts.keep`."""
        return self.hosts.keep(copies)

    def close(self) -> None:
        """Drop all connections."""
        self.hosts.close()


class Plain:
    """One line for each event worth one: the time since the start, the outage clock, step, host, what."""

    def __init__(self, stream: TextIO, patience: float = PATIENCE) -> None:
        self.stream, self.patience = stream, patience
        self.board: Board | None = None
        self.began = datetime.now(UTC)
        self.spoke = self.began
        self._heard = True
        """Whether the hosts have taken this engine: until then it may be another machine's run by now."""
        self._mutex = threading.RLock()
        self._over = threading.Event()

    def start(
        self, plan: Plan, steps: Sequence[Step], run: str, past: Sequence[Line] = (), bound: Binding | None = None
    ) -> None:
        """The head, and from now on a word wherever there is a long silence."""
        self.board, self._heard = Board(plan, steps, past, bound), not past
        self.began = self.spoke = datetime.now(UTC)
        began = f"{'this command began' if past else 'began'} {utc(self.began)}"
        self._say(f"{run}: {len(steps)} steps, hosts {', '.join(self.board.hosts)}; {began}")
        if self.patience:
            threading.Thread(target=self._watch, name="progress", daemon=True).start()

    def __call__(self, line: Line) -> None:
        """Say what is worth saying of it."""
        with self._mutex, contextlib.suppress(Exception):
            self._heard |= line["event"] in ("begin", "end", "step")
            for sentence in self.board.take(line) if self.board else ():
                self._say(sentence)

    def answered(self, host: str, command: Command, result: Result) -> None:
        """Kept for the next word on a long wait."""
        with self._mutex, contextlib.suppress(Exception):
            if self.board:
                self.board.answered(host, command, result)

    def stop(self, error: RunbookError | None, past: Replay) -> None:
        """The last line."""
        self._over.set()
        with self._mutex:
            self._say(f"ended: {ending(error, past, (datetime.now(UTC) - self.began).total_seconds())}")

    def tick(self, now: datetime) -> None:
        """Say what is being waited for, where nothing was said for long."""
        with self._mutex, contextlib.suppress(Exception):
            if self.board is None or (now - self.spoke).total_seconds() < self.patience:
                return
            row = self.board.current() or self.board.upcoming()
            waiting = printable(self.board.waiting_for())
            if row is None or not waiting:
                return
            since = f"{duration(round((now - row.began).total_seconds()))} so far" if row.began else "to begin"
            self._say(f"{self.board.label(row)} … {since}, waiting for {waiting}")

    def _watch(self) -> None:
        while not self._over.wait(min(self.patience, 1.0)):
            self.tick(datetime.now(UTC))

    def _say(self, text: str) -> None:
        now = datetime.now(UTC)
        past = self.board.past if self.board else Replay()
        down = ""
        if past.in_outage and past.outage_from and self._heard and not past.outdated:
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

    def start(
        self, plan: Plan, steps: Sequence[Step], run: str, past: Sequence[Line] = (), bound: Binding | None = None
    ) -> None:
        """What is about to be done."""
        self.run = run
        listed = [{"id": s.id(), "title": s.title(), "phase": str(s.phase)} for s in steps]
        hosts = [n.name for n in plan.nodes] + [w.name for w in plan.workers]
        self._write({"at": _now(), "event": "start", "plan": plan.name, "hosts": hosts, "steps": listed})

    def __call__(self, line: Line) -> None:
        """The line, without its link to the one before."""
        with contextlib.suppress(Exception):
            self._write({key: value for key, value in line.items() if key != "prev"})

    def answered(self, host: str, command: Command, result: Result) -> None:
        """A question is no event."""

    def stop(self, error: RunbookError | None, past: Replay) -> None:
        """The result: state, exit code, and where it failed what is true, what it means, what to type next."""
        failure: dict[str, Any] = error.document() if error else {"exit_code": 0, "error": None}
        self._write(
            {
                "at": _now(),
                "event": "result",
                "state": past.state,
                "step": past.current,
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

"""A run's journal as a person follows it: a mark for each step on each host, and a sentence for what is worth one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from runbook.checks import Finding, Severity
from runbook.facts import once, together
from runbook.findings import grouped, well
from runbook.held import in_words
from runbook.plan import Plan
from runbook.procedure import waits
from runbook.replay import SERVES_AGAIN, STOPS_FIRST, Replay, at, replay
from runbook.snapshots.reading import coming
from runbook.step import Binding, Command, Probe, Result, Scope, Step, Target
from runbook.tables import duration, printable

if TYPE_CHECKING:
    from runbook.journal import Line


class Mark(StrEnum):
    """Where one step stands on one host."""

    NONE = " "
    WAITING = "·"
    ACTING = "▶"
    DONE = "✓"
    NO = "✗"
    UNKNOWN = "?"
    UNDONE = "↶"


_SAW = {"yes": Mark.DONE, "ready": Mark.WAITING, "no": Mark.NO, "unknown": Mark.UNKNOWN}
_EVERYWHERE = {"DONE": Mark.DONE, "SKIPPED": Mark.DONE, "UNDONE": Mark.UNDONE}
_SLOW = 10.0
"""Seconds from which on a single command is worth a sentence."""
_EVERY_HOST = re.compile(r",? on every host\b")
"""What a step's title says, and what is not so where one host alone is given the step."""


@dataclass
class Row:
    """One step: where it acts, its state, when it began and ended, and a mark for each of its hosts."""

    number: int
    step: Step
    targets: tuple[Target, ...]
    state: str = "PENDING"
    began: datetime | None = None
    ended: datetime | None = None
    marks: dict[str, Mark] = field(default_factory=dict)
    finished: dict[str, datetime] = field(default_factory=dict)
    """When the last command of this attempt ended, by host."""
    said: dict[str, str] = field(default_factory=dict)
    """What the commands of this attempt said that failed, by host; it was told when they ended."""

    def changes(self) -> bool:
        """Whether there is anything to take back; without a plan nobody can say, so it counts as yes."""
        if not self.targets:
            return self.step.on is not Scope.WORKERS
        return any(self.step.undo(n) for n in self.targets)

    def asks(self, n: Target) -> Probe:
        """What is asked of the host where the step stands now."""
        if self.state == "UNDOING":
            return self.step.undone(n)
        return self.step.done(n) if self.state == "ACTING" else self.step.ready(n)

    def late(self) -> str:
        """Which host was last, where that made a difference."""
        if len(self.finished) < 2:
            return ""
        order = sorted(self.finished, key=lambda host: self.finished[host])
        behind = (self.finished[order[-1]] - self.finished[order[-2]]).total_seconds()
        return f"; {order[-1]} was last, {duration(behind)} after {order[-2]}" if behind >= 1 else ""


class Board:
    """All steps, fed with the journal's lines in their order; without a plan it has no marks, but all sentences."""

    def __init__(
        self, plan: Plan | None, steps: Sequence[Step], past: Iterable[Line] = (), bound: Binding | None = None
    ) -> None:
        bound = bound or Binding()
        nodes = tuple(Target(plan, bound, n) for n in plan.nodes) if plan else ()
        workers = tuple(Target(plan, bound, w) for w in plan.workers) if plan else ()
        by_scope = {Scope.ALL: nodes, Scope.FIRST: nodes[:1], Scope.WORKERS: workers}
        self.hosts = [n.name for n in (*nodes, *workers)]
        self.rows: dict[str, Row] = {}
        for number, step in enumerate(steps, start=1):
            targets = (*nodes, *workers) if step.checks else by_scope[step.on]
            self.rows[step.id()] = Row(number, step, targets, marks={n.name: Mark.WAITING for n in targets})
        self.lines: list[Line] = []
        self.open: dict[str, Line] = {}
        """The ``begin`` lines of commands that have not ended, by host."""
        self.lacking: dict[str, str] = {}
        """What a host was last seen to lack, by host: what is being waited for."""
        self.found: list[Finding] = []
        """The findings that came together; they are told with the next line, equal ones as one."""
        self.past = Replay()
        for line in past:
            self.take(line)

    def take(self, line: Line) -> list[str]:
        """One line; what is worth saying about it, in sentences without control characters."""
        self.lines.append(line)
        before = self.past
        stops = line["event"] == "begin" and line.get("step") in (STOPS_FIRST, SERVES_AGAIN) and not before.in_outage
        if stops or line["event"] in (
            "run",
            "step",
            "state",
            "closed",
            "accepted",
            "absent",
            "present",
            "superseded",
            "adopted",
            "begun",
        ):
            self.past = replay(self.lines)
        findings = [] if line["event"] == "finding" else self._findings()
        words = getattr(self, f"_{line['event']}", self._other)(line)
        return [_indented(w) for w in [*findings, *words, *self._outage(before)]]

    def current(self) -> Row | None:
        """The step that is being done or undone."""
        return next((row for row in self.rows.values() if row.state in ("ACTING", "UNDOING")), None)

    def upcoming(self) -> Row | None:
        """Between two steps: the one that is to begin as soon as the hosts show that it may."""
        from runbook.lifecycle import FINISHED

        if self.past.state not in ("preparing", "outage", "verifying"):
            return None
        row = next((row for row in self.rows.values() if row.state not in FINISHED), None)
        return row if row and row.state == "PENDING" and not row.step.checks else None

    def answered(self, host: str, command: Command, result: Result) -> None:
        """What a host said to a question; where that is not yes, it is what the step at hand waits for."""
        from runbook.asking import judge
        from runbook.lifecycle import Verdict

        row = self.current() or self.upcoming()
        target = next((n for n in row.targets if n.name == host), None) if row else None
        if row is None or target is None:
            return
        for question in row.asks(target).questions:
            if question.ask == command:
                view = judge(question, result)
                self.lacking.pop(host, None)
                if view.verdict is not Verdict.YES:
                    self.lacking[host] = once(in_words(view.saw)) or f"not yet: {question.says}"

    def waiting_for(self) -> str:
        """What is being waited for now: a host's command, what a host still lacks, or what the hosts shall show."""
        row = self.current()
        if row and self.open:
            actions = {host: str(begin.get("action", "")) for host, begin in self.open.items()}
            return "; ".join(together((host, waits(said) or _short(said)) for host, said in actions.items()))
        if row and row.step.checks and (fetched := coming()):
            return fetched
        if self.lacking:
            return "; ".join(together(self.lacking.items()))
        if row is None:
            return ""
        open_ = [n for n in row.targets if row.marks.get(n.name) is not Mark.DONE] or list(row.targets)
        probes = dict.fromkeys((row.step.undone(n) if row.state == "UNDOING" else row.step.done(n)).says for n in open_)
        return f"{', '.join(n.name for n in open_)} until: {' / '.join(p for p in probes if p) or 'the checks pass'}"

    def label(self, row: Row) -> str:
        """The step's number among all."""
        return f"[{row.number:2}/{len(self.rows)}]"

    # One method for each event; each returns sentences.

    def _run(self, line: Line) -> list[str]:
        return [f"run {line.get('run', '')} by {line.get('holder', '?')}"]

    def _engine(self, line: Line) -> list[str]:
        self.open = {}
        who = f" by {line['holder']}" if line.get("holder") else ""
        return [f"{line.get('command', 'engine')}{who}, epoch {line['epoch']}"]

    def _adopted(self, line: Line) -> list[str]:
        source = f", with the journal of {line['from']}" if line.get("from") else ""
        differs = line.get("differs")
        amiss = [f"  {said}" for said in differs] if isinstance(differs, list) else []
        return [f"taken over by {line.get('holder') or 'nobody named'}{source}, epoch {line['epoch']}", *amiss]

    def _state(self, line: Line) -> list[str]:
        if self.past.refused:
            return ["── refused: nothing was changed ──"]
        why = str(line.get("why", ""))
        for row in self.rows.values():  # what a step said was told when it said it
            why = why.partition(row.step.title())[0].rstrip(": ")
        return [f"── {line['to']}{f': {in_words(why)}' if why else ''} ──"]

    def _begin(self, line: Line) -> list[str]:
        self.open[line.get("host", "")] = line
        row = self.rows.get(line.get("step", ""))
        if row and row.state in ("ACTING", "UNDOING"):
            row.marks[line.get("host", "")] = Mark.ACTING
        return []

    def _end(self, line: Line) -> list[str]:
        host, code = line.get("host", ""), line.get("code")
        begun = self.open.pop(host, None)
        row = self.rows.get(line.get("step", ""))
        if row and row.state in ("ACTING", "UNDOING"):
            row.finished[host] = at(line)
            if code != 0:
                row.marks[host] = Mark.UNKNOWN if code is None else Mark.NO
        action = _short(begun.get("action", "")) if begun else "its command"
        said = f": {in_words(once(str(line['said'])))}" if line.get("said") else ""
        if code != 0 and row:
            row.said[host] = str(line.get("said", ""))
        if code is None:
            return [f"  ? {host}: nobody knows how it ended, {action}{said}"]
        if code != 0:
            return [f"  ✗ {host}: exit code {code}{said} ({action})"]
        took = (at(line) - at(begun)).total_seconds() if begun else 0.0
        return [f"  {host}: {duration(took)} for {action}"] if took >= _SLOW else []

    def _step(self, line: Line) -> list[str]:
        row = self.rows.get(line["step"])
        if row is None:
            return [f"{line['step']}: {line['from']} → {line['to']}"]
        row.state, self.lacking = line["to"], {}
        saw: Mapping[str, str] = line.get("saw") or {}
        for host in row.marks:
            verdict = str(saw.get(host, "")).partition(":")[0]
            row.marks[host] = _EVERYWHERE.get(row.state, _SAW.get(verdict, row.marks[host]))
        if row.state in ("ACTING", "UNDOING"):
            row.began, row.ended, row.finished, row.said, self.open = at(line), None, {}, {}, {}
        else:
            row.ended = at(line)
        return self._told(row, line, saw)

    def _told(self, row: Row, line: Line, saw: Mapping[str, str]) -> list[str]:
        label, title, took = self.label(row), row.step.title(), self._took(row)
        where = f" on {', '.join(saw) if self.past.absent else 'every host'}"
        if "joining" in line:  # one that came back is given the step, and no other
            label, title, where = f"{label} on {line['joining']} alone:", _EVERY_HOST.sub("", title), ""
        objections = [] if row.step.checks else _objections(row, saw)
        done = [host for host, v in saw.items() if v == "yes"]
        already = f" (done already on {', '.join(done)})" if done else ""
        sentences = {
            "ACTING": f"{label} {'again: ' if line['trigger'] == 'resume' else ''}{title}{already}",
            "PENDING": f"{label} again: may it begin? {title}",
            "DONE": f"{label} done{where}{took}{row.late()}" if saw else f"{label} nothing to do: no such host",
            "SKIPPED": f"{label} done already{where}: {title}" if saw else f"{label} on no host: {title}",
            "BLOCKED": f"{label} may not start: {title}",
            "FAILED": f"{label} FAILED{took}: {title}",
            "UNKNOWN": f"{label} UNKNOWN, a host does not answer{took}: {title}",
            "UNDOING": f"{label} taking back: {title.partition(',')[0]}" if row.changes() else "",
            "UNDONE": f"{label} taken back{took}{row.late()}" if row.changes() else "",
            "STUCK": f"{label} could not be taken back{took}: {title}",
        }
        sentence = sentences.get(row.state, f"{label} {row.state}: {title}")
        return [*([sentence] if sentence else []), *objections]

    @staticmethod
    def _took(row: Row) -> str:
        seconds = (row.ended - row.began).total_seconds() if row.began and row.ended else 0.0
        return f" in {duration(seconds)}" if seconds >= 0.05 else ""

    def _finding(self, line: Line) -> list[str]:
        severity = {"ok": Severity.OK, "warns": Severity.WARNS}.get(line.get("severity", ""), Severity.BLOCKS)
        words = (str(line.get(key, "")) for key in ("saw", "do"))
        self.found.append(Finding(str(line.get("check", "")), str(line.get("host", "")), severity, *words))
        return []

    def _findings(self) -> list[str]:
        """What was found, equal things as one. What is in the way is told in full by the error that it leads to."""
        groups, seen, self.found = grouped(self.found), well(self.found), []
        return [f"  {line}" for line in seen] + [
            f"  ! {g.where}: {g.saw}{f' → {g.do}' if g.do else ''}"
            if g.severity == "warns"
            else f"  ✗ {g.where}: {g.saw}"
            for g in groups
        ]

    def _finishing(self, _: Line) -> list[str]:
        return ["removing what this run left on the hosts"] if self.past.begun("LockHosts") else []

    def _begun(self, _: Line) -> list[str]:
        return []  # before anybody watched; the step that goes on tells what became of it

    def _bound(self, line: Line) -> list[str]:
        """From here on the steps' questions are those of a run that knows what it restores."""
        for row in self.rows.values():
            new = (replace(n, bound=replace(n.bound, sha256=line["snapshot_sha256"])) for n in row.targets)
            row.targets = tuple(new)
        return [f"what is restored has the sha256 {line['snapshot_sha256']}"]

    def _settings(self, line: Line) -> list[str]:
        return [f"from here on with the settings of {line.get('file', 'another file')}"]

    def _closed(self, _: Line) -> list[str]:
        from runbook import situation

        return [situation.closed(self.past)]

    def _lost(self, line: Line) -> list[str]:
        said = in_words(once(str(line.get("said", ""))))
        return [f"  ? {line.get('host', '')}: lost: {said}; it is looked for during a minute, Ctrl-C is safe meanwhile"]

    def _copy(self, line: Line) -> list[str]:
        return [f"  ! {line.get('host', '')} took no copy of the journal: {in_words(once(str(line.get('said', ''))))}"]

    def _absent(self, line: Line) -> list[str]:
        return [f"going on without {', '.join(line['hosts'])}, owed every step until it is back"]

    def _present(self, line: Line) -> list[str]:
        return [f"{line.get('host', '')} has had what it was owed"]

    def _card(self, _: Line) -> list[str]:
        return []  # the error that follows shows it, a line each

    def _superseded(self, line: Line) -> list[str]:
        return [f"this engine is refused: {in_words(once(str(line.get('said', ''))))}"]

    def _other(self, line: Line) -> list[str]:
        plain = ("seq", "at", "epoch", "event", "prev")
        said = line.get("text") or ", ".join(f"{k}: {v}" for k, v in line.items() if k not in plain)
        return [f"{line['event']}: {said}"]

    def _outage(self, before: Replay) -> list[str]:
        past = self.past
        if len(past.outages) > len(before.outages) and past.in_outage:
            again = " AGAIN" if before.outages else ""
            return [f"▼▼▼ OUTAGE BEGINS{again}: from here on the control plane is stopped"]
        if before.in_outage and past.outage_from and past.outage_to:
            took = (past.outage_to - past.outage_from).total_seconds()
            if past.state != "outage":  # nobody waits for one that was not ready before the run either
                old = "the old API servers are started again, as they were found"
                return [f"▲▲▲ THIS RUN'S OUTAGE ENDS after {duration(took)}: {old}"]
            but = f" but for {', '.join(past.absent)}" if past.absent else ""
            return [f"▲▲▲ OUTAGE ENDS after {duration(took)}: every API server is ready{but}"]
        return []


def _indented(sentence: str) -> str:
    return "  " * sentence.startswith("  ") + printable(sentence)


def _objections(row: Row, saw: Mapping[str, str]) -> list[str]:
    """What hosts say no to, equal things as one, without what was told already when their commands ended."""
    lines = []
    for mark, verdict in (("✗", "no"), ("?", "unknown")):
        told = []
        for host, said in saw.items():
            kind, _, why = str(said).partition(": ")
            if kind == verdict:
                new = once(why).removesuffix(once(row.said.get(host, ""))).rstrip("; ")
                told += [] if why and not new else [(host, in_words(new) or "not done")]
        lines += [f"  {mark} {sentence}" for sentence in together(told)]
    return lines


def _short(action: str, limit: int = 90) -> str:
    return action if len(action) <= limit else f"{action[: limit - 1]}…"

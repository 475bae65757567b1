"""What is to be diagnosed, a plan or a run, and what this machine holds of it. What is damaged is still told of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runbook import bind, choice, planfile, report, runs, status
from runbook.errors import RunbookError
from runbook.plan import Plan
from runbook.replay import Replay
from runbook.step import Binding

MOST = 4_000_000
"""Bytes of the end of a journal or a debug log."""


@dataclass
class Subject:
    """``plan`` None: no host can be asked. ``doubts`` are the reasons why something of it could not be used."""

    name: str
    plan: Plan | None = None
    run: runs.Run | None = None
    past: Replay | None = None
    bound: Binding = field(default_factory=Binding)
    doubts: list[str] = field(default_factory=list)

    @property
    def what(self) -> str:
        """In words."""
        run = f"the run {self.run.id}" if self.run else ""
        plan = f"the plan {self.plan.file}" if self.plan and not run.endswith(self.name) else ""
        return run or plan


@dataclass(frozen=True)
class Piece:
    """One file of this machine for the archive; ``text`` None where it cannot be had, and ``why``."""

    place: str
    source: str
    text: str | None
    why: str = ""
    cut: bool = False


def is_plan(what: str) -> bool:
    """An existing file, or what looks like one, is a plan; everything else is a run."""
    return what.endswith((".yaml", ".yml")) or os.path.isfile(what)


def find(what: str | None) -> Subject:
    """What is meant by PLAN or RUN, or by neither. Raises UsageError, or PlanErrors for an invalid plan."""
    return _of_plan(Path(what)) if what and is_plan(what) else _of_run(choice.find(what, "diagnose"))


def _of_plan(file: Path) -> Subject:
    """A plan, with the run of it that is open, the newest that is part-way if there are several."""
    plan = planfile.load(file)
    mine = [k for k in choice.known() if not k.closed and _name(k.run, k.past) == plan.name]
    subject = Subject(plan.name, plan)
    if mine:
        chosen = next((k for k in mine if k.part_way), mine[0])
        subject.run, subject.past = chosen.run, chosen.past
        subject.bound = Binding(chosen.run.id)
        others = [k.run.id for k in mine if k is not chosen]
        if others:
            subject.doubts.append(f"more runs of this plan are open, and not in here: {', '.join(others)}")
        if chosen.past is None:
            subject.doubts.append(f"the journal of {chosen.run.id} is damaged")
    return subject


def _of_run(run: runs.Run) -> Subject:
    subject = Subject(run.id, run=run, bound=Binding(run.id))
    try:
        subject.past = run.replay()
    except RunbookError as error:
        subject.doubts.append(error.message)
    subject.name = _name(run, subject.past)
    try:
        if subject.past and subject.past.header:
            subject.plan, subject.bound = bind.bound_plan(run, subject.past, f"runbook diagnose {run.id}")
            return subject
    except RunbookError as error:
        subject.doubts.append(error.message)
    try:
        subject.plan = planfile.load(run.plan_path)  # it serves to ask by, whatever is wrong with it as an approved one
    except RunbookError as error:
        subject.doubts.append(f"no host was asked, for the run's plan cannot be used: {error.message}")
    return subject


def _name(run: runs.Run, past: Replay | None) -> str:
    """The name of a run's plan, which its id begins with."""
    told = past.header.get("plan") if past and past.header else None
    return told if isinstance(told, str) and told else run.id.rsplit("-", 2)[0]


def pieces(subject: Subject) -> Iterator[Piece]:
    """What this machine holds of it, as it is: not yet redacted."""
    if subject.plan and not (subject.run and subject.plan.file.parent == subject.run.path):
        text = subject.plan.text.decode("utf-8", "replace")
        yield Piece("plan.yaml", str(subject.plan.file), text)
    run = subject.run
    if run is None:
        return
    plan, engine = subject.plan, run.engine()
    yield _derived(
        subject, "run/report.md", f"runbook report {run.id}", lambda past: report.markdown(past.lines, past, plan)
    )
    yield _derived(
        subject,
        "run/status.txt",
        f"runbook status {run.id}",
        lambda past: status.text(status.document(past.lines, past, engine=engine), past) + "\n",
    )
    for path in (run.journal_path, run.plan_path, run.settings_path, run.path / "debug.log"):
        if path.exists() or path in (run.journal_path, run.plan_path):
            yield _file(f"run/{path.name}", path)


def _file(place: str, path: Path) -> Piece:
    """The end of a file, from a whole line on."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - MOST))
            data = file.read(MOST)
    except OSError as error:
        return Piece(place, str(path), None, error.strerror or str(error))
    if size > MOST:
        data = data.partition(b"\n")[2]
    return Piece(place, str(path), data.decode("utf-8", "replace"), cut=size > MOST)


def _derived(subject: Subject, place: str, source: str, make: Callable[[Replay], str]) -> Piece:
    if subject.past is None:
        return Piece(place, source, None, "the journal is damaged")
    try:
        return Piece(place, source, make(subject.past))
    except Exception as error:  # a journal of another version, or one that somebody wrote in: the rest is still wanted
        return Piece(place, source, None, f"{type(error).__name__}: {error}")

"""Nodes that a run went on without: declared absent, and given their steps when they are back.

An absent node is a minority's, so what it may still hold can never be a cluster of its own. It is owed each step that
the others had: forward it then joins the restored cluster with the copy that was restored for it, backward it gets its
old data and manifests back and joins the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runbook import situation
from runbook.asking import ask_once
from runbook.checks import Finding, Severity
from runbook.errors import Halted, UsageError
from runbook.findings import in_the_way, reason
from runbook.hands import Hands
from runbook.holding import Holding
from runbook.lifecycle import FINISHED, StepRun, Verdict, Views
from runbook.plan import Plan
from runbook.replay import replay
from runbook.step import Phase, Scope, Step, Target

if TYPE_CHECKING:
    from runbook.engine import Engine
    from runbook.journal import Journal


def declare(plan: Plan, journal: Journal, names: Sequence[str]) -> None:
    """Journal that the run goes on without these nodes. Raises UsageError for unknown ones, or too many."""
    past = replay(journal.lines)
    most_absent(plan, [*past.absent, *names])
    if new := [name for name in dict.fromkeys(names) if name not in past.absent]:
        journal.append("absent", {"hosts": new})


def most_absent(plan: Plan, names: Sequence[str]) -> None:
    """Raises UsageError for a node that the plan has not, or where these are not a minority of it."""
    known = [n.name for n in plan.nodes]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"--without {unknown[0]}: the plan has no such node; it has {', '.join(known)}",
            true="nothing was changed",
            means="a node is named as in spec.nodes, by its member's name",
            next=(f"the same command with one of {', '.join(known)}",),
        )
    absent = list(dict.fromkeys(names))
    most = (len(known) - 1) // 2
    if len(absent) > most:
        raise UsageError(
            f"without {', '.join(absent)}: {len(absent)} of {len(known)} nodes, and at most {most} may be absent",
            true="nothing was changed",
            means="the others would have no quorum, and those left out could become a cluster of their own",
            next=("bring one of these hosts back, then the same command with fewer --without",),
        )


class Debt:
    """What one absent node is owed, and how it gets it."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name
        past = replay(engine.journal.lines)
        others = tuple(n for n in past.absent if n != name)
        bound = replace(engine.bound, absent=others, joining=name)
        engine.copies.names = tuple({*engine.copies.names, name})
        self.hands = Hands(engine.plan, bound, engine.hosts, engine.journal, engine.clock, engine.copies)
        states = past.absent[name]
        steps = [s for s in engine.procedure.steps if s.on is Scope.ALL and not s.checks]
        self.steps = [StepRun(step, self.hands, _own(step, states)) for step in steps]
        self.lock = Holding(next(s for s in self.steps if s.step is engine.procedure.lock), self.hands)

    def answers(self) -> str:
        """What keeps it from being given its steps now; "" where it answers."""
        asked = ask_once(self.engine.hosts, {n.name: self.engine.procedure.lock.undone(n) for n in self.hands.nodes})
        view = asked[self.name]
        return view.saw if view.verdict is Verdict.UNKNOWN else ""

    def pay(self) -> None:
        """Give it the steps that it has not had, then its lock back. Raises Held, Halted."""
        if any(s.step.supplied and s.state not in FINISHED for s in self.steps):
            self.engine.plan = self.hands.plan = self.engine.supply(self.engine.plan)
            self.hands.bind(self.hands.bound)
        self._may_begin()
        self.lock.not_anothers()
        self._not_over(self.lock.claim())
        self.lock.hold()
        for current in self.steps:
            if current.state in FINISHED:
                continue
            if current.state != "PENDING":
                current.resume()
            while current.state in ("PENDING", "ACTING"):
                current.proceed()
            if current.state not in FINISHED:
                self._stopped(f"{self.name} did not get {current.step.title()!r}", current.views)
        if kept := self.lock.release():
            self._stopped(kept, {})
        self._is_well()
        self._settled()

    def _may_begin(self) -> None:
        """Before its first change, what the others were asked before theirs, as far as it is about a host.

        The others are asked too, to compare with, and only read. A node that was there when the run began was asked
        then, and may since be half-way, where the same questions have other answers. Raises Held, Halted.
        """
        if replay(self.engine.journal.lines).holds(self.name):
            return
        everyone = [n for n in self._everyone() if n.name not in self.hands.bound.absent]
        found = self.hands.look("preflight", everyone)
        if held := {f.host: f.saw for f in found if f.severity is Severity.HELD}:
            raise self.lock.anothers(held)
        self._told(found, f"{self.name} is not given its steps, and nothing was changed on it: the checks say no")

    def _is_well(self) -> None:
        """What the others were asked at the end; it stays owed until the answer is yes. Raises Halted."""
        found = self.hands.look("verify", self.hands.nodes)
        self._told(found, f"{self.name} has got its steps and joined, but the checks say no")

    def _told(self, found: Sequence[Finding], what: str) -> None:
        """Journal what was found of this node, or of the whole; halt where it says no. The others' is not its debt."""
        mine = [f for f in found if f.host in ("", self.name) and f.severity is not Severity.OK]
        for f in mine:
            said = {"check": f.check, "severity": f.severity, "saw": f.saw, "do": f.do, "joining": self.name}
            self.engine.journal.append("finding", said, step=self.engine.procedure.lock.id(), host=f.host)
        if bad := in_the_way(mine):
            self._stopped(reason(what, bad), {})

    def _everyone(self) -> list[Target]:
        return [Target(self.engine.plan, self.hands.bound, node) for node in self.engine.plan.nodes]

    def pay_back(self) -> None:
        """Take back what it had begun. Raises Refused, Held, Halted."""
        begun = [s for s in self.steps if s.state != "PENDING"]
        if any(s.step.phase is Phase.OUTAGE and s.state != "UNDONE" for s in begun):
            self.engine.may_roll_back(self.hands.nodes)
        self.lock.not_anothers()
        self._not_over(self.lock.claim())
        self.lock.hold()
        for current in reversed(begun):
            if current.state == "UNDONE":
                continue
            if current.state in ("UNDOING", "STUCK"):
                current.resume()
            else:
                current.rollback()
            current.proceed()
            if current.state != "UNDONE":
                self._stopped(f"on {self.name}, {current.step.title()!r} was not undone", current.views)
        self._settled()

    def _not_over(self, bare: Sequence[Target]) -> None:
        if bare:
            what = f"{self.name} has no directory of this run any more, though it had one: set up anew, or cleaned?"
            self._stopped(f"{what}; what it is owed cannot be given to it", {})

    def _settled(self) -> None:
        self.engine.journal.append("present", {}, host=self.name)
        self.engine.copies.share()

    def _stopped(self, what: str, views: Views) -> None:
        self.engine.copies.share()
        seen = "; ".join(f"{h}: {v.saw or v.verdict}" for h, v in views.items() if v.verdict is not Verdict.YES)
        past = replay(self.engine.journal.lines)
        raise Halted(f"{what}: {seen}" if seen else what, **situation.describe(past, self.engine.bound.run, views))


def _own(step: Step, states: dict[str, str]) -> str:
    """Where a step stands on the absent node. What failed, or had no answer, may have been begun there."""
    state = states.get(step.id(), "PENDING")
    return "PENDING" if state == "BLOCKED" else state

"""Forward and backward through the steps: the one engine that carries a procedure out.

It holds no knowledge of etcd. What to do stands in the steps, what was intended in the journal, what is true on the
hosts; the state tables decide. It can be killed at any line and started again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from runbook import findings, situation
from runbook.asking import Clock, ask_once
from runbook.checks import Finding, Severity
from runbook.copies import Copies
from runbook.debts import Debt
from runbook.errors import Halted, Held, Refused, Unverified
from runbook.facts import together
from runbook.hands import Hands
from runbook.held import by_another
from runbook.holding import Holding
from runbook.journal import Journal
from runbook.lifecycle import FINISHED, RunState, StepRun, Verdict, Views
from runbook.plan import Plan
from runbook.procedure import Procedure
from runbook.replay import PREPARING_FAILED, Replay, replay
from runbook.step import Binding, Irreversible, Phase, Result, Scope, Target
from runbook.transport import RunHosts

ENDS = ("complete", "halted", "unverified", "rolled-back", "stuck")


NOT_BEGUN = ("PENDING", "BLOCKED")
"""States of a step that has done nothing: a blocked one was asked whether it may start, and may not."""


class Engine:
    """One run being carried out by this process, which holds the run's directory."""

    def __init__(
        self,
        plan: Plan,
        bound: Binding,
        procedure: Procedure,
        hosts: RunHosts,
        journal: Journal,
        clock: Clock,
        files: Callable[[], Mapping[str, bytes]] = dict,
        excused: Collection[str] = (),
        learn: Callable[[Binding, Sequence[Finding]], Mapping[str, str]] = lambda *_: {},
        supply: Callable[[Plan], Plan] = lambda plan: plan,
    ) -> None:
        """``files`` are those of the run that the hosts keep copies of, beside the journal.

        ``excused``: absent nodes that are not even tried now, because the responder has just said so. ``learn`` says
        what a binding without the snapshot's SHA-256 lacks, from what the first checks found, by the journal's words.
        ``supply`` gives the plan with its snapshot on this machine, for a node that is back and has to be given it.
        """
        self.excused, self.learn, self.supply = frozenset(excused), learn, supply
        past = replay(journal.lines)
        bound = replace(bound, absent=tuple(past.absent))
        self.plan, self.bound, self.procedure = plan, bound, procedure
        self.hosts, self.journal, self.clock = hosts, journal, clock
        self.copies = Copies(hosts, [n.name for n in plan.nodes if n.name not in bound.absent], journal, files)
        self.hands = Hands(plan, bound, hosts, journal, clock, self.copies, procedure.steps)
        self.run = RunState(self, past.state, past.halted_from)
        # A run that is not bound yet has done nothing but check, and maybe another file: it checks again.
        done = past.steps if bound.known else {}
        self.steps = [StepRun(step, self.hands, done.get(step.id(), "PENDING")) for step in procedure.steps]
        mine = next(s for s in self.steps if s.step is procedure.lock)
        self.lock = Holding(mine, self.hands)

    # Forward.

    def forward(self) -> None:
        """From wherever the run stands to its end; returns when it is complete.

        Raises Refused or Held (preparing failed and was undone), Halted, Unverified.
        """
        if self.run.state == "complete":
            self._pay_debts(patient=False)
            return
        self.lock.not_anothers()
        self.not_over(self.lock.claim())
        if self.run.state in ("halted", "unverified"):
            self.run.go("resume")
        self.lock.hold()
        doubts: list[str] = []  # a worker that is lost keeps no restored control plane from its checks
        for current in self.steps:
            if current.state in FINISHED:
                continue
            self._enter(current.step.phase)
            if not current.step.checks:
                self._bind()
            if current.state != "PENDING":
                current.resume()
            while current.state in ("PENDING", "ACTING"):
                current.proceed()
            if current.state not in FINISHED and current.step.on is Scope.WORKERS:
                doubts.append(f"{current.step.title()}: {situation.objections(current.views)}")
            elif current.state not in FINISHED:
                self._stopped_at(current)
        kept = self.lock.release()
        if doubts:
            self._doubt("; ".join(doubts), "; ".join(doubts), kept)
        if kept:
            self.run.go("halt", kept)
            raise Halted(f"restored and verified, but {kept}", **self._situation())
        self.run.go("complete")
        self._pay_debts(patient=True)

    def _pay_debts(self, *, patient: bool, back: bool = False) -> None:
        """Give absent nodes what they are owed. Raises Halted where one does not answer, unless ``patient``."""
        silent = {}
        for name in replay(self.journal.lines).absent:
            debt = Debt(self, name)
            if name in self.excused:
                continue
            if saw := debt.answers():
                silent[name] = saw
            elif back:
                debt.pay_back()
            else:
                debt.pay()
        if silent and not patient:
            shown = "; ".join(f"{name}: {saw}" for name, saw in silent.items())
            raise Halted(f"still owed their steps, and silent: {shown}", **self._situation())

    def _enter(self, phase: Phase) -> None:
        if phase is Phase.PREPARE and self.run.state == "planned":
            self.run.go("prepare")
        if phase is Phase.OUTAGE and self.run.state == "preparing":
            self.run.go("cut")
            if self.run.state != "outage":
                raise Halted("the barrier holds: not every prepare step is done on every host", **self._situation())
        if phase is Phase.VERIFY and self.run.state == "outage":
            self.run.go("verify")

    def _bind(self) -> None:
        """What this run restores, from now on: known and journalled before the first step that changes anything."""
        if self.bound.known:
            return
        known = self.learn(self.bound, self.hands.findings)
        self.journal.append("bound", known)
        self.bound = replace(self.bound, sha256=known["snapshot_sha256"])
        self.hands.bind(self.bound)

    def _stopped_at(self, current: StepRun) -> None:
        why = f"{current.step.title()}: {situation.objections(current.views)}"
        says_no = any(view.verdict is Verdict.NO for view in current.views.values())
        if current.step.phase is Phase.PREPARE and says_no:
            self._undo_preparing(why, self._told(current, why))
        if current.step.phase is Phase.VERIFY and current.state == "FAILED":
            self._doubt(why, self._told(current, why), self.lock.release())
        self.run.go("halt", why)
        raise Halted(f"halted: {why}", **self._situation(current.views))

    def _told(self, current: StepRun, why: str) -> str:
        """Why a step ended as it did, for people: of checks what they found, and what to do about it."""
        if not current.step.checks:
            return why
        return findings.reason("the checks say no", findings.in_the_way(self.hands.findings))

    def _doubt(self, why: str, told: str, kept: str) -> None:
        self.run.go("doubt", f"{why}; {kept}" if kept else why)
        kept = f"\n{kept}" if kept else ""
        raise Unverified(f"restored and serving, but not verified: {told}{kept}", **self._situation())

    def _undo_preparing(self, why: str, told: str) -> NoReturn:
        held = {f.host: f.saw for f in self.hands.findings if f.severity is Severity.HELD}
        held |= {h: v.saw for s in self.steps for h, v in s.views.items() if "names another run" in v.saw}
        self.backward(f"{PREPARING_FAILED}: {why}")
        after = self._situation()
        past = replay(self.journal.lines)
        but = ", ".join(name for name in past.absent if past.holds(name))
        but = f", but for {but}, which is absent" if but else ""
        removed = f"; what had been prepared was removed again{but}" if self.lock.begun else ""
        after["true"] = f"no host is changed{removed}"
        if held:  # another run's outage explains all else that was found
            raise by_another(self.hosts, self.hands.nodes, held, true=after["true"], again=after["next"][0])
        raise Refused(told, **after)

    def not_over(self, bare: Sequence[Target]) -> None:
        """Raises Held where the run was ended without this journal, Halted where only its directory is gone.

        Whoever finished it elsewhere has removed all that would tell this engine so: on hosts without the run's
        directory, the steps that this journal has as done are not.
        """
        if not bare:
            return
        views = ask_once(self.hosts, {n.name: self.procedure.swept(n) for n in bare})
        names = ", ".join(views)
        if len(bare) == len(self.hands.nodes) and all(view.verdict is Verdict.YES for view in views.values()):
            self.journal.append("closed", {"elsewhere": list(views)})
            why = f"{self.bound.run} was ended without this machine: nothing of it is left on {names}"
            raise Held(why, **self._situation())
        left = situation.objections({h: v for h, v in views.items() if v.verdict is not Verdict.YES})
        why = f"the directory of {self.bound.run} is gone from {names}; left there: {left if left else 'nothing'}"
        raise Halted(why, **situation.half_gone(replay(self.journal.lines), self.bound.run, list(views)))

    # Backward.

    def may_roll_back(self, nodes: Sequence[Target]) -> None:
        """Asked each time before anything is undone: raises Refused where a host says no, Halted where one is silent.

        A host that does not answer may hold a later run's data: nothing is undone on a guess. Where all that is amiss
        is old data that is not where it was put, a person can mend that: Halted, with what to type there.
        """
        views = ask_once(self.hosts, {n.name: self.procedure.may_roll_back(n) for n in nodes})
        noes = [n for n in nodes if views[n.name].verdict is Verdict.NO]
        kept = ask_once(self.hosts, {n.name: self.procedure.kept(n) for n in noes})
        gone = [n for n in noes if kept[n.name] == views[n.name]]  # what was told is just that, and nothing before it
        card = [line for n in gone for line in (f"as root on {n.name}:", *self.procedure.put_back(n))]
        mendable = len(gone) == len(noes)
        for verdict, kind in ((Verdict.NO, Halted if mendable else Refused), (Verdict.UNKNOWN, Halted)):
            seen = {host: view for host, view in views.items() if view.verdict is verdict}
            if seen:
                past, lost = replay(self.journal.lines), [n.name for n in gone] if mendable else []
                raise kind(
                    f"{self.bound.run} cannot be rolled back now: {situation.objections(seen)}",
                    **situation.not_back(past, self.bound.run, seen, lost),
                    by_hand=card if lost else (),
                )

    def backward(self, why: str) -> None:
        """Undo every step that has begun, the last first; returns when all are undone. Raises Halted."""
        if self.run.state == "rolled-back":
            self._pay_debts(patient=False, back=True)
            self._tidy()
            return
        self.lock.not_anothers()
        begun = [s for s in self.steps if s.state not in NOT_BEGUN]
        if any(s.step.phase is Phase.OUTAGE and s.state != "UNDONE" for s in begun):
            self.may_roll_back(self.hands.nodes)
        self.not_over(self.lock.claim())
        self.run.go("resume" if self.run.state == "stuck" else "rollback", why)
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
                reason = f"{current.step.title()}, undone: {situation.objections(current.views)}"
                self.run.go("stick", reason)
                if card := self._by_hand(current):
                    self.journal.append("card", {"lines": card})
                raise Halted(f"stuck while rolling back: {reason}", **self._situation(current.views), by_hand=card)
        self._tidy()
        self.run.go("undone")
        self._pay_debts(patient=True, back=True)
        self._tidy()

    def _tidy(self) -> None:
        """Where nothing had been stopped, nothing is kept: the run is removed at once, and closed.

        Not while an absent node still holds its part of it, a lock at least, which it gives back by this journal.
        """
        past = replay(self.journal.lines)
        served = any(s.step.phase is Phase.OUTAGE and s.state == "UNDONE" for s in self.steps)
        if not (served or past.closed or any(past.holds(name) for name in past.absent)):
            self.sweep()

    def _by_hand(self, current: StepRun) -> list[str]:
        """The manual card of each host that does not say yes; preparing can be undone by nothing but a rollback."""
        nodes = [n for n in self.hands.nodes if n.name in current.views and current.step.phase is Phase.OUTAGE]
        open_ = [n for n in nodes if current.views[n.name].verdict is not Verdict.YES]
        return [line for n in open_ for line in (f"as root on {n.name}:", *self.procedure.by_hand(n))]

    # The end.

    def sweep(self, *, accept: bool = False) -> None:
        """Remove what the run left on the hosts: its directory and its hidden children. Raises Halted.

        From the first removal on there is no way back, and the journal says so before it. ``accept``: a host that does
        not answer is taken for gone, and the run is closed without it.
        """
        past = replay(self.journal.lines)
        targets = self._to_sweep(past) if self.lock.begun else {}
        # first: what an engine elsewhere did is learned from this, and must still find a way back
        settled = self.hands.claim(list(targets), self.plan.timeouts.restore) if targets else {}
        self.journal.append("finishing")
        results = self._removed(past, targets, settled) if targets else {}
        left = {host: result.tail() or f"exit code {result.code}" for host, result in results.items() if not result.ok}
        silent = [host for host in left if results[host].unknown]
        if left and not (accept and len(silent) == len(left)):
            after = self._situation()
            if len(silent) == len(left):
                after["next"] = (*after["next"], situation.closing_without(self.bound.run, silent))
            raise Halted(f"not everything could be removed: {'; '.join(together(left.items()))}", **after)
        owing = [] if past.closed else [name for name in past.absent if past.holds(name)]
        without = dict.fromkeys(owing, "absent") | left
        self.journal.append("closed", {"without": without} if without else {})

    def _to_sweep(self, past: Replay) -> dict[str, Target]:
        """The hosts that hold something of the run; who has come back takes part. Of a closed run those it left out."""
        names = past.left if past.closed else [n.name for n in self.plan.nodes if n.name not in past.absent]
        nodes = [Target(self.plan, self.bound, n) for n in self.plan.nodes if n.name in names]
        return {n.name: n for n in (*nodes, *(() if past.closed else self._touched_workers()))}

    def _removed(self, past: Replay, targets: Mapping[str, Target], settled: Mapping[str, Result]) -> dict[str, Result]:
        """Each host's answer, where nothing of the run is at work any more.

        Of a run that was closed without hosts, what is left there goes, and its lock with it.
        """
        free = {h: n for h, n in targets.items() if settled[h].ok and not (past.closed and h in self.hands.bare)}
        undo = self.procedure.lock.undo
        locks = {h: u for h, n in free.items() if past.closed and not isinstance(u := undo(n), Irreversible)}
        todo = {h: [*locks.get(h, ()), *self.procedure.sweep(n)] for h, n in free.items()}
        return {**settled, **self.hands.carry_out(self.procedure.lock, todo, "sweep")}

    def _touched_workers(self) -> Sequence[Target]:
        begun = any(s.step.on is Scope.WORKERS and s.state != "PENDING" for s in self.steps)
        return self.hands.workers if begun else ()

    # What the run's state machine asks for (lifecycle.Recorder).

    def record_run(self, source: str, dest: str, why: str) -> None:
        """One line for each row of the run's table; where the engine ends, the hosts get it too."""
        self.journal.append("state", {"from": source, "to": dest, "why": why})
        if dest in ENDS and self.lock.begun:
            self.copies.share()

    def prepared_everywhere(self) -> bool:
        """The barrier: every prepare step is done on every host."""
        return all(s.state in FINISHED for s in self.steps if s.step.phase is Phase.PREPARE)

    def _situation(self, views: Views | None = None) -> situation.Sentences:
        return situation.describe(replay(self.journal.lines), self.bound.run, views or {})

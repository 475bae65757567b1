"""Forward and backward through the steps: the one engine that carries a procedure out.

It holds no knowledge of etcd. What to do stands in the steps, what was intended in the journal, what is true on the
hosts; the state tables decide. It can be killed at any line and started again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runbook import situation
from runbook.asking import Clock, ask_once, ask_until
from runbook.checks import Finding, Severity
from runbook.checks.survey import inspect
from runbook.errors import NOTE, Halted, Held, Refused, Unverified
from runbook.facts import once, together
from runbook.findings import decisive, in_the_way, reason
from runbook.held import by_another
from runbook.journal import Journal
from runbook.lifecycle import FINISHED, READY, RunState, StepRun, Verdict, View, Views
from runbook.plan import Plan
from runbook.procedure import Procedure, words
from runbook.replay import PREPARING_FAILED, replay
from runbook.step import Action, Binding, Irreversible, Phase, Result, Scope, Step, Target
from runbook.transport import Hosts

SUPERSEDED = 97
"""What a host answers to an engine whose epoch is not the newest (``transport.Hosts``)."""


class Engine:
    """One run being carried out by this process, which holds the run's directory."""

    def __init__(
        self, plan: Plan, bound: Binding, procedure: Procedure, hosts: Hosts, journal: Journal, clock: Clock
    ) -> None:
        self.plan, self.bound, self.procedure = plan, bound, procedure
        self.hosts, self.journal, self.clock = hosts, journal, clock
        self.nodes = tuple(Target(plan, bound, node) for node in plan.nodes)
        self.workers = tuple(Target(plan, bound, worker) for worker in plan.workers)
        past = replay(journal.lines)
        self.run = RunState(self, past.state, past.halted_from)
        self.steps = [StepRun(step, self, past.steps.get(step.id(), "PENDING")) for step in procedure.steps]
        self.trouble: dict[str, View] = {}
        self.unsettled: set[str] = set()
        self.findings: list[Finding] = []

    # Forward.

    def forward(self) -> None:
        """From wherever the run stands to its end; returns when it is complete.

        Raises Refused or Held (preparing failed and was undone), Halted, Unverified.
        """
        if self.run.state == "complete":
            return
        self.not_anothers()
        if self.run.state in ("halted", "unverified"):
            self.run.go("resume")
        self._hold()
        doubts: list[str] = []  # a worker that is lost keeps no restored control plane from its checks
        for current in self.steps:
            if current.state in FINISHED:
                continue
            self._enter(current.step.phase)
            if current.state != "PENDING":
                current.resume()
            while current.state in ("PENDING", "ACTING"):
                current.proceed()
            if current.state not in FINISHED and current.step.on is Scope.WORKERS:
                doubts.append(f"{current.step.title()}: {situation.objections(current.views)}")
            elif current.state not in FINISHED:
                self._stopped_at(current)
        kept = self.release()
        if doubts:
            self._doubt("; ".join(doubts), "; ".join(doubts), kept)
        if kept:
            self.run.go("halt", kept)
            raise Halted(f"restored and verified, but {kept}", **self._situation())
        self.run.go("complete")

    def _enter(self, phase: Phase) -> None:
        if phase is Phase.PREPARE and self.run.state == "planned":
            self.run.go("prepare")
        if phase is Phase.OUTAGE and self.run.state == "preparing":
            self.run.go("cut")
            if self.run.state != "outage":
                raise Halted("the barrier holds: not every prepare step is done on every host", **self._situation())
        if phase is Phase.VERIFY and self.run.state == "outage":
            self.run.go("verify")

    def _stopped_at(self, current: StepRun) -> None:
        why = f"{current.step.title()}: {situation.objections(current.views)}"
        says_no = any(view.verdict is Verdict.NO for view in current.views.values())
        if current.step.phase is Phase.PREPARE and says_no:
            self._undo_preparing(why, self._told(current, why))
        if current.step.phase is Phase.VERIFY and current.state == "FAILED":
            self._doubt(why, self._told(current, why), self.release())
        self.run.go("halt", why)
        raise Halted(f"halted: {why}", **self._situation(current.views))

    def _told(self, current: StepRun, why: str) -> str:
        """Why a step ended as it did, for people: of checks what they found, and what to do about it."""
        return reason("the checks say no", in_the_way(self.findings)) if current.step.checks else why

    def _doubt(self, why: str, told: str, kept: str) -> None:
        self.run.go("doubt", f"{why}; {kept}" if kept else why)
        kept = f"\n{kept}" if kept else ""
        raise Unverified(f"restored and serving, but not verified: {told}{kept}", **self._situation())

    def _undo_preparing(self, why: str, told: str) -> None:
        held = {f.host: f.saw for f in self.findings if f.severity is Severity.HELD}
        held |= {h: v.saw for s in self.steps for h, v in s.views.items() if "names another run" in v.saw}
        self.backward(f"{PREPARING_FAILED}: {why}")
        after = self._situation()
        begun = next(s for s in self.steps if s.step is self.procedure.lock).state != "PENDING"
        after["true"] = f"no host is changed{'; what had been prepared was removed again' if begun else ''}"
        if held:  # another run's outage explains all else that was found
            raise by_another(self.hosts, self.nodes, held, true=after["true"], again=after["next"][0])
        raise Refused(told, **after)

    # Backward.

    def may_roll_back(self) -> None:
        """Asked each time before anything is undone: raises Refused where a host says no, Halted where one is silent.

        A host that does not answer may hold a later run's data: nothing is undone on a guess.
        """
        views = ask_once(self.hosts, {n.name: self.procedure.may_roll_back(n) for n in self.nodes})
        for verdict, kind in ((Verdict.NO, Refused), (Verdict.UNKNOWN, Halted)):
            seen = {host: view for host, view in views.items() if view.verdict is verdict}
            if seen:
                raise kind(
                    f"{self.bound.run} cannot be rolled back now: {situation.objections(seen)}",
                    **situation.not_back(replay(self.journal.lines), self.bound.run, seen),
                )

    def backward(self, why: str) -> None:
        """Undo every step that has begun, the last first; returns when all are undone. Raises Halted."""
        self.not_anothers()
        if any(s.step.phase is Phase.OUTAGE and s.state not in ("PENDING", "UNDONE") for s in self.steps):
            self.may_roll_back()
        self.run.go("resume" if self.run.state == "stuck" else "rollback", why)
        self._hold()
        begun = [s for s in self.steps if s.state != "PENDING"]
        for current in reversed(begun):
            if current.state == "UNDONE":
                continue
            if current.state in ("UNDOING", "STUCK"):
                current.resume()
            else:
                current.rollback()
            current.proceed()
            if current.state != "UNDONE":
                why = f"{current.step.title()}, undone: {situation.objections(current.views)}"
                self.run.go("stick", why)
                raise Halted(f"stuck while rolling back: {why}", **self._situation(current.views))
        if not any(s.step.phase is Phase.OUTAGE and s.state == "UNDONE" for s in self.steps):
            self.sweep()
        self.run.go("undone")

    # The lock, and the end.

    def _hold(self) -> None:
        """Claim the hosts for this engine, and lock them again where the lock step had already been done.

        A forgotten engine can change nothing from here on, and nothing that an earlier one began still runs.
        """
        lock = self.procedure.lock
        mine = next(s for s in self.steps if s.step is lock)
        if mine.state == "PENDING":
            return
        self._claim([n.name for n in self.nodes], self.plan.timeouts.restore)
        if mine.state not in FINISHED:
            return
        views = ask_once(self.hosts, {n.name: lock.done(n) for n in self.nodes})
        free = {n.name: n for n in self.nodes if views[n.name].verdict is Verdict.NO}
        if not free:
            return
        self._carry_out(lock, {name: lock.do(n) for name, n in free.items()}, "hold")
        views = ask_once(self.hosts, {name: lock.done(n) for name, n in free.items()})
        foreign = {h: v.saw for h, v in views.items() if v.verdict is Verdict.NO}
        if foreign:
            self._carry_out(lock, {name: _undo(lock, n) for name, n in free.items()}, "let-go")
            raise self._anothers(foreign)

    def not_anothers(self) -> None:
        """Before the run's state changes: raises Held where another run has a host."""
        lock = self.procedure.lock
        if next(s for s in self.steps if s.step is lock).state not in (*FINISHED, "UNDONE"):
            return  # this run never held them
        views = ask_once(self.hosts, {n.name: lock.done(n) for n in self.nodes})
        foreign = {h: v.saw for h, v in views.items() if "names another run" in v.saw}
        if foreign:
            raise self._anothers(foreign)

    def _anothers(self, foreign: Mapping[str, str]) -> Held:
        again = f"runbook status {self.bound.run}{NOTE}this run, which waits until then"
        return by_another(self.hosts, self.nodes, foreign, true="nothing was changed just now", again=again)

    def release(self) -> str:
        """Release the locks; says where that was not possible, "" where all are free."""
        lock = self.procedure.lock
        self._carry_out(lock, {n.name: _undo(lock, n) for n in self.nodes}, "release")
        views = ask_once(self.hosts, {n.name: lock.undone(n) for n in self.nodes})
        kept = [f"{host}: {view.saw}" for host, view in views.items() if view.verdict is not Verdict.YES]
        return f"the lock could not be released on {'; '.join(kept)}" if kept else ""

    def sweep(self) -> None:
        """Remove what the run left on the hosts: its directory and its hidden children. Raises Halted.

        From the first removal on there is no way back, and the journal says so before it.
        """
        self.journal.append("finishing")
        if next(s for s in self.steps if s.step is self.procedure.lock).state != "PENDING":
            targets = {n.name: n for n in (*self.nodes, *self._touched_workers())}
            settled = self._claim(list(targets), self.plan.timeouts.restore)
            todo = {h: self.procedure.sweep(n) for h, n in targets.items() if settled[h].ok}
            results = settled | self._carry_out(self.procedure.lock, todo, "sweep")
            left = {
                host: result.tail() or f"exit code {result.code}" for host, result in results.items() if not result.ok
            }
            if left:
                shown = "; ".join(together(left.items()))
                raise Halted(f"not everything could be removed: {shown}", **self._situation())
        self.journal.append("closed")

    def _touched_workers(self) -> Sequence[Target]:
        begun = any(s.step.on is Scope.WORKERS and s.state != "PENDING" for s in self.steps)
        return self.workers if begun else ()

    # What the state machines ask for (lifecycle.Crew).

    def targets(self, step: Step) -> tuple[Target, ...]:
        """The hosts on which a step acts."""
        by_scope = {Scope.ALL: self.nodes, Scope.FIRST: self.nodes[:1], Scope.WORKERS: self.workers}
        return by_scope[step.on]

    def observe(self, step: Step, state: str) -> Views:
        """What each host says now; waits where the step says so."""
        targets = self.targets(step)
        if state == "UNDOING":
            views = ask_until(self.hosts, {n.name: step.undone(n) for n in targets}, self.clock, set(self.trouble))
            return {h: self.trouble[h] if h in self.unsettled else self._with_trouble(h, v) for h, v in views.items()}
        if state == "PENDING":
            return dict.fromkeys((n.name for n in targets), READY) if step.checks else self._may_start(step, targets)
        if step.checks:
            return self._inspect(step)
        views = ask_until(self.hosts, {n.name: step.done(n) for n in targets}, self.clock, set(self.trouble))
        return {h: self._with_trouble(h, view) for h, view in views.items()}

    def _may_start(self, step: Step, targets: Sequence[Target]) -> Views:
        views = ask_once(self.hosts, {n.name: step.done(n) for n in targets})
        open_ = {n.name: step.ready(n) for n in targets if views[n.name].verdict is Verdict.NO}
        ready = ask_until(self.hosts, open_, self.clock)
        return views | {h: READY if view.verdict is Verdict.YES else view for h, view in ready.items()}

    def _with_trouble(self, host: str, view: View) -> View:
        """A host that is not done, with what its command said, which is the better reason."""
        if view.verdict is Verdict.YES or host not in self.trouble:
            return view
        trouble = self.trouble[host]
        verdict = Verdict.UNKNOWN if Verdict.UNKNOWN in (view.verdict, trouble.verdict) else Verdict.NO
        return View(verdict, once(view.saw, trouble.saw))

    def _inspect(self, step: Step) -> Views:
        targets = (*self.nodes, *self.workers)
        self.findings = decisive(inspect(step.checks, self.plan, self.bound, self.hosts, targets, self.clock))
        for f in self.findings:
            if f.severity is not Severity.OK:
                found = {"check": f.check, "severity": f.severity, "saw": f.saw, "do": f.do}
                self.journal.append("finding", found, step=step.id(), host=f.host)
        views: dict[str, View] = {n.name: View(Verdict.YES) for n in targets}
        for f in self.findings:
            if f.severity in (Severity.BLOCKS, Severity.HELD):
                before = views.get(f.host)
                views[f.host] = View(Verdict.NO, once(before.saw if before else "", f.saw))
        return views

    def act(self, step: Step) -> None:
        """Settle first; then act where the host says that it is not done, and nowhere else."""
        targets = {n.name: n for n in self.targets(step)}
        todo = {name: list(step.do(n)) for name, n in targets.items()}
        self.trouble, self.unsettled = {}, set()
        if not any(todo.values()):
            return
        settled = self._settle(todo)
        views = ask_once(self.hosts, {name: step.done(targets[name]) for name in settled})
        turns = {name: todo[name] for name, v in views.items() if v.verdict is Verdict.NO}
        if not any(step.turn(targets[name]).questions for name in turns):
            self._carry_out(step, turns, "do")
            return
        for name, actions in turns.items():
            result = self._carry_out(step, {name: actions}, "do")[name]
            if result.ok and name != list(turns)[-1]:
                ask_until(self.hosts, {name: step.turn(targets[name])}, self.clock)

    def undo(self, step: Step) -> None:
        """Settle first; then undo on every host."""
        todo: dict[str, Sequence[Action]] = {}
        self.trouble, self.unsettled = {}, set()
        for n in self.targets(step):
            undo = step.undo(n)
            if isinstance(undo, Irreversible):
                self.trouble[n.name] = View(Verdict.NO, f"cannot be undone: {undo.why}")
            elif undo:
                todo[n.name] = undo
        settled = self._settle(todo)
        self._carry_out(step, {name: todo[name] for name in settled}, "undo")

    def _settle(self, todo: Mapping[str, Sequence[Action]]) -> list[str]:
        """Wait for what an earlier engine may have left running; the hosts where nothing runs any more."""
        if not todo:
            return []
        longest = max((a.timeout for actions in todo.values() for a in actions), default=0.0)
        results = self._claim(list(todo), longest + 30)
        for host, result in results.items():
            if not result.ok:
                verdict = Verdict.UNKNOWN if result.unknown else Verdict.NO
                self.trouble[host] = View(verdict, result.tail() or f"could not settle ({result.code})")
                self.unsettled.add(host)
        return [host for host, result in results.items() if result.ok]

    def _claim(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        """Settle, for this engine's epoch. Raises Held where a newer engine has the run."""
        results = self.hosts.settle(hosts, wait)
        self._superseded(results)
        return results

    def _superseded(self, results: Mapping[str, Result]) -> None:
        """A forgotten engine gives up at once: nothing that it saw tells what the newer one does."""
        newer = [host for host, result in results.items() if result.code == SUPERSEDED]
        if newer:
            raise Held(
                f"a newer engine has taken this run over, on {', '.join(newer)}",
                true="this engine changes nothing any more",
                means="the run goes on, or has ended, without it",
                next=(f"runbook status {self.bound.run}",),
            )

    def _carry_out(self, step: Step, actions: Mapping[str, Sequence[Action]], what: str) -> dict[str, Result]:
        if not actions:
            return {}
        key = f"{step.id()}.{what}.{self.journal.epoch}.{len(self.journal.lines)}"
        results = self.hosts.act(actions, key, _Witness(self.journal, step.id()))
        for host, result in results.items():
            if not result.ok:
                verdict = Verdict.UNKNOWN if result.unknown else Verdict.NO
                self.trouble[host] = View(verdict, result.tail() or f"exit code {result.code}")
        self._superseded(results)
        return results

    def record_step(self, step: Step, source: str, dest: str, trigger: str, views: Views) -> None:
        """One line for each row of the step's table."""
        saw = {h: f"{v.verdict}: {v.saw}" if v.saw else str(v.verdict) for h, v in views.items()}
        self.journal.append("step", {"from": source, "to": dest, "trigger": trigger, "saw": saw}, step=step.id())

    def record_run(self, source: str, dest: str, why: str) -> None:
        """One line for each row of the run's table."""
        self.journal.append("state", {"from": source, "to": dest, "why": why})

    def prepared_everywhere(self) -> bool:
        """The barrier: every prepare step is done on every host."""
        return all(s.state in FINISHED for s in self.steps if s.step.phase is Phase.PREPARE)

    def _situation(self, views: Views | None = None) -> situation.Sentences:
        return situation.describe(replay(self.journal.lines), self.bound.run, views or {})


class _Witness:
    """Writes each action into the journal, before and after."""

    def __init__(self, journal: Journal, step: str) -> None:
        self.journal, self.step = journal, step

    def begins(self, host: str, key: str, action: Action) -> None:
        """The line that announces the action; where it cannot be written, the action is not begun."""
        self.journal.append("begin", {"key": key, "action": words(action)}, step=self.step, host=host)

    def ended(self, host: str, key: str, action: Action, result: Result) -> None:
        """How it ended, and the last of what it said where it failed."""
        said = {} if result.ok else {"said": result.tail()}
        self.journal.append("end", {"key": key, "code": result.code, **said}, step=self.step, host=host)


def _undo(step: Step, n: Target) -> Sequence[Action]:
    undo = step.undo(n)
    return () if isinstance(undo, Irreversible) else undo

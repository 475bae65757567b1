"""What the engine does to the hosts for one step, and asks of them: probes, actions, what an earlier engine left.

It decides nothing: the state tables do, by the views that it gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from runbook import evidence, situation
from runbook.asking import Clock, ask_before, ask_once, ask_until
from runbook.checks import Finding, Severity, all_checks
from runbook.checks.survey import inspect
from runbook.copies import Copies
from runbook.errors import Halted, Held
from runbook.facts import once, together
from runbook.findings import decisive, telling
from runbook.held import adoption
from runbook.journal import Journal
from runbook.lifecycle import READY, Verdict, View, Views
from runbook.plan import Plan
from runbook.procedure import words
from runbook.replay import replay
from runbook.step import Action, Binding, Command, Irreversible, Probe, Result, Scope, Step, Target
from runbook.transport import RunHosts

NO_DIRECTORY, SUPERSEDED = 95, 97
"""What a host answers where it has no directory of the run, and to an engine whose epoch is not the newest
(``transport.Hosts``)."""
FRESH = 2.0
"""Seconds for which a postcondition that was seen stands for the same precondition of the next step."""


class Hands:
    """The hosts of one run; fulfils :class:`runbook.lifecycle.Crew`.

    ``trouble`` is what the last step's commands said where they failed, by host; ``unsettled`` are the hosts where
    something of this run may still be running; ``calm`` are those where nothing of it can be: this engine settled
    there, and knows how everything ended that it began since; ``bare`` those that had no directory of the run when they
    were last claimed. Of the nodes, those that take part: all but the absent
    ones, or the one that is back (``bound.joining``).
    """

    def __init__(
        self,
        plan: Plan,
        bound: Binding,
        hosts: RunHosts,
        journal: Journal,
        clock: Clock,
        copies: Copies,
        steps: Sequence[Step] = (),
    ) -> None:
        self.plan, self.steps = plan, steps
        self.hosts, self.journal, self.clock, self.copies = hosts, journal, clock, copies
        self.bind(bound)
        self.trouble: dict[str, View] = {}
        self.unsettled: set[str] = set()
        self.calm: set[str] = set()
        self.bare: frozenset[str] = frozenset()
        self.findings: list[Finding] = []
        self.shown = Shown(clock)
        self.open = Open(clock)

    def bind(self, bound: Binding) -> None:
        """From now on the steps are given this binding."""
        self.bound = bound
        everyone = tuple(Target(self.plan, bound, node) for node in self.plan.nodes)
        if bound.joining:
            self.nodes = tuple(n for n in everyone if n.name == bound.joining)
        else:
            self.nodes = tuple(n for n in everyone if n.name not in bound.absent)
        self.workers = () if bound.joining else tuple(Target(self.plan, bound, worker) for worker in self.plan.workers)

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
        probes = {n.name: step.done(n) for n in targets}
        at: dict[str, float] = {}
        views = ask_until(self.hosts, probes, self.clock, set(self.trouble), at)
        self.shown.keep({h: probes[h] for h, view in views.items() if view.verdict is Verdict.YES}, at)
        clues = self._clues({n.name: step.clue(n) for n in targets if views[n.name].verdict is Verdict.NO})
        return {h: self._with_trouble(h, view, clues.get(h, "")) for h, view in views.items()}

    def _clues(self, probes: Mapping[str, Probe]) -> dict[str, str]:
        """What hosts that say no can tell of why; a host that falls silent at that has still said no."""
        told = ask_once(self.hosts, {h: p for h, p in probes.items() if p.questions})
        return {h: view.saw for h, view in told.items() if view.verdict is Verdict.NO}

    def _may_start(self, step: Step, targets: Sequence[Target]) -> Views:
        ready = {n.name: self.shown.rest(n.name, step.ready(n)) for n in targets}
        views, may = ask_before(self.hosts, {n.name: step.done(n) for n in targets}, ready)
        open_ = [h for h, view in views.items() if view.verdict is Verdict.NO]
        self.open.keep(step, [h for h in open_ if h in self.calm])
        may |= ask_until(self.hosts, {h: ready[h] for h in open_ if h not in may}, self.clock)
        return views | {h: READY if view.verdict is Verdict.YES else view for h, view in may.items()}

    def _with_trouble(self, host: str, view: View, clue: str = "") -> View:
        """A host that is not done, with what it can tell of why, and what its command said, the better reason."""
        if clue:
            view = View(view.verdict, once(view.saw, clue))
        if view.verdict is Verdict.YES or host not in self.trouble:
            return view
        trouble = self.trouble[host]
        verdict = Verdict.UNKNOWN if Verdict.UNKNOWN in (view.verdict, trouble.verdict) else Verdict.NO
        return View(verdict, once(view.saw, trouble.saw))

    def _inspect(self, step: Step) -> Views:
        targets = (*self.nodes, *self.workers)
        self.findings = decisive(inspect(step.checks, self.plan, self.bound, self.hosts, targets, self.clock))
        worth = telling()
        for f in self.findings:
            if f.severity is not Severity.OK or f.check in worth:
                found = {"check": f.check, "severity": f.severity, "saw": f.saw, "do": f.do}
                self.journal.append("finding", found, step=step.id(), host=f.host)
        views: dict[str, View] = {n.name: View(Verdict.YES) for n in targets}
        for f in self.findings:
            if f.severity in (Severity.BLOCKS, Severity.HELD):
                before = views.get(f.host)
                views[f.host] = View(Verdict.NO, once(before.saw if before else "", f.saw))
        return views

    def look(self, group: str, targets: Sequence[Target]) -> list[Finding]:
        """What the checks of a group find now, but for those that only the beginning decides (``Check.at_first``)."""
        asked = [check for check in all_checks(group) if not check.at_first and check.applies(self.plan)]
        bound = replace(self.bound, joining="")  # it is one of them, to be asked and to be counted
        return decisive(inspect(group, self.plan, bound, self.hosts, targets, self.clock, asked))

    def act(self, step: Step) -> None:
        """Settle first; then act where the host says that it is not done, and nowhere else."""
        targets = {n.name: n for n in self.targets(step)}
        todo = {name: list(step.do(n)) for name, n in targets.items()}
        self.trouble, self.unsettled = {}, set()
        if not any(todo.values()):
            return
        known = self.open.hosts(step)
        settled = self._settle(todo)
        asked = ask_once(self.hosts, {name: step.done(targets[name]) for name in settled if name not in known})
        open_ = {h: todo[h] for h in settled if h in known or asked[h].verdict is Verdict.NO}
        self._in_turns(step, open_, "do", {name: step.turn(targets[name]) for name in open_})

    def _in_turns(
        self, step: Step, todo: Mapping[str, Sequence[Action]], what: str, turns: Mapping[str, Probe]
    ) -> None:
        """All hosts at once; or one after the other, each as soon as the one before shows that it is on its way."""
        if not any(turn.questions for turn in turns.values()):
            self.carry_out(step, todo, what)
            return
        for name, actions in todo.items():
            result = self.carry_out(step, {name: actions}, what)[name]
            if result.ok and name != list(todo)[-1]:
                ask_until(self.hosts, {name: turns[name]}, self.clock)

    def undo(self, step: Step) -> None:
        """Settle first; then undo on every host."""
        todo: dict[str, Sequence[Action]] = {}
        turns: dict[str, Probe] = {}
        self.trouble, self.unsettled = {}, set()
        for n in self.targets(step):
            undo = step.undo(n)
            if isinstance(undo, Irreversible):
                self.trouble[n.name] = View(Verdict.NO, f"cannot be undone: {undo.why}")
            elif undo:
                todo[n.name], turns[n.name] = undo, step.turn_back(n)
        settled = self._settle(todo)
        self._in_turns(step, {name: todo[name] for name in settled}, "undo", {name: turns[name] for name in settled})

    def _settle(self, todo: Mapping[str, Sequence[Action]]) -> list[str]:
        """Wait for what an earlier engine, or a lost session, may have left running; the hosts where nothing runs."""
        restless = [host for host in todo if host not in self.calm]
        if not restless:
            return list(todo)
        longest = max((a.timeout for actions in todo.values() for a in actions), default=0.0)
        results = self.claim(restless, longest + 30)
        for host, result in results.items():
            if not result.ok:
                verdict = Verdict.UNKNOWN if result.unknown else Verdict.NO
                self.trouble[host] = View(verdict, result.tail() or f"could not settle ({result.code})")
                self.unsettled.add(host)
        return [host for host in todo if host in self.calm]

    def claim(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        """Settle, for this engine's epoch.

        Raises Held where a newer engine has the run, Halted where another one went on with it: what that has begun is
        in the journal then, and whoever goes on is told of it first.
        """
        results = self.hosts.settle(hosts, wait)
        self.bare = frozenset(host for host, result in results.items() if result.code == NO_DIRECTORY)
        results |= dict.fromkeys(self.bare, Result(0))  # where there is none, nothing of the run can be running
        settled = {host for host, result in results.items() if result.ok}
        self.calm = (self.calm - set(hosts)) | settled
        self.copies.deaf -= settled
        self._superseded(results)
        self._learn({host: results[host].out.split() for host in settled})
        return results

    def _learn(self, commands: Mapping[str, Sequence[str]]) -> None:
        """What another engine has begun, by the ``commands`` of each host, goes into the journal; Halted where it did.

        It may have got on with hosts that an adoption did not reach, and a rollback takes back what the journal knows.
        """
        past = replay(self.journal.lines)
        told = evidence.gather(commands, past, self.steps)
        unknown = evidence.lines(told, past, self.steps)
        for line in unknown:
            self.journal.append(line.event, line.fields, step=line.step)
        for line in evidence.records(commands, replay(self.journal.lines)):
            self.journal.append(line.event, line.fields, step=line.step, host=line.host)
        if not unknown:
            return
        after = situation.describe(replay(self.journal.lines), self.bound.run)
        after["means"] = f"another engine went on with this run, and can no more; {after['means']}"
        raise Halted("; ".join(told.told()), **after)

    def _superseded(self, results: Mapping[str, Result]) -> None:
        """A forgotten engine gives up at once: nothing that it saw tells what the newer one does."""
        newer = {host: result.tail() for host, result in results.items() if result.code == SUPERSEDED}
        if newer:
            said, run = "; ".join(together(newer.items())), self.bound.run
            back = adoption(Target(self.plan, self.bound, self.plan.node(next(iter(newer)))).place, run)
            self.journal.append("superseded", {"said": said, "adopt": back})  # `status` here must not call it to resume
            raise Held(
                f"a newer engine has taken this run over: {said}",
                true="this engine changes nothing any more",
                means=situation.SUPERSEDED,
                next=situation.superseded(back, run),
            )

    def carry_out(self, step: Step, actions: Mapping[str, Sequence[Action]], what: str) -> dict[str, Result]:
        """Carry actions out, journalled; a host's failure is its trouble. Raises Held for a forgotten engine."""
        if not actions:
            return {}
        self.shown.forget()
        self._superseded(self.copies.share())
        key = f"{step.id()}.{what}.{self.journal.epoch}.{len(self.journal.lines)}"
        results = self.hosts.act(actions, key, _Witness(self.journal, step.id(), self.calm))
        for host, result in results.items():
            if result.ok:
                self.copies.deaf.discard(host)
            else:
                self.calm.discard(host)
                verdict = Verdict.UNKNOWN if result.unknown else Verdict.NO
                self.trouble[host] = View(verdict, result.tail() or f"exit code {result.code}")
        self._superseded(results)
        return results

    def record_step(self, step: Step, source: str, dest: str, trigger: str, views: Views) -> None:
        """One line for each row of the step's table."""
        saw = {h: f"{v.verdict}: {v.saw}" if v.saw else str(v.verdict) for h, v in views.items()}
        joining = {"joining": self.bound.joining} if self.bound.joining else {}
        said = {"from": source, "to": dest, "trigger": trigger, "saw": saw, **joining}
        self.journal.append("step", said, step=step.id())


class Shown:
    """What each host has just shown as the postcondition of a step: the next step's precondition need not ask it again.

    It is the same question, so it has the same answer a moment later, as long as nothing was done in between; to ask
    for the hashes of all members, or of the snapshot, once more costs seconds of an outage.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at: Mapping[str, float] = {}
        self.seen: dict[str, set[tuple[str, Command]]] = {}

    def keep(self, probes: Mapping[str, Probe], at: Mapping[str, float]) -> None:
        """These hosts have said yes to these probes, at that time each."""
        self.at = at
        self.seen = {host: {(q.says, q.ask) for q in probe.questions} for host, probe in probes.items()}

    def rest(self, host: str, probe: Probe) -> Probe:
        """The probe without what the host has just shown."""
        if host not in self.seen or self.clock.monotonic() - self.at[host] > FRESH:
            return probe
        return replace(probe, questions=tuple(q for q in probe.questions if (q.says, q.ask) not in self.seen[host]))

    def forget(self) -> None:
        """Something is about to be done, so that nothing is known any more."""
        self.seen = {}


class Open:
    """The hosts that said a moment ago that a step is not done there, and where nothing runs that could do it."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.at, self.step, self.seen = clock, 0.0, "", frozenset[str]()

    def keep(self, step: Step, hosts: Sequence[str]) -> None:
        """These hosts have just said so."""
        self.at, self.step, self.seen = self.clock.monotonic(), step.id(), frozenset(hosts)

    def hosts(self, step: Step) -> frozenset[str]:
        """Those that need not be asked again."""
        fresh = self.step == step.id() and self.clock.monotonic() - self.at <= FRESH
        return self.seen if fresh else frozenset()


class _Witness:
    """Writes each action into the journal, before and after. Where nobody saw one's end, the host is not calm."""

    def __init__(self, journal: Journal, step: str, calm: set[str]) -> None:
        self.journal, self.step, self.calm = journal, step, calm

    def begins(self, host: str, key: str, action: Action) -> None:
        """The line that announces the action; where it cannot be written, the action is not begun."""
        self.journal.append("begin", {"key": key, "action": words(action)}, step=self.step, host=host)

    def ended(self, host: str, key: str, action: Action, result: Result) -> None:
        """How it ended, and the last of what it said where it failed."""
        if result.unknown:  # also an optional one's, which ends no sequence: it may run still
            self.calm.discard(host)
        said = {} if result.ok else {"said": result.tail()}
        self.journal.append("end", {"key": key, "code": result.code, **said}, step=self.step, host=host)

    def lost(self, host: str, key: str, why: str) -> None:
        """A word for whoever watches: the host is being looked for."""
        self.journal.append("lost", {"key": key, "said": why}, step=self.step, host=host)

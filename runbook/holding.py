"""The hosts' locks as the engine holds them: one run at a time, also where an engine forgot to let go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runbook.asking import ask_once
from runbook.errors import NOTE, Held
from runbook.hands import Hands
from runbook.held import by_another
from runbook.lifecycle import FINISHED, StepRun, Verdict
from runbook.step import Action, Irreversible, Step, Target


class Holding:
    """The lock step of a run, beyond its own time."""

    def __init__(self, run: StepRun, hands: Hands) -> None:
        self.run, self.step, self.hands = run, run.step, hands

    @property
    def begun(self) -> bool:
        """Whether this run ever tried to lock a host, and so may have left something there."""
        return self.run.state != "PENDING"

    def claim(self) -> list[Target]:
        """Claim the hosts for this engine, before its journal says that the run goes on, or back.

        Returns the hosts that this run had locked, and that have no directory of it any more. A forgotten engine can
        change nothing from here on, and nothing that an earlier one began still runs.
        Raises Held where a newer engine has the run: then nothing is written that it could contradict.
        """
        if not self.begun:
            return []
        self.hands.claim([n.name for n in self.hands.nodes], self.hands.plan.timeouts.restore)
        return [n for n in self.hands.nodes if n.name in self.hands.bare and self.run.state in FINISHED]

    def hold(self) -> None:
        """Lock the hosts again where the lock step had already been done. Raises Held where another run has one."""
        nodes = self.hands.nodes
        if self.run.state not in FINISHED:
            return
        views = ask_once(self.hands.hosts, {n.name: self.step.done(n) for n in nodes})
        free = {n.name: n for n in nodes if views[n.name].verdict is Verdict.NO}
        if not free:
            return
        self.hands.carry_out(self.step, {name: self.step.do(n) for name, n in free.items()}, "hold")
        views = ask_once(self.hands.hosts, {name: self.step.done(n) for name, n in free.items()})
        foreign = {h: v.saw for h, v in views.items() if v.verdict is Verdict.NO}
        if foreign:
            self.hands.carry_out(self.step, {name: _undo(self.step, n) for name, n in free.items()}, "let-go")
            raise self.anothers(foreign)

    def not_anothers(self) -> None:
        """Before the run's state changes: raises Held where another run has a host."""
        if self.run.state not in (*FINISHED, "UNDONE"):
            return  # this run never held them
        views = ask_once(self.hands.hosts, {n.name: self.step.done(n) for n in self.hands.nodes})
        foreign = {h: v.saw for h, v in views.items() if "names another run" in v.saw}
        if foreign:
            raise self.anothers(foreign)

    def anothers(self, foreign: Mapping[str, str]) -> Held:
        """The error where another run has a host; nothing was changed."""
        again = f"runbook status {self.hands.bound.run}{NOTE}this run, which waits until then"
        return by_another(self.hands.hosts, self.hands.nodes, foreign, true="nothing was changed just now", again=again)

    def release(self) -> str:
        """Release the locks; says where that was not possible, "" where all are free."""
        nodes = self.hands.nodes
        self.hands.carry_out(self.step, {n.name: _undo(self.step, n) for n in nodes}, "release")
        views = ask_once(self.hands.hosts, {n.name: self.step.undone(n) for n in nodes})
        kept = [f"{host}: {view.saw}" for host, view in views.items() if view.verdict is not Verdict.YES]
        return f"the lock could not be released on {'; '.join(kept)}" if kept else ""


def _undo(step: Step, n: Target) -> Sequence[Action]:
    undo = step.undo(n)
    return () if isinstance(undo, Irreversible) else undo

"""A lab that walks through the procedure: forward and backward, step by step, over real SSH.

Each test finds the lab where it wants it, and leaves it there; whatever a step changed must be as it was, to the byte,
once it is undone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runbook.lab import Lab
from runbook.lab.errors import LabError
from runbook.lifecycle import Verdict
from runbook.plan import Plan, Timeouts
from runbook.procedures.kubeadm import STEPS, RestoreAside, SwapData
from runbook.step import Action, Probe, Scope, Step, Target
from tests.lab.conftest import NAME, eventually
from tests.lab.proofkit import DATA, ETCDCTL, MANIFESTS, OWN, Rig, on_all, plan_of, said, sh, succeeded

FORWARD = tuple(step for step in STEPS if not step.checks)
"""The steps that act; the checks have tests of their own."""


def index_of(kind: type[Step]) -> int:
    """Where in FORWARD a step stands."""
    return next(i for i, step in enumerate(FORWARD) if type(step) is kind)


def manifests_of(lab: Lab, host: str) -> str:
    """Name, mode, owner, time and content of each file that is or could become a manifest."""
    script = f"cd {MANIFESTS}; for f in $(ls -A); do stat -c '%n %a %u:%g %Y' $f; sha256sum $f; done"
    return sh(lab, host, script)


def data_of(lab: Lab, host: str) -> str:
    """Every file of etcd's data and WAL, hidden children of runs apart."""
    script = """for dir; do
  if [ -n "$dir" ]; then
    find "$dir" -mindepth 1 -name '.*' -prune -o -type f -exec sha256sum {} + -exec stat -c '%n %a %u:%g' {} +
    find "$dir" -mindepth 1 -name '.*' -prune -o -type d -exec stat -c '%n %a %u:%g' {} +
  fi
done | sort"""
    return sh(lab, host, script, DATA, lab.spec["wal_dir"])


def keys_of(lab: Lab, host: str) -> dict[str, Any]:
    """The revision, and every key with its value and revisions."""
    told: list[str] = []

    def answers() -> bool:
        with contextlib.suppress(LabError):  # it may only just have been started again
            told.append(sh(lab, host, '"$@"', *ETCDCTL, OWN, "get", "", "--from-key", "-w", "json"))
        return bool(told)

    eventually(f"etcd of {host} serves", answers)
    said = json.loads(told[0])
    return {"revision": said["header"]["revision"], "kvs": said["kvs"]}


class Walk:
    """One lab and where in the procedure it stands: FORWARD[at] is the next step.

    Before each step the hosts' state is noted, and once it is undone it must be the same again.
    """

    def __init__(self, lab: Lab, plan: Plan, name: str) -> None:
        self.lab, self.plan, self.name = lab, plan, name
        self.runs, self.at, self.spent = 0, 0, False
        self.scenes: dict[int, dict[str, Any]] = {}
        self.rig = self._new_run()

    def _new_run(self) -> Rig:
        self.runs += 1
        self.spent = False
        return Rig(self.lab, self.plan, f"{self.name}-20260409t140000z-{self.runs:04x}")

    def close(self) -> None:
        """Drop the connections."""
        self.rig.close()

    def targets(self, step: Step) -> tuple[Target, ...]:
        """The hosts of a step."""
        return self.rig.workers if step.on is Scope.WORKERS else self.rig.nodes

    def probes(self, word: Callable[[Target], Probe], step: Step) -> dict[str, Probe]:
        """A step's question to each of its hosts."""
        return {n.name: word(n) for n in self.targets(step)}

    def to(self, kind: type[Step]) -> Step:
        """Go where this step is the next, forward or backward."""
        goal = index_of(kind)
        if self.spent and goal > index_of(RestoreAside):
            self._back_to(0)  # an undone swap has put the restored data away: only another run restores again
            self.rig.close()
            self.rig = self._new_run()
        while self.at < goal:
            self.carry_out(FORWARD[self.at])
        self._back_to(goal)
        return FORWARD[goal]

    def _back_to(self, goal: int) -> None:
        while self.at > goal:
            self.take_back(FORWARD[self.at - 1])

    def carry_out(self, step: Step) -> None:
        """Do it on all its hosts, as the engine does, until all say that it is done."""
        self.scenes[self.at] = self.scene(step)
        self.do(step)
        said(self.rig.wait(self.probes(step.done, step)))
        self.at += 1

    def do(self, step: Step, *, turns: bool = True) -> None:
        """Its actions alone, in turn where the step says so."""
        self._act(step, "do", step.do, step.turn if turns else None)

    def _act(
        self,
        step: Step,
        what: str,
        actions: Callable[[Target], object],
        turn: Callable[[Target], Probe] | None,
    ) -> None:
        todo: dict[str, Sequence[Action]] = {}
        turns: dict[str, Probe] = {}
        for n in self.targets(step):
            mine = actions(n)
            assert isinstance(mine, Sequence)
            todo[n.name] = mine
            if turn and turn(n).questions:
                turns[n.name] = turn(n)
        for group in [[name] for name in todo] if turns else [list(todo)]:
            succeeded(self.rig.act({name: todo[name] for name in group}, f"{step.id()}.{what}"))
            self.rig.wait({name: probe for name, probe in turns.items() if name in group})

    def take_back(self, step: Step) -> None:
        """Undo it on all its hosts; then the hosts are as they were before it."""
        self.undo(step)
        said(self.rig.wait(self.probes(step.undone, step)))
        self.at -= 1
        self.spent = self.spent or isinstance(step, SwapData)
        assert self.scene(step) == self.scenes[self.at], f"{step.id()} was undone, and not all is as it was"

    def undo(self, step: Step, *, turns: bool = True) -> None:
        """What takes it back, alone, in turn where the step says so."""
        self._act(step, "undo", step.undo, step.turn_back if turns else None)

    def scene(self, step: Step) -> dict[str, Any]:
        """What must be the same before a step and after its undo, by host."""
        names = [n.name for n in self.rig.nodes]
        scene: dict[str, Any] = {"manifests": on_all(names, lambda host: manifests_of(self.lab, host))}
        if step.id() == "SwapData":
            scene["data"] = on_all(names, lambda host: data_of(self.lab, host))
        if step.id() == "StopEtcd":
            scene["keys"] = on_all(names, lambda host: keys_of(self.lab, host))
        return scene


@contextlib.contextmanager
def a_walk(name: str, tmp: Path) -> Iterator[Walk]:
    """Three nodes and a worker; the snapshot is of the lab's own past, and a key was written since."""
    lab = Lab.up(f"{NAME}-{name}", nodes=3, workers=1)
    walk = None
    try:
        lab.fill(objects=30)
        put(lab, "/test/key", "then")
        snapshot = lab.snapshot(tmp / "snapshot.db")
        put(lab, "/test/key", "now")
        walk = Walk(lab, plan_of(lab, snapshot, timeouts=Timeouts(stop=10)), name)
        yield walk
    finally:
        if walk is not None:
            walk.close()
        lab.down()


def single(lab: Lab, tmp: Path, **changes: object) -> Walk:
    """A walk on a lab of one node, whose living data is later than its snapshot."""
    lab.fill(objects=10)
    put(lab, "/test/key", "then")
    snapshot = lab.snapshot(tmp / "snapshot.db")
    put(lab, "/test/key", "now")
    return Walk(lab, plan_of(lab, snapshot, **changes), "single")


def put(lab: Lab, key: str, value: str) -> None:
    """Write a key, past the API server."""
    sh(lab, "m1", '"$@"', *ETCDCTL, OWN, "put", key, value)


def key(lab: Lab, host: str) -> str:
    """The key that the snapshot and the living data disagree on."""
    return sh(lab, host, '"$@"', *ETCDCTL, OWN, "get", "/test/key", "--print-value-only").strip()


def objected(walk: Walk, step: Step, what: str = "ready") -> dict[str, str]:
    """What each of a step's hosts objects to, asked once; "" where it says yes."""
    views = walk.rig.ask(walk.probes(getattr(step, what), step))
    assert all(v.verdict in (Verdict.YES, Verdict.NO) for v in views.values()), views
    assert all(bool(v.saw) == (v.verdict is Verdict.NO) for v in views.values()), views
    return {host: view.saw for host, view in views.items()}


def all_object(found: Mapping[str, str], *texts: str) -> None:
    """All hosts say no, with one of these words."""
    assert found
    assert all(any(text in saw for text in texts) for saw in found.values()), found

"""The crash sweep: something goes wrong at every moment of a run, and what comes after must end well.

A moment is each journal line, each question, and each place inside each command of each host where a crash would leave
another state behind. An undisturbed run is played once, and branches off (``fork``) at each moment into the cases that
have their accident there. Run as a program it prints the table of the complete sweep.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import runbook.hands
from runbook.replay import replay
from tests.fake.hosts import Fuse
from tests.fake.sessions import Life, plan
from tests.fake.world import MANIFEST

KINDS = ("engine", "laptop", "power", "blackout", "brownout", "silent")
WAYS = ("forward", "backward")


@dataclass(frozen=True)
class Case:
    """``kind``: see ``Fuse``. ``then``: ``forward`` or ``backward``. ``second``: the moment of a second accident.

    ``pace`` is the seed of an uneven schedule of the hosts; -1: all in step. ``meddle``: a manifest that somebody puts
    back on the second host by hand after the accident; then only what must never be is judged. ``broken``: etcd and the
    API servers are in a crash loop, on all hosts.
    """

    at: int
    kind: str
    then: str
    wal: bool = False
    nodes: int = 3
    pace: int = -1
    second: int = -1
    second_kind: str = "engine"
    meddle: str = ""
    broken: bool = False

    @property
    def forgetful(self) -> bool:
        """Whether a power cut took changes of names back."""
        return not {self.kind, self.second_kind}.isdisjoint({"blackout", "brownout"})

    @property
    def prefix(self) -> tuple[int, bool, int, bool]:
        """What the case has in common with others until its accident."""
        return self.nodes, self.wal, self.pace, self.broken

    def life(self) -> Life:
        """A new life for it."""
        return Life(plan(self.nodes, wal=self.wal), broken=self.broken)


def no_checks() -> None:
    """The checks have tests of their own; the fake answers only what the steps ask."""
    vars(runbook.hands)["inspect"] = lambda *_args, **_kwargs: []


def moments(*, wal: bool = False, nodes: int = 3, pace: int = -1, broken: bool = False) -> int:
    """How many moments an undisturbed run has."""
    no_checks()
    life = Life(plan(nodes, wal=wal), broken=broken)
    ended = life.session("forward", Fuse(seed=pace))
    if ended != "complete" or life.faults(restored=True):
        raise AssertionError(f"an undisturbed run ends with {ended}: {life.faults(restored=True)}")
    return life.moments


def judge(life: Life, case: Case, ended: str) -> list[str]:
    """What comes after the accident; what is wrong at the end, or [] where all is as it must be."""
    if case.meddle:
        return _meddled(life, case)
    if case.kind == "laptop" and not life.adopt():
        # nothing but locks: the journal goes to the hosts before anything else is done there
        held = [host.lineage() for name, host in life.world.hosts.items() if host.lineage() != f"old {name}"]
        return [*life.world.violations, *(f"no journal, and {lineage}" for lineage in held)]
    if life.state == "rolled-back":
        return [f"{ended}: {fault}" for fault in _ended(life, case, restored=False)]
    return (_forward if case.then == "forward" else _backward)(life, case, ended)


def _ended(life: Life, case: Case, *, restored: bool) -> list[str]:
    found = life.faults(restored=restored, tidy=not case.forgetful)
    return found or (life.after_finish() if case.forgetful else [])


def _forward(life: Life, case: Case, ended: str) -> list[str]:
    if life.state == "complete" and ended == "complete":
        return _ended(life, case, restored=True)
    if case.second >= 0 and life.state != "complete":
        life.session("forward", Fuse(case.second, case.second_kind))
    rolling = life.state in ("rolling-back", "stuck", "rolled-back")
    again = life.session("forward") if life.state not in ("rolled-back", "complete") else life.state
    if again != ("rolled-back" if rolling else "complete"):
        return [f"one resume did not suffice: {again}", *life.world.violations]
    return _ended(life, case, restored=not rolling)


def _backward(life: Life, case: Case, ended: str) -> list[str]:
    if case.second >= 0:
        life.session("backward", Fuse(case.second, case.second_kind))
    again = life.session("backward") if life.state != "rolled-back" else "rolled-back"
    if again != "rolled-back":
        return [f"rollback ended with {again}", *life.world.violations]
    return _ended(life, case, restored=False)


def _meddled(life: Life, case: Case) -> list[str]:
    host = life.world.hosts["m2"]
    while "m2" in life.world.jobs:
        job = life.world.jobs["m2"]
        job.step()
        if job.over:
            del life.world.jobs["m2"]
    path = f"{host.node.paths.manifests}/{case.meddle}"
    if not host.exists(path):
        host.put(path, MANIFEST.format(name=case.meddle))
        host.sync(path)
    ran = set(host.ran)
    host.reconcile()
    host.ran = ran
    life.world.violations.clear()  # what that hand did is not the run's doing
    begun = replay(life.lines).begun("SwapData")  # then each host takes care of itself alone; before it, of all
    life.session(case.then)
    return [v for v in life.world.violations if "of m2" in v and (v.startswith("m2: ") or not begun)]


def faults(case: Case) -> list[str]:
    """Play one case alone, from its beginning: for looking into a failure."""
    no_checks()
    life = case.life()
    return judge(life, case, life.session("forward", Fuse(case.at, case.kind, seed=case.pace)))


# Which cases there are.


def singles(
    stride: int = 1,
    kinds: Sequence[str] = KINDS,
    *,
    wal: bool = False,
    nodes: int = 3,
    pace: int = -1,
    start: int = 0,
    broken: bool = False,
) -> Iterator[Case]:
    """Every ``stride``-th moment, each kind of accident, both ways on."""
    for at in range(start, moments(wal=wal, nodes=nodes, pace=pace, broken=broken), stride):
        for kind, then in itertools.product(kinds, WAYS):
            yield Case(at, kind, then, wal, nodes, pace, broken=broken)


def doubles(count: int, seed: int, *, paces: int = 4) -> Iterator[Case]:
    """Two accidents of any kind: the second strikes while the engine resumes, or rolls back."""
    chance = random.Random(seed)  # noqa: S311 - which cases are tried, nothing secret
    totals = {pace: moments(wal=True, pace=pace) for pace in range(-1, paces - 1)}
    for _ in range(count):
        pace = chance.choice(list(totals))
        kind, then, second = chance.choice(KINDS), chance.choice(WAYS), chance.choice(KINDS)
        yield Case(chance.randrange(totals[pace]), kind, then, True, 3, pace, chance.randrange(700), second)


# Playing them.


class _Branching(Fuse):
    """Forks a child for each case whose moment has come; the child has the accident, the parent goes on without."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__(seed=cases[0].pace)
        self.todo: dict[int, list[Case]] = defaultdict(list)
        for case in cases:
            self.todo[case.at].append(case)
        self.case: Case | None = None
        self.last = max(self.todo)

    def burn(self, host: object = None) -> bool:
        for case in () if self.case else self.todo.get(self.count, ()):
            child = os.fork()
            if not child:
                self.case, self.at, self.kind = case, case.at, case.kind
                break
            os.waitpid(child, 0)
        if not self.case and self.count >= self.last:
            os._exit(0)
        return super().burn(host)  # type: ignore[arg-type]  # a FakeHost, as everywhere


def _work(ranges: Sequence[Sequence[Case]], pipe: int) -> None:
    """In a worker: play the ranges, each in a process of its own; never returns."""
    for cases in ranges:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        fuse, found = _Branching(cases), []
        try:
            life = cases[0].life()
            ended = life.session("forward", fuse)
            found = judge(life, fuse.case, ended) if fuse.case else ["the moment never came"]
        except BaseException:
            found = [f"the fake failed: {traceback.format_exc()[-1500:]}"]
        finally:
            text = json.dumps([str(fuse.case), [fault[:1500] for fault in found[:2]]])
            os.write(pipe, text.encode() + b"\n")
            os._exit(0)
    os._exit(0)


def _ranges(cases: Iterable[Case], parts: int) -> list[list[Case]]:
    """The cases of one prefix in their order, cut into about so many parts."""
    groups: dict[tuple[int, bool, int, bool], list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.prefix].append(case)
    found = []
    for group in groups.values():
        group.sort(key=lambda case: case.at)
        size = max(1, -(-len(group) // parts))
        found += [group[i : i + size] for i in range(0, len(group), size)]
    return found


def play(cases: Iterable[Case], before: Callable[[], object] = lambda: None) -> tuple[int, list[str]]:
    """All cases, on all cores; how many were played, and the first two faults of each that failed.

    ``before`` changes the program that is tried, in the workers only.
    """
    todo = list(cases)
    cores = os.cpu_count() or 1
    ranges = _ranges(todo, 4 * cores)
    reading, writing = os.pipe()
    workers = []
    for core in range(cores):
        child = os.fork()
        if child:
            workers.append(child)
            continue
        try:
            no_checks()
            before()
            _work(ranges[core::cores], writing)
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answers = [json.loads(line) for line in pipe]
    for worker in workers:
        os.waitpid(worker, 0)
    if len(answers) != len(todo):
        raise AssertionError(f"{len(answers)} of {len(todo)} cases have an answer")
    return len(answers), [f"{case}: {'; '.join(found)}" for case, found in answers if found]


def table(cases: Iterable[Case]) -> bool:
    """Play and print; whether all went well."""
    began = time.monotonic()
    number, failed = play(cases)
    print(f"{number} cases in {time.monotonic() - began:.0f} s, {len(failed)} failed")
    for text, times in Counter(failed).most_common(20):
        print(times, text)
    return not failed


if __name__ == "__main__":
    everything = itertools.chain(
        *(singles(wal=wal, pace=pace) for wal in (False, True) for pace in (-1, 0)),
        *(singles(wal=wal, nodes=1) for wal in (False, True)),
        singles(broken=True),
        doubles(6000, 1),
    )
    raise SystemExit(not table(everything))

"""The crash sweep: something goes wrong at every moment of a run, and what comes after must end well.

A moment is each journal line and each place inside each command of each host. Run as a program it prints the table for
the nightly target.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import runbook.engine
from tests.fake.hosts import Fuse
from tests.fake.sessions import Life, plan


@dataclass(frozen=True)
class Case:
    """``kind``: see ``Fuse``. ``then``: ``forward`` or ``backward``. ``second``: the moment of a second accident."""

    at: int
    kind: str
    then: str
    wal: bool = False
    second: int = -1
    nodes: int = 3


def no_checks() -> None:
    """The checks have tests of their own; the fake answers only what the steps ask."""
    vars(runbook.engine)["inspect"] = lambda *_args, **_kwargs: []


def moments(*, wal: bool = False, nodes: int = 3) -> int:
    """How many moments an undisturbed run has."""
    no_checks()
    life = Life(plan(nodes, wal=wal))
    ended = life.session("forward")
    if ended != "complete" or life.faults(restored=True):
        raise AssertionError(f"an undisturbed run ends with {ended}: {life.faults(restored=True)}")
    return life.moments


def faults(case: Case) -> list[str]:
    """Play the case; what is wrong at its end, or [] where all is as it must be."""
    no_checks()
    life = Life(plan(case.nodes, wal=case.wal))
    ended = life.session("forward", Fuse(case.at, case.kind))
    if life.state == "rolled-back":
        return [f"{ended}: {fault}" for fault in life.faults(restored=False)]
    if case.then == "forward":
        return _forward(life, case, ended)
    return _backward(life, case, ended)


def _forward(life: Life, case: Case, ended: str) -> list[str]:
    if life.state == "complete" and ended == "complete":
        return life.faults(restored=True)
    if case.second >= 0:
        life.session("forward", Fuse(case.second, "engine"))
    if life.state == "rolling-back":
        again = life.session("backward")
        return [f"{again}: {fault}" for fault in life.faults(restored=False)]
    again = life.session("forward")
    if again != "complete":
        return [f"one resume did not suffice: {again}"]
    return life.faults(restored=True)


def _backward(life: Life, case: Case, ended: str) -> list[str]:
    if case.second >= 0:
        life.session("backward", Fuse(case.second, "engine"))
    again = life.session("backward") if life.state != "rolled-back" else "rolled-back"
    if again != "rolled-back":
        return [f"rollback ended with {again}"]
    return life.faults(restored=False)


def singles(stride: int, kinds: Iterable[str] = ("engine", "power", "silent")) -> Iterator[Case]:
    """Every ``stride``-th moment, each kind of accident, both ways on."""
    for wal in (False, True):
        for at in range(wal, moments(wal=wal), stride):
            for kind, then in itertools.product(kinds, ("forward", "backward")):
                yield Case(at, kind, then, wal)


def doubles(count: int, seed: int) -> Iterator[Case]:
    """Two accidents: the second strikes the engine that resumes, or rolls back."""
    chance = random.Random(seed)  # noqa: S311 - which cases are tried, nothing secret
    total = moments(wal=True)
    for _ in range(count):
        kind, then = chance.choice(("engine", "power", "silent")), chance.choice(("forward", "backward"))
        yield Case(chance.randrange(total), kind, then, True, chance.randrange(800))


def play(cases: Iterable[Case], judge: Callable[[Case], list[str]] = faults) -> tuple[int, list[str]]:
    """All cases, on all cores; how many, and the first faults of each that failed."""
    todo = list(cases)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        results = list(pool.map(judge, todo, chunksize=16))
    failed = [f"{case}: {found[0]}" for case, found in zip(todo, results, strict=True) if found]
    return len(todo), failed


if __name__ == "__main__":
    number, failed = play([*singles(1), *doubles(6000, 1)])
    print(f"{number} cases, {len(failed)} failed")
    for text, times in Counter(failed).most_common(20):
        print(times, text)
    raise SystemExit(bool(failed))

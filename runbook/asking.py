"""Asking probes of hosts: once, or again and again until they say yes or their time is over."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from runbook.lifecycle import YES, Verdict, View
from runbook.log import logger
from runbook.step import Probe, Question, Result
from runbook.tables import duration
from runbook.transport import Hosts

POLL = 0.2
"""Seconds between two rounds of questions while waiting."""

TIMED_OUT = 124
"""The exit code of a command that outlived its time on the host."""


class Clock(Protocol):
    """Time, so that tests can make their own."""

    def monotonic(self) -> float:
        """Seconds, never going back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class RealClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """Seconds, never going back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def judge(question: Question, result: Result) -> View:
    """What one answer to one question means."""
    if result.unknown:
        return View(Verdict.UNKNOWN, result.err.strip() or "no answer")
    if result.code == TIMED_OUT:
        return View(Verdict.NO, f"{question.says}: no answer within {duration(question.ask.timeout)}")
    objection = question.judge(result)
    return View(Verdict.NO, objection) if objection else YES


def ask_once(hosts: Hosts, probes: Mapping[str, Probe]) -> dict[str, View]:
    """The first question of each host that is not answered with yes is the host's view.

    Neighbouring questions are asked in one round trip, but what is slow is asked alone, and only once all before it is
    answered with yes: a member without a quorum lets each question run out of time.
    """
    views = dict.fromkeys(probes, YES)
    rounds = {host: _rounds(probe.questions) for host, probe in probes.items()}
    for turn in range(max(map(len, rounds.values()), default=0)):
        asked = {h: Probe(r[turn]) for h, r in rounds.items() if turn < len(r) and views[h] == YES}
        views |= _together(hosts, asked)
    return views


def ask_before(
    hosts: Hosts, done: Mapping[str, Probe], ready: Mapping[str, Probe]
) -> tuple[dict[str, View], dict[str, View]]:
    """Is it done, and if not, may it begin? Each host's first view; the second where the first is no and all are yes.

    Both are asked in one round trip as far as they are quick. A host that has no second view is to be asked again
    whether it may begin, and to be waited for.
    """
    first = {h: r[0] for h, p in ready.items() if (r := _rounds(p.questions)) and not r[0][0].slow}
    quick = [h for h, p in done.items() if h in first and not any(q.slow for q in p.questions)]
    views = ask_once(hosts, {h: p for h, p in done.items() if h not in quick})
    answers = hosts.ask({h: [q.ask for q in (*done[h].questions, *first[h])] for h in quick}) if quick else {}
    rest = {h: ready[h] for h, view in views.items() if view.verdict is Verdict.NO}
    for host in quick:
        cut = len(done[host].questions)
        views[host] = _first_objection(host, done[host].questions, answers[host][:cut])
        if views[host].verdict is not Verdict.NO:
            continue
        if _first_objection(host, first[host], answers[host][cut:]) == YES:
            rest[host] = Probe(ready[host].questions[len(first[host]) :])
    began = {h: view for h, view in ask_once(hosts, rest).items() if view == YES}
    return {h: views[h] for h in done}, began


def _rounds(questions: tuple[Question, ...]) -> list[tuple[Question, ...]]:
    """The questions, cut into those that are asked in one round trip."""
    slow = [at for at, question in enumerate(questions) if question.slow]
    cuts = sorted({0, *slow, *(at + 1 for at in slow), len(questions)})
    return [questions[a:b] for a, b in itertools.pairwise(cuts)]


def _together(hosts: Hosts, probes: Mapping[str, Probe]) -> dict[str, View]:
    asked = {host: [q.ask for q in probe.questions] for host, probe in probes.items() if probe.questions}
    answers = hosts.ask(asked) if asked else {}
    views = dict.fromkeys(probes, YES)
    return views | {host: _first_objection(host, probes[host].questions, answers[host]) for host in asked}


def _first_objection(host: str, questions: Sequence[Question], results: Sequence[Result]) -> View:
    for question, result in zip(questions, results, strict=True):
        view = judge(question, result)
        if view.verdict is not Verdict.YES:
            seen = {"host": host, "says": question.says, "verdict": str(view.verdict), "saw": view.saw}
            logger().debug("a host does not say yes", **seen, code=result.code, seconds=round(result.seconds, 3))
            return view
    return YES


class _Wait:
    """One host being waited for: which round of its questions is the first that has not been answered with yes."""

    def __init__(self, probe: Probe, until: float) -> None:
        self.rounds, self.until = _rounds(probe.questions), until
        self.all = probe.questions
        self.index, self.waited, self.view = 0, False, YES

    def pending(self) -> Probe:
        """What to ask next: a round, or all of them again to see them true at one time."""
        return Probe(self.rounds[self.index] if self.index < len(self.rounds) else self.all)

    def take(self, view: View) -> bool:
        """Take the answer; true when every question has been answered with yes."""
        self.view = view
        confirming = self.index >= len(self.rounds)
        if view.verdict is not Verdict.YES:
            self.waited, self.index = True, 0 if confirming else self.index
            return False
        self.index += 1
        return confirming or (self.index >= len(self.rounds) and not (self.waited and len(self.rounds) > 1))


def ask_until(
    hosts: Hosts,
    probes: Mapping[str, Probe],
    clock: Clock,
    impatient: Collection[str] = (),
    at: dict[str, float] | None = None,
) -> dict[str, View]:
    """Ask until each host says yes, or its probe's time is over; ``impatient`` hosts are asked once only.

    ``at`` is given the time at which each host was last asked.

    While waiting, only the first round not yet answered with yes is asked: the later ones are often slow to fail.
    A host that had to be waited for is asked everything once more at the end.
    """
    start = clock.monotonic()
    patient = {h: p for h, p in probes.items() if p.wait and h not in impatient}
    views = ask_once(hosts, {h: p for h, p in probes.items() if h not in patient})
    at = {} if at is None else at
    at |= dict.fromkeys(views, clock.monotonic())
    waits = {h: _Wait(p, start + p.wait) for h, p in patient.items()}
    while waits:
        seen = _together(hosts, {h: w.pending() for h, w in waits.items()})
        idle = True
        for host, wait in list(waits.items()):
            arrived = wait.take(seen[host])
            idle = idle and seen[host].verdict is not Verdict.YES
            if arrived or (seen[host].verdict is not Verdict.YES and clock.monotonic() >= wait.until):
                views[host], at[host] = wait.view, clock.monotonic()
                del waits[host]
        if waits and idle:
            clock.sleep(POLL)
    return {host: views[host] for host in probes}

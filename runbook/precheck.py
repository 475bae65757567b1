"""``preview --check``: all read-only checks on all hosts, the verdict, and the error where something is in the way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from runbook import findings as told
from runbook import supply, waiting
from runbook.bind import check_again, typed
from runbook.connecting import hosts_of, missing_files, targets
from runbook.errors import NOTE, Refused, RunbookError, lined
from runbook.plan import Plan
from runbook.transport import Claim

if TYPE_CHECKING:
    from runbook.checks import Finding
    from runbook.step import Binding, Target
    from runbook.transport import Hosts


@dataclass
class Verdict:
    """What the checks said. ``missed`` has, by check, the hosts that could not be asked.

    ``asked``: whether any host was asked at all; none is where this machine lacks what it takes to log in.
    """

    plan: Plan
    bound: Binding
    findings: list[Finding]
    missed: dict[str, list[str]] = field(default_factory=dict)
    error: RunbookError | None = None
    asked: bool = True

    @property
    def counted(self) -> str:
        """How much is in the way, and on which hosts."""
        return told.counted(told.grouped(self.findings))

    @property
    def sha256(self) -> str:
        """The sum of a snapshot on a node, or in a store, as it was just computed; "" where it is in doubt."""
        from runbook.checks.snapshot import summed_up

        return summed_up(self.findings) if self.place else ""

    @property
    def place(self) -> str:
        """Where such a snapshot was found; "" where it is a file of this machine."""
        source = self.plan.snapshot
        return f"on {source.node}" if source.node else f"at {source.shown}" if source.store else ""

    @property
    def next(self) -> tuple[str, ...]:
        """What to type now."""
        return self.error.next if self.error else (f"runbook run {typed(self.plan, self.bound)}",)

    def lines(self) -> list[str]:
        """For people: what stands before the preview's last line."""
        names = [t.name for t in _present(self.plan, self.bound)]
        next_ = [f"{'Type next:' if i == 0 else '':15}{line}" for i, line in enumerate(lined(self.next))]
        head = "CHECKED JUST NOW, read-only" if self.asked else "NOT CHECKED: no host could be asked"
        return [head, *told.table(self.findings, names, self.missed), *next_]

    def document(self) -> dict[str, Any]:
        """For programs."""
        ended = self.error.document() if self.error else {"exit_code": 0, "error": None, "next": list(self.next)}
        groups = told.grouped(self.findings)
        bad = len(told.in_the_way(self.findings))
        counts = {"blocking": bad, "warnings": len(groups) - bad, "not_asked": self.missed}
        return {"findings": told.document(self.findings), **counts, **ended}


def _present(plan: Plan, bound: Binding) -> list[Target]:
    """The hosts that are asked: all but the absent ones."""
    return [t for t in targets(plan, bound) if t.name not in bound.absent]


def check(plan: Plan, bound: Binding) -> Verdict:
    """All read-only checks, on all hosts at once that take part; for them a snapshot of a store is brought here."""
    # before the hosts are reached: a lab's network, where its hosts are, has no way to a store
    with supply.for_checks(plan, sys.stderr) as here:
        return _checked(here, bound)


def _checked(plan: Plan, bound: Binding) -> Verdict:
    from runbook.asking import RealClock
    from runbook.checks.content import begin_reading
    from runbook.checks.survey import inspect

    if plan.snapshot.fetched:
        begin_reading(plan)
    connect = hosts_of(plan, Claim(0))
    lacking = missing_files(plan)
    if lacking:
        return Verdict(plan, bound, lacking, error=_refused(plan, bound, lacking), asked=False)
    hosts, there = connect(bound), _present(plan, bound)
    try:
        with waiting.told(sys.stderr):
            say = partial(waiting.say, sys.stderr)
            found = inspect("preflight", plan, bound, hosts, there, RealClock(), tell=say)
        missed = told.not_asked(plan, there, found)
        found = told.honest(told.decisive(found), there, missed)
        return Verdict(plan, bound, found, missed, _error(plan, bound, hosts, there, found))
    finally:
        hosts.close()


def _error(
    plan: Plan, bound: Binding, hosts: Hosts, there: Sequence[Target], found: Sequence[Finding]
) -> RunbookError | None:
    held = {f.host: f.saw for f in found if f.severity == "held"}
    if held:
        from runbook.held import by_another

        return by_another(hosts, there, held, true="no host is changed", again=check_again(plan, bound))
    return _refused(plan, bound, found) if told.in_the_way(found) else None


def _refused(plan: Plan, bound: Binding, found: Sequence[Finding]) -> Refused:
    """Short, for all of it stands in the preview."""
    return Refused(
        f"{told.counted(told.in_the_way(found))}; all of it is told in the preview, just before the digest",
        true="no host is changed",
        means="`runbook run` would refuse this plan now, with no host changed",
        next=(f"{check_again(plan, bound)}{NOTE}after mending that",),
    )


def require_files(plan: Plan, bound: Binding) -> None:
    """Before a run begins: raises Refused where this machine lacks what it takes to log in to any host."""
    lacking = missing_files(plan)
    if lacking:
        raise Refused(
            told.reason("this machine cannot log in to the hosts", told.grouped(lacking)),
            true="no host was connected to, and none is changed",
            means="nothing was begun",
            next=(f"{check_again(plan, bound)}{NOTE}after mending that",),
        )

"""``preview --check``: all read-only checks on all hosts, the verdict, and the error where something is in the way."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runbook import findings as told
from runbook.bind import binding_for_checks
from runbook.connecting import hosts_of, missing_files, targets
from runbook.errors import NOTE, Refused, RunbookError, lined
from runbook.plan import Plan

if TYPE_CHECKING:
    from runbook.checks import Finding
    from runbook.step import Target
    from runbook.transport import Hosts


@dataclass
class Verdict:
    """What the checks said. ``missed`` has, by check, the hosts that could not be asked."""

    plan: Plan
    findings: list[Finding]
    missed: dict[str, list[str]] = field(default_factory=dict)
    error: RunbookError | None = None

    @property
    def counted(self) -> str:
        """How much is in the way, and on which hosts."""
        return told.counted(told.grouped(self.findings))

    @property
    def next(self) -> tuple[str, ...]:
        """What to type now."""
        return self.error.next if self.error else (f"runbook run {shlex.quote(str(self.plan.file))}",)

    def lines(self) -> list[str]:
        """For people: what stands before the preview's last line."""
        names = [*(n.name for n in self.plan.nodes), *(w.name for w in self.plan.workers)]
        next_ = [f"{'Type next:' if i == 0 else '':15}{line}" for i, line in enumerate(lined(self.next))]
        return ["CHECKED JUST NOW, read-only", *told.table(self.findings, names, self.missed), *next_]

    def document(self) -> dict[str, Any]:
        """For programs."""
        ended = self.error.document() if self.error else {"exit_code": 0, "error": None, "next": list(self.next)}
        groups = told.grouped(self.findings)
        bad = len(told.in_the_way(self.findings))
        counts = {"blocking": bad, "warnings": len(groups) - bad, "not_asked": self.missed}
        return {"findings": told.document(self.findings), **counts, **ended}


def check(plan: Plan) -> Verdict:
    """All read-only checks, on all hosts at once."""
    from runbook.asking import RealClock
    from runbook.checks.survey import inspect

    bound, _ = binding_for_checks(plan)
    connect = hosts_of(plan, 0)
    lacking = missing_files(plan)
    if lacking:
        return Verdict(plan, lacking, error=_refused(plan, lacking))
    hosts, there = connect(bound), targets(plan, bound)
    try:
        found = inspect("preflight", plan, bound, hosts, there, RealClock())
        missed = told.not_asked(plan, there, found)
        found = told.honest(told.decisive(found), there, missed)
        return Verdict(plan, found, missed, _error(plan, hosts, there, found))
    finally:
        hosts.close()


def _error(plan: Plan, hosts: Hosts, there: Sequence[Target], found: Sequence[Finding]) -> RunbookError | None:
    held = {f.host: f.saw for f in found if f.severity == "held"}
    if held:
        from runbook.held import by_another

        again = f"{_again(plan)}{NOTE}once that run has ended"
        return by_another(hosts, there, held, true="no host is changed", again=again)
    return _refused(plan, found) if told.in_the_way(found) else None


def _refused(plan: Plan, found: Sequence[Finding]) -> Refused:
    """Short, for all of it stands in the preview."""
    return Refused(
        f"{told.counted(told.in_the_way(found))}; all of it is told in the preview, just before the digest",
        true="no host is changed",
        means="`runbook run` would refuse this plan now, with no host changed",
        next=(f"{_again(plan)}{NOTE}after mending that",),
    )


def _again(plan: Plan) -> str:
    return f"runbook preview --check {shlex.quote(str(plan.file))}"


def require_files(plan: Plan) -> None:
    """Before a run begins: raises Refused where this machine lacks what it takes to log in to any host."""
    lacking = missing_files(plan)
    if lacking:
        raise Refused(
            told.reason("this machine cannot log in to the hosts", told.grouped(lacking)),
            true="no host was connected to, and none is changed",
            means="nothing was begun",
            next=(f"{_again(plan)}{NOTE}after mending that",),
        )

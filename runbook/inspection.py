"""Running a group of checks: all their questions to all hosts at once, then each judges all the answers."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from runbook.asking import POLL, Clock
from runbook.checks import Check, Finding, Severity, all_checks
from runbook.plan import Plan
from runbook.step import Binding, Command, Result, Target
from runbook.transport import Hosts


def inspect(
    group: str, plan: Plan, bound: Binding, hosts: Hosts, targets: Sequence[Target], clock: Clock
) -> list[Finding]:
    """Every finding of every check of the group, "ok" ones included.

    A check that blocks is asked again, alone, until it no longer does or its time is over.
    """
    checks = [check for check in all_checks(group) if check.applies(plan)]
    start = clock.monotonic()
    found = _round(checks, plan, bound, hosts, targets)
    while True:
        left = clock.monotonic() - start
        again = [c for c in checks if _blocks(found[c.id()]) and left < c.within(plan)]
        if not again:
            return [finding for check in checks for finding in found[check.id()]]
        clock.sleep(POLL)
        found |= _round(again, plan, bound, hosts, targets)


def _blocks(findings: Sequence[Finding]) -> bool:
    return any(f.severity in (Severity.BLOCKS, Severity.HELD) for f in findings)


def _round(
    checks: Sequence[Check], plan: Plan, bound: Binding, hosts: Hosts, targets: Sequence[Target]
) -> dict[str, list[Finding]]:
    asked = {n.name: [list(check.asks(n)) for check in checks] for n in targets}
    flat = {host: [command for group in groups for command in group] for host, groups in asked.items()}
    answers = hosts.ask({host: commands for host, commands in flat.items() if commands})
    found: dict[str, list[Finding]] = {}
    used = dict.fromkeys(asked, 0)
    for index, check in enumerate(checks):
        mine: dict[str, tuple[Result, ...]] = {}
        for host, groups in asked.items():
            count = len(groups[index])
            if count:
                mine[host] = tuple(answers[host][used[host] : used[host] + count])
                used[host] += count
        here = [run_here(command) for command in check.local(plan, bound)]
        if here:
            mine[""] = tuple(here)
        found[check.id()] = list(check.judge(plan, bound, mine))
    return found


def run_here(command: Command) -> Result:
    """Run a command on the responder's machine, with its deadline and without a terminal."""
    try:
        done = subprocess.run(
            command.words(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=command.timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(124, err=f"no answer within {command.timeout:g} s")
    except OSError as error:
        return Result(127, err=f"{command.words()[0]}: {error.strerror}")
    return Result(done.returncode, done.stdout, done.stderr)

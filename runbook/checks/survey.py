"""Asks all checks of a group of all hosts at once, and gathers what they find.

It also closes the ways in which a check could say "all is well" without having looked: an answer that got lost, and a
check that failed itself, both block.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from runbook.asking import Clock
from runbook.checks import Check, Finding, Severity, all_checks
from runbook.plan import Plan
from runbook.step import Binding, Command, Result, Target
from runbook.tables import duration
from runbook.transport import Hosts

POLL = 0.5
"""Seconds between two rounds of checks that may still become true."""

STAGES = {
    0: "do they answer, as root?",
    1: "does another run hold them, do their clocks agree?",
    2: "all else",
}
"""What each round asks, for who waits; see ``Check.round``."""

LOCAL = ""
"""Under this host name stand the answers of the responder's own machine."""


def inspect(
    group: str,
    plan: Plan,
    bound: Binding,
    hosts: Hosts,
    targets: Sequence[Target],
    clock: Clock,
    checks: Sequence[Check] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Finding]:
    """All findings of the group about these hosts, in the order of the table, "ok" ones included.

    A check that blocks is asked again until it no longer does or its time is over. ``checks``: these alone. ``tell``
    is told what is asked next, and of whom.
    """
    asked = [c for c in (all_checks(group) if checks is None else checks) if c.applies(plan)]
    start = clock.monotonic()
    found = _Pass(hosts, plan, bound, targets, tell=tell).run(asked)
    while True:
        elapsed = clock.monotonic() - start
        again = [c for c in asked if _blocked(found[c.id()]) and elapsed < c.within(plan)]
        if not again:
            return [f for c in asked for f in found[c.id()]]
        clock.sleep(POLL)
        found |= _Pass(hosts, plan, bound, targets).run(again)


def _blocked(findings: Sequence[Finding]) -> bool:
    return any(f.severity in (Severity.BLOCKS, Severity.HELD) for f in findings)


@dataclass(frozen=True)
class _Here:
    """What the responder's machine said to one check: to commands, and by looking."""

    commands: tuple[Result, ...]
    looks: tuple[Result, ...]

    def after(self, took: float) -> tuple[Result, ...]:
        """All of it, once the hosts have answered too: looks bear the seconds that they needed for it."""
        return (*self.commands, *(replace(r, seconds=took) for r in self.looks))


@dataclass
class _Pass:
    """One pass over some checks."""

    hosts: Hosts
    plan: Plan
    bound: Binding
    targets: Sequence[Target]
    silent: dict[str, Result] = field(default_factory=dict)
    """Hosts that did not answer, or not as root, when the connections were opened: they are not asked again."""
    reported: set[str] = field(default_factory=set)
    """Hosts of whose silence a finding tells already."""
    tell: Callable[[str], None] = lambda _: None

    def run(self, checks: Sequence[Check]) -> dict[str, list[Finding]]:
        """The findings, by the check's id; none of the later rounds where another run holds a host.

        Its outage explains all that they would find, and questions to a dead cluster take their time.
        """
        found: dict[str, list[Finding]] = {c.id(): [] for c in checks}
        for turn in sorted({c.round for c in checks}):
            mine = [c for c in checks if c.round == turn]
            self._tell(mine, STAGES.get(turn, ""))
            found |= self._round(mine)
            if any(f.severity is Severity.HELD for told in found.values() for f in told):
                break
        return found

    def _tell(self, checks: Sequence[Check], stage: str) -> None:
        asked = ", ".join(t.name for t in self.targets if t.name not in self.silent) or "nobody"
        but = f" (not {', '.join(self.silent)}, of which nothing more can be asked)" if self.silent else ""
        beside = "; beside it the snapshot is looked into" if any(c.slow for c in checks) else ""
        count = f"{len(checks)} check{'' if len(checks) == 1 else 's'}"
        self.tell(f"asking {asked}{but}: {stage} ({count}){beside}")

    def _round(self, checks: Sequence[Check]) -> dict[str, list[Finding]]:
        asks = {c.id(): {t.name: tuple(c.asks(t)) for t in self.targets} for c in checks}
        broken: dict[str, list[Finding]] = {}
        here = {c.id(): self._here(c, broken) for c in checks if not c.slow}
        with _meanwhile([partial(self._look_slowly, c, here, broken) for c in checks if c.slow]):
            began = time.monotonic()
            answers = self._ask(asks)
            took = time.monotonic() - began
        found = {}
        for c in checks:
            mine = {host: results for host, results in answers[c.id()].items() if results}
            found[c.id()] = broken.get(c.id()) or self._judge(c, {**mine, LOCAL: here[c.id()].after(took)})
            found[c.id()] += self._silence(c, mine, found[c.id()])
            if c.round == 0:
                refused = {f.host: f.saw for f in found[c.id()] if f.host and f.severity is not Severity.OK}
                self.silent |= {host: Result(None, err=saw) for host, saw in refused.items()}
                self.reported |= set(refused)
        return found

    def _here(self, check: Check, broken: dict[str, list[Finding]]) -> _Here:
        """What the responder's machine says."""
        try:
            commands = tuple(run_here(c) for c in check.local(self.plan, self.bound))
            return _Here(commands, tuple(check.look(self.plan, self.bound)))
        except Exception as error:  # a check that cannot look must not pass
            broken[check.id()] = [_failed(check, error)]
            return _Here((), ())

    def _look_slowly(self, check: Check, here: dict[str, _Here], broken: dict[str, list[Finding]]) -> None:
        away = self._away(self.plan.snapshot.node or "") if check.fetches else None
        here[check.id()] = _Here((), (away,)) if away else self._here(check, broken)

    def _away(self, host: str) -> Result | None:
        """Why this host need not be asked, where it need not: to try once more would take its time once more."""
        if host and host not in {t.name for t in self.targets}:
            return Result(None, err=f"{host} is left out")
        return self.silent.get(host)

    def _ask(self, asks: dict[str, dict[str, tuple[Command, ...]]]) -> dict[str, dict[str, tuple[Result, ...]]]:
        """One round trip a host; a command that several checks ask is run once, and all get its answer."""
        wanted: dict[str, list[Command]] = {}
        for target in self.targets:
            commands = dict.fromkeys(c for by_host in asks.values() for c in by_host[target.name])
            if commands and target.name not in self.silent:
                wanted[target.name] = list(commands)
        got = self.hosts.ask(wanted) if wanted else {}
        known = {host: dict(zip(commands, got[host], strict=True)) for host, commands in wanted.items()}
        return {
            check: {
                host: tuple(known[host][c] if host in known else self.silent[host] for c in commands)
                for host, commands in by_host.items()
            }
            for check, by_host in asks.items()
        }

    def _judge(self, check: Check, answers: dict[str, tuple[Result, ...]]) -> list[Finding]:
        try:
            return list(check.judge(self.plan, self.bound, answers))
        except Exception as error:  # a check that cannot judge must not pass
            return [_failed(check, error)]

    def _silence(self, check: Check, answers: dict[str, tuple[Result, ...]], told: Sequence[Finding]) -> list[Finding]:
        """One finding for each host that left this check without an answer, unless one tells of that host already."""
        found = []
        for host, results in answers.items():
            lost = next((r for r in results if r.unknown), None)
            if lost is None:
                continue
            if host not in self.reported and not any(f.host == host for f in told):
                saw = f"the host stopped answering: {lost.tail(1) or 'the connection was lost'}"
                found.append(check.blocks(host, saw, "look at the network and at the host, then try again"))
            self.reported.add(host)
        return found


@contextlib.contextmanager
def _meanwhile(jobs: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Has all the jobs done beside the block, and waits for them after it; not where it was interrupted."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def _failed(check: Check, error: Exception) -> Finding:
    saw = f"the check itself failed: {type(error).__name__}: {error}"
    do = "this is a fault of runbook: please report it, with this line"
    return check.warns("", saw, do) if check.severity is Severity.WARNS else check.blocks("", saw, do)


def run_here(command: Command) -> Result:
    """Run a command on the responder's machine; 124 where it outlived its time, 126 or 127 where it did not start."""
    try:
        child = subprocess.Popen(
            command.words(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that what it has started can be ended with it
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError as error:
        return Result(127, err=str(error))
    except OSError as error:
        return Result(126, err=str(error))
    with child:
        try:
            out, err = child.communicate(timeout=command.timeout)
            return Result(child.returncode, out, err)
        except subprocess.TimeoutExpired:
            return Result(124, err=f"no answer within {duration(command.timeout)}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)

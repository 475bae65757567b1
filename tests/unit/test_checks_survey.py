"""The survey: no check passes unheard."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from runbook.checks import Answers, Check, Finding, Severity, heard
from runbook.checks.survey import inspect, run_here
from runbook.plan import Plan
from runbook.step import Binding, Command, Result, Target
from tests.unit.checks_faults import lock
from tests.unit.checks_world import BOUND, PLAN, FakeClock, FakeHosts, findings, where

READ = Command(("id", "-u"), 5, changes=False)


class Quiet(Check):
    """Says ok for whoever answered."""

    def asks(self, n: Target) -> Sequence[Command]:
        return [READ]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        for node, _ in heard(answers, plan.nodes):
            yield self.ok(node.name, "well")


class Second(Quiet):
    """Asks the same."""


class Broken(Quiet):
    """Fails after its first finding."""

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        yield self.ok("m1", "well")
        raise KeyError("x")


class Blind(Quiet):
    """Cannot look at its own machine."""

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        raise OSError("disk")


def survey(*checks: Check, hosts: FakeHosts | None = None) -> list[Finding]:
    targets = [Target(PLAN, BOUND, p) for p in PLAN.nodes]
    return inspect("preflight", PLAN, BOUND, hosts or FakeHosts(PLAN), targets, FakeClock(), checks)


def test_an_answer_that_got_lost_blocks_once_for_its_host() -> None:
    lost = where("id", lambda _n, _r: Result(None, err="connection reset"))
    found = survey(Quiet(), Second(), hosts=FakeHosts(PLAN, [lost]))
    blocked = [f for f in found if f.severity is Severity.BLOCKS]
    assert [(f.check, f.host) for f in blocked] == [("Quiet", "m2")]
    assert "connection reset" in blocked[0].saw
    assert [f.host for f in found if f.severity is Severity.OK] == ["m1", "m3"] * 2


@pytest.mark.parametrize("check", [Broken(), Blind()], ids=["judge", "look"])
def test_a_check_that_fails_itself_blocks(check: Check) -> None:
    found = survey(check, Second())
    assert [f.severity for f in found if f.check == check.id()] == [Severity.BLOCKS]
    assert "the check itself failed" in found[0].saw
    assert len([f for f in found if f.check == "Second"]) == 3


def test_what_two_checks_ask_is_asked_once() -> None:
    hosts = FakeHosts(PLAN)
    assert len(survey(Quiet(), Second(), hosts=hosts)) == 6
    assert [list(asks.values()) for asks in hosts.asked] == [[[READ], [READ], [READ]]]


def test_commands_of_this_machine() -> None:
    assert run_here(Command(("sh", "-c", "echo a; echo b >&2; exit 4"), 5)).code == 4
    assert run_here(Command(("sleep", "5"), 0.1)).code == 124
    assert run_here(Command(("no-such-program-here",), 1)).code == 127
    assert run_here(Command(("/etc/passwd",), 1)).code == 126


class Slow(Quiet):
    """Looks for as long as the hosts take."""

    slow = True
    order = 1

    def __init__(self) -> None:
        self.asked = threading.Event()

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        return [Result(0, str(self.asked.wait(20)))]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        yield self.ok("", answers[""][0].out)


class SlowAndBlind(Blind):
    """The same, and cannot."""

    slow = True


def test_a_slow_look_is_taken_while_the_hosts_are_asked() -> None:
    slow = Slow()

    def asked(_n: Target, _c: Command, result: Result) -> Result:
        slow.asked.set()
        return result

    found = survey(slow, SlowAndBlind(), hosts=FakeHosts(PLAN, [asked]))
    assert [f.saw for f in found if f.check == "Slow"] == ["True"]
    (failed,) = [f for f in found if f.check == "SlowAndBlind" and f.severity is Severity.BLOCKS]
    assert "the check itself failed: OSError: disk" in failed.saw


def test_where_another_run_holds_a_host_nothing_else_is_asked() -> None:
    """It may be in its outage: whoever begins a second run is told at once whose it is."""
    theirs = lock('{"run": "prod-20260401t000000z-ffff", "holder": "ada@desk", "since": "x"}')
    hosts = FakeHosts(PLAN, [theirs])
    found = findings(hosts=hosts)
    assert {(f.check, f.severity) for f in found if f.severity is not Severity.OK} == {("Locks", Severity.HELD)}
    words = [word for asks in hosts.asked for commands in asks.values() for c in commands for word in c.words()]
    assert not [word for word in words if word in ("etcdctl", "kubectl", "crictl")]


class Opening(Quiet):
    """Opens the connections."""

    round = 0


def test_who_waits_is_told_each_stage_before_it_is_asked() -> None:
    """Whoever did not answer at the first is named at the next, and is not waited for again."""
    told: list[str] = []
    hosts = FakeHosts(PLAN, [where("id", lambda _n, _r: Result(None, err="no route"))])
    targets = [Target(PLAN, BOUND, p) for p in PLAN.nodes]
    inspect("preflight", PLAN, BOUND, hosts, targets, FakeClock(), [Opening(), Quiet(), Second()], told.append)
    assert told == [
        "asking m1, m2, m3: do they answer, as root? (1 check)",
        "asking m1, m3 (not m2, of which nothing more can be asked): all else (2 checks)",
    ]

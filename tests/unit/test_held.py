"""Another run's hold on a host, in words: never as the line of JSON that stands in the lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runbook import held
from runbook.errors import Held
from runbook.plan import Paths, Plan, Ssh
from runbook.step import Binding, Target
from runbook.transport import LOCK
from tests.fake.hosts import FakeHosts, Fuse
from tests.fake.sessions import plan
from tests.fake.world import World

RAW = '{"run": "prod-1", "holder": "eve@laptop", "since": "2026-04-09T14:02:00Z"}'
WORDS = "another run holds it: prod-1, by eve@laptop, since 2026-04-09 14:02:00 UTC"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{LOCK} names another run: {RAW}", WORDS),
        (f"another run holds this host: {LOCK} says {RAW}", WORDS),
        (f"m1: {LOCK} names another run: {RAW}; and more", f"m1: {WORDS}; and more"),
        (f"{LOCK} names another run: {{not json}}", f"{LOCK} names another run: {{not json}}"),
        (f"{LOCK} is not there", f"{LOCK} is not there"),
        ("no space left", "no space left"),
    ],
)
def test_a_lock_in_words(text: str, told: str) -> None:
    assert held.in_words(text) == told


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("RUNBOOK_STATE_DIR", str(tmp_path))
    return World(plan())


def error(world: World, *hosts: str, again: str = "") -> Held:
    whole: Plan = world.plan
    nodes = [Target(whole, Binding("mine"), n) for n in whole.nodes]
    saw = {host: f"{LOCK} names another run: {world.hosts[host].read(LOCK) or RAW}" for host in hosts}
    return held.by_another(FakeHosts(world, nodes, 1, Fuse()), nodes, saw, true="nothing was changed", again=again)


def test_two_runs_hold_two_hosts(world: World) -> None:
    world.hosts["m1"].put(LOCK, RAW)
    world.hosts["m3"].put(LOCK, RAW.replace("prod-1", "test-2").replace("eve", "bob"))
    made = error(world, "m1", "m3")
    assert made.message.startswith("another run holds m1: prod-1, by eve@laptop, since")
    assert "; another run holds m3: test-2, by bob@laptop, since" in made.message
    over = "--known-hosts-file '~/.ssh/known_hosts'   # only where that machine is lost: takes its run over here"
    assert made.next == (
        "ask eve@laptop; on that machine: runbook status prod-1",
        f"runbook adopt --host root@10.0.1.10 --run prod-1 {over}",
        "ask bob@laptop; on that machine: runbook status test-2",
        f"runbook adopt --host root@10.0.1.12 --run test-2 {over}",
    )
    assert made.code == 6
    assert made.true == "nothing was changed"


def test_a_host_that_falls_silent_keeps_what_was_seen(world: World) -> None:
    world.hosts["m1"].reachable = False
    made = error(world, "m1", again="runbook status mine")
    assert made.message == "another run holds m1: prod-1, by eve@laptop, since 2026-04-09 14:02:00 UTC"
    assert made.next[-1] == "runbook status mine   # once that run has ended"
    assert not any(" rm " in command for command in made.next)


def test_a_lock_that_has_gone_since(world: World) -> None:
    """It was there a moment ago: that is told, without a sign of life."""
    assert error(world, "m2").message == "another run holds m2: prod-1, by eve@laptop, since 2026-04-09 14:02:00 UTC"


def test_a_lock_that_names_nobody_is_for_a_person_to_judge(world: World) -> None:
    world.hosts["m2"].put(LOCK, "what is this")
    made = error(world, "m2")
    assert made.message == f"m2 is locked: {LOCK} names another run: what is this"
    assert made.next == (f"ssh root@10.0.1.11 rm {LOCK}   # only once you know who made it",)


def test_a_silent_host_whose_lock_nobody_read_gets_no_such_advice(world: World) -> None:
    world.hosts["m2"].put(LOCK, "what is this")
    world.hosts["m2"].reachable = False
    assert error(world, "m2", again="runbook status mine   # it waits").next == ("runbook status mine   # it waits",)


def test_the_command_that_takes_it_over_logs_in_as_the_plan_does_and_finds_its_workspace(world: World) -> None:
    """Port, jump host, key; and where the lock says that the run's directory lies."""
    ssh = Ssh("ops", 2222, Path("/k"), Path("/known"), jump="bastion")
    place = replace(world.plan.nodes[0], ssh=ssh)
    rest = "--run r-1 --identity-file /k --known-hosts-file /known --jump bastion"
    assert held.adoption(place, "r-1", "/srv/w") == f"runbook adopt --host ops@10.0.1.10:2222 {rest} --workspace /srv/w"
    six = replace(place, host="fd00::1", paths=Paths(workspace="/srv/plan"))
    assert held.adoption(six, "r-1") == f"runbook adopt --host 'ops@[fd00::1]:2222' {rest} --workspace /srv/plan"
    world.hosts["m1"].put(LOCK, RAW.replace("}", ', "dir": "/srv/w/prod-1"}'))
    assert error(world, "m1").next[1].partition("   #")[0].endswith(" --workspace /srv/w")

"""A run goes on without a dead host, which is owed its steps, and gets them when it is back: forward, or backward."""

from __future__ import annotations

import pytest

from runbook import facts
from runbook.checks import Finding, Severity, all_checks
from runbook.errors import Halted, UsageError
from runbook.replay import replay
from runbook.transport import LOCK
from tests.fake.hosts import Fuse
from tests.fake.sessions import RUN, Life, plan
from tests.fake.sweep import moments

GONE = ["m3"]


@pytest.fixture(autouse=True)
def _without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_args, **_kwargs: [])


def silenced(part: float) -> Life:
    """A run in which m3 fell silent at that part of its moments."""
    total = moments()
    for at in range(int(total * part), total):
        life = Life(plan())
        life.session("forward", Fuse(at, "silent"))
        if [n for n, h in life.world.hosts.items() if not h.reachable] == GONE:
            return life
    raise AssertionError("it never fell silent")


def lineages(life: Life) -> list[str | None]:
    return [host.lineage() for host in life.world.hosts.values()]


def test_from_the_beginning() -> None:
    life = Life(plan())
    assert life.session("forward", silent=GONE, without=GONE) == "complete"
    assert list(replay(life.lines).absent) == GONE
    before = life.world.hosts["m3"].tree()
    assert lineages(life)[2] == "old m3"
    assert life.session("forward", silent=GONE).startswith("Halted: still owed their steps, and silent: m3")
    assert life.world.hosts["m3"].tree() == before
    assert life.session("forward") == "complete"
    assert not replay(life.lines).absent
    assert not life.faults(restored=True)


@pytest.mark.parametrize("part", [0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_half_way_and_forward(part: float) -> None:
    life = silenced(part)
    assert life.state != "complete"
    assert life.session("forward", silent=GONE, without=GONE) == "complete"
    assert life.session("forward") == "complete"
    assert not replay(life.lines).absent
    assert not life.faults(restored=True)


@pytest.mark.parametrize("part", [0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_half_way_and_backward(part: float) -> None:
    life = silenced(part)
    assert life.session("backward", silent=GONE, without=GONE) == "rolled-back"
    assert life.session("backward") == "rolled-back"
    assert not replay(life.lines).absent
    assert not life.faults(restored=False)


def test_a_rollback_of_a_complete_run_that_owes() -> None:
    life = silenced(0.6)
    life.session("forward", silent=GONE, without=GONE)
    assert life.session("backward", silent=GONE) == "rolled-back"
    assert list(replay(life.lines).absent) == GONE
    assert life.session("backward") == "rolled-back"
    assert not life.faults(restored=False)


def test_a_node_that_was_taken_back_alone_is_not_called_untouched() -> None:
    life = Life(plan())
    life.session("forward")
    assert life.session("backward", silent=GONE, without=GONE) == "rolled-back"
    assert life.session("backward") == "rolled-back"
    told = facts.told_by(life.lines, replay(life.lines))
    assert set(told.values()) == {"old data and services as before the run"}


@pytest.mark.parametrize("step", range(7, 130, 17))
def test_the_engine_dies_while_it_pays(step: int) -> None:
    life = silenced(0.55)
    life.session("forward", silent=GONE, without=GONE)
    ended = life.session("forward", Fuse(step, "engine"))
    assert ended in ("killed", "complete")
    assert life.session("forward") == "complete"
    assert not replay(life.lines).absent
    assert not life.faults(restored=True)


def test_preparing_is_not_tidied_up_while_an_absent_node_still_holds_something() -> None:
    """It would keep its lock for ever: every later run would end with 6, and nothing that one may type would help."""
    life = silenced(0.25)
    assert replay(life.lines).halted_from == "preparing"
    assert life.world.hosts["m3"].exists(LOCK)
    assert life.session("backward", silent=GONE, without=GONE) == "rolled-back"
    past = replay(life.lines)
    assert not past.closed
    assert not past.finishing
    assert life.session("backward", silent=GONE, without=GONE) == "rolled-back", "asked again, it is not closed either"
    assert not replay(life.lines).closed
    assert life.session("backward") == "rolled-back"
    past = replay(life.lines)
    assert past.closed
    assert not past.absent
    for host in life.world.hosts.values():
        assert not [path for path in host.nodes if RUN in path or path == LOCK], host.name
    assert not life.faults(restored=False)


@pytest.mark.parametrize("step", range(0, 70, 9))
def test_the_engine_dies_while_an_absent_node_gives_its_preparation_back(step: int) -> None:
    life = silenced(0.25)
    life.session("backward", silent=GONE, without=GONE)
    assert life.session("backward", Fuse(step, "engine")) in ("killed", "rolled-back")
    assert life.session("backward") == "rolled-back"
    assert replay(life.lines).closed
    for host in life.world.hosts.values():
        assert not [path for path in host.nodes if RUN in path or path == LOCK], host.name


def test_preparing_is_tidied_up_where_the_absent_node_was_never_begun() -> None:
    life = Life(plan())
    life.world.etcdutl_fails = "m1"
    life.session("forward", silent=GONE, without=GONE)
    past = replay(life.lines)
    assert past.state == "rolled-back"
    assert past.closed


def test_only_a_minority_and_only_nodes() -> None:
    life = Life(plan())
    with pytest.raises(UsageError, match="2 of 3 nodes, and at most 1"):
        life.engine(without=["m2", "m3"])
    with pytest.raises(UsageError, match="the plan has no such node; it has m1, m2, m3"):
        life.engine(without=["m9"])
    with pytest.raises(UsageError, match="1 of 1 nodes, and at most 0"):
        Life(plan(1)).engine(without=["m1"])


def test_absence_adds_up_over_engines() -> None:
    life = Life(plan())
    life.session("forward", silent=GONE, without=GONE)
    with pytest.raises(UsageError, match="without m3, m2: 2 of 3"):
        life.engine(without=["m2"])


def test_halted_says_what_is_owed() -> None:
    life = Life(plan())
    life.session("forward", silent=GONE, without=GONE)
    life.session("forward", silent=GONE)
    assert isinstance(life.error, Halted)
    assert "m3: absent, and owed its steps" in life.error.means
    assert life.error.next[0].startswith("runbook resume ")
    life.session("backward", silent=GONE)
    life.session("backward", silent=GONE)
    assert isinstance(life.error, Halted)
    assert "m3: absent, and owed its steps" in life.error.means
    assert life.error.next[0].startswith("runbook rollback ")
    assert " --discard-writes" in life.error.next[0]


# What a node that is back is asked before its first step, and after its last.


Found = dict[str, list[Finding]]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """What the checks find, by their group."""
    findings: Found = {"preflight": [], "verify": []}
    monkeypatch.setattr("runbook.hands.inspect", lambda group, *_: findings[group])
    return findings


def no(host: str, severity: Severity = Severity.BLOCKS) -> Finding:
    return Finding("EtcdVersion", host, severity, "etcd 3.6 there, 3.5 elsewhere", "install the same")


def test_a_node_that_is_back_is_refused_where_a_check_says_no_before_its_first_step(found: Found) -> None:
    life = Life(plan())
    life.session("forward", silent=GONE, without=GONE)
    before = {name: host.tree() for name, host in life.world.hosts.items()}
    found["preflight"].append(no("m3"))
    ended = life.session("forward")
    assert ended.startswith("Halted: m3 is not given its steps, and nothing was changed on it: the checks say no:")
    assert "✗ m3: etcd 3.6 there, 3.5 elsewhere\n      do: install the same" in str(life.error)
    assert life.error
    assert life.error.next[0].startswith(f"runbook resume {RUN}")
    assert life.world.hosts["m3"].tree() == before["m3"], "nothing at all"
    assert [line["host"] for line in life.lines if line["event"] == "finding"] == ["m3"]
    found["preflight"].clear()
    assert life.session("forward") == "complete"
    assert not replay(life.lines).absent
    assert not life.faults(restored=True)


def test_what_is_found_on_the_others_does_not_keep_a_node_that_is_back(found: Found) -> None:
    life = Life(plan())
    life.session("forward", silent=GONE, without=GONE)
    found["preflight"] += [no("m1"), no("m3", Severity.WARNS)]
    assert life.session("forward") == "complete"
    assert not replay(life.lines).absent


def test_a_node_that_is_back_waits_while_another_run_has_a_host(found: Found) -> None:
    """Also one of the others': whoever restores them again would have it join in the middle of that."""
    life = Life(plan())
    life.session("forward", silent=GONE, without=GONE)
    before = life.world.hosts["m3"].tree()
    found["preflight"].append(no("m1", Severity.HELD))
    assert life.session("forward").startswith("Held: ")
    assert life.world.hosts["m3"].tree() == before


def test_a_node_that_is_back_is_owed_the_last_checks_until_they_say_yes(found: Found) -> None:
    life = Life(plan())
    life.session("forward", silent=GONE, without=GONE)
    found["verify"].append(no("m3"))
    for _ in range(2):
        assert life.session("forward").startswith("Halted: m3 has got its steps and joined, but the checks say no:")
        assert life.error
        assert "m3: has got every step of the run, and is owed the last checks" in life.error.means
        assert lineages(life)[2] == lineages(life)[0]
        assert not any(host.exists(LOCK) for host in life.world.hosts.values())
    found["verify"].clear()
    assert life.session("forward") == "complete"
    assert not replay(life.lines).absent
    assert not life.faults(restored=True)


def test_a_node_that_was_asked_when_the_run_began_is_not_asked_again_half_way(
    found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = silenced(0.55)
    life.session("forward", silent=GONE, without=GONE)
    asked: list[str] = []

    def inspect(group: str, *_: object) -> list[Finding]:
        asked.append(group)
        return found[group]

    monkeypatch.setattr("runbook.hands.inspect", inspect)
    assert life.session("forward") == "complete"
    assert asked == ["verify"]


def test_only_what_is_about_a_host_is_asked_of_a_node_that_is_back() -> None:
    left_out = {check.id() for check in all_checks("preflight") if check.at_first}
    assert left_out == {
        "ApiAddress", "Bump", "ControlPlaneNodes", "Encryption", "KnownObjects", "KubeletObeys", "Members", "Peers",
        "SnapshotContent", "SnapshotWhole", "SnapshotsCluster", "Token", "WhatIsLost",
    }  # fmt: skip
    assert not any(check.at_first for check in all_checks("verify"))

"""The crash sweep: something goes wrong at every moment, and one resume, or one rollback, must make it well again.

Whole in every ``make test``: each moment at which the engine is killed, resumed and rolled back, with and without a
separate WAL directory, and on one node. Of the other accidents (power cuts in three kinds, a host that falls silent) a
stride, and of two accidents in a row a seeded sample. Under the marker ``sweep`` (``make sweep``, nightly) all of it
is whole: every moment of every kind, also with hosts at uneven paces, and 4,000 pairs of accidents.
``python -m tests.fake.sweep`` prints the same as a table.

Then each safeguard is taken away, and the sweep must notice: a sweep that cannot fail proves nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from runbook.procedures import scripts
from runbook.transport import LOCK
from tests.fake import mutations
from tests.fake.hosts import Fuse
from tests.fake.sessions import RUN, Life, plan
from tests.fake.sweep import WAYS, Case, doubles, faults, moments, no_checks, play, singles
from tests.fake.world import MANIFEST

OTHERS = ("power", "blackout", "brownout", "silent")

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def _without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_args, **_kwargs: [])


def all_end_well(cases: Iterable[Case]) -> None:
    number, failed = play(cases)
    assert number
    assert not failed, f"{len(failed)} of {number}:\n" + "\n".join(failed[:10])


# Accidents.


@pytest.mark.timeout(900)
@pytest.mark.parametrize("wal", [False, True], ids=["one directory", "own WAL directory"])
def test_the_engine_may_be_killed_at_every_moment(wal: bool) -> None:
    all_end_well(singles(kinds=("engine",), wal=wal))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("wal", [False, True], ids=["one directory", "own WAL directory"])
def test_hosts_may_lose_power_or_fall_silent(wal: bool) -> None:
    all_end_well(itertools.chain(*(singles(19, (kind,), wal=wal, start=4 * i) for i, kind in enumerate(OTHERS))))


def test_one_node_is_the_same_procedure() -> None:
    all_end_well(itertools.chain(singles(kinds=("engine",), nodes=1), singles(13, OTHERS, nodes=1, wal=True)))


def test_a_dead_cluster_is_the_same_procedure() -> None:
    """Etcd and the API servers in a crash loop: nothing runs, and the next container may start at any moment."""
    all_end_well(itertools.chain(singles(3, ("engine",), broken=True), singles(23, OTHERS, broken=True)))


def test_two_accidents_in_a_row() -> None:
    all_end_well(doubles(200, seed=2))


@pytest.mark.sweep
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("pace", [-1, 0])
@pytest.mark.parametrize("wal", [False, True], ids=["one directory", "own WAL directory"])
def test_every_accident_at_every_moment(wal: bool, pace: int) -> None:
    all_end_well(singles(wal=wal, pace=pace))


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_every_accident_at_every_moment_on_one_node() -> None:
    all_end_well(itertools.chain(singles(nodes=1), singles(nodes=1, wal=True)))


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_many_pairs_of_accidents() -> None:
    all_end_well(doubles(4000, seed=3))


# Longer stories.


@pytest.mark.parametrize("part", [0.15, 0.4, 0.55, 0.7, 0.9])
@pytest.mark.parametrize("way", WAYS)
def test_a_host_stays_silent_over_two_engines_and_comes_back(part: float, way: str) -> None:
    at, total, gone = int(moments() * part), moments(), list[str]()
    while not gone and at < total:  # not every moment is a host's: some are the journal's
        life = Life(plan())
        life.session("forward", Fuse(at, "silent"))
        gone = [name for name, host in life.world.hosts.items() if not host.reachable]
        at += 1
    if life.state == "rolled-back":
        return
    assert gone
    for _ in range(2):
        ended = life.session(way, silent=gone)
        assert ended.startswith("Halted: "), ended
        assert not life.world.violations
        assert life.error
        assert gone[0] in str(life.error)
    assert life.session(way) == {"forward": "complete", "backward": "rolled-back"}[way]
    assert not life.faults(restored=way == "forward")


@pytest.mark.parametrize("part", [0.05, 0.25, 0.45, 0.65, 0.85])
def test_three_engines_die_in_a_row(part: float) -> None:
    life = Life(plan(wal=True))
    life.session("forward", Fuse(int(moments(wal=True) * part)))
    for second in (3, 11, 29):
        life.session("forward", Fuse(second))
    assert life.session("forward") == "complete"
    assert not life.faults(restored=True)


def test_the_engine_may_die_anywhere_in_a_rollback() -> None:
    life = complete()
    life.session("backward")
    total = life.moments
    assert total > 100
    for at in range(0, total, 9):
        life = complete()
        assert life.session("backward", Fuse(at)) in ("killed", "rolled-back")
        # Killed while still asking whether it may, nothing has begun; or when all was done, and only told.
        going_on = life.state not in ("complete", "rolled-back")
        then = "forward" if at % 2 and going_on else "backward"
        assert life.session(then) == "rolled-back", "resume goes on with a rollback too"
        assert not life.faults(restored=False)
        for host in life.world.hosts.values():
            discarded = host.read(f"{host.node.paths.data_dir}/.{RUN}.discarded/member/snap/db")
            assert discarded == f"restored {RUN}", "what etcd ran on is kept until finish"


@pytest.mark.parametrize("before", ["complete", "rolled-back"])
def test_the_engine_may_die_anywhere_in_finish(before: str) -> None:
    def ended() -> Life:
        life = complete()
        if before == "rolled-back":
            life.session("backward")
        return life

    life = ended()
    life.session("finish")
    wanted = life.tree()
    for at in range(0, life.moments, 3):
        life = ended()
        assert life.session("finish", Fuse(at)) in ("killed", before)
        assert not life.after_finish()
        assert life.tree() == wanted
    if before == "rolled-back":
        assert wanted == Life(plan()).tree(), "not a byte is left, and none is missing"


def complete() -> Life:
    life = Life(plan())
    assert life.session("forward") == "complete"
    return life


def test_a_failed_preparation_leaves_no_trace_wherever_the_engine_dies() -> None:
    """``etcdutl`` fails on one host: everything is taken back by itself, and no host is changed."""
    untouched = Life(plan(wal=True)).tree()
    whole = failing()
    ended = whole.session("forward")
    assert ended.startswith("Refused: Restore the snapshot into a hidden child")
    assert whole.error
    assert whole.error.code == 3
    assert whole.tree() == untouched
    assert whole.state == "rolled-back"
    for at in range(0, whole.moments, 8):
        life = failing()
        life.session("forward", Fuse(at))
        if life.state != "rolled-back":
            life.session("forward")
        assert life.state == "rolled-back", at
        assert life.tree() == untouched, at
        assert not life.world.violations


def failing() -> Life:
    life = Life(plan(wal=True))
    life.world.etcdutl_fails = "m2"
    return life


def test_a_forgotten_engine_that_wakes_up_changes_nothing() -> None:
    """The old engine sleeps, a new one completes the run; the old one wakes up and is refused by every host."""
    total = moments()
    first = next(at for at in range(total) if locked_everywhere(at))
    for at in range(first, total, 11):
        life = Life(plan())
        after: dict[str, object] = {}

        def another(life: Life = life, after: dict[str, object] = after) -> None:
            other = Life(life.plan, list(life.lines))
            other.world = life.world
            if other.state != "complete":
                after["ended"] = other.session("forward")
                after["tree"] = life.tree()

        woken = life.session("forward", Fuse(at, "sleep", meanwhile=another))
        if life.state == "complete" and not after:
            continue  # it slept when all was done, and only its own last line was not yet on the hosts
        assert after["ended"] == "complete", (at, after)
        assert life.tree() == after["tree"], f"{at}: the old engine changed something, and ended {woken}"
        assert not life.world.violations
        assert not life.faults(restored=True)


def locked_everywhere(at: int) -> bool:
    """Before the locks the wrapper, which knows the epochs, has no place to live: see ``Command.bare``."""
    life = Life(plan())
    life.session("forward", Fuse(at))
    return all(host.exists(LOCK) for host in life.world.hosts.values())


@pytest.mark.parametrize("name", ["etcd.yaml", "kube-apiserver.yaml"])
def test_somebody_puts_a_manifest_back_by_hand(name: str) -> None:
    """Data is never moved under what then runs, on the way on nor on the way back; and no API server precedes etcd."""
    all_end_well(Case(at, "engine", way, meddle=name) for at in range(330, moments(), 7) for way in WAYS)


def test_an_edited_manifest_is_never_parked() -> None:
    """Somebody edits a manifest after it was saved: it stays, the run stops and says so, and can be rolled back."""
    life = edited_after_saving("etcd.yaml")
    host = life.world.hosts["m2"]
    before = host.read(f"{host.node.paths.manifests}/etcd.yaml")
    ended = life.session("forward")
    assert "was changed since this run saved it" in ended, ended
    assert "was changed since this run saved it" in life.session("forward")
    assert not life.world.violations
    assert life.session("backward") == "rolled-back"
    assert host.read(f"{host.node.paths.manifests}/etcd.yaml") == before
    assert not life.after_finish(), "nothing of the run is left"


def edited_after_saving(name: str) -> Life:
    life = Life(plan())
    at = next(at for at in itertools.count(0, 5) if saved_everywhere(life := Life(plan()), at))
    assert at
    host = life.world.hosts["m2"]
    text = MANIFEST.format(name=name) + " and edited"
    life.world.edited["m2", name] = text
    host.put(f"{host.node.paths.manifests}/{name}", text)
    host.sync(f"{host.node.paths.manifests}/{name}")
    return life


def saved_everywhere(life: Life, at: int) -> bool:
    life.session("forward", Fuse(at))
    return any(line.get("step") == "RestoreAside" for line in life.lines)


# Each safeguard taken away.


def some(
    begin: float, end: float, step: int, kinds: Iterable[str] = ("engine",), ways: Iterable[str] = WAYS, **more: Any
) -> list[Case]:
    """Cases from this part of a run to that one, every ``step``-th moment; ``more`` is of the case."""
    wal = more.setdefault("wal", True)
    total = moments(wal=wal, broken=more.get("broken", False))
    return [
        Case(at, kind, way, **more)
        for at in range(int(begin * total), int(end * total), step)
        for kind in kinds
        for way in ways
    ]


Mutation = Callable[[], None]

FORWARD = ("forward",)
MUTATIONS: list[tuple[Mutation, Callable[[], list[Case]], str]] = [
    (mutations.no_settling, lambda: some(0, 0.9, 29), "another command still runs"),
    (mutations.no_marker, lambda: some(0.3, 0.6, 5, ("engine", "power"), FORWARD), "Start etcd on every host"),
    (mutations.no_aside_marker, lambda: some(0.6, 0.9, 8), ".old"),
    (mutations.no_barrier, lambda: some(0, 0.9, 11, ("silent",), FORWARD), "did not suffice"),
    (
        mutations.undo_unproven,
        lambda: [c for s in (40, 60) for c in some(0.55, 1, 59, ways=("backward",), second=s, second_kind="silent")],
        "in place on m2 is",
    ),
    (mutations.journal_after_acting, lambda: some(0, 0.9, 11, ways=("backward",)), "the journal did not know it"),
    (
        mutations.no_ready,
        lambda: some(0.45, 0.85, 3, ways=FORWARD, wal=False, meddle="kube-apiserver.yaml"),
        "data moved under a running",
    ),
    (
        mutations.containers_only,
        lambda: some(0, 0.9, 40, ways=FORWARD, wal=False, broken=True),
        "data moved under a wanted",
    ),
    (
        mutations.no_guard_at_the_start,
        lambda: some(0.5, 0.9, 2, ways=FORWARD, wal=False, meddle="kube-apiserver.yaml"),
        "under the API server of m2",
    ),
    (mutations.no_syncs, lambda: some(0, 0.75, 29, ("blackout", "brownout")), "torn"),
]


@pytest.mark.parametrize(("mutation", "cases", "sort"), MUTATIONS, ids=[m[0].__name__ for m in MUTATIONS])
def test_the_sweep_notices(mutation: Mutation, cases: Callable[[], list[Case]], sort: str) -> None:
    _, failed = play(cases(), mutation)
    assert failed, f"without {mutation.__doc__} nothing fails"
    assert any(sort in text for text in failed), "\n".join(failed[:5])


def test_the_sweep_notices_that_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "STOP", scripts.STOP)  # put back afterwards
    mutations.no_compare()
    life = edited_after_saving("kube-scheduler.yaml")
    life.session("forward")
    at_first = life.world.violations
    assert not at_first, "the precondition compares too"
    life = complete()
    host = life.world.hosts["m2"]
    text = MANIFEST.format(name="etcd.yaml") + " and edited"
    life.world.edited["m2", "etcd.yaml"] = text
    host.put(f"{host.node.paths.manifests}/etcd.yaml", text)
    assert "was changed" in life.session("backward"), "what is asked before anything is undone compares too"
    assert not life.world.violations
    monkeypatch.setattr(scripts, "UNCHANGED", "set -u\n:\n")
    life.session("backward")
    assert any("gone is" in v for v in life.world.violations)


# The fake itself must be able to see.


def test_the_fake_sees_what_must_never_be() -> None:
    no_checks()
    life = Life(plan())
    host = life.world.hosts["m1"]
    host.rename(host.member, f"{host.node.paths.data_dir}/.elsewhere")
    assert any("data moved under a running" in v for v in life.world.violations)
    life = Life(plan())
    host = life.world.hosts["m1"]
    host.drop(f"{host.member}/wal/1.wal")
    life.world.check(host)
    assert any("the old data is" in v for v in life.world.violations)
    life = Life(plan())
    host = life.world.hosts["m1"]
    host.put(f"{host.node.paths.manifests}/etcd.yaml", "kind: P")
    life.world.check(host)
    assert any("half a manifest" in v for v in life.world.violations)


def test_the_fake_sees_etcd_start_on_bad_data() -> None:
    for spoil, sort in (("owner", "wrong owner"), ("wal", "etcd started on nothing"), ("torn", "broken")):
        life = Life(plan())
        host = life.world.hosts["m3"]
        wals = [f"{host.member}/wal/{i}.wal" for i in (0, 1)]
        if spoil == "owner":
            host.nodes[wals[0]].owner = "root"
        elif spoil == "wal":
            for wal in wals:
                host.nodes.pop(wal)
        else:
            host.nodes[wals[0]].content = "something else"
        host.reboot()
        assert any(sort in v for v in life.world.violations), life.world.violations


def test_a_blackout_takes_back_what_was_not_synced() -> None:
    host = Life(plan()).world.hosts["m1"]
    host.put("/x/a", "1")
    host.sync("/x")
    host.rename("/x/a", "/x/b")
    host.put("/x/c", "2", synced=False)
    host.power_cut()
    assert host.read("/x/b") == "1"
    assert host.read("/x/c") != "2", "the content was not synced"
    host.rename("/x/b", "/x/d")
    host.power_cut(lambda mount: True)
    assert host.exists("/x/b")
    assert not host.exists("/x/d"), "the rename was not made durable"


REGRESSIONS = [
    Case(451, "silent", "backward", wal=True, pace=2, second=100, second_kind="power"),  # WAL's restored part forgotten
    Case(243, "blackout", "forward"),  # the snapshot's figures were lost, and missed in the outage
]


@pytest.mark.parametrize("case", REGRESSIONS, ids=str)
def test_a_case_can_be_played_alone(case: Case) -> None:
    assert faults(case) == []

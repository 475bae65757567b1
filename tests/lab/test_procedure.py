"""Each step of the procedure by itself, on a real lab over real SSH: ready, done, twice, undone, twice.

One lab walks through the steps, forward and then backward; whatever a step changed must be as it was, to the byte,
once it is undone (``walkkit.Walk`` compares). What goes wrong is in ``test_procedure_hosts.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.procedures.data import sweep
from runbook.procedures.kubeadm import (
    CheckEverything,
    LockHosts,
    RestartKubelets,
    RestartWorkerKubelets,
    RestoreAside,
    SaveManifests,
    StageSnapshot,
    StartApiServers,
    StartControllers,
    StartEtcd,
    StopApiServers,
    StopControllers,
    StopEtcd,
    SwapData,
    VerifyCluster,
    may_roll_back,
)
from runbook.step import Step
from tests.lab.proofkit import DATA, MANIFESTS, on_all, said, sh, succeeded
from tests.lab.walkkit import FORWARD, Walk, a_walk, all_object, index_of, key, keys_of, objected, put

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """One lab for all of this module."""
    with a_walk("steps", tmp_path_factory.mktemp("steps")) as walk:
        yield walk


# --- forward and backward ---

NOT_READY: dict[type[Step], tuple[type[Step], str]] = {
    RestoreAside: (StageSnapshot, "snapshot.db"),
    StopControllers: (RestoreAside, "the restore was not completed"),
    StopApiServers: (StopControllers, f"{MANIFESTS}/kube-controller-manager.yaml is still there"),
    StopEtcd: (StopApiServers, f"{MANIFESTS}/kube-apiserver.yaml is still there"),
    SwapData: (StopEtcd, f"{MANIFESTS}/etcd.yaml is still there"),
    StartEtcd: (SwapData, "the new data is not in place"),
    StartApiServers: (StartEtcd, "etcd does not answer"),
    StartControllers: (StartApiServers, "does not answer"),
}
"""For each step that asks, the step before it, at which it must still say no, and why."""


def test_every_step_that_asks_is_shown_saying_no() -> None:
    asks = {type(step) for step in FORWARD if type(step).ready is not Step.ready}
    assert asks == set(NOT_READY)
    assert all(index_of(before) + 1 == index_of(step) for step, (before, _) in NOT_READY.items())


@pytest.mark.parametrize("kind", [type(s) for s in FORWARD], ids=lambda kind: kind.__name__)
def test_forward(walk: Walk, kind: type[Step]) -> None:
    step = walk.to(kind)
    following = FORWARD[walk.at + 1] if walk.at + 1 < len(FORWARD) else None
    if following and type(following) in NOT_READY:
        all_object(objected(walk, following), NOT_READY[type(following)][1])
    said(walk.rig.wait(walk.probes(step.ready, step)))
    all_object(objected(walk, step, "done"), "")
    assert all(objected(walk, step, "done").values()), "it is done before it was done"
    walk.carry_out(step)
    walk.do(step)
    said(walk.rig.wait(walk.probes(step.done, step)))


def test_the_restored_data_serves(walk: Walk) -> None:
    walk.to(RestartKubelets)
    assert {n.name: key(walk.lab, n.name) for n in walk.rig.nodes} == {"m1": "then", "m2": "then", "m3": "then"}
    walk.lab.wait_healthy(60)


UNDOABLE = [type(s) for s in FORWARD if type(s).undo is not Step.undo]


@pytest.mark.parametrize("kind", list(reversed(UNDOABLE)), ids=lambda kind: kind.__name__)
def test_backward(walk: Walk, kind: type[Step]) -> None:
    """``take_back`` compares the hosts with what they were: manifests, data, the old revision and every key."""
    if walk.spent and index_of(kind) > index_of(SwapData):
        walk.to(LockHosts)
    step = FORWARD[index_of(kind)]
    while walk.at <= index_of(kind):
        walk.to(type(FORWARD[walk.at + 1]))
    while walk.at > index_of(kind) + 1:
        walk.take_back(FORWARD[walk.at - 1])
    undone = objected(walk, step, "undone")
    assert all(undone.values()), "it is undone before it was undone"
    if kind is StartApiServers:
        put(walk.lab, "/test/later", "of the restored cluster")
    walk.take_back(step)
    walk.undo(step)
    said(walk.rig.wait(walk.probes(step.undone, step)))
    assert walk.scene(step) == walk.scenes[walk.at]


def test_what_is_left_after_all_was_undone(walk: Walk) -> None:
    """The restored data that etcd ran on is kept as `discarded`, the old cluster serves, and `sweep` takes the rest."""
    if not walk.spent:  # nothing was undone before this test
        walk.to(RestartKubelets)
        put(walk.lab, "/test/later", "of the restored cluster")
    walk.to(LockHosts)
    rig, lab = walk.rig, walk.lab
    run = rig.bound.run
    hidden = on_all((n.name for n in rig.nodes), lambda h: sh(lab, h, f"ls -A {DATA}").split())
    assert hidden == {n.name: [f".{run}.discarded", "member"] for n in rig.nodes}
    lab.wait_healthy(60)
    assert {n.name: key(lab, n.name) for n in rig.nodes} == {"m1": "now", "m2": "now", "m3": "now"}
    assert all(not any(b"/test/later" in repr(kv).encode() for kv in keys_of(lab, n.name)["kvs"]) for n in rig.nodes)
    said(rig.ask({n.name: may_roll_back(n) for n in rig.nodes}))
    succeeded(rig.act({n.name: sweep(n) for n in (*rig.nodes, *rig.workers)}, "sweep"))
    script = 'ls -A /var/lib/etcd-runbook /var/lib/etcd-runbook.lock 2> /dev/null || :; ls -A "$1"; ls -A "$2"'
    left = on_all((n.name for n in rig.nodes), lambda h: sh(lab, h, script, DATA, MANIFESTS).split())
    names = ["member", "etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"]
    assert left == {n.name: names for n in rig.nodes}


def test_every_step_is_tested_here() -> None:
    """The checks' steps act on nothing."""
    acting = {type(s) for s in FORWARD}
    assert acting == {
        LockHosts,
        SaveManifests,
        StageSnapshot,
        RestoreAside,
        StopControllers,
        StopApiServers,
        StopEtcd,
        SwapData,
        StartEtcd,
        StartApiServers,
        StartControllers,
        RestartKubelets,
        RestartWorkerKubelets,
    }
    assert not acting & {CheckEverything, VerifyCluster}

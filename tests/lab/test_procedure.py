"""Each step of the procedure by itself, on a real lab over real SSH: ready, done, twice, undone, twice.

One lab walks through the steps, forward and then backward; whatever a step changed must be as it was, to the byte,
once it is undone (``proofkit.Walk`` compares). Then what goes wrong at a step, and two figures.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.lab import Lab
from runbook.lifecycle import Verdict
from runbook.plan import Timeouts
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
    sweep,
)
from runbook.procedures.scripts import GONE, LEADER_LAST
from runbook.step import Command, Step
from tests.lab.conftest import NAME, eventually
from tests.lab.proofkit import (
    DATA,
    ETCDCTL,
    FORWARD,
    MANIFESTS,
    OWN,
    Walk,
    index_of,
    keys_of,
    on_all,
    plan_of,
    said,
    sh,
    succeeded,
)

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Three nodes and a worker; the snapshot is of the lab's own past, and a key was written since."""
    lab = Lab.up(f"{NAME}-steps", nodes=3, workers=1)
    walk = None
    try:
        lab.fill(objects=30)
        put(lab, "/test/key", "then")
        snapshot = lab.snapshot(tmp_path_factory.mktemp("steps") / "snapshot.db")
        put(lab, "/test/key", "now")
        walk = Walk(lab, plan_of(lab, snapshot, timeouts=Timeouts(stop=10)), "steps")
        yield walk
    finally:
        if walk is not None:
            walk.close()
        lab.down()


def put(lab: Lab, key: str, value: str) -> None:
    """Write a key, past the API server."""
    sh(lab, "m1", '"$@"', *ETCDCTL, OWN, "put", key, value)


def key(lab: Lab, host: str) -> str:
    """The key that the snapshot and the living data disagree on."""
    return sh(lab, host, '"$@"', *ETCDCTL, OWN, "get", "/test/key", "--print-value-only").strip()


def objected(walk: Walk, step: Step, what: str = "ready") -> dict[str, str]:
    """What each of a step's hosts objects to, asked once; "" where it says yes."""
    views = walk.rig.ask(walk.probes(getattr(step, what), step))
    assert all(v.verdict in (Verdict.YES, Verdict.NO) for v in views.values()), views
    assert all(bool(v.saw) == (v.verdict is Verdict.NO) for v in views.values()), views
    return {host: view.saw for host, view in views.items()}


def all_object(found: Mapping[str, str], *texts: str) -> None:
    """All hosts say no, with one of these words."""
    assert found
    assert all(any(text in saw for text in texts) for saw in found.values()), found


# --- forward and backward ---

NOT_READY: dict[type[Step], tuple[type[Step], str]] = {
    RestoreAside: (StageSnapshot, "snapshot.db"),
    StopControllers: (RestoreAside, "the restore was not completed"),
    StopApiServers: (StopControllers, "kube-controller-manager still runs"),
    StopEtcd: (StopApiServers, "kube-apiserver still runs"),
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


# --- what goes wrong at a step ---


def test_a_listener_on_the_api_servers_port(walk: Walk) -> None:
    """Container gone, manifest parked, and yet something answers where the API server did: not done."""
    step = walk.to(StopEtcd)
    before = FORWARD[index_of(StopApiServers)]
    said(walk.rig.ask(walk.probes(before.done, before)))
    serve = (
        "import socket, sys; s = socket.create_server(('10.0.1.11', 6443)); print('up', flush=True); sys.stdin.read()"
    )
    with walk.lab.popen("m2", ["python3", "-c", serve], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdin
        assert listener.stdout
        assert listener.stdout.readline() == b"up\n"
        found = objected(walk, before, "done")
        listener.stdin.close()  # it ends by that
    assert found == {"m1": "", "m2": "something still listens on 6443", "m3": ""}
    eventually("it is gone", lambda: not any(objected(walk, before, "done").values()))
    assert not any(objected(walk, step).values())


def test_a_bump_that_the_living_etcd_has_overtaken(walk: Walk) -> None:
    """Found out in the outage, when nobody can write any more: etcd is not stopped."""
    step = walk.to(StopEtcd)
    small = replace(walk.plan, cluster=replace(walk.plan.cluster, bump_revision=1))
    views = walk.rig.ask({n.name: step.ready(replace(n, plan=small)) for n in walk.rig.nodes})
    all_object({host: view.saw for host, view in views.items()}, "the living etcd is at revision")
    all_object({host: view.saw for host, view in views.items()}, "would do")
    enough = int(views["m1"].saw.split("bumpRevision ")[1].split()[0])
    large = replace(walk.plan, cluster=replace(walk.plan.cluster, bump_revision=enough))
    said(walk.rig.ask({n.name: step.ready(replace(n, plan=large)) for n in walk.rig.nodes}))


def test_a_manifest_that_someone_put_back(walk: Walk) -> None:
    """Between the stop and the swap etcd was started again on one host: it is stopped first, then the data moves."""
    step = walk.to(SwapData)
    sh(walk.lab, "m1", f'cp "$1"/manifests/etcd.yaml {MANIFESTS}/etcd.yaml', walk.rig.nodes[0].run_dir)
    eventually("etcd runs", lambda: sh(walk.lab, "m1", "crictl ps -q --name '^etcd$'"))
    all_object({"m1": objected(walk, step)["m1"]}, "etcd.yaml is still there")
    walk.do(step)
    said(walk.rig.ask(walk.probes(step.done, step)))
    said(walk.rig.ask(walk.probes(step.ready, step)))
    walk.undo(step)
    said(walk.rig.ask(walk.probes(step.undone, step)))
    walk.spent = True


# --- figures ---


def seconds(walk: Walk, actions: Mapping[str, Sequence[Command]]) -> float:
    """How long all hosts need for these."""
    began = time.monotonic()
    succeeded(walk.rig.act(actions, "timed"))
    return time.monotonic() - began


def test_the_leader_stops_last(walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    """A leader that stops with its followers waits seven seconds for one of them to take over."""
    step = walk.to(StopEtcd)
    took = {}
    for what in ("leader last", "at once"):
        actions = {n.name: [a for a in step.do(n) if isinstance(a, Command)] for n in walk.rig.nodes}
        if what == "at once":
            actions = {h: [a for a in every if LEADER_LAST not in a.words()] for h, every in actions.items()}
        took[what] = seconds(walk, actions)
        said(walk.rig.wait(walk.probes(step.done, step)))
        walk.undo(step)
        said(walk.rig.wait(walk.probes(step.undone, step)))
        eventually("a leader is elected", lambda: keys_of(walk.lab, "m1"))
    with capsys.disabled():
        print(f"\n  etcd stopped: leader last {took['leader last']:.1f} s, at once {took['at once']:.1f} s")
    assert took["leader last"] < 6


def test_members_start_in_turn(walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    """Members that start in the same moment wait for each other's answer in etcd's initial corrupt check."""
    step = walk.to(StartEtcd)
    took = {}
    for turns in (True, False):
        began = time.monotonic()
        walk.do(step, turns=turns)
        said(walk.rig.wait(walk.probes(step.done, step)))
        took[turns] = time.monotonic() - began
        walk.undo(step)
        said(walk.rig.wait(walk.probes(step.undone, step)))
    with capsys.disabled():
        print(f"\n  etcd started and proven on three hosts: in turn {took[True]:.1f} s, at once {took[False]:.1f} s")
    assert took[True] < 20
    assert took[True] < took[False] + 3, "taking turns must not cost what it saves"


# --- kubelets that have not seen an API server: they delete no pods for the rest of this lab's life ---


def test_a_kubelet_that_refuses_to_stop_a_container(walk: Walk) -> None:
    """Restarted while every API server is down, it deletes no pods: past the deadline crictl does."""
    step = walk.to(StopEtcd)
    sh(walk.lab, "m2", "systemctl restart kubelet")
    quick = replace(walk.plan, timeouts=replace(Timeouts(), stop=8))
    began = time.monotonic()
    results = walk.rig.act({n.name: step.do(replace(n, plan=quick)) for n in walk.rig.nodes}, "refused")
    took = time.monotonic() - began
    succeeded(results)
    assert "the kubelet did not stop etcd within 8 s; crictl stop" in results["m2"].err
    assert [results[host].err for host in ("m1", "m3")] == ["", ""]
    assert 8 <= took < 40, took
    said(walk.rig.wait(walk.probes(step.done, step)))
    assert "skipping delete" in sh(walk.lab, "m2", "cat /var/log/kubelet.log /var/log/*/kubelet.log 2> /dev/null || :")
    walk.undo(step)
    said(walk.rig.wait(walk.probes(step.undone, step)))
    eventually("m2's etcd is back", lambda: sh(walk.lab, "m2", "crictl ps -q --name '^etcd$'"))


CRICTL = """#!/bin/sh
case $1 in
  ps) cat "$0.ids" ;;
  stop) shift 3; echo "stop $*" >> "$0.log"; $AFTER; echo "NotFound" >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("after", "code"), [(': > "$0.ids"', 0), (":", 1), ('rm "$0.ids"', 1)], ids=["gone", "stays", "silent"]
)
def test_a_container_that_ends_before_crictl_stops_it(tmp_path: Path, after: str, code: int) -> None:
    """Then crictl knows no such container, and it is gone all the same; one that stays is not, nor one unheard of."""
    stub = tmp_path / "crictl"
    stub.write_text(CRICTL.replace("$AFTER", after))
    stub.chmod(0o755)
    (tmp_path / "crictl.ids").write_text("0a1b\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", GONE, "runbook", "etcd", "1"], env={"PATH": path}, check=False)
    assert done.returncode == code
    assert (tmp_path / "crictl.log").read_text() == "stop 0a1b\n"


def test_data_never_moves_under_etcd(walk: Walk) -> None:
    """The manifest is gone, and the container outlived it; or only its port is held: the swap is not ready."""
    step = walk.to(SwapData)
    stop = FORWARD[index_of(StopEtcd)]
    walk.undo(stop)
    said(walk.rig.wait(walk.probes(stop.undone, stop)))
    sh(walk.lab, "m3", "systemctl stop kubelet")
    actions = {n.name: [a for a in stop.do(n) if n.name != "m3" or "cmp" in str(a)] for n in walk.rig.nodes}
    assert len(actions["m3"]) == 1, "the one that parks"
    succeeded(walk.rig.act(actions, "park"))
    eventually("the others stopped", lambda: {h for h, saw in objected(walk, step).items() if saw} == {"m3"})
    assert objected(walk, step)["m3"].startswith("etcd still runs: ")
    assert not all(objected(walk, stop, "done").values())
    assert objected(walk, stop, "done")["m3"].startswith("etcd still runs: ")
    sh(walk.lab, "m3", "systemctl start kubelet; sleep 0.5; crictl stop --timeout 10 $(crictl ps -q --name '^etcd$')")
    said(walk.rig.wait({h: p.within(30) for h, p in walk.probes(stop.done, stop).items()}))
    said(walk.rig.ask(walk.probes(step.ready, step)))


# --- other hosts ---


def single(lab: Lab, tmp: Path, **changes: object) -> Walk:
    """A walk on a lab of one node, whose living data is later than its snapshot."""
    lab.fill(objects=10)
    put(lab, "/test/key", "then")
    snapshot = lab.snapshot(tmp / "snapshot.db")
    put(lab, "/test/key", "now")
    return Walk(lab, plan_of(lab, snapshot, **changes), "single")


ANOTHER_USER = f"""
mv {MANIFESTS}/etcd.yaml /root/etcd.yaml
while [ -n "$(crictl ps -q --name '^etcd$')" ]; do sleep 0.1; done
chown -R 4321:4322 {DATA}
chmod -R g+rX,o+rX /etc/kubernetes/pki/etcd
sed 's/^  securityContext:$/  securityContext: {{runAsUser: 4321, runAsGroup: 4322}}/; /^    seccompProfile:$/,+1d' \\
  /root/etcd.yaml > {MANIFESTS}/.etcd.yaml
mv {MANIFESTS}/.etcd.yaml {MANIFESTS}/etcd.yaml
"""


def test_etcd_as_another_user(tmp_path: Path) -> None:
    """The restored data belongs to whom the old belonged, mode and all, and etcd starts on it, as that user."""
    lab = Lab.up(f"{NAME}-user", nodes=1)
    try:
        sh(lab, "m1", ANOTHER_USER)
        lab.wait_healthy(60)
        modes = f"find {DATA}/member -exec stat -c '%u:%g %a' {{}} + | sort -u; stat -c '%u:%g %a' {DATA}"
        old = sh(lab, "m1", modes)
        assert set(old.split()[::2]) == {"4321:4322"}
        walk = single(lab, tmp_path)
        walk.to(RestartKubelets)
        assert sh(lab, "m1", modes) == old
        status = sh(lab, "m1", 'grep -h "^[UG]id:" /proc/"$(pgrep -x etcd)"/status').split()
        assert status == ["Uid:", *["4321"] * 4, "Gid:", *["4322"] * 4]
        assert key(lab, "m1") == "then"
        walk.to(LockHosts)
        assert sh(lab, "m1", modes) == old
        assert key(lab, "m1") == "now"
        walk.close()
        named = Walk(lab, replace(walk.plan, owner="daemon:daemon"), "named")
        named.to(StopControllers)
        where = f"{DATA}/.{named.rig.bound.run}.restored"
        assert set(sh(lab, "m1", 'find "$1" -exec stat -c %U:%G {} +', where).split()) == {"daemon:daemon"}
        named.to(LockHosts)
        named.close()
    finally:
        lab.down()


REPLAY = """
data=$1 wal=$2 run=$3
cp -a "$data/member" /root/member
mkdir /root/wal
mv "$wal"/*.wal "$wal"/*.tmp /root/wal 2> /dev/null || :
cp -a "$wal/.$run.old"/*.wal "$wal"
"""
UNREPLAY = """
data=$1 wal=$2
rm -rf "$data/member" "$wal"/*.wal "$wal"/*.tmp
mv /root/member "$data/member"
mv /root/wal/* "$wal"
"""


def test_a_wal_directory_of_its_own(tmp_path: Path) -> None:
    """Data and WAL move together, there and back; and a restored member over the old WAL is healthy, and not proven."""
    lab = Lab.up(f"{NAME}-wal", nodes=1, wal_dir="/var/lib/etcd-wal/wal")
    try:
        walk = single(lab, tmp_path)
        (node,) = walk.rig.nodes
        words = (DATA, node.node.paths.wal_dir, node.bound.run)
        assert words[1] == "/var/lib/etcd-wal/wal"
        start = walk.to(StartEtcd)
        sh(lab, "m1", REPLAY, *words)
        walk.do(start)
        health = [*ETCDCTL, OWN, "endpoint", "health"]
        eventually("etcd is healthy", lambda: lab.exec("m1", health).returncode == 0)
        all_object(objected(walk, start, "done"), "is not the restored cluster's")
        walk.undo(start)
        said(walk.rig.wait(walk.probes(start.undone, start)))
        sh(lab, "m1", UNREPLAY, *words)
        walk.to(RestartKubelets)
        assert key(lab, "m1") == "then"
        assert sh(lab, "m1", f"ls -d {words[1]}/*.wal {words[1]}/.{words[2]}.old/*.wal {DATA}/.{words[2]}.old/member")
        assert not sh(lab, "m1", f"ls {DATA}/member").split()[1:], "the WAL is not in the data directory"
        walk.to(LockHosts)
        assert key(lab, "m1") == "now"
        walk.close()
    finally:
        lab.down()


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

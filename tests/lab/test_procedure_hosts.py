"""What goes wrong at a step, and hosts that are not as most: on real labs over real SSH. And a few figures."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runbook import parse
from runbook.lab import Lab
from runbook.plan import Timeouts
from runbook.procedures.kubeadm import (
    LockHosts,
    RestartKubelets,
    StartEtcd,
    StopApiServers,
    StopControllers,
    StopEtcd,
    SwapData,
)
from runbook.procedures.scripts import LEADER_LAST
from runbook.step import Command
from tests.lab.conftest import NAME, eventually
from tests.lab.proofkit import DATA, ETCDCTL, MANIFESTS, OWN, on_all, said, sh, succeeded
from tests.lab.walkkit import FORWARD, Walk, a_walk, all_object, index_of, key, keys_of, objected, single

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """One lab for most of this module."""
    with a_walk("wrong", tmp_path_factory.mktemp("wrong")) as walk:
        yield walk


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


CORRUPT = f"""
cp -a {DATA}/member /root/member
for wal in {DATA}/member/wal/*.wal; do printf 'no WAL at all' | dd of="$wal" conv=notrunc 2> /dev/null; done
crictl stop --timeout 0 $(crictl ps -q --name '^etcd$') > /dev/null
"""
RATTLE = f"rm -r {DATA}/member; mv /root/member {DATA}/member"


def test_an_etcd_in_a_crash_loop_is_stopped_before_its_data_moves(walk: Walk) -> None:
    """Between two attempts no container runs. Only when the kubelet wants the pod no more, the data may move."""
    step = walk.to(StopEtcd)
    sh(walk.lab, "m2", CORRUPT)

    def crashed() -> bool:
        label = "io.kubernetes.container.name=etcd"
        found = parse.containers(sh(walk.lab, "m2", f"crictl ps -a -o json --label {label}"))
        return not any(c.running for c in found) and found[0].attempt > 1

    eventually("it crashed again, and waits", crashed)
    found = objected(walk, step, "done")
    assert found["m2"] == f"{MANIFESTS}/etcd.yaml is still there"
    (box,) = sh(walk.lab, "m2", "crictl pods -q --state ready --label component=etcd").split()
    walk.do(step)
    said(walk.rig.ask(walk.probes(step.done, step)))
    assert box not in sh(walk.lab, "m2", "crictl pods -q --state ready").split()
    sh(walk.lab, "m2", RATTLE)
    walk.undo(step)
    said(walk.rig.wait(walk.probes(step.undone, step)))


def test_an_api_servers_manifest_that_someone_put_back(walk: Walk) -> None:
    """After the data was swapped: etcd is not started under it, and the swap done again parks it again."""
    step, swap = walk.to(StartEtcd), FORWARD[index_of(SwapData)]
    sh(walk.lab, "m2", f'cp "$1"/manifests/kube-apiserver.yaml {MANIFESTS}/', walk.rig.nodes[0].run_dir)
    assert objected(walk, step) == {"m1": "", "m2": f"{MANIFESTS}/kube-apiserver.yaml is still there", "m3": ""}
    refused = walk.rig.act({n.name: step.do(n) for n in walk.rig.nodes[1:2]}, "refused")["m2"]
    assert refused.code == 1
    assert "kube-apiserver.yaml is there again" in refused.err
    assert sh(walk.lab, "m2", f"ls {MANIFESTS}") == "kube-apiserver.yaml\n"
    eventually("it runs", lambda: sh(walk.lab, "m2", "crictl pods -q --state ready --label component=kube-apiserver"))
    walk.do(swap)
    said(walk.rig.ask(walk.probes(swap.done, swap)))
    said(walk.rig.ask(walk.probes(step.ready, step)))
    walk.take_back(swap)


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
        assert keys_of(walk.lab, "m1"), "a leader is elected"
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


def test_the_old_members_start_in_turn_too(walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    """A rollback ends the outage as soon as they serve: until then nobody else does."""
    step = walk.to(StopEtcd)
    took = {}
    for turns in (True, False):
        walk.do(step)
        said(walk.rig.wait(walk.probes(step.done, step)))
        began = time.monotonic()
        walk.undo(step, turns=turns)
        assert on_all([n.name for n in walk.rig.nodes], lambda host: keys_of(walk.lab, host))
        took[turns] = time.monotonic() - began
    with capsys.disabled():
        print(f"\n  etcd started again on three hosts: in turn {took[True]:.1f} s, at once {took[False]:.1f} s")
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


def test_data_never_moves_under_etcd(walk: Walk) -> None:
    """The manifest is gone, and the container outlived it, or the pod alone: the kubelet may start another."""
    step = walk.to(SwapData)
    stop = FORWARD[index_of(StopEtcd)]
    walk.undo(stop)
    said(walk.rig.wait(walk.probes(stop.undone, stop)))
    sh(walk.lab, "m3", f"systemctl stop kubelet; rm {MANIFESTS}/etcd.yaml")
    succeeded(walk.rig.act({n.name: stop.do(n) for n in walk.rig.nodes if n.name != "m3"}, "stop"))
    eventually("the others stopped", lambda: {h for h, saw in objected(walk, step).items() if saw} == {"m3"})
    assert objected(walk, step)["m3"].startswith("etcd still runs: ")
    assert objected(walk, stop, "done") == {"m1": "", "m2": "", "m3": objected(walk, step)["m3"]}
    sh(walk.lab, "m3", "crictl stop --timeout 10 $(crictl ps -q --name '^etcd$')")
    assert not sh(walk.lab, "m3", "crictl ps -q --name '^etcd$'")
    assert objected(walk, step)["m3"].startswith("the kubelet still wants etcd, whose pod is ready: etcd-m3 (")
    assert objected(walk, stop, "done")["m3"].startswith("the kubelet still wants etcd, ")
    sh(walk.lab, "m3", "systemctl start kubelet")
    m3 = walk.rig.nodes[2]
    results = walk.rig.act({"m3": stop.do(replace(m3, plan=replace(walk.plan, timeouts=Timeouts(stop=1))))}, "stopp")
    succeeded(results)
    assert "crictl stop" in results["m3"].err, "this kubelet has seen no API server, and deletes nothing"
    said(walk.rig.ask(walk.probes(stop.done, stop)))
    said(walk.rig.ask(walk.probes(step.ready, step)))


# --- other hosts ---


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


UNKNOWN_MEMBER = "panic: failed to update; member unknown"


def healthy(lab: Lab) -> bool:
    """Whether m1's etcd commits what is proposed."""
    return lab.exec("m1", [*ETCDCTL, OWN, "endpoint", "health"]).returncode == 0


def panicked_again(lab: Lab) -> bool:
    """Whether m1's etcd met a member that its data does not know, and not for the first time."""
    label = "io.kubernetes.container.name=etcd"
    found = parse.containers(sh(lab, "m1", f"crictl ps -a -o json --label {label}"))
    again = [c.id for c in found if c.attempt and not c.running]
    # The kubelet may remove one of them meanwhile; then the next is looked at.
    return any(UNKNOWN_MEMBER in sh(lab, "m1", 'crictl logs "$1" 2>&1 || :', id_) for id_ in again)


def test_a_wal_directory_of_its_own(tmp_path: Path) -> None:
    """Data and WAL move together, there and back; and a restored member over the old WAL is not proven.

    What such a member does depends on where its series takes the members from: see ``runbook/etcdversions.py``.
    """
    lab = Lab.up(f"{NAME}-wal", nodes=1, wal_dir="/var/lib/etcd-wal/wal")
    try:
        walk = single(lab, tmp_path)
        (node,) = walk.rig.nodes
        words = (DATA, node.node.paths.wal_dir, node.bound.run)
        assert words[1] == "/var/lib/etcd-wal/wal"
        start = walk.to(StartEtcd)
        sh(lab, "m1", REPLAY, *words)
        walk.do(start)
        if lab.spec["etcd"].startswith("3.5."):
            eventually("etcd is healthy", lambda: healthy(lab))
            all_object(objected(walk, start, "done"), "is not the restored cluster's")
        else:
            # Before each panic its initial corrupt check waits seven seconds for the data's member, which nobody is.
            eventually("etcd panicked, and again", lambda: panicked_again(lab), within=60)
            down = ("no container etcd runs", "nothing listens on 2379", "etcd does not answer")
            all_object(objected(walk, start, "done"), *down)
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

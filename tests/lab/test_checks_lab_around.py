"""First checks of what stands around etcd: each made false on real hosts. Only it, and who must speak, are asked."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.checks import Finding, all_checks
from runbook.lab import Lab
from runbook.plan import Cluster, OwnCheck, Plan, Snapshot, Tools, Verify
from tests.lab import test_checks_lab as kit
from tests.lab.conftest import eventually
from tests.lab.test_checks_lab import M, etcdctl, told

pytestmark = pytest.mark.lab
plan = kit.plan
snapshot = kit.snapshot
ELSEWHERE = "/root/m"


def asked(lab: Lab, plan: Plan, *names: str, group: str = "preflight") -> list[Finding]:
    """What these checks say; the hosts must be reached for any of them."""
    return kit.survey(lab, plan, group, [c for c in all_checks(group) if c.id() in ("Reachable", *names)])


@contextlib.contextmanager
def manifest_elsewhere(lab: Lab, host: str, name: str, edit: str) -> Iterator[None]:
    """A copy of a manifest, edited by sed, where no kubelet reads it."""
    make = f"mkdir {ELSEWHERE}; sed {shlex.quote(edit)} {M}/{name}.yaml > {ELSEWHERE}/{name}.yaml"
    lab.exec(host, ["sh", "-ec", make], check=True)
    try:
        yield
    finally:
        lab.exec(host, ["rm", "-r", ELSEWHERE], check=True)


def looking_elsewhere(plan: Plan) -> Plan:
    """The plan, with another manifests directory: no kubelet reads that one."""
    nodes = tuple(replace(n, paths=replace(n.paths, manifests=ELSEWHERE)) for n in plan.nodes)
    return replace(plan, nodes=nodes)


def saws(found: Sequence[Finding], check: str) -> str:
    return "\n".join(f.saw for f in found if f.check == check)


def test_a_providers_host_is_named(lab: Lab, plan: Plan) -> None:
    lab.exec("m2", ["mkdir", "-p", "/etc/eks"], check=True)
    try:
        found = asked(lab, looking_elsewhere(plan), "Distribution")
    finally:
        lab.exec("m2", ["rmdir", "/etc/eks"], check=True)
    assert told(found) == {("Distribution", "m2", "blocks")}
    assert "EKS" in saws(found, "Distribution")


def test_an_api_server_without_an_etcd_of_its_own(lab: Lab, plan: Plan) -> None:
    external = "s|servers=https://127.0.0.1|servers=https://10.9.9.9|"
    with manifest_elsewhere(lab, "m3", "kube-apiserver", external):
        found = asked(lab, looking_elsewhere(plan), "Distribution")
    assert told(found) == {("Distribution", "m3", "blocks")}
    assert "its etcd is an external one" in saws(found, "Distribution")


@pytest.mark.parametrize(
    ("program", "severity", "text"),
    [
        ("etcdctl --endpoints=http://10.0.1.99:2379 snapshot save /root/x.db", "warns", "a backup is taken"),
        ("etcdutl snapshot restore /root/never.db --data-dir /root/never", "blocks", "somebody restores a snapshot"),
    ],
)
def test_somebody_else_at_work(lab: Lab, plan: Plan, program: str, severity: str, text: str) -> None:
    """A backup of an address where nobody answers; a restore of a file that never comes: a pipe without a writer."""
    begin = f"mkfifo /root/never.db; {program} < /dev/null > /dev/null 2>&1 & echo $! > /root/job"
    lab.exec("m2", ["sh", "-c", begin], check=True)
    try:
        found = asked(lab, plan, "OtherJobs")
    finally:
        lab.exec("m2", ["sh", "-c", "kill $(cat /root/job); rm -rf /root/job /root/never* /root/x.db*"])
    assert told(found) == {("OtherJobs", "m2", severity)}
    assert text in saws(found, "OtherJobs")
    assert told(asked(lab, plan, "OtherJobs")) == set()


def test_kubelets_that_see_no_api_server(lab: Lab, plan: Plan) -> None:
    def gone() -> bool:
        look = ["sh", "-c", "! crictl ps -o json | grep -q '\"kube-apiserver\"'"]
        return all(lab.exec(n.name, look).returncode == 0 for n in plan.nodes)

    assert told(asked(lab, plan, "KubeletObeys")) == set()
    try:
        for n in plan.nodes:
            lab.exec(n.name, ["mv", f"{M}/kube-apiserver.yaml", f"{M}/.a"], check=True)
        eventually("no API server runs", gone, within=60)
        found = asked(lab, plan, "KubeletObeys")
    finally:
        for n in plan.nodes:
            lab.exec(n.name, ["mv", f"{M}/.a", f"{M}/kube-apiserver.yaml"], check=True)
    assert told(found) == {("KubeletObeys", "", "warns")}


@pytest.mark.parametrize(
    ("kind", "why"), [("blackhole", "Invalid argument"), ("prohibit", "Permission denied"), ("unreachable", "No route")]
)
def test_a_peer_port_that_is_not_reached(lab: Lab, plan: Plan, kind: str, why: str) -> None:
    assert told(asked(lab, plan, "PeerPorts")) == set()
    lab.exec("m1", ["ip", "route", "add", kind, "10.0.1.12/32"], check=True)
    try:
        found = asked(lab, plan, "PeerPorts")
    finally:
        lab.exec("m1", ["ip", "route", "del", kind, "10.0.1.12/32"], check=True)
    assert told(found) == {("PeerPorts", "m1", "blocks"), ("PeerPorts", "m3", "blocks")}, "m3's answers get lost, too"
    assert f"cannot reach m3 at 10.0.1.12:2380 ({why}" in saws(found, "PeerPorts")


def test_a_peer_port_that_is_refused_though_its_etcd_lives(lab: Lab, plan: Plan) -> None:
    """As by a firewall that resets: m1 takes the address of m3 for its own, where nothing listens."""
    lab.exec("m1", ["ip", "address", "add", "10.0.1.12/32", "dev", "lo"], check=True)
    try:
        found = asked(lab, plan, "PeerPorts")
    finally:
        lab.exec("m1", ["ip", "address", "del", "10.0.1.12/32", "dev", "lo"], check=True)
    assert told(found) >= {("PeerPorts", "m1", "blocks")}
    assert {host for _, host, _ in told(found)} <= {"m1", "m3"}, "m3's answers get lost, too"
    assert "cannot reach m3 at 10.0.1.12:2380 (refused, though its etcd listened there" in saws(found, "PeerPorts")


def test_a_dead_cluster_refuses_its_peer_ports_and_that_is_well(lab: Lab, plan: Plan) -> None:
    def gone() -> bool:
        look = ["sh", "-c", "! crictl ps -o json | grep -q '\"etcd\"'"]
        return all(lab.exec(n.name, look).returncode == 0 for n in plan.nodes)

    try:
        for n in plan.nodes:
            lab.exec(n.name, ["mv", f"{M}/etcd.yaml", f"{M}/.e"], check=True)
        eventually("no etcd runs", gone, within=60)
        found = asked(lab, plan, "PeerPorts")
    finally:
        for n in plan.nodes:
            lab.exec(n.name, ["mv", f"{M}/.e", f"{M}/etcd.yaml"], check=True)
    assert told(found) == set()
    assert "refused by m2, m3: nothing listens there" in saws(found, "PeerPorts")


def test_an_address_in_front_of_the_api(lab: Lab, plan: Plan) -> None:
    assert told(asked(lab, plan, "ApiAddress")) == set()
    kubeconfig, node = "/root/admin.conf", plan.node("m2")
    make = f"sed 's|server: .*|server: https://vip.internal:6443|' {node.paths.kubeconfig} > {kubeconfig}"
    lab.exec("m2", ["sh", "-ec", make], check=True)
    vip = replace(node, paths=replace(node.paths, kubeconfig=kubeconfig))
    try:
        found = asked(lab, replace(plan, nodes=(plan.nodes[0], vip, plan.nodes[2])), "ApiAddress")
    finally:
        lab.exec("m2", ["rm", kubeconfig], check=True)
    assert told(found) == {("ApiAddress", "", "warns")}
    assert "https://vip.internal:6443" in saws(found, "ApiAddress")


def test_the_token_of_the_cluster_that_lives(lab: Lab, plan: Plan) -> None:
    assert told(asked(lab, replace(plan, cluster=Cluster(token="a-new-one")), "Token")) == set()
    found = asked(lab, replace(plan, cluster=Cluster(token="etcd-cluster")), "Token")
    assert told(found) == {("Token", n.name, "blocks") for n in plan.nodes}


def test_a_quota_that_is_too_small(lab: Lab, plan: Plan) -> None:
    assert told(asked(lab, plan, "Quota")) == set()
    with manifest_elsewhere(lab, "m1", "etcd", r"s|^    - --data-dir=|    - --quota-backend-bytes=4096\n&|"):
        found = asked(lab, looking_elsewhere(plan), "Quota")
    assert told(found) == {("Quota", "m1", "blocks")}
    assert "the restored cluster would refuse every write" in saws(found, "Quota")


def test_objects_that_the_snapshot_lacks(lab: Lab, plan: Plan) -> None:
    known = replace(plan, verify=Verify(secrets=("default/known",), rbac=("clusterrole/cluster-admin",)))
    assert told(asked(lab, known, "KnownObjects", "SnapshotContent")) == set()
    unknown = replace(plan, verify=Verify(secrets=("default/never-there",)))
    found = asked(lab, unknown, "KnownObjects", "SnapshotContent")
    assert {check for check, _, _ in told(found)} == {"KnownObjects"}
    assert "default/never-there" in saws(found, "KnownObjects")


EMPTIED = """
etcd --data-dir data --listen-client-urls http://127.0.0.1:12379 --advertise-client-urls http://127.0.0.1:12379 \\
  --listen-peer-urls http://127.0.0.1:12380 > log 2>&1 & pid=$!
ctl() { etcdctl --endpoints=http://127.0.0.1:12379 "$@"; }
for i in $(seq 50); do ctl endpoint health && break; sleep 0.2; done
ctl put a b && ctl del a && ctl snapshot save emptied.db
code=$?
kill $pid; wait $pid
exit $code
"""


def test_a_whole_snapshot_of_an_etcd_whose_keys_were_all_deleted(lab: Lab, plan: Plan, tmp_path: Path) -> None:
    assert told(asked(lab, plan, "SnapshotContent", "SnapshotWhole")) == set()
    lab.exec("operator", ["sh", "-uc", f"cd {shlex.quote(str(tmp_path))}\n{EMPTIED}"], check=True)
    there = tmp_path / "emptied.db"
    emptied = replace(plan, snapshot=Snapshot(f"file://{there}", there))
    found = asked(lab, emptied, "SnapshotContent", "SnapshotWhole")
    assert told(found) == {("SnapshotContent", "", "blocks")}
    assert "holds no live key" in saws(found, "SnapshotContent")


def test_a_host_that_is_unplugged_behind_the_restore(lab: Lab, plan: Plan) -> None:
    assert told(asked(lab, plan, "StillReachable", group="verify")) == set()
    short = tuple(replace(n, ssh=replace(n.ssh, connect_timeout=2)) for n in plan.nodes)
    lab.unplug("m2")
    try:
        found = asked(lab, replace(plan, nodes=short), "StillReachable", group="verify")
    finally:
        lab.plug("m2")
    assert told(found) == {("StillReachable", "m2", "blocks")}


def test_a_node_that_is_not_ready(lab: Lab, plan: Plan) -> None:
    assert told(asked(lab, plan, "NodesReady", group="verify")) == set()
    node = json.loads(etcdctl(lab, "get", "/registry/minions/m3", "--print-value-only"))
    node["metadata"]["name"] = "w9"
    for condition in node["status"]["conditions"]:
        condition["status"] = "False"
    try:
        etcdctl(lab, "put", "/registry/minions/w9", "--", json.dumps(node))
        found = asked(lab, plan, "NodesReady", group="verify")
    finally:
        etcdctl(lab, "del", "/registry/minions/w9")
    assert told(found) == {("NodesReady", "", "blocks")}
    assert "w9" in saws(found, "NodesReady")


def test_a_check_of_the_plans_own(lab: Lab, plan: Plan, tmp_path: Path) -> None:
    """Its text goes to a shell, here or there, and its exit code decides."""
    mine = (
        OwnCheck("well", "all", "test -d /var/lib/etcd", within=0),
        OwnCheck("here", "local", f"touch {tmp_path}/ran", within=0),
        OwnCheck("wrong", "m2", "echo it is $((40 + 2)); exit 3", within=0),
    )
    found = asked(lab, replace(plan, verify=Verify(checks=mine)), "OwnChecks", group="verify")
    assert told(found) == {("OwnChecks", "m2", "blocks")}
    assert "wrong: exit code 3: it is 42" in saws(found, "OwnChecks")
    assert (tmp_path / "ran").exists()


def test_hosts_without_etcdctl_ask_the_one_in_etcds_container(lab: Lab, plan: Plan, tmp_path: Path) -> None:
    """As stock kubeadm leaves them: the tools are brought along, and the first checks come before that."""
    for tool in ("etcdctl", "etcdutl"):
        (tmp_path / tool).write_bytes(lab.exec_bytes("m1", ["cat", f"/usr/local/bin/{tool}"]).stdout)
        (tmp_path / tool).chmod(0o755)
    small = replace(plan, nodes=plan.nodes[:2], tools=Tools(upload=tmp_path), cluster=Cluster(bump_revision=1))
    lab.fill(objects=3)
    names = ("Members", "Bump", "EtcdVersion", "WhatIsLost", "Peers")
    try:
        for n in plan.nodes:
            lab.exec(n.name, ["mv", "/usr/local/bin/etcdctl", "/root/"], check=True)
        found = asked(lab, small, *names)
    finally:
        for n in plan.nodes:
            lab.exec(n.name, ["mv", "/root/etcdctl", "/usr/local/bin/"], check=True)
    said = told(found)
    assert {("Members", "", "blocks"), ("Bump", "", "blocks")} <= said
    assert "m3" in saws(found, "Members")
    assert "before the present one of m1" in saws(found, "WhatIsLost")
    assert said == told(asked(lab, replace(small, tools=plan.tools), *names)), "as where the hosts have one"

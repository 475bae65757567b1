"""Each first check, made false alone on real hosts: it speaks there, and no other check does."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runbook.asking import RealClock
from runbook.checks import Check, Finding, Severity, all_checks
from runbook.checks.reach import PeerNames
from runbook.checks.survey import inspect
from runbook.hosts import connect
from runbook.lab import Lab
from runbook.plan import Cluster, Node, Plan, Snapshot, Ssh, Timeouts, Tools, Verify
from runbook.step import Binding, Target
from runbook.transport import Claim
from tests.lab.conftest import eventually

pytestmark = pytest.mark.lab

RUN = "checks-20260409t140000z-0a1b"
OTHER = "prod-20260401t000000z-ffff"
Told = set[tuple[str, str, str]]


@pytest.fixture(scope="session")
def snapshot(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared_lab.fill(objects=20)
    return shared_lab.snapshot(tmp_path_factory.mktemp("checks") / "snapshot.db")


@pytest.fixture
def plan(lab: Lab, snapshot: Path) -> Plan:
    """What `init` would say of the lab."""
    ssh = Ssh(user="ops", identity_file=lab.identity, known_hosts_file=lab.known_hosts)
    nodes = tuple(Node(h.name, h.ip, (f"https://{h.ip}:2380",), (f"https://{h.ip}:2379",), ssh) for h in lab.nodes)
    quick = Timeouts(nodes_ready=1, quorum=1, command=1)
    return Plan("checks", Snapshot(f"file://{snapshot}", snapshot), nodes, timeouts=quick)


def survey(lab: Lab, plan: Plan, group: str = "preflight", checks: Sequence[Check] | None = None) -> list[Finding]:
    bound = Binding(run=RUN)
    targets = [Target(plan, bound, n) for n in plan.nodes]

    def ask() -> list[Finding]:
        hosts = connect(targets, Claim(1))
        try:
            return inspect(group, plan, bound, hosts, targets, RealClock(), checks)
        finally:
            hosts.close()

    return lab.in_operator(ask)


def told(found: Sequence[Finding]) -> Told:
    """What is not ok, but for two things that no test here is about, except one of the second.

    The lab's own etcd may be of a version that is warned of; and the cluster lives on since the snapshot.
    """
    odd = [f for f in found if f.severity is not Severity.OK and f.check != "WhatIsLost"]
    return {(f.check, f.host, f.severity.value) for f in odd if "corrupts data" not in f.saw}


def test_all_are_silent_on_a_healthy_lab(lab: Lab, plan: Plan) -> None:
    found = survey(lab, plan)
    assert told(found) == set()
    spoke = {f.check for f in found}
    assert spoke == {c.id() for c in all_checks("preflight") if c.applies(plan)}


# --- faults on one host each; three hosts bear three of them at once ---


@dataclass(frozen=True)
class Fault:
    """One thing wrong on one host: how to make it so, how to undo it, and what its check must say."""

    check: str
    make: str
    undo: str
    says: str
    severity: str = "blocks"


def wrapper(tool: str, text: str) -> tuple[str, str]:
    """Put a script before a tool on the host's PATH, and take it away again."""
    place = f"/usr/local/sbin/{tool}"
    body = f"#!/bin/sh\nreal={{}}\n{text}\n"
    write = f"printf '%s' {shlex.quote(body)} | sed \"s|{{}}|$real|\" > {place}"
    return f"real=$(command -v {tool}); {write}; chmod 755 {place}", f"rm -f {place}"


POD = """kind: Pod
metadata: {name: second, namespace: default}
spec: {hostNetwork: true, containers: [{name: etcd, image: registry.example/etcd:3, command: [/bin/sleep, "600"]}]}
"""
LOCK = f'{{"run": "{OTHER}", "holder": "ada@desk", "since": "2026-04-01T00:00:00Z"}}'
M = "/etc/kubernetes/manifests"
PKI = "/etc/kubernetes/pki"

FAULTS = {
    "mode": Fault("Ownership", "chmod 755 /var/lib/etcd", "chmod 700 /var/lib/etcd", "has the mode 755", "warns"),
    "a tool missing": Fault(
        "Tools",
        "t=$(command -v ionice); mv $t $t.off; echo $t > /tmp/ionice",
        "t=$(cat /tmp/ionice); mv $t.off $t",
        "missing: ionice",
    ),
    "no bump": Fault(
        "EtcdTools",
        *wrapper("etcdutl", '"$real" "$@" | grep -v -e --bump-revision -e --mark-compacted; exit 0'),
        "has no --bump-revision, --mark-compacted",
    ),
    "another version": Fault(
        "EtcdVersion",
        *wrapper("etcdctl", 'if [ "$1" = version ]; then echo "etcdctl version: 3.4.27"; else exec "$real" "$@"; fi'),
        "the tools are 3.4.27",
    ),
    "clock": Fault("Clocks", *wrapper("date", 'exec "$real" -d "+5 seconds" "$@"'), "ahead of this machine's", "warns"),
    "runtime": Fault("Runtime", *wrapper("crictl", "echo 'no such socket' >&2; exit 1"), "no such socket"),
    "manifest missing": Fault(
        "Manifests",
        f"mv {M}/kube-scheduler.yaml {M}/.kube-scheduler.yaml",
        f"mv {M}/.kube-scheduler.yaml {M}/kube-scheduler.yaml",
        "kube-scheduler.yaml is missing",
    ),
    "second etcd": Fault(
        "OtherManifests",
        f"printf '%s' {shlex.quote(POD)} > {M}/second.yaml",
        f"rm {M}/second.yaml",
        "second.yaml (etcd)",
    ),
    "static pod": Fault(
        "OtherManifests",
        f"printf '%s' {shlex.quote(POD.replace('etcd', 'vip'))} > {M}/vip.yaml",
        f"rm {M}/vip.yaml",
        "vip.yaml (pod second)",
        "warns",
    ),
    "another's etcd": Fault(
        "ApiServerManifest",
        f"cp {M}/kube-apiserver.yaml /root/api; sed 's|servers=https://127.0.0.1:2379|servers=https://10.0.1.10:2379|' "
        f"/root/api > {M}/.a; mv {M}/.a {M}/kube-apiserver.yaml",
        f"cp /root/api {M}/.a; mv {M}/.a {M}/kube-apiserver.yaml",
        "https://10.0.1.10:2379, not this host's own member",
    ),
    "kubelet": Fault("KubeletActive", "systemctl stop kubelet", "systemctl start kubelet", "the kubelet is inactive"),
    "disk": Fault(
        "DiskSpace",
        "mkdir -p /var/lib/etcd-runbook; mount -t tmpfs -o size=1m tmpfs /var/lib/etcd-runbook",
        "umount /var/lib/etcd-runbook; rmdir /var/lib/etcd-runbook",
        "/var/lib/etcd-runbook: 1 MiB free",
    ),
    "member mounted": Fault(
        "DataDirectory",
        "mount --bind /var/lib/etcd/member /var/lib/etcd/member",
        "umount /var/lib/etcd/member",
        "/var/lib/etcd/member is a mount point",
    ),
    "leftovers": Fault(
        "DataDirectory",
        f"mkdir -p /var/lib/etcd/.{OTHER}.old/member",
        f"rm -r /var/lib/etcd/.{OTHER}.old",
        f"earlier runs: {OTHER}",
        "warns",
    ),
    "certificate missing": Fault(
        "Certificates",
        f"mv {PKI}/front-proxy-ca.crt /root/",
        f"mv /root/front-proxy-ca.crt {PKI}/",
        "front-proxy-ca.crt is missing",
        "warns",
    ),
}
ROUNDS = (
    ("mode", "a tool missing", "another's etcd"),
    ("no bump", "clock", "member mounted"),
    ("runtime", "manifest missing", "another version"),
    ("second etcd", "disk", "leftovers"),
    ("kubelet", "static pod", "certificate missing"),
)


@pytest.mark.parametrize("names", ROUNDS, ids=lambda names: " | ".join(names))
def test_one_fault_a_host_is_told_by_its_check_alone(lab: Lab, plan: Plan, names: Sequence[str]) -> None:
    borne = dict(zip([n.name for n in plan.nodes], (FAULTS[name] for name in names), strict=True))
    try:
        for host, fault in borne.items():
            lab.exec(host, ["sh", "-ec", fault.make], check=True)
        found = survey(lab, plan)
    finally:
        for host, fault in borne.items():
            lab.exec(host, ["sh", "-ec", fault.undo], check=True)
    assert told(found) == {(fault.check, host, fault.severity) for host, fault in borne.items()}
    for host, fault in borne.items():
        (finding,) = [f for f in found if (f.check, f.host) == (fault.check, host)]
        assert fault.says in finding.saw
        assert finding.do


def test_a_host_of_another_run_is_told_alone_and_at_once(lab: Lab, plan: Plan) -> None:
    """Its outage explains all else, and a dead etcd would hold up whoever asks it."""
    lab.exec("m1", ["sh", "-ec", f"printf '%s\\n' {shlex.quote(LOCK)} > /var/lib/etcd-runbook.lock"], check=True)
    try:
        for n in plan.nodes:
            lab.exec(n.name, ["pkill", "-STOP", "-x", "etcd"], check=True)
        began = time.monotonic()
        found = survey(lab, plan)
        took = time.monotonic() - began
    finally:
        for n in plan.nodes:
            lab.exec(n.name, ["pkill", "-CONT", "-x", "etcd"])
        lab.exec("m1", ["rm", "/var/lib/etcd-runbook.lock"], check=True)
    assert told(found) == {("Locks", "m1", "held")}
    assert any("ada@desk since 2026-04-01T00:00:00Z" in f.saw for f in found)
    assert took < 4, "not as long as one question to a dead etcd"


def test_each_fault_is_borne_once() -> None:
    assert sorted(name for names in ROUNDS for name in names) == sorted(FAULTS)


# --- certificates, with dates that no command of a host can make ---


def pem(days: float, subject: str = "m2") -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    end = datetime.now(UTC) + timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(end - timedelta(days=365)).not_valid_after(end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def on_m2(lab: Lab) -> Iterator[Callable[[str, bytes], None]]:
    """Replaces files of m2, and puts the old ones back."""
    kept: dict[str, bytes] = {}

    def put(path: str, content: bytes) -> None:
        kept.setdefault(path, lab.exec_bytes("m2", ["cat", path]).stdout)
        lab.exec_bytes("m2", ["sh", "-c", 'cat > "$0"', path], content)

    yield put
    for path, content in kept.items():
        lab.exec_bytes("m2", ["sh", "-c", 'cat > "$0"', path], content)


@pytest.mark.parametrize(
    ("days", "severity", "text"), [(-1, "blocks", "has expired"), (20, "warns", "expires in 19 d")]
)
def test_certificates(
    lab: Lab, plan: Plan, on_m2: Callable[[str, bytes], None], days: float, severity: str, text: str
) -> None:
    on_m2(f"{PKI}/apiserver-etcd-client.crt", pem(days))
    found = survey(lab, plan)
    assert told(found) == {("Certificates", "m2", severity), ("Chain", "m2", "warns")}, "it is of nobody's CA, too"
    (finding,) = [f for f in found if f.severity.value == severity and f.check == "Certificates"]
    assert text in finding.saw
    assert "kubeadm certs renew apiserver-etcd-client" in finding.do


def test_another_ca_on_one_host(lab: Lab, plan: Plan, on_m2: Callable[[str, bytes], None]) -> None:
    own = lab.exec_bytes("m2", ["cat", f"{PKI}/etcd/ca.crt"]).stdout
    on_m2(f"{PKI}/etcd/ca.crt", b"# the same, with a comment\n" + own)
    assert told(survey(lab, plan)) == set()
    on_m2(f"{PKI}/etcd/ca.crt", own + pem(900, "etcd-ca"))
    on_m2(f"{PKI}/front-proxy-ca.crt", own)
    found = survey(lab, plan)
    assert told(found) == {("SameCertificates", "", "blocks"), ("SameCertificates", "", "warns")}


# --- what the plan says, against what the hosts say ---


def test_a_name_that_is_not_the_manifests(lab: Lab, plan: Plan) -> None:
    m1, m2, m3 = plan.nodes
    found = survey(lab, replace(plan, nodes=(m1, replace(m2, name="cp2"), m3)))
    assert told(found) == {("EtcdManifest", "cp2", "blocks")}


def test_a_living_member_that_is_not_in_the_plan(lab: Lab, plan: Plan) -> None:
    found = survey(lab, replace(plan, nodes=plan.nodes[:2]))
    # One fact, seen by etcd and by the API server.
    assert told(found) == {("Members", "", "blocks"), ("ControlPlaneNodes", "", "blocks")}
    assert all("m3" in f.saw for f in found if f.severity is Severity.BLOCKS)


def test_the_dead_member_alone_in_the_plan(lab: Lab, plan: Plan) -> None:
    """Its own etcd says nothing, nor does its API server: only its manifest tells of the two that live."""
    lab.exec("m3", ["pkill", "-STOP", "-x", "etcd"])
    try:
        found = survey(lab, replace(plan, nodes=plan.nodes[2:]))
    finally:
        lab.exec("m3", ["pkill", "-CONT", "-x", "etcd"])
    assert {("Peers", "", "blocks")} <= told(found)
    said = " ".join(f.saw for f in found if f.check == "Peers")
    assert "member m1 at https://10.0.1.10:2380, which etcd.yaml of m3 names, lives" in said
    assert "member m2 at " in said


def etcdctl(lab: Lab, *words: str, check: bool = True) -> str:
    flags = [f"--cacert={PKI}/etcd/ca.crt", f"--cert={PKI}/etcd/server.crt", f"--key={PKI}/etcd/server.key"]
    return lab.exec("m1", ["etcdctl", "--endpoints=https://127.0.0.1:2379", *flags, *words], check=check).stdout


def test_a_member_that_is_listed_and_dead(lab: Lab, plan: Plan) -> None:
    said = etcdctl(lab, "member", "add", "m4", "--peer-urls=https://10.0.1.99:2380")
    id_ = said.split()[1]
    try:
        found = survey(lab, plan)
    finally:
        etcdctl(lab, "member", "remove", id_)
    assert told(found) == {("Members", "", "warns")}
    assert any("https://10.0.1.99:2380 is listed" in f.saw for f in found)


def test_a_control_plane_node_that_is_not_in_the_plan(lab: Lab, plan: Plan) -> None:
    value = etcdctl(lab, "get", "/registry/minions/m3", "--print-value-only").strip()
    assert value.startswith("{")
    other = value.replace('"m3"', '"m9"').replace("10.0.1.12", "10.0.1.99")
    try:
        etcdctl(lab, "put", "/registry/minions/m9", "--", other)
        found = survey(lab, plan)
    finally:
        etcdctl(lab, "del", "/registry/minions/m9")
    assert told(found) == {("ControlPlaneNodes", "", "blocks")}
    assert any("control-plane node m9" in f.saw for f in found)


def test_a_bump_that_is_too_small(lab: Lab, plan: Plan) -> None:
    lab.fill(objects=5)
    found = survey(lab, replace(plan, cluster=Cluster(bump_revision=1)))
    assert told(found) == {("Bump", "", "blocks")}
    assert any("set spec.cluster.bumpRevision: " in f.do for f in found)


def test_an_owner_that_does_not_exist(lab: Lab, plan: Plan) -> None:
    found = survey(lab, replace(plan, owner="nobody-here:nogroup"))
    assert told(found) == {("OwnerExists", n.name, "blocks") for n in plan.nodes}


def test_peers_that_cannot_be_resolved(lab: Lab, plan: Plan) -> None:
    m1, m2, m3 = plan.nodes
    known = replace(plan, nodes=(replace(m1, peer_urls=(f"https://{m1.name}:2380",)), m2, m3))
    unknown = replace(plan, nodes=(replace(m1, peer_urls=("https://nowhere-at-all:2380",)), m2, m3))
    assert told(survey(lab, known, checks=[PeerNames()])) == set()
    assert told(survey(lab, unknown, checks=[PeerNames()])) == {("PeerNames", n.name, "blocks") for n in plan.nodes}


def test_a_damaged_snapshot_here_and_on_a_node(lab: Lab, plan: Plan, snapshot: Path, tmp_path: Path) -> None:
    whole = snapshot.read_bytes()
    broken = whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]
    here = tmp_path / "broken.db"
    here.touch(0o600)
    here.write_bytes(broken)
    found = survey(lab, replace(plan, snapshot=Snapshot(str(here), here)))
    assert ("SnapshotWhole", "", "blocks") in told(found)
    there = replace(plan, snapshot=Snapshot("host://m2/root/s.db", Path("/root/s.db"), node="m2"))
    try:
        lab.exec_bytes("m2", ["sh", "-c", "umask 022; cat > /root/s.db"], whole)
        assert told(survey(lab, there)) == {("SnapshotWhole", "m2", "warns")}, "everybody there may read it"
        lab.exec("m2", ["chmod", "600", "/root/s.db"], check=True)
        assert told(survey(lab, there)) == set()
        lab.exec_bytes("m2", ["sh", "-c", "cat > /root/s.db"], broken)
        assert told(survey(lab, there)) == {("SnapshotWhole", "m2", "blocks")}
    finally:
        lab.exec("m2", ["rm", "-f", "/root/s.db"])


def test_tools_that_are_not_brought_along(lab: Lab, plan: Plan, tmp_path: Path) -> None:
    found = survey(lab, replace(plan, tools=Tools(upload=tmp_path)))
    assert told(found) == {("EtcdTools", "", "blocks")}


# --- what the snapshot holds ---


def only(found: Sequence[Finding], check: str) -> list[Finding]:
    return [f for f in found if f.check == check]


def test_what_would_be_lost_and_nothing_of_it_right_after_the_snapshot(lab: Lab, plan: Plan, tmp_path: Path) -> None:
    pv = "/registry/persistentvolumes"
    try:
        etcdctl(lab, "put", f"{pv}/pv-old", "{}")
        etcdctl(lab, "put", "/registry/x.io/things/a/changed", "{}")
        path = lab.snapshot(tmp_path / "now.db")
        here = replace(plan, snapshot=Snapshot(str(path), path))
        fresh = survey(lab, here)
        etcdctl(lab, "del", f"{pv}/pv-old")
        etcdctl(lab, "put", f"{pv}/pv-new", "{}")
        etcdctl(lab, "put", "/registry/x.io/things/a/changed", '{"a":1}')
        etcdctl(lab, "put", "/registry/x.io/things/a/new", "{}")
        lab.exec("m1", ["pkill", "-STOP", "-x", "etcd"])  # so that the second host has to list
        try:
            checks = [c for c in all_checks("preflight") if c.id() in ("Reachable", "WhatIsLost")]
            told_, created, deleted = only(survey(lab, here, checks=checks), "WhatIsLost")
        finally:
            lab.exec("m1", ["pkill", "-CONT", "-x", "etcd"])
    finally:
        for key in (f"{pv}/pv-old", f"{pv}/pv-new", "/registry/x.io/things/a/new", "/registry/x.io/things/a/changed"):
            etcdctl(lab, "del", key)
    (nothing,) = only(fresh, "WhatIsLost")  # a kubelet may have told of its pods since
    assert not any(word in nothing.saw for word in ("created", "deleted", "things.x.io", "pv-old")), nothing
    assert {f.severity for f in (told_, created, deleted)} == {Severity.WARNS}
    assert "before the present one of m2" in told_.saw
    assert "by its newest Lease" in told_.saw
    assert "created 2 (persistentvolumes 1, things.x.io 1)" in told_.saw
    assert "deleted 1 (persistentvolumes 1)" in told_.saw
    assert "things.x.io 1" in told_.saw.partition("changed ")[2]
    assert created.saw.endswith("pv-new")
    assert deleted.saw.endswith("pv-old")


SECRET = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U="


def encrypted(lab: Lab, to: Path) -> Path:
    """A snapshot with one encrypted Secret, whose key is called key1."""
    try:
        etcdctl(lab, "put", "/registry/secrets/default/enc", f"k8s:enc:aescbc:v1:key1:{SECRET}")
        return lab.snapshot(to)
    finally:
        etcdctl(lab, "del", "/registry/secrets/default/enc")


@contextlib.contextmanager
def configured(lab: Lab, plan: Plan) -> Iterator[Plan]:
    """The plan on hosts of which all but the third have key1.

    The manifests are looked for elsewhere, so that the lab's own API servers need not know the flag.
    """
    head = "kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n"
    keys = f"  - aescbc: {{keys: [{{name: NAME, secret: {SECRET}}}]}}\n  - identity: {{}}\n"
    make = (
        f"mkdir -p /root/m {PKI}/enc; cp {M}/*.yaml /root/m; printf %s {{}} > {PKI}/enc/c.yaml; "
        f"sed -i 's|^    - --etcd-servers=|    - --encryption-provider-config={PKI}/enc/c.yaml\\n&|' /root/m/kube-api*"
    )
    try:
        for node, name in zip(plan.nodes, ("key1", "key1", "key2"), strict=True):
            text = shlex.quote(head + keys.replace("NAME", name))
            lab.exec(node.name, ["sh", "-ec", make.replace("{}", text)], check=True)
        nodes = tuple(replace(n, paths=replace(n.paths, manifests="/root/m")) for n in plan.nodes)
        yield replace(plan, nodes=nodes)
    finally:
        for node in plan.nodes:
            lab.exec(node.name, ["rm", "-rf", "/root/m", f"{PKI}/enc"])


def test_encrypted_values_need_their_keys_on_every_host(lab: Lab, plan: Plan, tmp_path: Path) -> None:
    path = encrypted(lab, tmp_path / "enc.db")
    plan = replace(plan, snapshot=Snapshot(str(path), path))
    checks = [c for c in all_checks("preflight") if c.id() in ("Reachable", "Encryption")]
    with configured(lab, plan) as there:
        found = survey(lab, there, checks=checks)
    assert told(found) == {("Encryption", "m3", "blocks")}
    assert not any(SECRET in f.saw + f.do for f in found)
    (missing,) = [f for f in found if f.severity is Severity.BLOCKS]
    assert "aescbc key1 (1 secrets)" in missing.saw
    bare = survey(lab, plan, checks=checks)
    assert told(bare) == {("Encryption", n.name, "blocks") for n in plan.nodes}


# --- connections ---


def test_a_host_that_is_unplugged_is_told_by_one_check(lab: Lab, plan: Plan) -> None:
    lab.unplug("m3")
    try:
        short = tuple(replace(n, ssh=replace(n.ssh, connect_timeout=2)) for n in plan.nodes)
        found = survey(lab, replace(plan, nodes=short))
    finally:
        lab.plug("m3")
    assert told(found) == {("Reachable", "m3", "blocks")}


def test_an_unknown_host_key_and_a_user_who_is_not_root(lab: Lab, plan: Plan, tmp_path: Path) -> None:
    keys = tmp_path / "known_hosts"
    keys.write_text("\n".join(k for k in lab.known_hosts.read_text().splitlines() if "10.0.1.11" not in k))
    m1, m2, m3 = plan.nodes
    stranger = replace(m2, ssh=replace(m2.ssh, known_hosts_file=keys))
    weak = replace(m3, ssh=replace(m3.ssh, sudo="never"))
    found = survey(lab, replace(plan, nodes=(m1, stranger, weak)))
    assert told(found) == {("Reachable", "m2", "blocks"), ("Reachable", "m3", "blocks")}
    do = {f.host: f.do for f in found if f.severity is Severity.BLOCKS}
    assert f"ssh-keyscan 10.0.1.11 >> {keys}" in do["m2"]
    assert "NOPASSWD" in do["m3"]


# --- the serving cluster ---


def test_the_serving_cluster(lab: Lab, plan: Plan) -> None:
    good = replace(plan, verify=Verify(secrets=("default/known",), rbac=("clusterrole/cluster-admin",)))
    pods = [c for c in all_checks("verify") if c.id() == "Pods"]
    # m3 was unplugged by an earlier test: its kubelet says how its pods are once its API server is ready again
    eventually("every pod is ready", lambda: told(survey(lab, good, "verify", pods)) == set())
    found = survey(lab, good, "verify")
    # Nothing was restored here, and that is what the proof says.
    assert told(found) == {("EtcdHealthy", n.name, "blocks") for n in plan.nodes}
    assert all("not the restored cluster's" in f.saw for f in found if f.severity is Severity.BLOCKS)


def test_what_is_wrong_with_the_serving_cluster(lab: Lab, plan: Plan) -> None:
    wrong = Verify(secrets=("default/none",), rbac=("role/kube-system/none",))
    try:
        lab.exec("m2", ["mv", f"{M}/kube-scheduler.yaml", f"{M}/.s"], check=True)
        gone = ["sh", "-c", "! crictl ps -o json | grep -q '\"kube-scheduler\"'"]
        eventually("the scheduler is gone", lambda: lab.exec("m2", gone).returncode == 0)
        checks = [c for c in all_checks("verify") if c.id() != "EtcdHealthy"]
        eventually(
            "its pod is missing",
            lambda: ("Pods", "m2", "blocks") in told(survey(lab, replace(plan, verify=wrong), "verify", checks)),
        )
        found = survey(lab, replace(plan, verify=wrong), "verify", checks)
    finally:
        lab.exec("m2", ["mv", f"{M}/.s", f"{M}/kube-scheduler.yaml"], check=True)
    every = {(check, n.name, "blocks") for check in ("Secrets", "Rbac") for n in plan.nodes}
    assert told(found) == {("Pods", "m2", "blocks"), *every}

"""Each first check: silent on healthy hosts, and the only one to speak when its one thing is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runbook import checkdocs
from runbook.checks import (
    Finding,
    Severity,
    all_checks,
    certificates,
    distribution,
    jobs,
    locks,
    manifests,
    mounts,
    neighbours,
    ownership,
    peers,
    reach,
    tools,
)
from runbook.checks import snapshot as snapshot_check
from runbook.listing import LIST
from runbook.plan import Cluster, Plan, Verify
from runbook.step import Command, Result, Target
from tests.unit.checks_faults import (
    THERE,
    api_yaml,
    certs,
    etcd_yaml,
    files,
    lock,
    look,
    no_etcd,
    rename,
    room,
    stranger,
    tail,
)
from tests.unit.checks_world import (
    NODES,
    PLAN,
    Change,
    bad,
    bumped,
    certificate,
    crictl_ps,
    findings,
    listing,
    manifest,
    member_json,
    nodes_json,
    sample,
    says,
    status_json,
    where,
    with_wal,
)

BLOCKS, WARNS, HELD = Severity.BLOCKS, Severity.WARNS, Severity.HELD
BLOCKS, WARNS, HELD = Severity.BLOCKS, Severity.WARNS, Severity.HELD


@dataclass(frozen=True)
class Case:
    """One thing wrong: which check speaks, where, how loudly, and with which words."""

    check: str
    changes: Change | list[Change]
    text: str
    severity: Severity = BLOCKS
    host: str = "m2"
    plan: Plan = PLAN
    do: str = ""


def unreachable(text: str) -> Change:
    """What m2 says of m3's peer port."""
    return where(neighbours.REACH, says(f"0 10.0.1.10 2380 \n{text}\n"))


REFUSES = "1 10.0.1.12 2380 bash: connect: Connection refused"
"""What m2 says where nothing listens at m3's peer port, or a firewall resets what comes."""

OTHER_RUN = json.dumps({"run": "prod-20260401t000000z-ffff", "holder": "ada@desk", "since": "2026-04-01T00:00:00Z"})

CASES = {
    "sudo": Case("Reachable", where("id", says("", 1, "sudo: a password is required")), "as root", do="sudo -n"),
    "not root": Case("Reachable", where("id", says("1000\n")), "user id 1000", do="NOPASSWD"),
    "a host of EKS": Case(
        "Distribution", where(distribution.LOOK, says("sign /etc/eks\n")), "a host of EKS", do="the provider's means"
    ),
    "a host of GKE": Case("Distribution", where(distribution.LOOK, says("sign /etc/srv/kubernetes\n")), "of GKE"),
    "a host of AKS": Case("Distribution", where(distribution.LOOK, says("sign /opt/azure/containers\n")), "AKS"),
    "a host of RKE2": Case(
        "Distribution", where(distribution.LOOK, says("sign /etc/rancher/rke2\n")), "of RKE2", do="rke2 server"
    ),
    "etcd as a service": Case("Distribution", where(distribution.LOOK, says("service etcd\n")), "service of systemd"),
    "an external etcd": Case(
        "Distribution", where(distribution.LOOK, says("pod kube-apiserver\n")), "an external one", do="its own hosts"
    ),
    "a restore by hand": Case("OtherJobs", where(jobs.LOOK, says("restore 4711\n")), "process 4711", do="ps -fp 4711"),
    "a backup": Case("OtherJobs", where(jobs.LOOK, says("save 1\nsave 2\n")), "a backup is taken", WARNS, do="1,2"),
    "jobs unheard": Case("OtherJobs", where(jobs.LOOK, says("", 124, "timeout")), "could not be looked at", WARNS),
    "a port that is filtered": Case(
        "PeerPorts",
        unreachable("124 10.0.1.12 2380 "),
        "m3 at 10.0.1.12:2380 (no answer in 3 s)",
        do="nc -vz 10.0.1.12",
    ),
    "no way to a port": Case(
        "PeerPorts",
        unreachable("1 10.0.1.12 2380 bash: line 1: /dev/tcp/10.0.1.12/2380: No route to host"),
        "(No route to host)",
    ),
    "a firewall that says so": Case(
        "PeerPorts",
        unreachable("1 10.0.1.12 2380 bash: line 1: /dev/tcp/10.0.1.12/2380: Permission denied"),
        "(Permission denied)",
    ),
    "no network of a port": Case(
        "PeerPorts",
        unreachable("1 10.0.1.12 2380 bash: line 1: /dev/tcp/10.0.1.12/2380: Network is unreachable"),
        "(Network is unreachable)",
    ),
    "a firewall that resets": Case(
        "PeerPorts",
        unreachable(REFUSES),
        "m3 at 10.0.1.12:2380 (refused, though its etcd listened there just now: by a firewall?)",
        do="open the port",
    ),
    "a port that was not tried": Case("PeerPorts", unreachable(""), "m3 at 10.0.1.12:2380"),
    "a load balancer": Case(
        "ApiAddress",
        where(neighbours.SERVER, says("https://api.internal:6443\n")),
        "m2 reach the API through https://api.internal:6443",
        WARNS,
        host="",
        do="kube-vip",
    ),
    "no API server anywhere": Case(
        "KubeletObeys",
        where("crictl", says(crictl_ps("CONTAINER_EXITED")), on=""),
        "no API server serves",
        WARNS,
        host="",
        do="timeouts.stop (2 min)",
    ),
    "API servers in a crash loop": Case(
        "KubeletObeys",
        where("/api/v1/nodes", says("", 1, sample("kubectl-1.32.4-refused.err")), on=""),
        "no API server serves",
        WARNS,
        host="",
        do="each stop may take that long",
    ),
    "another owner": Case(
        "Ownership",
        etcd_yaml("  securityContext:\n", "  securityContext:\n    runAsUser: 2379\n"),
        "runs etcd as user 2379, /var/lib/etcd belongs to 0",
        WARNS,
        do="2379:2379",
    ),
    "others may read": Case(
        "Ownership",
        where(ownership.LOOK, says("owner 0 0 755\nmember 0 0 700\n")),
        "the mode 755",
        WARNS,
        do="chmod 700",
    ),
    "no chcon": Case(
        "Ownership",
        where(ownership.LOOK, says("owner 0 0 700\nlabel system_u:object_r:container_file_t:s0\nno-chcon\n")),
        "there is no chcon",
    ),
    "a certificate of another CA": Case(
        "Chain",
        certs({"peer.crt": certificate("DNS:localhost, DNS:m2, IP Address:10.0.1.11, IP Address:127.0.0.1", by="x")}),
        "peer.crt was not signed by /etc/kubernetes/pki/etcd/ca.crt",
        WARNS,
    ),
    "etcd's own certificate of another CA": Case(
        "Chain",
        certs(
            {
                "etcd/server.crt": certificate(
                    "DNS:localhost, DNS:m2, IP Address:10.0.1.11, IP Address:127.0.0.1", by="x"
                )
            }
        ),
        "server.crt was not signed by /etc/kubernetes/pki/etcd/ca.crt",
    ),
    "an API server's certificate of another CA": Case(
        "Chain", certs({"apiserver.crt": certificate("DNS:other", by="x")}), "apiserver.crt was not signed", WARNS
    ),
    "clock behind": Case(
        "Clocks", where("date", lambda _n, r: Result(0, str(float(r.out) - 3))), "behind", WARNS, do="timedatectl"
    ),
    "clock ahead": Case("Clocks", where("date", lambda _n, r: Result(0, str(float(r.out) + 3))), "ahead", WARNS),
    "clock of nonsense": Case("Clocks", where("date", says("+%s\n")), "said", WARNS),
    "names": Case(
        "PeerNames",
        where(reach.RESOLVE, says("m3.internal\n")),
        "cannot resolve m3.internal",
        plan=replace(
            PLAN, nodes=tuple(replace(n, peer_urls=(*n.peer_urls, "https://m3.internal:2380")) for n in NODES)
        ),
    ),
    "a tool missing": Case("Tools", where(tools.MISSING, says("crictl\n")), "missing: crictl", do="install"),
    "etcdutl missing": Case("Tools", where(tools.MISSING, says("etcdutl\n")), "etcdutl", do="spec.tools.upload"),
    "an option missing": Case("Tools", where(tools.OPTIONS, says("sync FILE\n")), "sync FILE"),
    "tools unheard": Case("Tools", where(tools.MISSING, says("", 124, "timeout")), "could not be looked for"),
    "no bump flag": Case(
        "EtcdTools",
        where("restore", says(sample("etcd-3.5.1-restore-help.txt"))),
        "has no --bump-revision, --mark-compacted",
        do="spec.tools.upload",
    ),
    "no etcdutl help": Case("EtcdTools", where("restore", says("", 127, "sh: 1: etcdutl: not found")), "not found"),
    "no --rev": Case("EtcdTools", where(tail("hashkv", "--help"), says("--cluster")), "no --rev"),
    "etcdctl fails": Case(
        "EtcdTools",
        where(lambda w: w[-1] == "version" and len(w) > 2, says("", 1, "conflicting environment variable")),
        "conflicting environment variable",
        do="ETCDCTL_",
    ),
    "tools of another minor": Case(
        "EtcdVersion",
        where(("etcdutl", "version").__eq__, says(sample("etcd-3.6.5-etcdutl-version.txt"))),
        "the tools are 3.6.5, etcd is 3.5.24",
        do="3.5",
    ),
    "bad version": Case(
        "EtcdVersion",
        where(tail("endpoint", "status", "-w", "json"), says(status_json(PLAN, ["m2"], version="3.5.2")), on=""),
        "etcd 3.5.2: data may become inconsistent",
        WARNS,
        host="m1 m2 m3",
    ),
    "no version": Case(
        "EtcdVersion",
        [no_etcd(), where("cat", says(manifest(NODES[1], "etcd").replace(":3.5.24-0", "@sha256:00")))],
        "neither",
        WARNS,
    ),
    "manifest missing": Case(
        "Manifests", files(lambda f: f.pop("kube-scheduler.yaml")), "kube-scheduler.yaml is missing"
    ),
    "manifest broken": Case(
        "Manifests", files(lambda f: f.update({"kube-scheduler.yaml": "kind: ["})), "kube-scheduler.yaml: not YAML"
    ),
    "manifest of another program": Case(
        "Manifests",
        files(lambda f: f.update({"kube-scheduler.yaml": f["kube-controller-manager.yaml"]})),
        "runs kube-c",
    ),
    "no manifests directory": Case(
        "Manifests", where(manifests.READ, says("", 3, "cd: can't cd")), "cannot be read", do="spec.paths.manifests"
    ),
    "manifests cut off": Case("Manifests", where(manifests.READ, says("file ZXRj%% x")), "cannot be read"),
    "a second etcd": Case(
        "OtherManifests", files(lambda f: f.update({"etcd.yaml.bak": f["etcd.yaml"]})), "etcd.yaml.bak", do="mv"
    ),
    "a second API server": Case(
        "OtherManifests", files(lambda f: f.update({"a": f["kube-apiserver.yaml"]})), "a (kube-apiserver)"
    ),
    "a half second etcd": Case(
        "OtherManifests", files(lambda f: f.update({"etcd.old": "kind: Pod\netcd: ["})), "etcd.old"
    ),
    "another static pod": Case(
        "OtherManifests",
        files(lambda f: f.update({"vip.yaml": (f["kube-scheduler.yaml"] or "").replace("kube-scheduler", "kube-vip")})),
        "vip.yaml (pod kube-vip)",
        WARNS,
    ),
    "no manifest at all": Case("OtherManifests", files(lambda f: f.update({"notes.txt": "hello"})), "notes.txt", WARNS),
    "name": Case("EtcdManifest", etcd_yaml("--name=m2", "--name=cp2"), "--name is cp2 in etcd.yaml, m2 in the plan"),
    "peer URLs": Case(
        "EtcdManifest",
        etcd_yaml("advertise-peer-urls=https://10.0.1.11:2380", "advertise-peer-urls=https://10.0.1.99:2380"),
        "10.0.1.99:2380 in etcd.yaml, https://10.0.1.11:2380",
    ),
    "client URLs": Case(
        "EtcdManifest",
        etcd_yaml("--advertise-client-urls=https://10.0.1.11:2379", "--advertise-client-urls=https://x:2379"),
        "--advertise-client-urls",
    ),
    "data directory": Case(
        "EtcdManifest",
        etcd_yaml("path: /var/lib/etcd\n", "path: /var/lib/etcd-restored\n"),
        "--data-dir is /var/lib/etcd-restored in etcd.yaml, /var/lib/etcd in the plan (paths.dataDir)",
    ),
    "data in the container": Case(
        "EtcdManifest", etcd_yaml("--data-dir=/var/lib/etcd", "--data-dir=/data"), "ends with the container"
    ),
    "WAL directory in the manifest alone": Case(
        "EtcdManifest",
        etcd_yaml("--data-dir=/var/lib/etcd\n", "--data-dir=/var/lib/etcd\n    - --wal-dir=/var/lib/etcd/w\n"),
        "--wal-dir is /var/lib/etcd/w in etcd.yaml, not set in the plan",
    ),
    "WAL directory in the plan alone": Case(
        "EtcdManifest",
        [],
        "--wal-dir is not set in etcd.yaml, /var/lib/etcd-wal in the plan",
        host="m1 m2 m3",
        plan=with_wal(),
    ),
    "certificate path": Case(
        "EtcdManifest",
        etcd_yaml("--cert-file=/etc/kubernetes/pki/etcd/server.crt", "--cert-file=/etc/kubernetes/pki/etcd/s.crt"),
        "--cert-file is /etc/kubernetes/pki/etcd/s.crt",
    ),
    "certificate not mounted": Case(
        "EtcdManifest", etcd_yaml("--key-file=/etc/kubernetes/pki/etcd/server.key", "--key-file=/x"), "no host path"
    ),
    "secure port": Case("ApiServerManifest", api_yaml("--secure-port=6443", "--secure-port=443"), "443"),
    "external etcd": Case(
        "ApiServerManifest",
        api_yaml("servers=https://127.0.0.1:2379", "servers=https://10.9.9.9:2379"),
        "external etcd",
    ),
    "no etcd servers": Case(
        "ApiServerManifest", api_yaml("--etcd-servers=https://127.0.0.1:2379", "--v=2"), "--etcd-servers is not set"
    ),
    "a living stranger": Case(
        "Members", stranger(True), "m4 at https://10.0.1.13:2380 lives", host="", do="spec.nodes"
    ),
    "a dead stranger": Case("Members", stranger(False), "does not answer", WARNS, host=""),
    "no quorum": Case(
        "Members",
        where(lambda w: "member" in w or "--cluster" in w, says("", 1, "Error: context deadline exceeded"), on=""),
        "without a quorum",
        WARNS,
        host="",
    ),
    "two clusters": Case(
        "Members",
        where(tail("endpoint", "status", "-w", "json"), says(sample("etcd-3.5.16-noquorum-endpoint-status.json"))),
        "different clusters",
        WARNS,
        host="",
    ),
    "a learner": Case(
        "Members",
        where(lambda w: "member" in w, says(member_json(PLAN).replace('"m3",', '"m3", "isLearner": true,')), on=""),
        "learners become voters: m3",
        WARNS,
        host="",
    ),
    "a control-plane node outside": Case(
        "ControlPlaneNodes",
        where("/api/v1/nodes", says(nodes_json(edit=lambda i: rename(i[2], "m9", "10.0.1.19"))), on=""),
        "control-plane node m9",
        host="",
        do="kubectl delete node m9",
    ),
    "kubelet": Case(
        "KubeletActive",
        where("systemctl", says(sample("systemd-252-inactive.txt"), 3)),
        "inactive",
        do="systemctl start",
    ),
    "kubelet of a worker": Case(
        "KubeletActive", where("systemctl", says("failed\n", 3), on="w1.internal"), "failed", WARNS, host="w1.internal"
    ),
    "a peer that lives": Case(
        "Peers",
        where(peers.LOOK, says("living m4 https://10.0.1.13:2380\n")),
        "member m4 at https://10.0.1.13:2380, which etcd.yaml of m2 names, lives",
        host="",
        do="spec.nodes",
    ),
    "a peer that is silent": Case(
        "Peers", where(peers.LOOK, says("silent m4 https://10.0.1.13:2380\n")), "nor answers", WARNS, host=""
    ),
    "quota": Case(
        "Quota",
        etcd_yaml("    - --name=", "    - --quota-backend-bytes=20480\n    - --name="),
        "24 KiB, etcd's quota (--quota-backend-bytes) is 20 KiB",
        do="raise",
    ),
    "quota, nearly": Case(
        "Quota", etcd_yaml("    - --name=", "    - --quota-backend-bytes=25000\n    - --name="), "little is left", WARNS
    ),
    "another port to listen on": Case(
        "EtcdManifest",
        etcd_yaml("--listen-peer-urls=https://10.0.1.11:2380", "--listen-peer-urls=https://10.0.1.11:12380"),
        "without the plan's port 2380",
    ),
    "a mount point in the member": Case(
        "DataDirectory",
        look("directory 1\nmember 1\ninside /var/lib/etcd/member/wal\n"),
        "/var/lib/etcd/member/wal is a mount point",
    ),
    "the list of nodes is refused": Case(
        "ControlPlaneNodes",
        where(lambda w: w[-1] == "/api/v1/nodes", says("", 1, "Error from server (Forbidden): no"), on=""),
        "cannot be listed: m1: Error from server (Forbidden): no",
        WARNS,
        host="",
    ),
    "crictl": Case("Runtime", where("crictl", says("", 1, "connect: no such file")), "no such file", do="crictl.yaml"),
    "crictl of nonsense": Case("Runtime", where("crictl", says("CONTAINER  IMAGE\n")), "fails"),
    "snapshot on a node, damaged": Case(
        "SnapshotWhole",
        where(snapshot_check.READ, lambda _n, r: Result(0, r.out.replace("trailer bb", "trailer bc"))),
        "its checksum is wrong",
        plan=THERE,
    ),
    "snapshot on a node, no trailer": Case(
        "SnapshotWhole",
        where(snapshot_check.READ, says(f"size 24576\nmagic edda0ced\nwhole {'a' * 64}\n")),
        "no checksum at its end",
        plan=THERE,
    ),
    "snapshot on a node, no trailer, allowed": Case(
        "SnapshotWhole",
        where(snapshot_check.READ, says(f"size 24576\nmagic edda0ced\nwhole {'a' * 64}\n")),
        "no checksum at its end",
        WARNS,
        plan=replace(THERE, snapshot=replace(THERE.snapshot, allow_missing_trailer=True)),
    ),
    "snapshot on a node, cut short": Case(
        "SnapshotWhole",
        where(snapshot_check.READ, says(f"size 24600\nmagic edda0ced\nwhole {'a' * 64}\n")),
        "cut short",
        plan=THERE,
    ),
    "snapshot on a node, empty": Case(
        "SnapshotWhole", where(snapshot_check.READ, says("size 0\nmagic \nwhole e3\n")), "empty", plan=THERE
    ),
    "snapshot on a node, text": Case(
        "SnapshotWhole",
        where(snapshot_check.READ, says(f"size 24608\nmagic 61626364\nwhole {'a' * 64}\n")),
        "no etcd snapshot",
        plan=THERE,
    ),
    "snapshot on a node, without a sum": Case(
        "SnapshotWhole",
        where(snapshot_check.READ, says("size 24608\nmagic edda0ced\nwhole \n")),
        "computed",
        plan=THERE,
    ),
    "snapshot on a node, not the planned": Case(
        "SnapshotWhole",
        [],
        "the plan says",
        plan=replace(THERE, snapshot=replace(THERE.snapshot, sha256="f" * 64)),
    ),
    "snapshot on a node, missing": Case(
        "SnapshotWhole",
        where(snapshot_check.READ, says("", 3, "there is no such file")),
        "no such file",
        plan=THERE,
        do=f"ls -la {THERE.snapshot.path.parent}\n",
    ),
    "snapshot on a node, without keys": Case(
        "SnapshotWhole",
        where(lambda w: "snapshot" in w and "status" in w, says('{"hash":1,"revision":51,"totalKey":0,"totalSize":1}')),
        "holds no key",
        plan=THERE,
    ),
    "snapshot on a node, being written": Case(
        "SnapshotWhole",
        [],
        ".part",
        plan=replace(THERE, snapshot=replace(THERE.snapshot, path=Path("/opt/etcd.db.part"))),
    ),
    "the bump is too small": Case(
        "Bump",
        [],
        "51 + 1000 = 1051 is not above the living revision 4711",
        host="",
        plan=bumped(PLAN, 1000),
        do="set spec.cluster.bumpRevision: 1001000000",
    ),
    "the bump just reaches it": Case("Bump", [], "51 + 4660 = 4711 is not above", host="", plan=bumped(PLAN, 4660)),
    "no bump": Case("Bump", [], "no bump", WARNS, host="", plan=bumped(PLAN, 0)),
    "no revision anywhere": Case("Bump", no_etcd(), "no revision can be read", WARNS, host=""),
    "disk too small": Case(
        "DiskSpace", room("1 4096 262144 30000 65536 60000\n" * 2), "117 MiB free, needed are 128 MiB", do="df"
    ),
    "the reserve": Case("DiskSpace", room("1 4096 262144 45000 65536 60000\n" * 2), "must stay free"),
    "inodes": Case("DiskSpace", room("1 4096 262144 200000 65536 10\n" * 2), "10 inodes free"),
    "space unheard": Case("DiskSpace", room("what"), "could not be read"),
    "expired": Case(
        "Certificates",
        certs({"/server.crt": certificate("IP Address:10.0.1.11", -1, 3)}),
        "has expired",
        do="kubeadm certs renew etcd-server",
    ),
    "expired kubeconfig": Case(
        "Certificates",
        certs({"/admin.conf": base64.b64encode(certificate("", -1, 3).encode()).decode()}),
        "admin.conf has expired",
        do="renew admin.conf",
    ),
    "expires soon": Case(
        "Certificates", certs({"/apiserver.crt": certificate("", 10)}), "apiserver.crt expires in 9 days", WARNS
    ),
    "not yet valid": Case("Certificates", certs({"/apiserver.crt": certificate("", 10, started=-5)}), "is valid from"),
    "another address": Case(
        "Certificates",
        certs({"/peer.crt": certificate("DNS:m2, IP Address:10.0.1.12")}),
        "peer.crt is not valid for 10.0.1.11, but for m2, 10.0.1.12",
    ),
    "etcd CA missing": Case("Certificates", certs({"etcd/ca.crt": "missing\n"}), "is missing"),
    "etcd certificate unreadable": Case("Certificates", certs({"/server.crt": "Could not read\n"}), "server.crt"),
    "another certificate missing": Case("Certificates", certs({"/apiserver.crt": "missing\n"}), "is missing", WARNS),
    "certificates unheard": Case(
        "Certificates", where(certificates.READ, says("", 127, "sh: sed")), "sed", do="ls -laR /etc/kubernetes/pki"
    ),
    "peer certificate elsewhere": Case(
        "Certificates",
        etcd_yaml("peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt", "peer-cert-file=/etc/kubernetes/pki/etcd/p2.crt"),
        "p2.crt was not looked at",
        WARNS,
    ),
    "another etcd CA": Case(
        "SameCertificates", certs({"etcd/ca.crt": certificate("DNS:b")}), "the etcd CA differs", host=""
    ),
    "another CA": Case(
        "SameCertificates",
        certs({"pki/ca.crt": certificate("DNS:b")}),
        "ca.crt differs between the hosts: m1",
        host="",
    ),
    "another service account key": Case(
        "SameCertificates", certs({"/sa.pub": "-----BEGIN PUBLIC KEY-----\nother\n"}), "sa.pub differs", host=""
    ),
    "another private service account key": Case(
        "SameCertificates", certs({"/sa.key": "sum abc\n"}), "sa.key differs", host=""
    ),
    "another front proxy CA": Case(
        "SameCertificates",
        certs({"/front-proxy-ca.crt": certificate("DNS:b")}),
        "front-proxy-ca.crt differs",
        WARNS,
        host="",
    ),
    "member is a mount point": Case("DataDirectory", look("directory 1\nmember 1\nmember-mounted\n"), "mount point"),
    "member is elsewhere": Case("DataDirectory", look("directory 1\nmember 2\n"), "another file system"),
    "member is a link": Case("DataDirectory", look("directory 1\nmember-link\nmember 1\n"), "symbolic link"),
    "data directory is a file": Case("DataDirectory", look("other\n"), "no directory"),
    "data directory missing": Case("DataDirectory", look(""), "is missing", WARNS),
    "no member": Case("DataDirectory", look("directory 1\n"), "has no member", WARNS),
    "leftovers": Case(
        "DataDirectory",
        look("directory 1\nmember 1\nhidden .prod-20260401t000000z-ffff.old\nhidden .cache\n"),
        "earlier runs: prod-20260401t000000z-ffff",
        WARNS,
        do="runbook finish prod-20260401t000000z-ffff",
    ),
    "data unheard": Case("DataDirectory", where(mounts.LOOK, says("", 124, "timeout")), "could not be looked at"),
    "held": Case(
        "Locks",
        lock(OTHER_RUN),
        "ada@desk since 2026-04-01T00:00:00Z; last sign of life 1970",
        HELD,
        do="runbook status",
    ),
    "held by nobody knows whom": Case("Locks", lock("garbage"), "does not say whose", HELD),
    "lock unheard": Case("Locks", where(locks.READ, says("", 1, "permission denied")), "could not be read"),
    "a Secret that the snapshot has not": Case(
        "KnownObjects",
        [],
        "not in the snapshot: Secret default/none",
        WARNS,
        host="",
        plan=replace(PLAN, verify=Verify(secrets=("default/known", "default/none"))),
        do="spec.verify",
    ),
    "a pod since the snapshot": Case(
        "WhatIsLost",
        where(LIST, says(listing(lambda lines: lines.append("pods 99 99"))), on="m1"),
        "since then created 1 (pods 1). Leases",
        WARNS,
        host="",
        do="a newer snapshot",
    ),
    "the present token": Case(
        "Token",
        [],
        "etcd-cluster is the token of etcd.yaml",
        host="m1 m2 m3",
        plan=replace(PLAN, cluster=Cluster(token="etcd-cluster")),
        do="leave spec.cluster.token out",
    ),
    "another cluster's snapshot": Case(
        "SnapshotsCluster",
        [],
        "was taken of a cluster with another /etc/kubernetes/pki/etcd/ca.crt",
        WARNS,
        host="",
        do="is it this cluster's?",
        plan=replace(PLAN, snapshot=replace(PLAN.snapshot, fingerprints=(("etcd/ca.crt", "0" * 64),))),
    ),
    "owner": Case(
        "OwnerExists",
        where(lambda w: w[-2:] == ("etcd", "etcd"), says("user etcd\ngroup etcd\n")),
        "there is no user etcd and no group etcd",
        plan=replace(PLAN, owner="etcd:etcd"),
    ),
}


@pytest.mark.parametrize("plan", [PLAN, THERE, replace(PLAN, owner="etcd:etcd")], ids=["local", "on a node", "owner"])
def test_all_are_silent_on_healthy_hosts(plan: Plan) -> None:
    found = findings(plan=plan)
    assert bad(found) == []
    assert {f.check for f in found} == {c.id() for c in all_checks("preflight") if c.applies(plan)}


@pytest.mark.parametrize("name", CASES)
def test_one_thing_wrong_is_told_by_its_check_alone(name: str) -> None:
    case = CASES[name]
    changes = case.changes if isinstance(case.changes, list) else [case.changes]
    found = bad(findings(*changes, plan=case.plan))
    mine = [f for f in found if f.check == case.check]
    assert {f.host for f in mine} == (set(case.host.split()) or {""})
    for finding in mine:
        assert finding.severity is case.severity
        assert case.text in finding.saw
        assert case.do in f"{finding.do}\n"
        assert finding.do
    assert {f.check for f in found} <= {case.check, *ALSO.get(name, ())}


ALSO: dict[str, tuple[str, ...]] = {
    # What else must speak, because the one fact means two things.
    "names": ("EtcdManifest", "Certificates", "PeerPorts"),
    "another etcd CA": ("Chain",),
    "another CA": ("Chain",),
    "no etcdutl help": ("EtcdTools",),
    "no version": ("Bump",),
    "two clusters": ("EtcdVersion", "Bump"),
}


def test_a_given_token_is_not_called_new_where_no_etcd_can_be_asked() -> None:
    """Kubeadm's manifest has no token of an earlier restore: only the living cluster's id tells of one."""
    plan = replace(PLAN, cluster=Cluster(token="mine"))
    asked = [f for f in findings(plan=plan) if f.check == "Token"]
    assert {f.severity for f in asked} == {Severity.OK}
    dead = [f for f in findings(no_etcd(), plan=plan) if f.check == "Token"]
    assert {(f.host, f.severity) for f in dead if f.severity is not Severity.OK}, "at least where etcd did not answer"
    assert all("is not known" in f.saw or "cannot be asked" in f.saw for f in dead if f.severity is WARNS)


def test_a_lost_manifest_does_not_make_an_external_etcd() -> None:
    """Somebody has parked etcd.yaml by hand: that is what is told, and not that etcd is elsewhere."""
    parked = where(distribution.LOOK, says("pod kube-apiserver\nown etcd\n"))
    assert not [f for f in bad(findings(parked)) if f.check == "Distribution"]


def peer_ports(*changes: Change, silent: Sequence[str] = ()) -> list[Finding]:
    return [f for f in findings(*changes, silent=silent) if f.check == "PeerPorts"]


def refusing(name: str, on: str) -> Change:
    """One host gets no connection to the peer port of another, or to its own: it is refused."""
    pair = f"{PLAN.node(name).peer_urls[0].removeprefix('https://').replace(':', ' ')} "

    def answer(_: Target, result: Result) -> Result:
        refused = f"1 {pair}bash: connect: Connection refused"
        return Result(0, "".join(f"{refused if pair in row else row}\n" for row in result.out.splitlines()))

    return where(neighbours.REACH, answer, on)


ALL_REFUSED = [refusing(name, on="") for name in ("m1", "m2", "m3")]


def test_a_refused_port_is_an_answer_and_a_dead_hosts_is_not_asked_for() -> None:
    dead = peer_ports(no_etcd(), *ALL_REFUSED)
    assert bad(dead) == []
    assert "refused by m1, m3: nothing listens there, or a firewall rejects" in dead[1].saw
    assert bad(peer_ports(unreachable("124 10.0.1.12 2380 "), silent=["m3"])) == []


@pytest.mark.parametrize(
    ("changes", "blocked"),
    [
        ([no_etcd(), refusing("m3", on="m2"), refusing("m3", on="m3")], {"m2"}),
        ([no_etcd(), refusing("m3", on="m1"), refusing("m3", on="m2")], {"m1", "m2"}),
        (
            [no_etcd(), *ALL_REFUSED, where(tail("status", "-w", "json"), says(status_json(PLAN, ["m3"])), "m3")],
            {"m1", "m2"},
        ),
        ([no_etcd(), *ALL_REFUSED, where(neighbours.REACH, says("none\n"), "m3")], set()),
    ],
    ids=["m1 gets through", "m3 itself gets through", "its etcd answers m3", "m3 has no bash"],
)
def test_a_port_that_is_refused_though_an_etcd_lives_behind_it(changes: list[Change], blocked: set[str]) -> None:
    told = bad(peer_ports(*changes))
    assert {f.host for f in told} == blocked
    assert all(
        "m3 at 10.0.1.12:2380 (refused, though its etcd listened there just now: by a firewall?)" in f.saw for f in told
    )


def test_a_check_says_nothing_worse_than_it_claims() -> None:
    worst = {c.id(): c.severity for c in all_checks("preflight")}
    scale = [Severity.OK, WARNS, BLOCKS, HELD]
    for case in CASES.values():
        assert scale.index(case.severity) <= scale.index(worst[case.check]), case.check
    warned = {c for c, severity in worst.items() if severity is WARNS}
    assert not warned & {case.check for case in CASES.values() if case.severity is not WARNS}
    said = {case.check for case in CASES.values() if case.severity is BLOCKS}
    assert {c for c, severity in worst.items() if severity is BLOCKS} <= said | {
        "SnapshotWhole",
        "SnapshotContent",
        "Encryption",
    }


def test_the_page_about_the_checks_is_in_step() -> None:
    page = (Path(__file__).parents[2] / "docs" / "checks.md").read_text()
    assert page == checkdocs.page(), "run: make docs"


def test_every_first_check_has_a_case_in_which_it_speaks() -> None:
    local = {
        "SnapshotWhole",
        "SnapshotContent",
        "Encryption",
    }  # they need files: in *_promises, *_content, *_encryption
    assert {c.id() for c in all_checks("preflight")} == {case.check for case in CASES.values()} | local


@pytest.mark.parametrize("case", ["a tool missing", "disk too small", "kubelet", "held"])
def test_all_hosts_are_reported_at_once(case: str) -> None:
    given = CASES[case]
    assert not isinstance(given.changes, list)
    everywhere = given.changes

    def change(n: Target, command: Command, result: Result) -> Result:
        if not isinstance(n.place, type(NODES[0])):
            return result
        pretend = Target(n.plan, n.bound, NODES[1])
        return everywhere(pretend, command, result)

    found = [f for f in bad(findings(change)) if f.check == given.check]
    assert [f.host for f in found] == ["m1", "m2", "m3"]


def test_an_etcd_that_refuses_the_certificates_is_no_dead_cluster() -> None:
    refused = says(
        "", 1, '{"error":"... tls: failed to verify certificate: x509: certificate signed by unknown authority\\""}'
    )
    found = bad(findings(where(lambda w: "member" in w or ("endpoint" in w and "status" in w), refused, on="")))
    members = [f for f in found if f.check == "Members"]
    assert [(f.host, f.severity) for f in members] == [("", WARNS)]
    assert "m1: tls: failed to verify certificate" in members[0].saw

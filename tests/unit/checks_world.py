"""Hosts that answer every check's questions as healthy ones do, until a test changes one answer.

The answers are cut from the samples beside this file, so the checks judge what the tools really print.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runbook import kube, parse
from runbook.checks import (
    Finding,
    Severity,
    certificates,
    content,
    disk,
    distribution,
    encryption,
    etcd,
    jobs,
    kubelets,
    locks,
    manifests,
    mounts,
    neighbours,
    ownership,
    peers,
    places,
    reach,
    tools,
    verify,
)
from runbook.checks import snapshot as snapshot_check
from runbook.checks.survey import inspect
from runbook.hosts.address import Address
from runbook.listing import LIST
from runbook.plan import Cluster, Node, Paths, Plan, Snapshot, Ssh, Timeouts, Verify, Worker
from runbook.snapshots.content import read
from runbook.snapshots.integrity import inspect_file
from runbook.snapshots.reading import Fetched, There
from runbook.step import Action, Binding, Command, Result, Target
from runbook.transport import Witness

SAMPLES = Path(__file__).parent / "samples"
DB = SAMPLES / "etcd-3.5.16-kubernetes.db"
DB.chmod(0o600)  # a clone makes it readable for everybody, which the check rightly warns of
RUN = "prod-20260409t140000z-0a1b"
NAMES = ("m1", "m2", "m3")
NODES = tuple(
    Node(name, f"cp{i + 1}.internal", (f"https://10.0.1.{10 + i}:2380",), (f"https://10.0.1.{10 + i}:2379",))
    for i, name in enumerate(NAMES)
)
PLAN = Plan(
    "prod",
    Snapshot(f"file://{DB}", DB),
    NODES,
    workers=(Worker("w1.internal"),),
    timeouts=Timeouts(nodes_ready=1, quorum=1, command=1),
    verify=Verify(secrets=("default/known",), rbac=("clusterrole/cluster-admin", "role/kube-system/x")),
)
BOUND = Binding(run=RUN, sha256="$SHA256")
LIVING = 4711


def sample(name: str) -> str:
    return (SAMPLES / name).read_text()


MEMBER = 0xBCE89BC5256CFDF
"""The member that the snapshot was taken of."""
PLACES = (
    *(["pods"] * 34),
    *(["minions"] * 3),
    *(["namespaces"] * 2),
    *("cert-manager.io/certificates", "services/specs", "services/endpoints", "roles", "clusterroles", "secrets"),
)


def listing(edit: Callable[[list[str]], object] | None = None, revision: int = 4711, end: str = "end") -> str:
    """What ``LIST`` prints where nothing was written since the snapshot but leases and events."""
    lines = [f"{place} {at} {at}" for at, place in enumerate(PLACES, 2)] + ["volume 2 2 pv-1"]
    if edit:
        edit(lines)
    return "\n".join(["plain", *lines, f"page {revision} {MEMBER} {end} 50 /registry/z", ""])


def manifest(node: Node, name: str) -> str:
    """A manifest as kubeadm wrote it on that node."""
    text = sample(f"kubeadm-1.30-{name}-m1.yaml").replace("3.5.15-0", "3.5.24-0")
    own = node.peer_urls[0].removeprefix("https://").removesuffix(":2380")
    return text.replace("10.0.1.10", own).replace("--name=m1", f"--name={node.name}")


def framed(files: Mapping[str, str | None]) -> str:
    """What ``manifests.READ`` prints; None is a directory."""

    def b64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    return "".join(
        f"directory {b64(n)} \n" if text is None else f"file {b64(n)} {b64(text)}\n" for n, text in files.items()
    )


def four(node: Node) -> dict[str, str | None]:
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    return {f"{name}.yaml": manifest(node, name) for name in names}


def member_json(plan: Plan, token: str = RUN, extra: Sequence[Mapping[str, Any]] = (), me: str = "m1") -> str:
    ids = parse.member_ids({n.name: n.peer_urls for n in plan.nodes}, token)
    members = [
        {"ID": ids[n.name], "name": n.name, "peerURLs": list(n.peer_urls), "clientURLs": list(n.client_urls)}
        for n in plan.nodes
    ]
    header = {"cluster_id": parse.cluster_id(ids.values()), "member_id": ids[me], "raft_term": 2}
    return json.dumps({"header": header, "members": [*members, *extra]})


def status_json(plan: Plan, names: Sequence[str] = NAMES, revision: int = LIVING, version: str = "3.5.24") -> str:
    ids = parse.member_ids({n.name: n.peer_urls for n in plan.nodes}, RUN)
    cluster = parse.cluster_id(ids.values())
    return json.dumps(
        [
            {
                "Endpoint": f"https://{name}:2379",
                "Status": {
                    "header": {
                        "cluster_id": cluster,
                        "member_id": ids.get(name, 99),
                        "revision": revision,
                        "raft_term": 2,
                    },
                    "version": version,
                    "dbSize": 24576,
                    "leader": ids["m1"],
                    "raftIndex": 8,
                    "raftTerm": 2,
                },
            }
            for name in names
        ]
    )


def hash_json(plan: Plan, hashes: Sequence[int] = (7, 7, 7), absent: Sequence[str] = ()) -> str:
    ids = parse.member_ids({n.name: n.peer_urls for n in plan.nodes}, RUN)
    header = {"cluster_id": parse.cluster_id(ids.values()), "revision": LIVING}
    return json.dumps(
        [
            {
                "Endpoint": n.client_urls[0],
                "HashKV": {"header": {**header, "member_id": ids[n.name]}, "hash": h, "compact_revision": 50},
            }
            for n, h in zip([n for n in plan.nodes if n.name not in absent], hashes, strict=False)
        ]
    )


def nodes_json(**changes: Any) -> str:
    """Three control-plane nodes and a worker, all Ready."""
    value = json.loads(sample("kube-1.32-nodes.json"))
    for item in value["items"]:
        for condition in item["status"]["conditions"]:
            if condition["type"] == "Ready":
                condition["status"] = "True"
    if "edit" in changes:
        changes["edit"](value["items"])
    return json.dumps(value)


def pods_json(edit: Callable[[list[Any]], object] | None = None) -> str:
    """All control-plane pods, well."""
    value = json.loads(sample("kube-1.32-pods.json"))
    value["items"] = [p for p in value["items"] if p["metadata"]["namespace"] == "kube-system"]
    if edit:
        edit(value["items"])
    return json.dumps(value)


@functools.cache
def _key(of: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def certificate(names: str = "", days: float = 300, started: float = 1, by: str = "ca") -> str:
    """A certificate, as PEM, that has so many days left; ``names`` as openssl shows SANs. The same each time.

    Without names it is the CA's own, else the CA ``by`` has signed it.
    """
    key = _key(names or by)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "m1" if names else by)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.not_valid_before(now - timedelta(days=started)).not_valid_after(now + timedelta(days=days))
    pairs = [n.split(":", 1) for n in names.split(", ") if n]
    sans = [x509.DNSName(v) if k == "DNS" else x509.IPAddress(ipaddress.ip_address(v)) for k, v in pairs]
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    signed = builder.serial_number(7).sign(_key(by), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def certificates_text(node: Node, changes: Mapping[str, str] | None = None) -> str:
    """What ``certificates.READ`` prints; ``changes`` by the path's end replaces one file's text."""
    host = node.peer_urls[0].removeprefix("https://").removesuffix(":2380")
    text = f"now {int(time.time())}\n"
    for file in certificates._files(node):
        own = f"DNS:localhost, DNS:{node.name}, IP Address:{host}, IP Address:127.0.0.1"
        if file.path.endswith(".key"):
            body = f"sum {'0' * 63}1\n"
        elif file.path.endswith(".pub"):
            body = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
        elif file.path.endswith(".conf"):
            body = base64.b64encode(certificate(own).encode()).decode() + "\n"
        else:
            body = certificate("" if file.path.endswith("ca.crt") else own)
        for end, new in (changes or {}).items():
            if file.path.endswith(end):
                body = new
        text += f"== {file.path}\n{body}"
    return text


def healthy(n: Target, command: Command) -> Result:
    """What a healthy host says to any check's question."""
    words = plain(command)
    if words[:2] == ("sh", "-c"):
        return Result(0, _script(n, words[2]))
    said = _program(n, words)
    if said is None:
        raise AssertionError(f"no healthy answer to {words}")
    return Result(0, said)


def _script(n: Target, text: str) -> str:
    silent = (
        *(tools.MISSING, tools.OPTIONS, locks.READ, kubelets.OWNER),
        *(reach.RESOLVE, peers.LOOK, jobs.LOOK, encryption.NAMES),
    )
    if text in silent:
        return ""
    if text == manifests.READ:
        return framed(four(n.node))
    if text == certificates.READ:
        return certificates_text(n.node)
    if text == distribution.LOOK:
        return "pod etcd\npod kube-apiserver\n"
    if text == neighbours.REACH:
        everyone = [o.peer_urls[0].removeprefix("https://").split(":") for o in n.plan.nodes]
        return "".join(f"0 {host} {port} \n" for host, port in everyone)
    if text == neighbours.SERVER:
        return f"https://{n.node.peer_urls[0].removeprefix('https://').removesuffix(':2380')}:6443\n" * 2
    if text == ownership.LOOK:
        return "owner 0 0 700\nmember 0 0 700\n"
    if text == disk.ROOM:
        room = "66305 4096 2621440 2000000 655360 600000\n"
        return room * (3 if n.node.paths.wal_dir else 2)
    if text == mounts.LOOK:
        told = f"path {n.node.paths.data_dir}\ndirectory 66305\nmember 66305\nhidden .\nhidden ..\n"
        return told + (f"path {n.node.paths.wal_dir}\ndirectory 66306\n" if n.node.paths.wal_dir else "")
    if text == snapshot_check.READ:
        return f"size 24608\nmagic edda0ced\nwhole {'a' * 64}\nbody {'b' * 64}\ntrailer {'b' * 64}\n"
    if text == LIST:
        return listing() if n.name == "m1" else "elsewhere https://10.0.1.10:2379\n"
    if text == verify.THERE:
        return "there\n"
    if text == etcd.HASHES:
        return hash_json(n.plan)
    return "own check\n"


def crictl_ps(api_server: str = "CONTAINER_RUNNING") -> str:
    """The containers of the sample, and an API server's."""
    value = json.loads(sample("crictl-ps.json"))
    own = json.loads(json.dumps(value["containers"][0]).replace('"etcd"', '"kube-apiserver"'))
    value["containers"].append({**own, "id": "f" * 64, "state": api_server})
    return json.dumps(value)


def _program(n: Target, words: tuple[str, ...]) -> str | None:
    fixed = {
        ("id", "-u"): "0\n",
        ("systemctl", "is-active", "kubelet"): sample("systemd-252-active.txt"),
        ("crictl", "ps", "-a", "-o", "json"): crictl_ps(),
    }
    if words in fixed:
        return fixed[words]
    if words[0] == "date":
        return repr(time.time())
    if words[0] == "cat":
        return manifest(n.node, "etcd")
    if words[0] == "stat":
        return "24608\n"
    if words[0].endswith("kubectl"):
        return pods_json() if words[-1].endswith("/pods") else nodes_json()
    return _etcd(n, words)


def _etcd(n: Target, words: tuple[str, ...]) -> str | None:
    tail = [w for w in words[1:] if not w.startswith("--") or w in ("--help", "--cluster")]
    match tail:
        case ["snapshot", "restore", "--help"]:
            return sample("etcd-3.5.16-restore-help.txt")
        case ["snapshot", "status", *_]:
            return sample("etcd-3.5.16-snapshot-status.json")
        case ["endpoint", "hashkv", "--help"]:
            return sample("etcd-3.5.16-hashkv-help.txt")
        case ["version"]:
            return sample("etcd-3.5.16-etcdctl-version.txt").replace("3.5.16", "3.5.24")
        case ["endpoint", "status", *more] if "--cluster" in more:
            return status_json(n.plan)
        case ["endpoint", "status", *_]:
            return status_json(n.plan, [n.name])
        case ["member", "list", *_]:
            return member_json(n.plan, me=n.name)
        case ["alarm", "list", *_]:
            return sample("etcd-3.5.16-alarm-empty.json")
    return None


Change = Callable[[Target, Command, Result], Result]


@dataclass
class FakeHosts:
    """Healthy hosts; ``changes`` see each answer and may replace it. ``silent`` hosts never answer."""

    plan: Plan
    changes: Sequence[Change] = ()
    silent: Sequence[str] = ()
    asked: list[Mapping[str, Sequence[Command]]] = field(default_factory=list)

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        self.asked.append(asks)
        targets = {p.name: Target(self.plan, BOUND, p) for p in places(self.plan)}
        return {host: tuple(self._answer(targets[host], c) for c in commands) for host, commands in asks.items()}

    def _answer(self, n: Target, command: Command) -> Result:
        assert not command.changes, f"a check asks with a changing command: {command}"
        if n.name in self.silent:
            return Result(None, err=f"{n.place.host}: no route to host")
        result = healthy(n, command)
        for change in self.changes:
            result = change(n, command, result)
        return result

    def act(self, actions: Mapping[str, Sequence[Action]], key: str, witness: Witness) -> dict[str, Result]:
        raise AssertionError("a check acts")

    def settle(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        raise AssertionError("a check settles")

    def close(self) -> None:
        pass


@dataclass
class FakeClock:
    """Time that passes only while somebody sleeps."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Fetching:
    """Stands for the process that fetches: it brings this file, with the sum that the host tells, or fails."""

    path: Path = DB
    sha256: str = "a" * 64
    fails: Exception | None = None
    asked: list[There] = field(default_factory=list)

    def __call__(self, there: There) -> Future[Fetched]:
        self.asked.append(there)
        future: Future[Fetched] = Future()
        if self.fails:
            future.set_exception(self.fails)
        else:
            future.set_result(self._copy(there))
        return future

    def _copy(self, there: There) -> Fetched:
        facts = inspect_file(self.path, allow_missing_trailer=there.allow_missing_trailer)
        warnings = (f"{there.path} has no checksum at its end",) if there.allow_missing_trailer else facts.warnings()
        return Fetched(self.sha256, facts.size, facts.revision, warnings, read(self.path, there.wanted))

    @property
    def hosts(self) -> set[str]:
        """Of which hosts something was fetched, by their destinations."""
        return {Address.from_json(there.address).host for there in self.asked}


def findings(
    *changes: Change,
    group: str = "preflight",
    plan: Plan = PLAN,
    bound: Binding = BOUND,
    silent: Sequence[str] = (),
    hosts: FakeHosts | None = None,
    fetching: Fetching | None = None,
) -> list[Finding]:
    """All findings of the group on hosts that answer so."""
    fake = hosts or FakeHosts(plan, changes, silent)
    targets = [Target(plan, bound, p) for p in places(plan) if p.name not in bound.absent]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "begin_there", fetching or Fetching())
        return inspect(group, plan, bound, fake, targets, FakeClock())


def bad(found: Sequence[Finding]) -> list[Finding]:
    """Those that are not ok."""
    return [f for f in found if f.severity is not Severity.OK]


def plain(command: Command) -> tuple[str, ...]:
    """A command's words; of a question to any etcdctl those that etcdctl is given."""
    words = command.words()
    return words[4:] if words[2:3] == (kube.ANY_ETCDCTL,) else words


def where(
    matches: Callable[[tuple[str, ...]], bool] | str, answer: Callable[[Target, Result], Result], on: str = "m2"
) -> Change:
    """Replaces the answer to one question on one host ("" for all); a str matches a script or a word of the command."""

    def change(n: Target, command: Command, result: Result) -> Result:
        words = plain(command)
        if isinstance(matches, str):
            hit = words[2] == matches if words[:2] == ("sh", "-c") else matches in words
        else:
            hit = matches(words)
        return answer(n, result) if hit and on in ("", n.name) else result

    return change


def says(out: str = "", code: int = 0, err: str = "") -> Callable[[Target, Result], Result]:
    """A fixed answer."""
    return lambda _n, _r: Result(code, out, err)


def with_wal(plan: Plan = PLAN) -> Plan:
    """The plan with a WAL directory of its own."""
    paths = Paths(wal_dir="/var/lib/etcd-wal")
    return replace(plan, nodes=tuple(replace(n, paths=paths) for n in plan.nodes))


def bumped(plan: Plan, bump: int) -> Plan:
    return replace(plan, cluster=Cluster(bump_revision=bump, mark_compacted=bool(bump)))


SSH = Ssh(user="ops", port=2222, jump="bastion")

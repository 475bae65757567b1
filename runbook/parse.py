"""Pure parsers of what crictl, kubectl, etcdctl and etcdutl print.

Each returns typed, frozen data, or raises :class:`ParseError` with a text for the responder; never anything else. The
shapes are those of etcd 3.5 and 3.6 and of CRI v1; ``tests/unit/samples`` holds real output, with its versions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runbook.cri import Container, Sandbox, containers, sandboxes
from runbook.shape import ParseError, Shape, brief, from_json
from runbook.staticpod import Container as PodContainer
from runbook.staticpod import StaticPod, manifest

__all__ = [
    "Alarm",
    "Container",
    "EndpointStatus",
    "HashKV",
    "KubeNode",
    "KubePod",
    "Member",
    "MemberList",
    "ParseError",
    "PodContainer",
    "Sandbox",
    "SnapshotStatus",
    "StaticPod",
    "alarms",
    "cluster_id",
    "containers",
    "endpoint_status",
    "hashkv",
    "manifest",
    "member_ids",
    "member_list",
    "nodes",
    "pods",
    "readyz",
    "sandboxes",
    "snapshot_status",
    "version",
]


# --- etcdctl and etcdutl --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EndpointStatus:
    """One endpoint of ``etcdctl endpoint status -w json``. ``leader`` is 0 where the member knows none."""

    endpoint: str
    cluster_id: int
    member_id: int
    revision: int
    raft_term: int
    raft_index: int
    version: str
    db_size: int
    is_learner: bool
    leader: int
    errors: tuple[str, ...]


def endpoint_status(text: str) -> tuple[EndpointStatus, ...]:
    """What ``etcdctl endpoint status [--cluster] -w json`` says.

    Endpoints that do not answer are missing from the list (and exit code is then 1): an answer may be empty.
    """
    return tuple(_status(s) for s in _list(text, "endpoint status"))


def _status(s: Shape) -> EndpointStatus:
    status = s.child("Status")
    header = status.child("header")
    return EndpointStatus(
        endpoint=s.text("Endpoint"),
        cluster_id=header.number("cluster_id"),
        member_id=header.number("member_id"),
        revision=header.number("revision", 0),
        raft_term=status.number("raftTerm", 0),
        raft_index=status.number("raftIndex", 0),
        version=status.text("version", ""),
        db_size=status.number("dbSize", 0),
        is_learner=status.flag("isLearner"),
        leader=status.number("leader", 0),
        errors=tuple(e.strip() for e in status.texts("errors")),
    )


@dataclass(frozen=True)
class HashKV:
    """One endpoint of ``etcdctl endpoint hashkv -w json``. ``hash_revision`` is etcd 3.6's, else None."""

    endpoint: str
    cluster_id: int
    member_id: int
    revision: int
    hash: int
    compact_revision: int
    hash_revision: int | None


def hashkv(text: str) -> tuple[HashKV, ...]:
    """What ``etcdctl endpoint hashkv --cluster --rev N -w json`` says. Compaction -1 means: never compacted."""
    return tuple(_hashkv(h) for h in _list(text, "endpoint hashkv"))


def _hashkv(h: Shape) -> HashKV:
    body = h.child("HashKV")
    header = body.child("header")
    return HashKV(
        endpoint=h.text("Endpoint"),
        cluster_id=header.number("cluster_id"),
        member_id=header.number("member_id"),
        revision=header.number("revision", 0),
        hash=body.number("hash", 0),
        compact_revision=body.number("compact_revision", 0, signed=True),
        hash_revision=body.number("hash_revision") if "hash_revision" in body else None,
    )


def _list(text: str, what: str) -> list[Shape]:
    value = from_json(text, what)
    if value is None:  # Go's nil slice
        return []
    if not isinstance(value, list):
        raise ParseError(f"{what}: a list was expected, not {brief(text)}")
    return [Shape(v, f"{what}[{i}]") for i, v in enumerate(value)]


@dataclass(frozen=True)
class Member:
    """One member; ``name`` is "" until it has started for the first time."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True)
class MemberList:
    """The cluster as one member, ``member_id``, sees it."""

    cluster_id: int
    member_id: int
    members: tuple[Member, ...]


def member_list(text: str) -> MemberList:
    """What ``etcdctl member list -w json`` says. It needs a quorum."""
    top = Shape(from_json(text, "member list"), "member list")
    return MemberList(
        cluster_id=top.child("header").number("cluster_id"),
        member_id=top.child("header").number("member_id", 0),
        members=tuple(
            Member(
                id=m.number("ID"),
                name=m.text("name", ""),
                peer_urls=m.texts("peerURLs"),
                client_urls=m.texts("clientURLs"),
                is_learner=m.flag("isLearner"),
            )
            for m in top.children("members")
        ),
    )


@dataclass(frozen=True)
class Alarm:
    """One alarm; ``kind`` is etcd's name for it: NOSPACE, CORRUPT."""

    member_id: int
    kind: str


_ALARMS = {0: "NONE", 1: "NOSPACE", 2: "CORRUPT"}  # etcdserverpb.AlarmType


def alarms(text: str) -> tuple[Alarm, ...]:
    """What ``etcdctl alarm list -w json`` says; etcdctl prints the enum as a number."""
    top = Shape(from_json(text, "alarm list"), "alarm list")
    top.child("header")
    found = []
    for a in top.children("alarms"):
        try:
            kind = _ALARMS.get(a.number("alarm", 0), f"alarm {a.number('alarm', 0)}")
        except ParseError:
            kind = a.text("alarm")
        found.append(Alarm(a.number("memberID", 0), kind))
    return tuple(found)


@dataclass(frozen=True)
class SnapshotStatus:
    """``etcdutl snapshot status``. ``total_key`` counts otherwise in 3.5 than in 3.6: never compare across versions."""

    hash: int
    revision: int
    total_key: int
    total_size: int
    version: str | None


def snapshot_status(text: str) -> SnapshotStatus:
    """What ``etcdutl snapshot status -w json`` says; ``version`` is etcd 3.6's."""
    top = Shape(from_json(text, "snapshot status"), "snapshot status")
    return SnapshotStatus(
        hash=top.number("hash"),
        revision=top.number("revision"),
        total_key=top.number("totalKey"),
        total_size=top.number("totalSize"),
        version=top.text("version", "") or None,
    )


_VERSION = re.compile(r"^(?:etcdctl|etcdutl|etcd) [Vv]ersion: v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.MULTILINE)


def version(text: str) -> tuple[int, int, int]:
    """The version in what ``etcdctl version``, ``etcdutl version`` or ``etcd --version`` print."""
    found = _VERSION.search(text)
    if not found:
        raise ParseError(f"no etcd version in {brief(repr(text))}")
    return int(found[1]), int(found[2]), int(found[3])


# --- how etcd derives ids --------------------------------------------------------------------------------------------


def member_ids(peer_urls: Mapping[str, Iterable[str]], token: str) -> dict[str, int]:
    """Each member's id in a cluster bootstrapped or restored with this token, by member name.

    The first 8 bytes, big-endian, of SHA-1 over the sorted peer URLs and the token, without separators: etcd's
    ``server/etcdserver/api/membership/member.go``, computeMemberId.
    """
    return {name: _first8("".join([*sorted(urls), token]).encode()) for name, urls in peer_urls.items()}


def cluster_id(ids: Iterable[int]) -> int:
    """The cluster's id: the same over the sorted member ids, 8 bytes big-endian each (``cluster.go``, genID)."""
    return _first8(b"".join(i.to_bytes(8, "big") for i in sorted(ids)))


def _first8(data: bytes) -> int:
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")


# --- kubectl get --raw ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KubeNode:
    """A Node; ``ready`` is its condition, ``why`` the kubelet's or node controller's reason where it is not."""

    name: str
    ready: bool
    why: str
    control_plane: bool
    addresses: tuple[str, ...]
    internal: str = ""
    """Its first InternalIP."""


_ROLES = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


def nodes(text: str) -> tuple[KubeNode, ...]:
    """What ``kubectl get --raw /api/v1/nodes`` says."""
    return tuple(_node(item) for item in _items(text, "NodeList"))


def _node(item: Shape) -> KubeNode:
    meta, status = item.child("metadata"), item.maybe("status")
    ready, why = _condition(status)
    labels = meta.maybe("labels")
    addresses = [(a.text("type", ""), a.text("address", "")) for a in status.children("addresses")]
    return KubeNode(
        name=meta.text("name"),
        ready=ready,
        why=why,
        control_plane=any(role in labels for role in _ROLES),
        addresses=tuple(address for _, address in addresses),
        internal=next((address for kind, address in addresses if kind == "InternalIP"), ""),
    )


def _condition(status: Shape) -> tuple[bool, str]:
    for c in status.children("conditions"):
        if c.text("type", "") == "Ready":
            ready = c.text("status", "") == "True"
            return ready, "" if ready else c.text("reason", "") or c.text("message", "") or c.text("status", "")
    return False, "no Ready condition"


@dataclass(frozen=True)
class KubePod:
    """A Pod; ``waiting`` is the reason of the first container that waits (CrashLoopBackOff and its like)."""

    namespace: str
    name: str
    node: str
    phase: str
    ready: bool
    waiting: str
    restarts: int
    deleting: bool


def pods(text: str) -> tuple[KubePod, ...]:
    """What ``kubectl get --raw /api/v1/pods`` says."""
    return tuple(_pod(item) for item in _items(text, "PodList"))


def _pod(item: Shape) -> KubePod:
    meta, status = item.child("metadata"), item.maybe("status")
    inside = status.children("containerStatuses")
    waiting = [c.maybe("state").maybe("waiting").text("reason", "") for c in inside]
    return KubePod(
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        node=item.maybe("spec").text("nodeName", ""),
        phase=status.text("phase", ""),
        ready=_condition(status)[0],
        waiting=next((w for w in waiting if w), ""),
        restarts=sum(c.number("restartCount", 0) for c in inside),
        deleting="deletionTimestamp" in meta,
    )


def _items(text: str, kind: str) -> list[Shape]:
    top = Shape(from_json(text, kind), kind)
    found = top.text("kind", "")
    if found != kind:
        raise ParseError(f"a {kind} was expected, not kind {brief(repr(found))}: {brief(text)}")
    return top.children("items")


_READYZ = re.compile(r"\[([+-])\]([^\s\\]+)")


def readyz(text: str) -> tuple[str, ...]:
    r"""The checks that fail in what ``kubectl get --raw /readyz?verbose`` says; nothing where all is well.

    A server that is not ready answers 500, and kubectl then prints the whole list on standard error as one quoted
    line with ``\n`` in it: both forms are read.
    """
    marks = _READYZ.findall(text)
    if not marks and text.strip() != "ok":
        raise ParseError(f"readyz: no list of checks in {brief(repr(text))}")
    return tuple(name for sign, name in marks if sign == "-")

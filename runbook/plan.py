"""What a plan says, as frozen data: no I/O here, and nothing that is not in the plan file.

``runbook.planfile`` reads the YAML file, checks it, and builds these objects. Durations are seconds, paths
are absolute strings of the *hosts'* file systems except where a field says otherwise.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

Sudo = Literal["auto", "always", "never"]
ServerSide = Literal["", "AES256", "aws:kms"]


@dataclass(frozen=True)
class Ssh:
    """How to reach one host. ``identity_file`` and ``known_hosts_file`` are on the responder's machine."""

    user: str = "root"
    port: int = 22
    identity_file: Path | None = None
    known_hosts_file: Path = Path("~/.ssh/known_hosts")
    jump: str | None = None
    sudo: Sudo = "auto"
    connect_timeout: float = 10.0


@dataclass(frozen=True)
class Tools:
    """The programs on the hosts; ``upload`` is a directory of the responder's machine that brings both along."""

    etcdctl: str = "etcdctl"
    etcdutl: str = "etcdutl"
    upload: Path | None = None


@dataclass(frozen=True)
class Paths:
    """Where kubeadm and the run keep their files on a host; ``wal_dir`` is "" where the WAL is in the data dir."""

    manifests: str = "/etc/kubernetes/manifests"
    data_dir: str = "/var/lib/etcd"
    wal_dir: str = ""
    etcd_ca: str = "/etc/kubernetes/pki/etcd/ca.crt"
    etcd_cert: str = "/etc/kubernetes/pki/etcd/server.crt"
    etcd_key: str = "/etc/kubernetes/pki/etcd/server.key"
    kubeconfig: str = "/etc/kubernetes/admin.conf"
    workspace: str = "/var/lib/etcd-runbook"


@dataclass(frozen=True)
class Timeouts:
    """How long each kind of waiting may take, in seconds."""

    stop: float = 120.0
    quorum: float = 120.0
    api_server: float = 180.0
    nodes_ready: float = 300.0
    command: float = 60.0
    restore: float = 1800.0


@dataclass(frozen=True)
class Node:
    """One control-plane host: an etcd member. ``ssh`` and ``paths`` are already merged with the plan's."""

    name: str
    host: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    ssh: Ssh = Ssh()
    paths: Paths = Paths()


@dataclass(frozen=True)
class Worker:
    """A host whose kubelet is restarted afterwards. Its name is its host; of its paths only the workspace counts."""

    host: str
    ssh: Ssh = Ssh()
    paths: Paths = Paths()

    @property
    def name(self) -> str:
        """The name that journal and progress use."""
        return self.host


@dataclass(frozen=True)
class Place:
    """Where snapshots are kept: ``url`` is ``file:///DIR``, ``host://NODE/DIR``, ``s3://``, ``gs://`` or ``az://``.

    ``endpoint`` and ``region`` are the object store's, "" where the environment says them. ``server_side`` and
    ``kms_key`` are how S3 encrypts what it stores. No credential stands here: they come from the environment.
    """

    url: str
    endpoint: str = ""
    region: str = ""
    server_side: ServerSide = ""
    kms_key: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Where the snapshot is. ``node`` is set for ``host://NODE/path``, else ``path`` is on the responder's machine.

    ``store`` is set where it is kept in a store: then ``path`` says nothing until the snapshot was fetched, and is that
    copy's from then on, whose ``name`` in the store is known then too. ``trouble`` is why it could not be fetched, as
    JSON with ``saw`` and ``do``. ``identity_file``, of the responder's machine, has what opens it; ``runbook.supply``.
    ``fingerprints`` are those of the CAs of the cluster that it was taken of, by file, as its sidecar says.
    """

    source: str
    path: Path
    node: str | None = None
    sha256: str | None = None
    allow_missing_trailer: bool = False
    store: Place | None = None
    identity_file: Path | None = None
    name: str = ""
    trouble: str = ""
    fingerprints: tuple[tuple[str, str], ...] = ()

    @property
    def fetched(self) -> bool:
        """Whether what is kept in a store is at hand by now."""
        return self.store is not None and self.path != NOWHERE

    @property
    def shown(self) -> str:
        """How messages name it, where it lies on no node: never by the copy's own path."""
        if self.store is None:
            return str(self.path)
        return f"{self.store.url}/{self.name}" if self.name else self.source

    @property
    def sent(self) -> str:
        """What is sent to the hosts, as a path; of a store that nothing was fetched from, its URL."""
        return str(self.path) if self.store is None or self.fetched else self.source

    def as_written(self) -> Snapshot:
        """What the plan itself says, before anything was fetched."""
        return replace(self, path=NOWHERE, name="", trouble="", fingerprints=()) if self.store else self


NOWHERE = Path("/dev/null/not-fetched")
"""The path of a snapshot that is still in its store; nothing can ever be there."""


@dataclass(frozen=True)
class Cluster:
    """The new logical cluster. ``token`` may hold ``$RUN``, which stands for the run id."""

    token: str = "$RUN"  # noqa: S105 - an etcd cluster token is a name, not a secret
    bump_revision: int = 1_000_000_000
    mark_compacted: bool = True


@dataclass(frozen=True)
class OwnCheck:
    """A check of the plan's own: ``run`` is the only shell text of a plan. ``on``: ``local``, ``all`` or a node."""

    name: str
    on: str
    run: str
    within: float = 60.0


@dataclass(frozen=True)
class Verify:
    """What must be true of the serving cluster at the end."""

    nodes_ready: bool = True
    pods: bool = True
    secrets: tuple[str, ...] = ()
    rbac: tuple[str, ...] = ()
    checks: tuple[OwnCheck, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A valid plan. ``file`` is where it was read from, ``text`` its bytes."""

    name: str
    snapshot: Snapshot
    nodes: tuple[Node, ...]
    ticket: str = ""
    cluster: Cluster = Cluster()
    workers: tuple[Worker, ...] = ()
    tools: Tools = Tools()
    owner: str = "keep"
    timeouts: Timeouts = Timeouts()
    verify: Verify = Verify()
    file: Path = field(default=Path("plan.yaml"), compare=False)
    text: bytes = field(default=b"", compare=False, repr=False)

    @property
    def initial_cluster(self) -> str:
        """The value of etcd's ``--initial-cluster``: every member with each of its peer URLs."""
        return ",".join(f"{n.name}={url}" for n in self.nodes for url in n.peer_urls)

    @property
    def text_sha256(self) -> str:
        """SHA-256 of the plan file's bytes, in hex."""
        return hashlib.sha256(self.text).hexdigest()

    def node(self, name: str) -> Node:
        """The node of that name; KeyError where the plan has none."""
        return {n.name: n for n in self.nodes}[name]

    def as_written(self) -> Plan:
        """The plan before its snapshot was fetched from a store."""
        return replace(self, snapshot=self.snapshot.as_written())

    def pinned(self) -> dict[str, Any]:
        """What a resume may not change: all but the connections, timeouts and ``verify``; JSON-able, canonical.

        A node's ``host`` is a connection, for its name is the member's. A worker's host is its name, and so pinned. How
        a store is reached, and what opens its snapshots, is a connection too; what ``from`` says is not.
        """
        bare = replace(
            self,
            snapshot=replace(self.snapshot.as_written(), store=None, identity_file=None),
            timeouts=Timeouts(),
            verify=Verify(),
            nodes=tuple(replace(n, ssh=Ssh(), host="") for n in self.nodes),
            workers=tuple(replace(w, ssh=Ssh()) for w in self.workers),
        )
        plain: dict[str, Any] = json.loads(json.dumps(asdict(replace(bare, file=Path(), text=b"")), default=str))
        del plain["file"], plain["text"]
        return plain

    def digest(self) -> str:
        """SHA-256 of all that the plan says, comments and layout apart; 64 hex digits."""
        plain = json.loads(json.dumps(asdict(self.as_written()), default=str))
        del plain["file"], plain["text"]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def default_client_urls(peer_urls: tuple[str, ...]) -> tuple[str, ...]:
    """The client URLs that a plan means when it names none: each peer host, with port 2379."""
    urls = []
    for url in peer_urls:
        parts = urlsplit(url)
        host = parts.hostname or ""
        urls.append(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:2379")
    return tuple(dict.fromkeys(urls))

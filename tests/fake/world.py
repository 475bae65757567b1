"""Three hosts in memory, the etcd that they run together, and what must never be true of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from runbook import parse
from runbook.plan import Node, Plan
from runbook.procedures.words import STATIC_PODS
from tests.fake.machine import MANIFEST, OWNER, SNAPSHOT_REVISION, FakeHost

__all__ = ["MANIFEST", "OWNER", "FakeHost", "World"]

Answer = Callable[[FakeHost, list[str]], str]

MANIFESTS = {MANIFEST.format(name=name) for name in STATIC_PODS}


class World:
    """The hosts together."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.violations: list[str] = []
        self.sums: dict[str, str] = {}
        self.hosts: dict[str, FakeHost] = {}
        self.now = 0.0
        self.finishing = False
        self.broken: set[str] = set()
        """Hosts on which etcd and the API server crash, again and again, on the old data."""
        self.absent: set[str] = set()
        """Nodes that the run goes on without: a minority, so other data there does no harm."""
        self.edited: dict[tuple[str, str], str] = {}
        self.last_words: dict[tuple[str, str], str] = {}
        """By host and container, what crictl tells of the last one that ended."""
        self.etcdutl_fails = ""
        self.jobs: dict[str, Any] = {}
        self.begun: dict[str, dict[str, list[str]]] = {}
        """By a run's directory, the keys of the commands that each host has begun, as the files there tell."""
        self.living_revision = 150
        self.etcdctl: dict[str, Answer] = {
            "member list": self._member_list,
            "endpoint health": lambda host, argv: "healthy",
            "endpoint status": self._endpoint_status,
            "endpoint hashkv": self._hashkv,
            "snapshot save": self._snapshot_save,
            "alarm list": lambda host, argv: json.dumps({"header": self._header(host, host.name)}),
        }
        for node in plan.nodes:
            self.hosts[node.name] = FakeHost(self, node)

    def sha(self, text: str) -> str:
        """A stand-in for the SHA-256 of a text."""
        return self.sums.get(text) or f"{abs(hash(text)):064x}"[-64:]

    def violation(self, what: str) -> None:
        """Something that must never be true."""
        self.violations.append(what)

    # A clock, for the engine's waiting.

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for host in self.hosts.values():
            host.stop_unwanted()

    # etcd.

    def crashes(self, host: FakeHost, container: str) -> bool:
        """It is in a crash loop: none of its containers runs, and the next may at any moment."""
        return host.name in self.broken and container in ("etcd", "kube-apiserver") and host.lineage().startswith("old")

    def fall_apart(self) -> None:
        """The cluster dies, on all hosts."""
        self.broken = set(self.hosts)
        for host in self.hosts.values():
            host.containers -= {"etcd", "kube-apiserver"}

    def etcd_starts(self, host: FakeHost) -> None:
        """On whole data of the right owner, and only where every host has data of that kind in its place."""
        lineage = host.lineage()
        kind = lineage.split()[0]
        if kind not in ("old", "restored"):
            self.violation(f"{host.name}: etcd started on {lineage}")
        if kind == "restored" and lineage not in host.ran and "kube-apiserver" in host.pods:
            self.violation(f"{host.name}: etcd started on restored data under the API server of {host.name}")
        host.ran.add(lineage)
        for other in self.hosts.values():
            if other.node.name not in self.absent and other.lineage().split()[0] != kind:
                self.violation(f"{host.name} starts {lineage}, in place on {other.name} is {other.lineage()}")

    def answers(self, host: FakeHost) -> bool:
        """Its etcd runs, and a majority with it."""
        if "etcd" not in host.containers:
            return False
        kind = host.lineage().split()[0]
        peers = [h for h in self.hosts.values() if "etcd" in h.containers and h.lineage().split()[0] == kind]
        return len(peers) > len(self.hosts) // 2

    def _ids(self, host: FakeHost) -> tuple[int, dict[str, int]]:
        lineage = host.lineage()
        members = {n.name: n.peer_urls for n in self.plan.nodes}
        token = lineage.split()[1] if lineage.startswith("restored") else "the old token"
        ids = parse.member_ids(members, token)
        return parse.cluster_id(ids.values()), ids

    def _header(self, host: FakeHost, name: str) -> dict[str, int]:
        cluster, ids = self._ids(host)
        old = host.lineage().startswith("old")
        revision = self.living_revision if old else SNAPSHOT_REVISION + self.plan.cluster.bump_revision
        return {"cluster_id": cluster, "member_id": ids[name], "revision": revision, "raft_term": 2}

    def _serving(self, host: FakeHost, argv: list[str]) -> Iterator[Node]:
        """The asked members that run: all with ``--cluster``, else those of the endpoints."""
        asked = next((word.partition("=")[2].split(",") for word in argv if word.startswith("--endpoints=")), [])
        for node in self.plan.nodes:
            if ("--cluster" in argv or set(asked) & set(node.client_urls)) and "etcd" in self.hosts[
                node.name
            ].containers:
                yield node

    def _member_list(self, host: FakeHost, argv: list[str]) -> str:
        _, ids = self._ids(host)
        members = [
            {"ID": ids[n.name], "name": n.name, "peerURLs": list(n.peer_urls), "clientURLs": list(n.client_urls)}
            for n in self.plan.nodes
        ]
        return json.dumps({"header": self._header(host, host.name), "members": members})

    def _endpoint_status(self, host: FakeHost, argv: list[str]) -> str:
        _, ids = self._ids(host)
        found = []
        for node in self._serving(host, argv):
            status = {
                "header": self._header(self.hosts[node.name], node.name),
                "version": "3.5.16",
                "dbSize": 20480,
                "leader": min(ids.values()),
                "raftIndex": 8,
                "raftTerm": 2,
            }
            found.append({"Endpoint": node.client_urls[0], "Status": status})
        return json.dumps(found)

    def _snapshot_save(self, host: FakeHost, argv: list[str]) -> str:
        host.put(argv[-1], f"snapshot of {host.lineage()}", synced=False)
        return f"Snapshot saved at {argv[-1]}\n"

    def _hashkv(self, host: FakeHost, argv: list[str]) -> str:
        found = []
        for node in self._serving(host, argv):
            there = self.hosts[node.name]
            text = there.lineage() if there.lineage().startswith("restored") else "old"
            header = self._header(there, node.name)
            hashed = {"header": header, "hash": sum(text.encode()), "compact_revision": header["revision"]}
            found.append({"Endpoint": node.client_urls[0], "HashKV": hashed})
        return json.dumps(found)

    # What must be true at every moment.

    def check(self, host: FakeHost) -> None:
        """Of a host: its old data exists, complete, exactly once; so does all that etcd ran on, and every manifest."""
        if host.checked == host.version:
            return
        host.reconcile()
        host.checked = host.version
        if self.finishing:
            return
        contents = [(p, n.content) for p, n in host.nodes.items() if n.content is not None]
        kept = [p for p, content in contents if content == f"old {host.name}"]
        if len(kept) != 3 or sum(p.endswith("/db") for p in kept) != 1:
            self.violation(f"{host.name}: the old data is {kept}")
        for lineage in host.ran:
            if not any(content == lineage and p.endswith("/db") for p, content in contents):
                self.violation(f"{host.name}: gone is {lineage}, on which etcd ran")
        whole = {content for p, content in contents if p.endswith(".yaml")}
        wanted = MANIFESTS | {text for (name, _), text in self.edited.items() if name == host.name}
        if not whole >= wanted:
            self.violation(f"{host.name}: gone is {wanted - whole}")

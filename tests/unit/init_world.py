"""Machines that answer ``init``'s questions as real ones do, each of which a test can break in its own way."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from runbook import kube, planfile
from runbook.checks import locks, manifests
from runbook.discovery import asks
from runbook.discovery.draft import Draft, Source
from runbook.discovery.judge import judge
from runbook.discovery.seen import Seen, survey
from runbook.discovery.writer import render
from runbook.plan import Node, Plan, Ssh
from runbook.step import Command, Result
from tests.unit.checks_world import NODES, PLAN, four, framed, member_json, nodes_json, status_json

IPS = {n.name: n.peer_urls[0].removeprefix("https://").removesuffix(":2380") for n in NODES}
AT = datetime(2026, 4, 9, 14, 0, tzinfo=UTC)
REFUSED = Result(1, err='{"level":"warn","error":"dial tcp 127.0.0.1:2379: connect: connection refused"}')


@dataclass
class Machine:
    """One host; ``files`` are its manifests, ``plan`` the cluster that its member knows."""

    name: str
    plan: Plan = PLAN
    up: bool = True
    etcd: bool = True
    quorum: bool = True
    api: bool = True
    files: dict[str, str | None] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)
    stat: str = "0 0 700 root root 60 directory"
    db: bool = True
    dead: int | None = None
    written: str = ""
    living: Sequence[str] = tuple(IPS)
    revision: int = 4711
    nodes: str = field(
        default_factory=lambda: nodes_json().replace('"resourceVersion": "1000000412"', '"resourceVersion": "4700"')
    )
    secrets: Mapping[str, int] = field(default_factory=dict)
    kubeadm: str = ""
    backups: str = ""
    lies: Mapping[str, str] = field(default_factory=dict)
    """By path, what ``stat`` says of a file that is not of etcd's own data."""
    extra: Sequence[Mapping[str, object]] = ()
    lock: str = ""
    says: str | None = None
    """What it answers to everything, whatever it is asked."""

    def __post_init__(self) -> None:
        if not self.files and self.name in IPS:
            self.files = four(next(n for n in NODES if n.name == self.name))

    @property
    def ip(self) -> str:
        return IPS.get(self.name, "10.0.1.50")

    def look(self) -> str:
        tools = ["etcdctl", "etcdutl"]
        words = {
            "uid": "0",
            "machine": f"id-{self.name}/boot-{self.name}",
            "hostname": self.name,
            "config": "/var/lib/kubelet/config.yaml",
            "manifests": "/etc/kubernetes/manifests",
            "kubeconfig": "/etc/kubernetes/admin.conf",
            "cluster": "kubernetes",
        }
        lines = [f"{word} {value}" for word, value in (words | self.words).items() if value != "-"]
        if "no tools" not in self.more:
            lines += [f"tool {t} {t}" for t in tools] + [f"version {t} {t} version: 3.5.24" for t in tools]
        return "\n".join([*lines, *self.more, "== manifests\n"])

    def answer(self, command: Command) -> Result:
        words = command.words()
        if not self.up:
            return Result(None, err=f"{self.ip} ({self.ip}:22): no answer within 10 s; check that the host is up")
        if self.says is not None:
            return Result(0, self.says)
        if words[0] == "sh":
            return self._script(words[2], words[4:])
        if "kubectl" in words[0]:
            return self._kubectl(words[-1])
        return self._etcd(words)

    def _script(self, text: str, words: Sequence[str]) -> Result:
        if text.startswith(asks.LOOK):
            assert text.endswith(manifests.READ)
            return Result(0, self.look() + framed(self.files))
        if text == locks.READ:
            return Result(0, self.lock)
        if text == asks.STAT:
            db = [p.endswith("/snap/db") for p in words]
            told = ["-" if is_db and not self.db else self.stat for is_db in db]
            return Result(0, "".join(f"{self.lies.get(p, line)}\n" for p, line in zip(words, told, strict=True)))
        if text == kube.ANY_ETCDCTL:
            return self._etcd(words) if "no container" not in self.more else Result(127, err="no etcdctl")
        if text == asks.NAMED:
            return Result(0, self.written)
        assert text == asks.BACKUPS
        return Result(0, self.backups)

    def _kubectl(self, path: str) -> Result:
        if not self.api:
            return Result(1, err="The connection to the server 127.0.0.1:6443 was refused - did you specify the right")
        if path.endswith("kubeadm-config"):
            return Result(0, json.dumps({"kind": "ConfigMap", "data": {"ClusterConfiguration": self.kubeadm}}))
        return Result(0, self.nodes)

    def _etcd(self, words: Sequence[str]) -> Result:
        if words[0] == "etcdutl":
            told = {"hash": 1, "revision": self.dead, "totalKey": 9, "totalSize": 9}
            return Result(0, json.dumps(told)) if self.dead is not None else Result(1, err="no such file")
        if not self.etcd:
            return REFUSED
        if "status" in words:
            names = self.living if "--cluster" in words else (self.name,)
            text = status_json(self.plan, names, self.revision)
            return Result(0, text if self.quorum else text.replace('"leader"', '"nobody"'))
        if "get" in words:
            kvs = [
                {"key": base64.b64encode(f"/registry/secrets/{n}".encode()).decode(), "create_revision": r}
                for n, r in self.secrets.items()
            ]
            return Result(0, json.dumps({"kvs": kvs, "count": len(kvs)}))
        assert words[-4:-2] == ("member", "list") or "list" in words
        if not self.quorum:
            return Result(1, err="Error: context deadline exceeded")
        return Result(0, member_json(self.plan, extra=self.extra, me="m1"))


@dataclass
class Machines:
    """All of them; fulfils what ``survey`` asks of :class:`runbook.transport.Hosts`."""

    machines: dict[str, Machine]
    rounds: list[dict[str, list[Command]]] = field(default_factory=list)

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        self.rounds.append({host: list(commands) for host, commands in asks.items()})
        return {h: tuple(self.machines[h].answer(c) for c in commands) for h, commands in asks.items()}

    def close(self) -> None:
        """Nothing is open."""


def cluster(**changes: Mapping[str, object]) -> list[Machine]:
    """Three healthy machines; ``changes`` by name."""
    return [Machine(name, **changes.get(name, {})) for name in IPS]  # type: ignore[arg-type]


def places(machines: Sequence[Machine]) -> list[Node]:
    return [Node(m.ip, m.ip, (), (), ssh=Ssh()) for m in machines]


def seen_of(machines: Sequence[Machine], snapshot: tuple[str, str] = ("", "")) -> tuple[Seen, ...]:
    hosts = Machines({m.ip: m for m in machines})
    return survey(hosts, places(machines), snapshot)  # type: ignore[arg-type]


def drafted(machines: Sequence[Machine], source: Source | None = None) -> Draft:
    seen = seen_of(machines)
    return judge(seen, source or Source(), {s.word: {s.word} for s in seen if s.silent})


def written(machines: Sequence[Machine], source: Source | None = None) -> tuple[str, Plan]:
    """The plan's text, and what the loader makes of it."""
    seen = seen_of(machines)
    draft = judge(seen, source or Source(), {s.word: {s.word} for s in seen if s.silent})
    text = render(draft, seen, "0", AT, "plan.yaml")
    return text, planfile.read(text.encode(), Path("plan.yaml"))[0]


def edited(name: str, file: str, *changes: tuple[str, str]) -> dict[str, str | None]:
    """A machine's manifests with one of them changed."""
    found = four(next(n for n in NODES if n.name == name))
    text = found[file] or ""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return found | {file: text}


def json_of(name: str, ip: str, id_: int = 7) -> dict[str, object]:
    """A member as etcd writes it."""
    return {"ID": id_, "name": name, "peerURLs": [f"https://{ip}:2380"], "clientURLs": [f"https://{ip}:2379"]}

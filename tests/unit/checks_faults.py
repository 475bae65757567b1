"""What can be wrong on a host, as changes of the healthy answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runbook.checks import Severity, certificates, disk, locks, manifests, mounts
from runbook.plan import Snapshot
from runbook.step import Result, Target
from tests.unit.checks_world import (
    PLAN,
    Change,
    certificates_text,
    four,
    framed,
    member_json,
    says,
    status_json,
    where,
)

BLOCKS, WARNS, HELD = Severity.BLOCKS, Severity.WARNS, Severity.HELD
THERE = replace(PLAN, snapshot=Snapshot("host://m2/opt/etcd.db", Path("/opt/etcd.db"), node="m2"))


def tail(*words: str) -> Callable[[tuple[str, ...]], bool]:
    """Matches a command that ends in these words."""
    return lambda argv: argv[-len(words) :] == words


def files(edit: Callable[[dict[str, str | None]], object], on: str = "m2") -> Change:
    """Another content of the manifests directory."""

    def answer(n: Target, _: Result) -> Result:
        found = four(n.node)
        edit(found)
        return Result(0, framed(found))

    return where(manifests.READ, answer, on)


def etcd_yaml(old: str, new: str) -> Change:
    """Another text in m2's etcd.yaml."""

    def edit(found: dict[str, str | None]) -> None:
        text = found["etcd.yaml"] or ""
        assert old in text
        found["etcd.yaml"] = text.replace(old, new)

    return files(edit)


def api_yaml(old: str, new: str) -> Change:
    def edit(found: dict[str, str | None]) -> None:
        text = found["kube-apiserver.yaml"] or ""
        assert old in text
        found["kube-apiserver.yaml"] = text.replace(old, new)

    return files(edit)


def certs(changes: Mapping[str, str]) -> Change:
    return where(certificates.READ, lambda n, _: Result(0, certificates_text(n.node, changes)))


def stranger(living: bool) -> list[Change]:
    """A member that is in nobody's plan."""
    extra = {"ID": 99, "name": "m4", "peerURLs": ["https://10.0.1.13:2380"], "clientURLs": ["https://10.0.1.13:2379"]}
    changes = [where(lambda w: "member" in w, says(member_json(PLAN, extra=[extra])), on="")]
    if living:
        names = ("m1", "m2", "m3", "m4")
        changes.append(where("--cluster", says(status_json(PLAN, names)), on=""))
    return changes


def no_etcd() -> Change:
    dead = says("", 1, "Error: context deadline exceeded")
    return where(lambda w: "member" in w or ("endpoint" in w and "status" in w), dead, on="")


def lock(text: str) -> Change:
    return where(locks.READ, says(f"now 1000\nlife 958.5\nlock {text}\n"))


def room(text: str) -> Change:
    return where(disk.ROOM, says(text))


def look(text: str) -> Change:
    return where(mounts.LOOK, says(f"path /var/lib/etcd\n{text}"))


def rename(item: Any, name: str, address: str) -> None:
    item["metadata"]["name"] = name
    item["status"]["addresses"] = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]

"""What would be lost? How old the snapshot is, and what a living cluster has had created, changed and deleted since.

Counted by revision: in one lineage a key whose ``create_revision`` is above the snapshot's was created since, one whose
``mod_revision`` alone is was changed, and what the snapshot has more of was deleted. So no host need send the names of
all objects, and nobody remember them. Leases and events change all the time and are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from runbook import kube
from runbook.checks import Answers, Finding, Severity, heard
from runbook.checks.content import OfContent, names, shown
from runbook.checks.words import is_node, script
from runbook.listing import LIST, lines
from runbook.plan import Node, Plan
from runbook.snapshots.content import Content, named
from runbook.step import Command, Result, Target
from runbook.tables import duration

SECONDS = 15
"""A host lists its objects for so long at most."""
RESTLESS = ("leases", "masterleases", "events")


@dataclass
class Living:
    """What the living cluster has, by place below ``/registry``.

    How many objects were created since a revision, how many were only changed, and how many are older than it;
    ``volumes`` has the revisions at which they were created.
    """

    revision: int = 0
    member: str = ""
    whole: bool = False
    why: str = ""
    created: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    older: Counter[str] = field(default_factory=Counter)
    volumes: dict[str, int] = field(default_factory=dict)

    def add(self, place: str, create: int, mod: int, since: int) -> None:
        """Counts one object."""
        (self.created if create > since else self.older)[place] += 1
        self.changed[place] += create <= since < mod


def living(result: Result, since: int) -> Living | None:
    """What :data:`LIST` printed, counted from a revision on; None where this host's etcd does not answer."""
    listed, why = lines(result)
    if why:
        return Living(why=why)
    found = Living()
    for line in listed:
        match line.split():
            case ["page", revision, member, more, *_] if revision.isdigit() and member.isdigit():
                found.revision = found.revision or int(revision)
                found.member = f"{int(member):x}"
                found.whole = more == "end"
            case ["volume", create, mod, name] if create.isdigit() and mod.isdigit():
                found.volumes[name] = int(create)
                found.add("persistentvolumes", int(create), int(mod), since)
            case [place, create, mod] if create.isdigit() and mod.isdigit():
                found.add(place, int(create), int(mod), since)
            case ["late"]:
                found.whole, found.why = False, f"its objects are too many to list within {duration(SECONDS)}"
            case ["failed", *said]:
                found.whole, found.why = False, " ".join(said)[:200] or "its etcd does not answer"
    return found if found.revision else None


@dataclass(frozen=True)
class Losses:
    """Objects by kind. One that was deleted and made anew counts as both."""

    created: Mapping[str, int]
    changed: Mapping[str, int]
    deleted: Mapping[str, int]
    volumes_created: tuple[str, ...]
    volumes_deleted: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.created or self.changed or self.deleted)

    def words(self) -> str:
        """All of it, short."""
        pairs = (("created", self.created), ("changed", self.changed), ("deleted", self.deleted))
        told = [f"{what} {sum(kinds.values())} ({shown(kinds)})" for what, kinds in pairs if kinds]
        return "; ".join(told)


def losses(content: Content, now: Living) -> Losses:
    """What a restore of this content would undo in the cluster that lives now."""
    created, changed, older = (_by_kind(counted) for counted in (now.created, now.changed, now.older))
    restless = {*map(named, RESTLESS), "other"}
    deleted = {k: n - older[k] for k, n in content.kinds.items() if n > older[k] and k not in restless}
    there = {name for name, create in now.volumes.items() if create <= content.revision}
    come, gone = set(now.volumes) - there, {*content.volumes} - there
    return Losses(created, changed, deleted, tuple(sorted(come)), tuple(sorted(gone)))


def _by_kind(places: Mapping[str, int]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for place, count in places.items():
        kinds[named(place)] += count
    return +kinds


class WhatIsLost(OfContent):
    """Nothing was written since the snapshot that would be lost."""

    severity, tells = Severity.WARNS, True
    order = 46

    def asks(self, n: Target) -> Sequence[Command]:
        """All keys with their revisions, of the first host whose etcd lives; it needs no quorum."""
        if not is_node(n):
            return ()
        asked = kube.etcdctl(n, timeout=6, early=True).words()
        own = next(word for word in asked if word.startswith("--endpoints="))
        etcdctl = [word for word in asked if word != own]
        earlier = n.plan.nodes[: n.plan.nodes.index(n.node)]
        before = " ".join(",".join(node.client_urls) for node in earlier)
        words = (own.removeprefix("--endpoints="), before, str(SECONDS), "0", "", *etcdctl)
        return [replace(script(LIST, *words, timeout=SECONDS + 6 * len(n.plan.nodes) + 10), large=True)]

    def of(self, plan: Plan, content: Content, answers: Answers, now: float) -> Iterator[Finding]:
        """It never blocks: what may be lost only the responder can say."""
        seen = [(node, living(results[0], content.revision)) for node, results in heard(answers, plan.nodes)]
        lists = sorted(((n, one) for n, one in seen if one), key=lambda pair: not pair[1].revision)
        age = _age(content, now)
        if lists and lists[0][1].revision:
            yield from self._compared(*lists[0], content, age)
            return
        if not seen:
            return
        why = next((one.why for _, one in lists), "no etcd answers")
        told = f"the snapshot was taken {age}; what was written since cannot be told, for {why}"
        yield self.warns("", told, "is there a newer one? Look where backups are kept")

    def _compared(self, node: Node, now: Living, content: Content, age: str) -> Iterator[Finding]:
        gap = now.revision - content.revision
        told = f"the snapshot was taken {age}, {gap} revisions before the present one of {node.name}"
        do = "if that is too much: a newer snapshot; or save what is new first (kubectl get KIND -A -o yaml)"
        if gap < 0:
            saw = f"the snapshot was taken {age}, at revision {content.revision}, and {node.name} is at {now.revision}"
            yield self.warns(
                "", f"{saw}: this is not the cluster it was taken of, or was restored since", "compare by hand"
            )
            return
        if not now.whole:
            yield self.warns("", f"{told}; what was written since is not counted: {now.why}", do)
            return
        found = losses(content, now)
        if content.members and now.member not in {m.id for m in content.members}:
            told += " (the cluster was restored since, or is another: what is counted here is the least)"
        if found:
            yield self.warns("", f"{told}; since then {found.words()}. Leases and events are not counted", do)
        else:
            yield self.ok("", f"{told}; nothing but leases and events was written since")
        yield from self._volumes(found)

    def _volumes(self, found: Losses) -> Iterator[Finding]:
        if found.volumes_created:
            saw = f"persistent volumes created since, which the cluster will not know: {names(found.volumes_created)}"
            do = "their data stay where they are: save the objects first (kubectl get pv,pvc -A -o yaml)"
            yield self.warns("", saw, do)
        if found.volumes_deleted:
            saw = f"persistent volumes deleted since, which come back as objects: {names(found.volumes_deleted)}"
            yield self.warns("", saw, "their data may be gone: look at what uses them, and delete them again")


def taken(content: Content) -> tuple[float, str]:
    """When it was taken, in seconds since 1970, and how that is known."""
    written = content.touched[3] / 1e9
    if 0 < content.renewed <= written:  # a node whose clock runs ahead does not make it younger than its file
        return content.renewed, "by its newest Lease"
    return written, "by the file's date, which a copy may have changed"


def _age(content: Content, now: float) -> str:
    at, how = taken(content)
    date = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%MZ")
    return f"{duration(max(0, now - at))} ago ({date}, {how})"

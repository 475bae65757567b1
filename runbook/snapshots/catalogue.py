"""What a store holds: each file with what its sidecar tells of it, the newest good snapshot first."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runbook.snapshots.sidecar import MAX_BYTES, SUFFIX, NoSidecar, Sidecar, is_name
from runbook.snapshots.stores import Entry, NotThere, Store

AHEAD = timedelta(minutes=5)
"""A clock that is ahead by less is no wrong clock."""


@dataclass(frozen=True)
class Item:
    """One file of a store that is, or may be, a snapshot. ``why`` says what is wrong with it; "" where nothing is.

    ``ahead``: what is wrong is that it was taken in the future.
    """

    entry: Entry
    sidecar: Sidecar | None = None
    why: str = ""
    ahead: bool = False

    @property
    def name(self) -> str:
        """What it is called there."""
        return self.entry.name

    @property
    def good(self) -> bool:
        """Whole, as far as its store and its sidecar tell, and once read to its end."""
        return not self.why and self.sidecar is not None and bool(self.sidecar.verified)


@dataclass(frozen=True)
class Catalogue:
    """What was found. ``orphans`` are sidecars whose snapshot is gone, ``foreign`` files are others'."""

    items: tuple[Item, ...]
    orphans: tuple[Sidecar, ...] = ()
    foreign: tuple[str, ...] = ()

    def newest(self, cluster: str = "") -> Item | None:
        """The newest good one, of that cluster, "" for any; None where there is none."""
        good = (i for i in self.items if i.good and i.sidecar and cluster in ("", i.sidecar.cluster))
        return next(good, None)


def read(store: Store, now: datetime) -> Catalogue:
    """All of it; what is wrong with a sidecar is told of its snapshot. ``now`` has a time zone.

    Raises StoreTrouble where the store does not answer: to go on without the sidecar that it withheld would be to take
    an older snapshot for the newest.
    """
    entries = store.entries()
    sizes = {e.name: e.size for e in entries}
    ours = [e for e in entries if is_name(e.name)]
    theirs = {e.name + SUFFIX for e in ours}
    lone = [e.name for e in entries if e.name.endswith(SUFFIX) and is_name(e.name[: -len(SUFFIX)])]
    lone = [name for name in lone if name not in theirs and sizes[name] <= MAX_BYTES]
    with ThreadPoolExecutor(max(1, store.at_once)) as pool:
        items = list(pool.map(lambda e: _item(store, e, sizes.get(e.name + SUFFIX), now), ours))
        orphans = [s for s in pool.map(lambda name: _orphan(store, name), lone) if s]
    known = {e.name for e in ours} | theirs | {o.name + SUFFIX for o in orphans}
    foreign = [e.name for e in entries if e.name not in known]
    return Catalogue(tuple(_sorted(items)), tuple(orphans), tuple(foreign))


def _item(store: Store, entry: Entry, octets: int | None, now: datetime) -> Item:
    """``octets`` is how large its sidecar is, None where it has none."""
    bare = Item(entry, None, "it has no sidecar: it is half-written, or its sidecar was removed")
    if octets is None:
        return bare
    if octets > MAX_BYTES:
        return Item(entry, None, f"its sidecar has {octets} bytes, and is none of runbook's")
    try:
        sidecar = Sidecar.from_json(store.read_small(entry.name + SUFFIX, MAX_BYTES))
    except NotThere:
        return bare  # removed since
    except NoSidecar as error:
        return Item(entry, None, f"its sidecar cannot be used: {error}")
    if wrong := _wrong(entry, sidecar):
        return Item(entry, sidecar, wrong)
    ahead = sidecar.taken > now + AHEAD
    return Item(entry, sidecar, f"it was taken in the future ({sidecar.at}): a clock is wrong" if ahead else "", ahead)


def _wrong(entry: Entry, sidecar: Sidecar) -> str:
    if sidecar.name != entry.name:
        return f"beside it is the sidecar of {sidecar.name}"
    if sidecar.damaged:
        return f"it was found damaged: {sidecar.damaged}"
    if sidecar.stored.size != entry.size:
        return f"it has {entry.size} bytes, and its sidecar tells of {sidecar.stored.size}"
    return ""


def _orphan(store: Store, name: str) -> Sidecar | None:
    """A sidecar of ours whose snapshot is not there any more; None where it is none."""
    try:
        sidecar = Sidecar.from_json(store.read_small(name, MAX_BYTES))
    except (NoSidecar, NotThere):
        return None
    return sidecar if sidecar.name + SUFFIX == name else None


def _sorted(items: Sequence[Item]) -> list[Item]:
    """Good ones first, and then the newest."""
    never = datetime.min.replace(tzinfo=UTC)
    newest = sorted(items, key=lambda i: (i.sidecar.taken if i.sidecar else never, i.name), reverse=True)
    return sorted(newest, key=lambda i: (bool(i.why), not i.good))

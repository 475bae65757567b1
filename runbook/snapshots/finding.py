"""Which snapshot of a store is meant: by its name, the newest verified one, or the newest verified one before a time.

A snapshot counts by its sidecar, which is written last: what has none, or one that cannot be read, is never chosen. Nor
is one that nobody has verified, or that was taken in the future: then a clock was wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from runbook.snapshots import catalogue
from runbook.snapshots.sidecar import MAX_BYTES, SUFFIX, NoSidecar, Sidecar
from runbook.snapshots.stores import NotThere, Store, StoreTrouble
from runbook.snapshots.urls import Reference
from runbook.tables import duration, utc

_TOLD = 3
"""So many snapshots are named where none fits."""
LIST = "runbook snapshot list"


class NoneFits(StoreTrouble):
    """The store answers, and has no snapshot that may be taken for the one that is meant; ``what`` says what it has."""


@dataclass(frozen=True)
class Found:
    """A snapshot in a store: ``size`` in bytes as it is stored. ``sidecar`` is None for another tool's plain file.

    ``taken`` is when it was taken, or, of another tool's file, when it was written to the store.
    """

    name: str
    sidecar: Sidecar | None = None
    size: int = 0
    taken: datetime | None = None

    @property
    def sha256(self) -> str:
        """Of the plain file, in hex, as its sidecar says; "" where it has none."""
        return self.sidecar.sha256 if self.sidecar else ""

    @property
    def plain_size(self) -> int:
        """In bytes, once it is opened."""
        return self.sidecar.size if self.sidecar else self.size


def sidecar_of(store: Store, name: str) -> Sidecar:
    """A snapshot's sidecar. Raises NotThere; NoneFits where it is none, or another snapshot's."""
    try:
        told = Sidecar.from_json(store.read_small(name + SUFFIX, MAX_BYTES))
    except NoSidecar as error:
        do = "take another snapshot; or open it by hand (age, zstd), and push the plain file"
        raise NoneFits(f"{store.url}/{name}{SUFFIX} cannot be read: {error}", do) from None
    if told.name != name:
        do = "take another snapshot: one of the two files was put there by somebody else"
        raise NoneFits(f"{store.url}/{name}{SUFFIX} is the sidecar of {told.name}", do)
    return told


def find(store: Store, reference: Reference, now: datetime, cluster: str = "") -> Found:
    """The snapshot that is meant, as of ``now``. Only sidecars are read, and the store's list.

    Where several clusters keep their snapshots in one place, the one called ``cluster`` is meant, or nobody can say.

    Raises:
        NoneFits: no snapshot may be taken for it; the message says what there is.
        StoreTrouble: the store did not answer, or not as it must.
    """
    if reference.name:
        return _named(store, reference.name)
    seen = _of_cluster(store, catalogue.read(store, now).items, cluster)
    until = reference.moment
    good = [i.sidecar for i in seen if i.good and i.sidecar and (until is None or i.sidecar.taken <= until)]
    if not good:
        before = f" that was taken until {utc(until)}" if until else ""
        what = f"{store.url} has no verified snapshot{before}; {_there(seen, now)}"
        raise NoneFits(what, f"name one of them, or verify one: runbook snapshot verify {store.url}/NAME")
    ahead = [i.name for i in seen if i.ahead]
    if ahead and until is None:  # by a clock here that is behind, an old one would be the newest
        what = f"{store.url} has {ahead[0]}, which was taken in the future by this machine's clock ({utc(now)})"
        raise NoneFits(what, "compare `date -u` here and where snapshots are taken; or name the snapshot that is meant")
    newest = max(good, key=lambda told: (told.taken, told.name))
    return Found(newest.name, newest, newest.stored.size, newest.taken)


def _of_cluster(store: Store, seen: Sequence[catalogue.Item], cluster: str) -> Sequence[catalogue.Item]:
    """Those of the cluster that is meant. Raises NoneFits where nobody can say which one that is.

    By all that there is, good or not: where the cluster's own have something wrong, another's are not the next best.
    """
    clusters = sorted({i.sidecar.cluster for i in seen if i.sidecar})
    if cluster in clusters:
        return [i for i in seen if i.sidecar is None or i.sidecar.cluster == cluster]
    if len(clusters) > 1:
        what = f"{store.url} has snapshots of {len(clusters)} clusters: {', '.join(clusters)}"
        raise NoneFits(what, "name the snapshot, or whose it is: by --plan, or by metadata.name of a restore plan")
    return seen


def _named(store: Store, name: str) -> Found:
    try:
        told = sidecar_of(store, name)
        return Found(name, told, told.stored.size, told.taken)
    except NotThere:
        entries = {entry.name: entry for entry in store.entries()}
    if name not in entries:
        near = [n for n in entries if n.endswith((".db", ".zst", ".age"))]
        there = f"there are {_listed(sorted(near, reverse=True))}" if near else "there is no snapshot at all"
        raise NoneFits(f"{store.url} has no {name}; {there}", f"list what it has: {LIST} {store.url}")
    if not name.endswith(".db"):
        what = f"{store.url}/{name} has no sidecar ({name}{SUFFIX}), so that nobody can say whether it is whole"
        raise NoneFits(
            what, "bring its sidecar back beside it; or open it by hand (age, zstd), and name the plain file"
        )
    return Found(name, None, entries[name].size, entries[name].at)


def _there(seen: Sequence[catalogue.Item], now: datetime) -> str:
    """What there is, for who finds nothing that fits."""
    if not seen:
        return "it has no snapshot of runbook's at all"
    return f"there are {_listed([f'{s.name} ({described(s, now)})' for s in seen])}"


def _listed(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - _TOLD} more"] if len(texts) > _TOLD else []
    return ", ".join([*texts[:_TOLD], *more])


def described(seen: catalogue.Item, now: datetime) -> str:
    """How old a snapshot is, and what speaks against it."""
    words: Iterable[str] = (seen.why,)
    if seen.sidecar and not seen.why:
        verified = "verified" if seen.sidecar.verified else "not verified"
        words = (aged(seen.sidecar.taken, now), verified, f"of {seen.sidecar.cluster}")
    return ", ".join(words)


def aged(taken: datetime, now: datetime) -> str:
    """How long ago it was taken, as a person says it."""
    seconds = (now - taken).total_seconds()
    if seconds < 0:
        return f"taken {duration(-seconds)} in the future"
    days = int(seconds // 86400)
    return f"{days} d old" if days > 2 else f"{duration(seconds)} old"

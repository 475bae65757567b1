"""Letting old snapshots go: those that no tier of the plan keeps, and never a file that runbook did not write.

The snapshot goes first and its sidecar last: whoever is interrupted in between leaves a sidecar that tells whose it is,
and the next one takes that away too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from runbook.snapshots.catalogue import Catalogue
from runbook.snapshots.keep import Keep, Taken, reasons
from runbook.snapshots.sidecar import SUFFIX
from runbook.snapshots.stores import Store


@dataclass(frozen=True)
class Verdict:
    """What becomes of one snapshot: ``why`` it is kept; () where it goes."""

    name: str
    size: int
    at: str
    why: tuple[str, ...]


@dataclass(frozen=True)
class Pruning:
    """What is kept, what goes, and the sidecars that were left without a snapshot."""

    kept: tuple[Verdict, ...]
    goes: tuple[Verdict, ...]
    orphans: tuple[str, ...] = ()


def judge(found: Catalogue, cluster: str, keep: Keep, now: datetime) -> Pruning:
    """Only snapshots of this cluster are judged: those of others in the same place have plans of their own.

    One of which anything is wrong is kept: what it is, a person must say.
    """
    own = [i for i in found.items if i.sidecar and i.sidecar.cluster == cluster]
    taken = [Taken(i.name, i.sidecar.taken, i.good) for i in own if i.sidecar and not i.why]
    why = reasons(taken, keep, now)
    verdicts = [
        Verdict(i.name, i.entry.size, i.sidecar.at, (i.why,) if i.why else tuple(why[i.name])) for i in own if i.sidecar
    ]
    orphans = tuple(s.name for s in found.orphans if s.cluster == cluster)
    return Pruning(tuple(v for v in verdicts if v.why), tuple(v for v in verdicts if not v.why), orphans)


def carry_out(store: Store, pruning: Pruning) -> Iterator[str]:
    """Remove what goes, oldest first; the name of each that is gone. Raises StoreTrouble."""
    for verdict in sorted(pruning.goes, key=lambda v: v.at):
        store.remove(verdict.name)
        store.remove(verdict.name + SUFFIX)
        yield verdict.name
    for name in pruning.orphans:
        store.remove(name + SUFFIX)

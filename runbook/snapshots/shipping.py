"""A snapshot on its way into a store: proven, hashed, compressed, encrypted, written in one pass; its sidecar last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runbook import __version__
from runbook.snapshots.sealing import Sealed
from runbook.snapshots.sidecar import SUFFIX, Sidecar, Stored, new_name
from runbook.snapshots.stores import AlreadyThere, Store, StoreTrouble
from runbook.snapshots.trailer import Proven


@dataclass(frozen=True)
class Facts:
    """What is known of a snapshot beside its bytes; as in :class:`runbook.snapshots.sidecar.Sidecar`."""

    cluster: str
    at: datetime
    revision: int
    kinds: dict[str, int] = field(default_factory=dict)
    etcd: str = ""
    kubernetes: str = ""
    member: str = ""
    cluster_id: str = ""
    fingerprints: dict[str, str] = field(default_factory=dict)


def rfc3339(at: datetime) -> str:
    """In UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ship(
    store: Store,
    plain: Iterable[bytes],
    facts: Facts,
    recipients: Sequence[str] = (),
    *,
    compress: bool = True,
    late: Callable[[], Facts] | None = None,
) -> Sidecar:
    """Write a snapshot and its sidecar; what was written is told. Nothing is left where anything goes wrong.

    ``late`` gives the facts once all has been sent, where they take as long as that. Raises NotASnapshot where it is
    not whole, NoKey, StoreTrouble, and what the source of the pieces raises.
    """
    name = new_name(facts.cluster, facts.at, compressed=compress, encrypted=bool(recipients))
    proven = Proven(plain)
    sealed = Sealed(proven, recipients, compress=compress)
    with _removed_if_not(store, name):
        try:
            store.write(name, sealed)
        finally:
            sealed.close()
        _arrived(store, name, sealed.stored.size)
        facts = late() if late else facts
        sidecar = Sidecar(
            name=name,
            at=rfc3339(facts.at),
            sha256=proven.sha256,
            size=proven.size,
            stored=Stored(sealed.stored.size, sealed.stored.sha256, "zstd" if compress else "", tuple(recipients)),
            verified=rfc3339(datetime.now(UTC)),
            runbook=__version__,
            **{key: value for key, value in vars(facts).items() if key != "at"},
        )
        store.write(name + SUFFIX, [sidecar.json().encode()])
    return sidecar


def _arrived(store: Store, name: str, size: int) -> None:
    """Raises StoreTrouble where the store does not have what it was given."""
    found = next((e.size for e in store.entries() if e.name == name), None)
    if found != size:
        has = "does not have it" if found is None else f"has {found} bytes of it"
        raise StoreTrouble(f"{store.url} took {name} of {size} bytes, and {has}", "look at the store; save again")


@contextlib.contextmanager
def _removed_if_not(store: Store, name: str) -> Iterator[None]:
    """A snapshot that was not written to its end, or whose sidecar was not, is nobody's: it goes again.

    Also where the store said that it failed: it may have it all the same, and without a sidecar nothing would ever
    prune it. A name that was taken is another's.
    """
    try:
        yield
    except AlreadyThere:
        raise
    except BaseException:
        with contextlib.suppress(StoreTrouble):  # one that does not answer is not waited for once more for the other
            for one in (name, name + SUFFIX):
                store.remove(one)
        raise

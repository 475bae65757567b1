"""A store in a directory, with snapshots that are really sealed, as ``runbook snapshot save`` leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage

from runbook.snapshots.sealing import Sealed
from runbook.snapshots.sidecar import SUFFIX, Sidecar, Stored, new_name
from runbook.snapshots.store_files import Files

SAMPLE = Path(__file__).parent / "samples/etcd-3.5.16-kubernetes.db"
REVISION = 51
IDENTITY = pyrage.x25519.Identity.generate()
PUBLIC = str(IDENTITY.to_public())
NOW = datetime(2026, 4, 9, 14, 0, tzinfo=UTC)


def pieces(data: bytes, size: int = 65_000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Shelf:
    """The store, and what is put into it."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path, self.store = path, Files(path)
        self.url = self.store.url

    def put(
        self,
        data: bytes | None = None,
        *,
        hours: float = 1,
        verified: bool = True,
        cluster: str = "prod",
        compress: bool = True,
        recipients: tuple[str, ...] = (),
        now: datetime = NOW,
        **told: Any,
    ) -> Sidecar:
        """A snapshot that is so many hours old, with its sidecar, of which ``told`` is another."""
        at = now - timedelta(hours=hours)
        name = new_name(cluster, at, compressed=compress, encrypted=bool(recipients))
        sealed = Sealed(pieces(SAMPLE.read_bytes() if data is None else data), recipients, compress=compress)
        self.store.write(name, sealed)
        stored = Stored(sealed.stored.size, sealed.stored.sha256, "zstd" if compress else "", recipients)
        sidecar = Sidecar(
            name,
            cluster,
            at.isoformat().replace("+00:00", "Z"),
            sealed.plain.sha256,
            sealed.plain.size,
            stored,
            REVISION,
            verified=now.isoformat() if verified else "",
        )
        self.write(replace(sidecar, **told), name)
        return sidecar

    def write(self, sidecar: Sidecar, name: str = "") -> None:
        """A sidecar, over the one that is there."""
        self.store.write((name or sidecar.name) + SUFFIX, [sidecar.json().encode()], over=True)

"""A snapshot's own checksum, proven while it passes: nothing of it need be kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from runbook.snapshots.bolt import MAGIC
from runbook.snapshots.integrity import TRAILER


class NotASnapshot(ValueError):
    """What passed is no whole snapshot; the message says why, as it reads after "it"."""


class Proven:
    """Passes the pieces of a snapshot on. What it holds back until all is known to be whole are its last 32 bytes.

    So whoever has had all of it has had a snapshot whose trailing SHA-256 is right; else NotASnapshot is raised.
    """

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source, self._hash = iter(source), hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        """One after the other, each once."""
        held, begun = b"", False
        for piece in self._source:
            held += piece
            if not begun and len(held) >= 20:
                begun = True
                if int.from_bytes(held[16:20], "little") != MAGIC:
                    raise NotASnapshot("is no etcd snapshot: bbolt's magic number is not where it belongs")
            if len(held) > TRAILER:
                out, held = held[:-TRAILER], held[-TRAILER:]
                self._hash.update(out)
                self.size += len(out)
                yield out
        self.size += len(held)
        if self.size % 512 != TRAILER:
            raise NotASnapshot(f"is cut short: {self.size} bytes is not 32 more than a multiple of 512")
        if held != self._hash.digest():
            raise NotASnapshot(
                f"has a wrong checksum: it ends in {held.hex()[:16]}…, its content makes {self._hash.hexdigest()[:16]}…"
            )
        self._hash.update(held)
        yield held

    @property
    def sha256(self) -> str:
        """In hex, of all that was passed on."""
        return self._hash.hexdigest()

"""A stored snapshot into a plain file of this machine: read, decrypted, decompressed and proven, in one stream."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from runbook.checks.words import so_far
from runbook.snapshots.finding import Found
from runbook.snapshots.scratch import own_disk
from runbook.snapshots.sealing import Opened, Unsealable
from runbook.snapshots.stores import Store


class Coming:
    """How much of a snapshot has come; read by another thread than the one that brings it."""

    def __init__(self, what: str, size: int) -> None:
        """``what`` it is, and its ``size`` in bytes, as it is stored."""
        self.what, self.size, self.came = what, size, 0

    def __str__(self) -> str:
        came = so_far(self.came, self.size)
        if self.came >= self.size:
            return f"{self.what}: {came} have come, and are being proven"
        return f"{self.what}: {came if self.came else 'nothing has come yet'}"


def bring(store: Store, found: Found, identities: Sequence[Any], into: IO[bytes], where: str, coming: Coming) -> None:
    """Write the plain snapshot into that file, which lies in the directory ``where``; its date is when it was taken.

    Only when this returns is what stands in it all that its sidecar tells of.

    Raises:
        Unsealable: it is not what its sidecar tells of, or none of these identities opens it.
        StoreTrouble: the store did not answer, or has it no more.
        OSError: of this machine's own disk.
    """
    stored = _watched(store.read(found.name), coming)
    if found.sidecar is None:
        _write(_no_more(stored, found.size), into, where)
        if coming.came != found.size:
            raise Unsealable(f"{coming.came} bytes came of the {found.size} that the store lists")
    else:
        opened = Opened(stored, found.sidecar, identities)
        try:
            _write(opened, into, where)
        finally:
            opened.close()
    if found.taken:
        at = found.taken.timestamp()
        os.utime(into.fileno(), (at, at))  # what tells how old a snapshot is that holds no Lease


def _watched(pieces: Iterable[bytes], coming: Coming) -> Iterator[bytes]:
    for piece in pieces:
        coming.came += len(piece)
        yield piece


def _no_more(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """A store that sends more than it lists must not fill this disk."""
    came = 0
    for piece in pieces:
        came += len(piece)
        if came > size:
            raise Unsealable(f"more came than the {size} bytes that the store lists")
        yield piece


def _write(pieces: Iterable[bytes], into: IO[bytes], where: str) -> None:
    for piece in pieces:
        with own_disk(where):
            into.write(piece)
    with own_disk(where):
        into.flush()

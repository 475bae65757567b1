"""What every store of snapshots can do; the stores themselves are modules of their own, one a kind.

A store holds files by name in one flat place. A file is there whole or not at all, and nothing is written over but a
sidecar: so whoever sees a name may read it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


class StoreTrouble(Exception):
    """A store did not do what it was asked. ``what`` went wrong, and what to ``do`` about it, in a responder's words.

    Nothing half-written is left behind, and nothing that was there is lost.
    """

    def __init__(self, what: str, do: str) -> None:
        super().__init__(f"{what}; {do}" if do else what)
        self.what, self.do = what, do


class NotThere(StoreTrouble):
    """The store has no file of that name."""


class AlreadyThere(StoreTrouble):
    """The store has a file of that name, and it is not written over."""


@dataclass(frozen=True)
class Entry:
    """A file in a store: its ``size`` in bytes, and when it was last written, as the store says."""

    name: str
    size: int
    at: datetime


class Store(ABC):
    """One place for snapshots. Every method raises StoreTrouble; ``url`` names it in messages, without a secret."""

    url: str
    at_once: ClassVar[int] = 1
    """So many small files may be read at the same time."""

    @abstractmethod
    def trial(self) -> None:
        """Find out whether anything can be written, before others have work that would be in vain; nothing is left.

        A store where this would cost more than it saves does nothing.
        """

    @abstractmethod
    def entries(self) -> list[Entry]:
        """All files, ours and others'."""

    @abstractmethod
    def read(self, name: str) -> Iterator[bytes]:
        """The file's pieces. Raises NotThere."""

    @abstractmethod
    def write(self, name: str, pieces: Iterable[bytes], *, over: bool = False) -> None:
        """Write a file, whole or not at all; an error of the pieces' own is passed on.

        Raises AlreadyThere for a name that is taken, unless it may be written ``over``.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; nothing where it is not there."""

    def read_small(self, name: str, most: int) -> bytes:
        """All of a small file. Raises StoreTrouble where it has more than so many bytes."""
        data = bytearray()
        for piece in self.read(name):
            data += piece
            if len(data) > most:
                raise StoreTrouble(f"{self.url}/{name} has more than {most} bytes", "it is no sidecar of runbook's")
        return bytes(data)

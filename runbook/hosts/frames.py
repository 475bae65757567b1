"""Telling one command's output from the next one's in a stream, and bounding what is kept of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """What one stream carried up to a mark: the mark's name and code, and how many bytes were not kept."""

    name: str
    code: str
    body: bytes
    dropped: int


class Frames:
    """Splits one stream at the marks: lines ``<nonce> <name> <code>``, begun with a line feed of their own.

    The nonce is random and stands only in the script, so no output can hold a mark by accident or by design. Each
    byte is looked at a fixed number of times, whatever the sizes of output and packets. Of one piece ``cap`` bytes are
    kept.
    """

    def __init__(self, nonce: str, cap: int) -> None:
        self._mark = f"\n{nonce} ".encode()
        self._cap = cap
        self._kept = bytearray()
        self._dropped = 0
        self._pending = bytearray()  # may hold the beginning of a mark
        self.pieces: deque[Piece] = deque()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._pending += data
        while True:
            at = self._pending.find(self._mark)
            if at < 0:
                self._keep(len(self._pending) - len(self._mark) + 1)
                return
            end = self._pending.find(b"\n", at + len(self._mark))
            if end < 0:
                self._keep(at)
                return
            name, _, code = self._pending[at + len(self._mark) : end].decode(errors="replace").partition(" ")
            self._keep(at)
            del self._pending[: end - at + 1]
            self.pieces.append(Piece(name, code, bytes(self._kept), self._dropped))
            self._kept.clear()
            self._dropped = 0

    def rest(self) -> bytes:
        """What came since the last mark."""
        return bytes(self._kept + self._pending)

    def _keep(self, count: int) -> None:
        """Move so many bytes from the front of what is pending to what is kept."""
        if count <= 0:
            return
        room = max(0, self._cap - len(self._kept))
        self._kept += self._pending[: min(count, room)]
        self._dropped += max(0, count - room)
        del self._pending[:count]

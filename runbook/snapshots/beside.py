"""What a library does while it waits, in a thread of its own, so that Ctrl-C comes through to who called it.

Python hears a signal between two of its own instructions only. A library that waits inside of itself for a server that
does not answer would keep a responder's Ctrl-C waiting with it, for a minute and longer.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Look = Callable[[], None]
"""Called every now and then while the other thread is waited for."""
_LOOK = 0.2
"""Seconds after which who waits for the other thread looks whether it is there still."""


def _nothing() -> None:
    """Nobody looks."""


class Beside(Generic[T]):
    """One call, begun at once. The thread never keeps the program from ending."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._ended, self._value, self._wrong = threading.Event(), list[T](), list[BaseException]()

        def run() -> None:
            try:
                self._value.append(work())
            except BaseException as error:
                self._wrong.append(error)
            finally:
                self._ended.set()

        threading.Thread(target=run, daemon=True).start()

    def ended(self, within: float = 0.0) -> bool:
        """Whether it has ended by then, in seconds, in whatever way."""
        return self._ended.wait(within)

    def result(self, look: Look = _nothing) -> T:
        """What it returned, or its error, once it has ended."""
        while not self._ended.wait(_LOOK):
            look()
        if self._wrong:
            raise self._wrong[0]
        return self._value[0]


class GivenUp(Exception):
    """The pieces end here, because whoever gave them was interrupted or failed: there will be no whole."""


class Feed:
    """Pieces that one thread gives and another one takes, by iteration. ``depth`` of them may wait."""

    def __init__(self, depth: int) -> None:
        self._queue: queue.Queue[bytes | GivenUp | None] = queue.Queue(depth)

    def give(self, piece: bytes | None, taker: Beside[T], look: Look = _nothing) -> bool:
        """A piece, or None for the end. False where the taker has ended, and takes no more."""
        while not taker.ended():
            with contextlib.suppress(queue.Full):
                self._queue.put(piece, timeout=_LOOK)
                return True
            look()
        return False

    def give_up(self) -> None:
        """Make the taker end with GivenUp, whatever still waits."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(GivenUp())  # there is room: only this thread gives

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        item = self._queue.get()
        if isinstance(item, GivenUp):
            raise item
        if item is None:
            raise StopIteration
        return item


def ahead(source: Iterable[bytes], depth: int, look: Look = _nothing) -> Iterator[bytes]:
    """The same pieces, up to ``depth`` of them read beside before they are asked for."""
    waiting: queue.Queue[bytes | None] = queue.Queue(depth)
    left = threading.Event()

    def read() -> None:
        try:
            for piece in source:
                while not left.is_set():
                    with contextlib.suppress(queue.Full):
                        waiting.put(piece, timeout=_LOOK)
                        break
                else:
                    return
        finally:
            while not left.is_set():
                with contextlib.suppress(queue.Full):
                    waiting.put(None, timeout=_LOOK)
                    break

    def coming() -> bytes | None:
        while True:
            with contextlib.suppress(queue.Empty):
                return waiting.get(timeout=_LOOK)
            look()

    reader = Beside(read)
    try:
        while (piece := coming()) is not None:
            yield piece
        reader.result()
    finally:
        left.set()

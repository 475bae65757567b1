"""A word while a store says nothing: it is waited for, for minutes, and who waits must not take that for a standstill.

Only waiting is counted. A host that is slow to give the next piece is no silence of the store that would take it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runbook.snapshots.stores import AlreadyThere, NotThere
from runbook.tables import duration

Tell = Callable[[str], None]
FIRST = 15.0
"""Seconds in which nothing moved before the first word; each further one comes after twice as many."""
AT_ONCE = 1.0
"""Seconds within which what is tried after a failure is the same silence still."""


def nobody(_: str) -> None:
    """For who has a word of their own on what they wait for, or none to hear it."""


class Silence:
    """Since when nothing has moved to or from one store; whichever thread waits, one word is told."""

    def __init__(self, url: str, tell: Tell = nobody) -> None:
        """``tell`` is told of it, in a line."""
        self._url, self._tell = url, tell
        self._mutex = threading.Lock()
        self._since: float | None = None
        self._failed, self._next = 0.0, FIRST
        self._nothing, self._most = "", 0.0

    @contextmanager
    def waiting(self, nothing: str, most: float) -> Iterator[None]:
        """The store is waited for while the block lasts, at the end of which something has moved, unless it raises.

        ``nothing`` is what the store has not done, as it reads after "has", and ``most`` for how many seconds from now
        it may stay silent before it is given up.
        """
        with self._mutex:
            now = time.monotonic()
            if self._since is None or now - self._failed > AT_ONCE:
                self._since, self._next = now, FIRST
            self._nothing, self._most = nothing, now - self._since + most
        try:
            yield
        except (NotThere, AlreadyThere):  # which is an answer
            self._moved()
            raise
        except BaseException:
            with self._mutex:
                self._failed = time.monotonic()
            raise
        self._moved()

    def _moved(self) -> None:
        with self._mutex:
            self._since = None

    def look(self) -> None:
        """To be called every now and then while the store is waited for."""
        with self._mutex:
            still = time.monotonic() - self._since if self._since is not None else 0.0
            if still < self._next:
                return
            self._next = 2 * still
            most = f", {duration(round(self._most))} at most" if still < self._most else ""
            text = f"{self._url}: has {self._nothing} for {duration(round(still))}; waiting{most}"
        self._tell(text)

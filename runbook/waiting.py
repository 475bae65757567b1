"""A word for who waits: what is asked, and how far a snapshot is that comes over from a host, or from a store."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

FIRST = 2.0
"""Seconds of waiting before the first word."""
EVERY = 10.0
"""Seconds from one word to the next, where they stand below each other."""
REDRAWN = 0.5
"""Seconds from one word to the next on a terminal, where each takes the place of the one before."""
CLEAR = "\r\x1b[K"


@contextlib.contextmanager
def told(stream: TextIO, says: Callable[[], str] | None = None) -> Iterator[None]:
    """While the block lasts; a stream that cannot be written to stops nothing.

    ``says`` is the word, "" for none; else it is on what comes over from a host.
    """
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(stream, over, says or _reading), name="waiting", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join(1.0)


def say(stream: TextIO, text: str) -> None:
    """One line that stays, also beside such words; a stream that cannot be written to stops nothing."""
    from runbook.progress import is_terminal
    from runbook.tables import printable

    with contextlib.suppress(OSError, ValueError):
        stream.write(f"{CLEAR if is_terminal(stream) else ''}{printable(text)}\n")
        stream.flush()


def _reading() -> str:
    from runbook.snapshots.reading import coming

    text = coming()
    return f"reading {text}" if text else ""


def _tell(stream: TextIO, over: threading.Event, says: Callable[[], str]) -> None:
    if over.wait(FIRST):
        return
    from runbook.progress import is_terminal
    from runbook.tables import printable

    spoke = -EVERY
    with contextlib.suppress(OSError, ValueError):
        drawn = is_terminal(stream)
        while True:
            text = printable(says())
            if drawn:
                stream.write(f"{CLEAR}{text}")
            elif text and time.monotonic() - spoke >= EVERY:
                spoke = time.monotonic()
                stream.write(f"{text}\n")
            stream.flush()
            if over.wait(REDRAWN):
                break
        stream.write(CLEAR if drawn else "")
        stream.flush()

"""SIGTERM, and where it is asked for the terminal's end, are as Ctrl-C: what has begun is taken back in order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

USUAL = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def polite_end(numbers: tuple[signal.Signals, ...] = USUAL) -> Iterator[None]:
    """The first of these signals raises KeyboardInterrupt; a second one ends at once."""

    def once(*_: object) -> NoReturn:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, once) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What the tests of trouble share: pieces, everything that a store can do, and what is told of a failure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runbook.snapshots.stores import NotThere, Store, StoreTrouble

NAME = "prod-eu1-20260409t140000z-3f2a.db"


def pieces(count: int, pause: float = 0.0) -> Iterator[bytes]:
    for _ in range(count):
        time.sleep(pause)
        yield os.urandom(1 << 20)


def everything(store: Store) -> dict[str, Callable[[], Any]]:
    """What a store can do."""
    return {
        "list": store.entries,
        "read": lambda: list(store.read(NAME)),
        "write": lambda: store.write(NAME, [b"x"]),
        "write much": lambda: store.write(NAME, pieces(20)),
        "write over": lambda: store.write(NAME, [b"x"], over=True),
        "remove": lambda: store.remove(NAME),
    }


def told(work: Callable[[], Any]) -> str:
    """What it raises, in one line."""
    with pytest.raises(StoreTrouble) as caught:
        work()
    assert not isinstance(caught.value, NotThere)
    assert caught.value.do
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    assert caught.value.__cause__ is None  # which could show what the library knows, the request among it
    return text

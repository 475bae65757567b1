"""One test a row: what is broken, where, and how it must end. ``make faults`` prints them as a table.

A row's docstring has two parts, ``what is broken | where``; its outcome is what the test hands to ``row.ended``.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook.lab import Lab
from tests.faults.kit import Row
from tests.lab.conftest import make_whole

NAME = f"flt{os.getpid()}"
Fresh = Callable[..., Row]
"""Boots a lab of a row's own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them are rows on a lab; CI runs every third, by name, so that adding one moves few others."""
    rows = [item for item in items if "tests/faults" in str(item.path)]
    for item in rows:
        item.add_marker(pytest.mark.lab)
        if not item.get_closest_marker("third"):
            item.add_marker(pytest.mark.fault)


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Of several sessions side by side (``table.py``), whoever is free takes the next row that nobody has taken.

    One row is taken ahead, for pytest wants to know what follows: it takes down what that does not need.
    """
    claims = os.environ.get("RUNBOOK_FAULTS_CLAIMS")
    if not claims or session.config.option.collectonly or session.testsfailed:
        return None
    mine = (item for item in session.items if _taken(Path(claims), item))
    item = next(mine, None)
    while item:
        following = next(mine, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def _taken(claims: Path, item: pytest.Item) -> bool:
    try:
        (claims / hashlib.sha256(item.nodeid.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@pytest.fixture(scope="session")
def faulty_lab() -> Iterator[Lab]:
    """Three nodes for all rows of this session."""
    lab = Lab.up(NAME, nodes=3)
    try:
        yield lab
    finally:
        lab.down()


def told(row: Row, began: float, request: pytest.FixtureRequest) -> None:
    """The row's line of the table."""
    what, _, where = (request.function.__doc__ or "").strip().rstrip(".").partition(" | ")
    line = {"row": what, "where": where, "outcome": row.outcome, "seconds": round(time.monotonic() - began, 1)}
    if table := os.environ.get("RUNBOOK_FAULTS_TABLE"):
        with open(table, "a", encoding="utf-8") as file:
            at = [request.node.path.name, request.function.__code__.co_firstlineno]
            file.write(json.dumps({**line, "test": request.node.nodeid, "at": at}) + "\n")


@pytest.fixture
def row(faulty_lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Row]:
    """A healthy lab, a new snapshot, a plan; afterwards the row's line of the table."""
    make_whole(faulty_lab)
    made = Row(faulty_lab, tmp_path)
    began = time.monotonic()
    yield made
    told(made, began, request)
    if made.outcome:
        made.clean()
        make_whole(faulty_lab)
    else:  # a row that failed may leave anything behind, a lock first of all: the next one begins on a new lab
        faulty_lab.down()
        Lab.up(NAME, nodes=3)


@pytest.fixture
def fresh(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fresh]:
    """The same on a lab of the row's own, which it may spoil: `fresh(disk=…, wal_dir=…)`, once."""
    made: list[Row] = []
    began = time.monotonic()

    def up(**options: Any) -> Row:
        made.append(Row(Lab.up(f"{NAME}f", nodes=3, **options), tmp_path))
        return made[0]

    yield up
    if made:
        told(made[0], began, request)
    Lab(f"{NAME}f").down()

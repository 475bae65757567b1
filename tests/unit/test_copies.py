"""What each host has of the journal, and what it is sent before it acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from runbook.copies import JOURNAL, NOT_SO_LONG, Copies
from runbook.journal import Journal
from runbook.step import Result
from runbook.transport import Ahead, Copy, RunHosts

PLAN = Copy("plan.yaml", 0, b"a plan")


class Hosts:
    """Remembers what it was given; answers as told."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Copy]] = {}
        self.says: dict[str, Result] = {}

    def keep(self, copies: Mapping[str, Sequence[Copy]]) -> dict[str, Result]:
        self.sent |= {name: list(pieces) for name, pieces in copies.items()}
        return {name: self.says.get(name, Result(0)) for name in copies}


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("note")
    return Copies(cast(RunHosts, Hosts()), ("m1", "m2"), journal, lambda: {"plan.yaml": b"a plan"})


def sent(copies: Copies) -> dict[str, list[Copy]]:
    hosts = cast(Any, copies.hosts)
    before, hosts.sent = hosts.sent, {}
    return cast(dict[str, list[Copy]], before)


def whole(copies: Copies) -> list[Copy]:
    return [PLAN, Copy(JOURNAL, 0, copies.journal.tail(0))]


def test_who_acts_is_not_asked_twice(copies: Copies) -> None:
    copies.share(but=["m1"])
    assert sent(copies) == {"m2": whole(copies)}
    ahead = copies.ahead(["m1", "w1"])
    assert ahead.copies == {"m1": whole(copies)}, "workers keep no copies"
    ahead.kept["m1"] = Result(0)
    copies.took(ahead)
    size = copies.journal.size
    copies.journal.append("note")
    copies.share()
    rest = [Copy(JOURNAL, size, copies.journal.tail(size))]
    assert sent(copies) == {"m1": rest, "m2": rest}


@pytest.mark.parametrize("said", [None, Result(NOT_SO_LONG)])
def test_what_a_host_has_that_did_not_say_it_is_not_guessed(copies: Copies, said: Result | None) -> None:
    copies.share()
    copies.journal.append("note")
    ahead = copies.ahead(["m1", "m2"])
    ahead.kept.update({"m2": Result(0)} if said is None else {"m1": said, "m2": Result(0)})
    copies.took(ahead)
    assert sent(copies)
    assert not copies.told, "no word of it: the next copy mends it"
    copies.share()
    assert sent(copies) == {"m1": whole(copies)}


def test_a_full_disk_is_journalled_once(copies: Copies) -> None:
    for _ in range(2):
        ahead = copies.ahead(["m1"])
        ahead.kept["m1"] = Result(1, err="cannot write")
        copies.took(ahead)
    told = [line for line in copies.journal.lines if line["event"] == "copy"]
    assert [(line["host"], line["code"], line["said"]) for line in told] == [("m1", 1, "cannot write")]


def test_a_host_with_nothing_new_is_sent_nothing(copies: Copies) -> None:
    copies.share()
    assert copies.ahead(["m1"]) == Ahead({})

"""Which copy of a journal is gone on with: the highest epoch, then the longest that is valid; what differs is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from runbook.adopt import PLAN, SETTINGS, Held, Seen, choose, held, run_of
from runbook.copies import JOURNAL
from runbook.errors import Halted, UsageError
from runbook.journal import Journal

TEXT = b"the plan"
RUN = "prod-20260409t140000z-0001"


def journal(tmp_path: Path, lines: int, epoch: int = 1, name: str = "j") -> bytes:
    path = tmp_path / name
    made = Journal(path)
    made.epoch = epoch
    made.append("run", {"run": RUN, "plan_sha256": hashlib.sha256(TEXT).hexdigest()})
    for number in range(lines - 1):
        made.append("begin", {"n": number}, step="S", host="m1")
    made.close()
    return path.read_bytes()


def copy(raw: bytes, epoch: int = 1) -> Held:
    return held({JOURNAL: raw, PLAN: TEXT}, epoch)


def test_the_longest_of_one_epoch(tmp_path: Path) -> None:
    whole = journal(tmp_path, 9)
    short = b"".join(whole.splitlines(keepends=True)[:6])
    made = choose({"m1": copy(short), "m2": copy(whole), "m3": "no answer within 10s"}, RUN)
    assert made.source == "m2"
    assert made.journal == whole
    assert made.plan == TEXT
    assert made.differs == ("m1: 3 lines behind", "m3: no answer within 10s")


def test_a_higher_epoch_wins_over_a_longer_journal(tmp_path: Path) -> None:
    longer, newer = journal(tmp_path, 20), journal(tmp_path, 5, epoch=3, name="k")
    made = choose({"m1": copy(longer), "m2": copy(newer, 3)}, RUN)
    assert (made.source, made.epoch) == ("m2", 3)
    assert made.differs == ("m1: its journal differs from line 1 on (20 lines, epoch 1)",)


def test_an_engine_that_only_claimed_a_host_counts_for_the_epoch(tmp_path: Path) -> None:
    assert choose({"m1": copy(journal(tmp_path, 5), 7)}, RUN).epoch == 7


def test_a_torn_last_line_is_dropped_and_a_forged_one_ends_the_journal(tmp_path: Path) -> None:
    whole = journal(tmp_path, 8)
    lines = whole.splitlines(keepends=True)
    forged = [*lines[:4], json.dumps({**json.loads(lines[4]), "n": 99}).encode() + b"\n", *lines[5:]]
    torn = choose({"m1": copy(whole[:-10])}, RUN)
    assert torn.journal == b"".join(lines[:7])
    assert torn.differs == ()
    made = choose({"m1": copy(b"".join(forged)), "m2": copy(whole)}, RUN)
    assert made.source == "m2"
    assert made.differs[0].startswith("m1: its journal differs from line 5 on")
    alone = choose({"m1": copy(b"".join(forged))}, RUN)
    assert alone.journal == b"".join(forged[:5])
    assert alone.differs[0].startswith("m1: line 6 is damaged")


def test_the_settings_come_with_the_journal(tmp_path: Path) -> None:
    raw = journal(tmp_path, 3)
    assert choose({"m1": held({JOURNAL: raw, PLAN: TEXT, SETTINGS: b"newer"})}, RUN).settings == b"newer"


def test_a_plan_that_was_not_approved_is_not_taken(tmp_path: Path) -> None:
    raw = journal(tmp_path, 3)
    other = held({JOURNAL: raw, PLAN: b"edited"}, 1)
    assert choose({"m1": other, "m2": copy(raw)}, RUN).plan == TEXT
    with pytest.raises(Halted, match="no host holds the plan"):
        choose({"m1": other}, RUN)


def test_no_journal_at_all(tmp_path: Path) -> None:
    with pytest.raises(Halted, match="no host holds a journal"):
        choose({"m1": held({}, 0), "m2": "no answer"}, RUN)


def test_which_run() -> None:
    one, two = Seen(RUN, "eve@x", (f"/w/{RUN}", "/w/old-1")), Seen("", "", ("/w/old-1",))
    assert run_of({"m1": one, "m2": two}) == RUN
    assert run_of({"m2": two}) == "old-1"
    assert run_of({"m1": one}, "old-1") == "old-1"
    with pytest.raises(UsageError, match="several runs: old-1, old-2"):
        run_of({"m1": Seen(dirs=("/w/old-1", "/w/old-2"))})
    with pytest.raises(UsageError, match="no host that was asked holds a run"):
        run_of({"m1": Seen()})
    with pytest.raises(UsageError, match="--run nope"):
        run_of({"m1": one}, "nope")
    with pytest.raises(Halted, match="no host could be asked: m1: timed out"):
        run_of({"m1": "timed out"})

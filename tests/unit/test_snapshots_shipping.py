"""A snapshot into a store and what the store then holds: proven on the way, whole or not at all, pruned as planned."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.snapshots import catalogue, metrics, pruning, saving
from runbook.snapshots.keep import Keep
from runbook.snapshots.shipping import Facts, ship
from runbook.snapshots.sidecar import SUFFIX, Sidecar
from runbook.snapshots.store_files import Files
from runbook.snapshots.stores import Entry, StoreTrouble
from runbook.snapshots.trailer import NotASnapshot, Proven
from tests.unit.bolt_kit import keyspace, snapshot

NOW = datetime(2026, 4, 9, 14, 0, tzinfo=UTC)
GOOD = snapshot(keyspace([(7, b"/registry/pods/default/a", b"x")]))


@pytest.fixture
def store(tmp_path: Path) -> Files:
    return Files(tmp_path)


def names(store: Files) -> list[str]:
    return sorted(os.listdir(store.path))


def facts(at: datetime = NOW, cluster: str = "prod") -> Facts:
    return Facts(cluster, at, 7, {"pods": 1})


def shipped(store: Files, at: datetime = NOW, cluster: str = "prod") -> Sidecar:
    return ship(store, [GOOD], facts(at, cluster))


# A trailer that is proven as it passes.


@given(st.lists(st.integers(0, len(GOOD)), max_size=12))
def test_a_whole_snapshot_passes_in_whatever_pieces(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(GOOD)]
    proven = Proven(GOOD[a:b] for a, b in pairwise(at))
    assert b"".join(proven) == GOOD
    assert proven.size == len(GOOD)


def _kept(pieces: Iterable[bytes], out: bytearray) -> Iterator[bytes]:
    """Passes nothing on, and keeps what came."""
    for piece in pieces:
        out += piece
    yield b""


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_passes(at: int, by: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= by
    out = bytearray()
    with pytest.raises(NotASnapshot):
        out.extend(b"".join(_kept(Proven([bytes(data)]), out)))
    assert len(out) <= len(GOOD) - 32


@given(st.integers(0, len(GOOD) - 1))
def test_no_snapshot_that_is_cut_passes(end: int) -> None:
    with pytest.raises(NotASnapshot):
        list(Proven([GOOD[:end]]))


# Shipping.


def test_the_sidecar_tells_of_what_was_stored(store: Files) -> None:
    told = shipped(store)
    assert names(store) == [told.name, told.name + SUFFIX]
    assert Sidecar.from_json((store.path / (told.name + SUFFIX)).read_bytes()) == told
    assert (told.size, told.stored.size) == (len(GOOD), (store.path / told.name).stat().st_size)
    assert told.verified
    assert told.at == "2026-04-09T14:00:00Z"


def test_a_snapshot_that_is_not_whole_leaves_nothing(store: Files) -> None:
    with pytest.raises(NotASnapshot, match="wrong checksum"):
        ship(store, [GOOD[:-1] + b"\0"], facts())
    assert names(store) == []


def test_a_source_that_breaks_leaves_nothing(store: Files) -> None:
    def broken() -> Iterator[bytes]:
        yield GOOD[:1000]
        raise ConnectionError("lost")

    with pytest.raises(ConnectionError):
        ship(store, broken(), facts(), compress=False)
    assert names(store) == []


class Failing(Files):
    """A store that vanishes at the sidecar, or tells of another size."""

    sidecar, forgets = True, False

    def write(self, name: str, pieces: Iterable[bytes], *, over: bool = False) -> None:
        if self.sidecar and name.endswith(SUFFIX):
            raise StoreTrouble("gone", "bring it back")
        super().write(name, pieces, over=over)

    def entries(self) -> list[Entry]:
        return (
            [dataclasses.replace(e, size=e.size - 1) for e in super().entries()] if self.forgets else super().entries()
        )


def test_without_its_sidecar_no_snapshot_stays(tmp_path: Path) -> None:
    store = Failing(tmp_path)
    with pytest.raises(StoreTrouble, match="gone"):
        ship(store, [GOOD], facts())
    assert names(store) == []


def test_a_store_that_has_other_than_it_was_given(tmp_path: Path) -> None:
    store = Failing(tmp_path)
    store.sidecar, store.forgets = False, True
    with pytest.raises(StoreTrouble, match="and has"):
        ship(store, [GOOD], facts())
    assert names(store) == []


def test_what_is_known_only_at_the_end_stands_in_the_sidecar(store: Files) -> None:
    told = ship(store, [GOOD], Facts("prod", NOW, 7), late=lambda: Facts("prod", NOW, 7, {"pods": 3}))
    assert told.kinds == {"pods": 3}


# The catalogue.


def test_the_newest_good_one_is_first(store: Files) -> None:
    old, new = shipped(store, NOW - timedelta(days=2)), shipped(store)
    found = catalogue.read(store, NOW)
    assert [i.name for i in found.items] == [new.name, old.name]
    newest = found.newest()
    assert newest
    assert newest.name == new.name
    assert found.newest("other") is None


def edited(store: Files, told: Sidecar, **changes: object) -> None:
    document = json.loads(told.json()) | changes
    (store.path / (told.name + SUFFIX)).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "Pod"}, "its sidecar cannot be used: it is not of the kind"),
        (
            {"name": "prod-20260409t140000z-ffff.db.zst"},
            "beside it is the sidecar of prod-20260409t140000z-ffff.db.zst",
        ),
        ({"at": "2027-04-09T14:00:00Z"}, "it was taken in the future"),
        ({"stored": {"size": 1, "sha256": "0" * 64}}, "and its sidecar tells of 1"),
    ],
)
def test_a_sidecar_that_does_not_match(store: Files, changes: dict[str, object], why: str) -> None:
    good, bad = shipped(store, NOW - timedelta(days=1)), shipped(store)
    edited(store, bad, **changes)
    found = catalogue.read(store, NOW)
    assert [i.name for i in found.items] == [good.name, bad.name]
    assert why in found.items[1].why
    assert not found.items[1].good


def test_one_that_nobody_verified_is_never_the_newest(store: Files) -> None:
    good, bad = shipped(store, NOW - timedelta(days=1)), shipped(store)
    edited(store, bad, verified="")
    newest = catalogue.read(store, NOW).newest()
    assert newest
    assert newest.name == good.name


def test_foreign_files_and_what_is_left_of_ours(store: Files) -> None:
    one, other = shipped(store), shipped(store)
    (store.path / one.name).unlink()
    (store.path / (other.name + SUFFIX)).unlink()
    for name in ("README", "other.db", "x.json", "prod-20260409t140000z-ffff.db.json"):
        (store.path / name).write_text("{}")
    found = catalogue.read(store, NOW)
    assert [(i.name, i.good) for i in found.items] == [(other.name, False)]
    assert [s.name for s in found.orphans] == [one.name]
    assert set(found.foreign) == {"README", "other.db", "x.json", "prod-20260409t140000z-ffff.db.json"}


# Pruning.


def pruned(store: Files, keep: Keep, cluster: str = "prod") -> list[str]:
    return list(pruning.carry_out(store, pruning.judge(catalogue.read(store, NOW), cluster, keep, NOW)))


def test_what_no_tier_keeps_goes_with_its_sidecar(store: Files) -> None:
    told = [shipped(store, NOW - timedelta(hours=n)) for n in range(4)]
    assert pruned(store, Keep(last=2)) == [told[3].name, told[2].name]
    assert names(store) == sorted(n for t in told[:2] for n in (t.name, t.name + SUFFIX))


def test_the_last_verified_one_stays_whatever_is_newer(store: Files) -> None:
    good = shipped(store, NOW - timedelta(days=400))
    for n in range(3):
        edited(store, shipped(store, NOW - timedelta(hours=n)), verified="")
    pruned(store, Keep(last=1))
    assert good.name in names(store)


def test_others_are_never_touched(store: Files) -> None:
    mine, theirs = shipped(store, NOW - timedelta(days=9)), shipped(store, NOW - timedelta(days=9), "other")
    newer = shipped(store)
    (store.path / "prod-20200101t000000z-abcd.db").write_text("without a sidecar")
    (store.path / "notes.txt").write_text("x")
    assert pruned(store, Keep(last=1)) == [mine.name]
    left = {newer.name, theirs.name, "prod-20200101t000000z-abcd.db", "notes.txt"}
    assert {n for n in names(store) if not n.endswith(SUFFIX)} == left


def test_one_of_which_something_is_wrong_stays(store: Files) -> None:
    old, new = shipped(store, NOW - timedelta(days=9)), shipped(store)
    (store.path / old.name).write_bytes(b"cut")
    assert pruned(store, Keep(last=1)) == []
    assert {old.name, new.name} <= set(names(store))


def test_an_interrupted_pruning_is_ended_by_the_next(store: Files) -> None:
    old, new = shipped(store, NOW - timedelta(days=9)), shipped(store)
    (store.path / old.name).unlink()
    assert pruned(store, Keep(last=1)) == []
    assert names(store) == [new.name, new.name + SUFFIX]


# Clocks.


def test_a_clock_that_jumped_is_told_of_and_nothing_is_pruned_then(store: Files) -> None:
    told = shipped(store)
    now = datetime.now(UTC)
    assert saving.clock(store, "prod", now) == ""
    ahead = (now + timedelta(hours=1)).timestamp()
    os.utime(store.path / told.name, (ahead, ahead))
    assert "a clock is wrong" in saving.clock(store, "prod", now)
    assert saving.clock(store, "other", now) == ""


def test_no_age_makes_anything_go_so_a_clock_that_is_ahead_loses_nothing(store: Files) -> None:
    """A year ahead: the tiers count what there is, newest first, and look at no age."""
    told = [shipped(store, NOW - timedelta(days=n)) for n in range(4)]
    found = catalogue.read(store, NOW + timedelta(days=365))
    judged = pruning.judge(found, "prod", Keep(daily=4), NOW + timedelta(days=365))
    assert {v.name for v in judged.kept} == {t.name for t in told}


# Metrics.


def test_metrics_outlive_a_run_that_fails(tmp_path: Path) -> None:
    good = {"last_run_success": 1, "size_bytes": 1_073_741_856, "revision": 10**12 + 1}
    metrics.write(tmp_path, "prod", good, 5)
    metrics.write(tmp_path, "prod", {"last_run_success": 0}, 6)
    [path] = tmp_path.iterdir()
    assert path == metrics.file(tmp_path, "prod")
    assert metrics.read(path) == {"last_run_success": 0, "size_bytes": 1_073_741_856, "revision": 10**12 + 1}
    text = path.read_text()
    assert 'runbook_snapshot_size_bytes{cluster="prod"} 1073741856\n' in text
    assert "# TYPE runbook_snapshot_revision gauge\n" in text
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_stands_there_and_is_none_is_written_anew(tmp_path: Path) -> None:
    metrics.file(tmp_path, "prod").write_bytes(b'\xff\xferunbook_snapshot_revision{cluster="prod"} x\n')
    metrics.write(tmp_path, "prod", {"revision": 4}, 7)
    assert metrics.read(metrics.file(tmp_path, "prod")) == {"revision": 4}


def test_a_run_that_fails_shows_that_the_newest_one_has_grown_older(tmp_path: Path) -> None:
    taken = 1_775_743_200.0
    metrics.write(tmp_path, "prod", {"last_run_success": 1, "last_success_timestamp_seconds": taken}, taken + 12.25)
    path = metrics.file(tmp_path, "prod")
    assert 'runbook_snapshot_age_seconds{cluster="prod"} 12.25\n' in path.read_text()
    metrics.write(tmp_path, "prod", {"last_run_success": 0}, taken + 21_600)
    assert metrics.read(path)["age_seconds"] == 21_600
    help_ = next(
        line for line in path.read_text().splitlines() if line.startswith("# HELP runbook_snapshot_age_seconds")
    )
    assert "time() - runbook_snapshot_last_success_timestamp_seconds" in help_


def test_no_age_is_told_where_there_is_no_snapshot(tmp_path: Path) -> None:
    metrics.file(tmp_path, "prod").write_text('runbook_snapshot_age_seconds{cluster="prod"} 5\n')
    metrics.write(tmp_path, "prod", {"last_run_success": 0}, 1_775_743_200)
    assert "age_seconds" not in metrics.read(metrics.file(tmp_path, "prod"))


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/snapshots.md").read_text()
    for name in metrics.KNOWN:
        assert f"`runbook_snapshot_{name}`" in text or f"`…_{name}`" in text, name

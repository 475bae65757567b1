"""Which snapshot is found: the newest that was verified, the newest before a time, or the one that was named."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from runbook.snapshots import catalogue
from runbook.snapshots.finding import Found, NoneFits, aged, find
from runbook.snapshots.sidecar import MAX_BYTES, SUFFIX
from runbook.snapshots.store_files import Files
from runbook.snapshots.stores import StoreTrouble
from runbook.snapshots.urls import Reference
from tests.unit.store_kit import NOW, PUBLIC, Shelf

SMALL = b"x" * 100


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


def latest(shelf: Shelf, cluster: str = "") -> Found:
    return find(shelf.store, Reference(shelf.url, latest="verified"), NOW, cluster)


def at(shelf: Shelf, hours: float) -> Found:
    moment = (NOW - timedelta(hours=hours)).isoformat()
    return find(shelf.store, Reference(shelf.url, at=moment), NOW)


def test_the_newest_verified_one(shelf: Shelf) -> None:
    shelf.put(SMALL, hours=30)
    wanted = shelf.put(SMALL, hours=3, recipients=(PUBLIC,))
    shelf.put(SMALL, hours=2, verified=False)
    found = latest(shelf)
    assert (found.name, found.sidecar, found.size) == (wanted.name, wanted, wanted.stored.size)
    assert (found.sha256, found.plain_size, found.taken) == (wanted.sha256, 100, NOW - timedelta(hours=3))


def test_the_newest_verified_one_until_a_time(shelf: Shelf) -> None:
    names = {hours: shelf.put(SMALL, hours=hours).name for hours in (1, 5, 9)}
    shelf.put(SMALL, hours=6, verified=False)
    assert at(shelf, 5).name == names[5]
    assert at(shelf, 5.5).name == names[9]
    assert at(shelf, -5).name == names[1]
    with pytest.raises(NoneFits, match=r"no verified snapshot that was taken until 2026-04-09 04:00:00 UTC"):
        at(shelf, 10)


def test_by_a_clock_that_is_behind_no_old_one_is_the_newest(shelf: Shelf) -> None:
    old = shelf.put(SMALL, hours=30)
    newest = shelf.put(SMALL, hours=-1)
    with pytest.raises(NoneFits, match=f"has {newest.name}, which was taken in the future") as caught:
        latest(shelf)
    assert "date -u" in caught.value.do
    assert at(shelf, 2).name == old.name
    assert find(shelf.store, Reference(shelf.url, newest.name), NOW).name == newest.name


def test_anothers_are_not_the_next_best(shelf: Shelf) -> None:
    """Where the cluster's own are not verified, or too young, no other cluster's takes their place."""
    shelf.put(SMALL, hours=5, cluster="prod-eu1")
    mine = shelf.put(SMALL, hours=3, cluster="prod-eu2", verified=False)
    with pytest.raises(NoneFits, match="has no verified snapshot") as caught:
        latest(shelf, "prod-eu2")
    assert mine.name in caught.value.what
    assert "prod-eu1" not in caught.value.what
    shelf.put(SMALL, hours=1, cluster="prod-eu2")
    with pytest.raises(NoneFits, match="has no verified snapshot that was taken until"):
        find(shelf.store, Reference(shelf.url, at=(NOW - timedelta(hours=4)).isoformat()), NOW, "prod-eu2")


def test_what_is_not_whole_is_never_chosen(shelf: Shelf) -> None:
    """A file without a sidecar is half-written; one with another's, or with a damaged one, is not ours to trust."""
    good = shelf.put(SMALL, hours=9)
    half = shelf.put(SMALL, hours=1)
    (shelf.path / (half.name + SUFFIX)).unlink()
    damaged, others, huge = (shelf.put(SMALL, hours=hours) for hours in (2, 3, 4))
    (shelf.path / (damaged.name + SUFFIX)).write_text("{")
    shelf.write(good, others.name)
    (shelf.path / (huge.name + SUFFIX)).write_text("x" * (MAX_BYTES + 1))
    (shelf.path / "README.txt").write_text("foreign")
    (shelf.path / ("gone-20260409t140000z-3f2a.db" + SUFFIX)).write_text("{}")
    assert latest(shelf).name == good.name
    faults = {seen.name: seen.why for seen in catalogue.read(shelf.store, NOW).items}
    assert "no sidecar" in faults.pop(half.name)
    assert "it is not JSON" in faults.pop(damaged.name)
    assert f"is the sidecar of {good.name}" in faults.pop(others.name)
    assert "is none of runbook's" in faults.pop(huge.name)
    assert faults == {good.name: ""}


def test_where_none_fits_it_is_told_what_there_is(shelf: Shelf) -> None:
    with pytest.raises(NoneFits, match="it has no snapshot of runbook's at all") as caught:
        latest(shelf)
    assert shelf.url in caught.value.what
    names = [shelf.put(SMALL, hours=hours, verified=False).name for hours in (1, 100, 200, 300)]
    with pytest.raises(NoneFits) as caught:
        latest(shelf)
    assert f"{names[0]} (1 h old, not verified, of prod), {names[1]} (4 d old" in caught.value.what
    assert "and 1 more" in caught.value.what
    assert "runbook snapshot verify" in caught.value.do


def test_a_store_of_several_clusters(shelf: Shelf) -> None:
    """The newest of all may be another cluster's: nobody guesses."""
    mine = shelf.put(SMALL, hours=5, cluster="prod")
    shelf.put(SMALL, hours=1, cluster="staging")
    assert latest(shelf, "prod").name == mine.name
    with pytest.raises(NoneFits, match=r"snapshots of 2 clusters: prod, staging; name the snapshot"):
        latest(shelf, "other")
    shelf.put(SMALL, hours=0.5, cluster="other", verified=False)
    with pytest.raises(NoneFits, match="has no verified snapshot"):
        latest(shelf, "other")
    with pytest.raises(NoneFits, match="snapshots of 3 clusters"):
        latest(shelf, "another")


def test_one_cluster_may_be_called_otherwise_than_the_plan(shelf: Shelf) -> None:
    only = shelf.put(SMALL)
    assert latest(shelf, "restore-drill").name == only.name


def test_one_by_its_name(shelf: Shelf) -> None:
    wanted = shelf.put(SMALL, verified=False)
    shelf.put(SMALL, hours=0.1)
    assert find(shelf.store, Reference(shelf.url, wanted.name), NOW).sidecar == wanted


def test_a_plain_file_of_another_tool_needs_no_sidecar(shelf: Shelf) -> None:
    (shelf.path / "etcd.db").write_bytes(SMALL)
    found = find(shelf.store, Reference(shelf.url, "etcd.db"), NOW)
    assert (found.sidecar, found.size, found.plain_size, found.sha256) == (None, 100, 100, "")
    assert found.taken is not None


@pytest.mark.parametrize("name", ["a.db.zst", "a.db.age", "a.db.zst.age"])
def test_a_sealed_one_needs_its_sidecar(shelf: Shelf, name: str) -> None:
    (shelf.path / name).write_bytes(SMALL)
    with pytest.raises(NoneFits, match=f"{name} has no sidecar"):
        find(shelf.store, Reference(shelf.url, name), NOW)


def test_a_name_that_is_not_there(shelf: Shelf) -> None:
    there = shelf.put(SMALL)
    with pytest.raises(NoneFits, match=f"has no none.db; there are {there.name}"):
        find(shelf.store, Reference(shelf.url, "none.db"), NOW)
    with pytest.raises(NoneFits, match="no snapshot at all"):
        find(Shelf(shelf.path / "empty").store, Reference("x", "none.db"), NOW)


def test_a_sidecar_that_is_anothers(shelf: Shelf) -> None:
    one, other = shelf.put(SMALL), shelf.put(SMALL)
    shelf.write(one, other.name)
    with pytest.raises(NoneFits, match=f"is the sidecar of {one.name}"):
        find(shelf.store, Reference(shelf.url, other.name), NOW)


class Flaky(Files):
    """Withholds one file."""

    withheld = ""

    def read(self, name: str) -> Iterator[bytes]:
        if name == self.withheld:
            raise StoreTrouble("the store did not answer", "try again")
        return super().read(name)


def test_a_store_that_withholds_a_sidecar_does_not_make_an_older_one_the_newest(shelf: Shelf) -> None:
    shelf.put(SMALL, hours=9)
    newest = shelf.put(SMALL, hours=1)
    flaky = Flaky(shelf.path)
    flaky.withheld = newest.name + SUFFIX
    with pytest.raises(StoreTrouble, match="did not answer"):
        find(flaky, Reference(shelf.url, latest="verified"), NOW)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreTrouble, match="No such file"):
        find(Files(tmp_path / "none"), Reference("file:///none", latest="verified"), NOW)


def test_sidecars_are_read_side_by_side_where_a_store_takes_that(shelf: Shelf) -> None:
    class Slow(Files):
        at_once = 4
        all_in = threading.Barrier(4)

        def read(self, name: str) -> Iterator[bytes]:
            self.all_in.wait(10)  # who comes alone never gets on
            return super().read(name)

    for hours in range(4):
        shelf.put(SMALL, hours=hours)
    assert len([s for s in catalogue.read(Slow(shelf.path), NOW).items if s.sidecar]) == 4


def test_the_newest_comes_first(shelf: Shelf) -> None:
    names = {hours: shelf.put(SMALL, hours=hours).name for hours in (7, 1, 3)}
    assert [seen.name for seen in catalogue.read(shelf.store, NOW).items] == [names[1], names[3], names[7]]


def test_a_newer_programs_sidecar_is_understood(shelf: Shelf) -> None:
    one = shelf.put(SMALL)
    path = shelf.path / (one.name + SUFFIX)
    path.write_text(path.read_text().replace('"revision"', '"later": 1, "revision"'))
    assert latest(shelf).sidecar == one


@pytest.mark.parametrize(
    ("hours", "told"), [(0.5, "30 min old"), (60, "60 h old"), (100, "4 d old"), (-2, "taken 2 h in the future")]
)
def test_how_old(hours: float, told: str) -> None:
    assert aged(NOW - timedelta(hours=hours), NOW) == told


def test_two_of_the_same_second(shelf: Shelf) -> None:
    one, two = shelf.put(SMALL), shelf.put(SMALL)
    assert latest(shelf).name == max(one.name, two.name)

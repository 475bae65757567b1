"""Which snapshots are kept: by hand for each tier, and by property for what must never happen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.snapshots.keep import Keep, Taken, reasons

NOW = datetime(2026, 4, 9, 14, 0, tzinfo=UTC)


def hourly(count: int, verified: bool = True) -> list[Taken]:
    """One an hour, the newest now."""
    return [Taken(f"s{n}", NOW - timedelta(hours=n), verified) for n in range(count)]


def kept(taken: list[Taken], keep: Keep) -> list[str]:
    return [name for name, why in reasons(taken, keep, NOW).items() if why]


def test_the_last_ones() -> None:
    assert kept(hourly(5), Keep(last=2)) == ["s0", "s1"]


def test_the_newest_of_each_day() -> None:
    assert kept(hourly(72), Keep(daily=3)) == ["s0", "s15", "s39"]


def test_days_without_a_snapshot_do_not_count() -> None:
    taken = [Taken("now", NOW, True), Taken("may", NOW - timedelta(days=100), True)]
    assert kept(taken, Keep(daily=2)) == ["now", "may"]


def test_tiers_add_up_and_tell_why() -> None:
    why = reasons(hourly(30), Keep(last=1, hourly=2, daily=2, weekly=1, monthly=1), NOW)
    assert why["s0"] == ["the newest that is verified", "last", "hourly", "daily", "weekly", "monthly"]
    assert why["s1"] == ["hourly"]
    assert why["s15"] == ["daily"]
    assert sum(bool(w) for w in why.values()) == 3


def test_a_week_is_of_its_own_year() -> None:
    """1 January 2027 is in the last week of 2026."""
    now = datetime(2027, 1, 1, 12, tzinfo=UTC)
    taken = [Taken("friday", now, True), Taken("monday", datetime(2026, 12, 28, tzinfo=UTC), True)]
    assert [n for n, why in reasons(taken, Keep(weekly=2), now).items() if why] == ["friday"]


def test_the_newest_verified_one_is_never_let_go() -> None:
    taken = [*hourly(5, verified=False), Taken("old", NOW - timedelta(days=900), True)]
    assert kept(taken, Keep(last=1)) == ["s0", "old"]


@pytest.mark.parametrize("at", [None, NOW + timedelta(seconds=1)])
def test_where_the_age_is_not_known_it_is_kept(at: datetime | None) -> None:
    assert kept([*hourly(3), Taken("odd", at)], Keep(last=1)) == ["s0", "odd"]


def test_another_time_zone_is_the_same_moment() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=13)))
    assert kept([Taken("a", east, True), Taken("b", NOW - timedelta(minutes=1), True)], Keep(daily=2)) == ["a"]


@pytest.mark.parametrize("numbers", [{"last": -1}, {}, {"daily": 3, "weekly": -2}])
def test_numbers_that_make_no_sense(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"negative|every tier is 0"):
        Keep(**numbers)


NUMBERS = st.integers(0, 5)
TAKEN = st.lists(st.tuples(st.one_of(st.none(), st.integers(-200_000_000, 100_000)), st.booleans()), max_size=30).map(
    lambda rows: [
        Taken(f"s{n}", None if at is None else NOW + timedelta(seconds=at), verified)
        for n, (at, verified) in enumerate(rows)
    ]
)
KEEP = st.tuples(st.integers(1, 5), NUMBERS, NUMBERS, NUMBERS, NUMBERS).map(lambda numbers: Keep(*numbers))


@given(TAKEN, KEEP)
def test_what_must_never_happen(taken: list[Taken], keep: Keep) -> None:
    why = reasons(taken, keep, NOW)
    gone = {t.name for t in taken if not why[t.name]}
    dated = sorted((t for t in taken if t.at and t.at <= NOW), key=lambda t: (t.at, t.name), reverse=True)
    proven = [t.name for t in dated if t.verified]
    assert not gone & {t.name for t in taken if t.at is None or t.at > NOW}
    assert not gone & set(proven[:1])
    assert not gone & {t.name for t in dated[: keep.last]}


@given(TAKEN, KEEP)
def test_pruned_once_nothing_more_goes(taken: list[Taken], keep: Keep) -> None:
    why = reasons(taken, keep, NOW)
    left = [t for t in taken if why[t.name]]
    assert all(reasons(left, keep, NOW).values())


@given(TAKEN, KEEP, st.integers(0, 4))
def test_a_larger_number_never_lets_more_go(taken: list[Taken], keep: Keep, tier: int) -> None:
    numbers = [keep.last, keep.hourly, keep.daily, keep.weekly, keep.monthly]
    more = Keep(*[n + (i == tier) for i, n in enumerate(numbers)])
    assert set(kept(taken, keep)) <= set(kept(taken, more))

"""Schedules in cron's words: as the CronJob controller's own parser reads them, and the gaps between firings."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.backup import INTERVALS
from runbook.planfile.cron import cron, longest_gap, parse_cron, shortest_gap

HOUR, DAY = 3600.0, 86400.0
ROBFIG = [
    json.loads(x) for x in Path(__file__, "../samples/cron-robfig-3.0.1.jsonl").resolve().read_text().splitlines()
]


def firings(text: str, first: int, last: int) -> list[datetime]:
    """All of them, from one year to the end of another."""
    it = parse_cron(text)
    midnights = [datetime.fromordinal(ordinal).replace(tzinfo=UTC) for ordinal in it.dates(first, last)]
    return [midnight + timedelta(minutes=minutes) for midnight in midnights for minutes in it.times]


@pytest.mark.parametrize("row", ROBFIG, ids=lambda row: str(row["cron"]))
def test_as_kubernetes_reads_it(row: dict[str, object]) -> None:
    """The sample is what robfig/cron 3.0.1, the controller's parser, makes of each: the next twelve, or an error."""
    text = str(row["cron"])
    if "error" in row:
        assert cron(text)
        return
    after = [at for at in firings(text, 2026, 2080) if at > datetime(2026, 4, 9, 14, tzinfo=UTC)]
    assert cron(text) == ""
    assert [at.strftime("%Y-%m-%dT%H:%MZ") for at in after[: len(list(row["next"]))]] == row["next"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 fields, not five"),
        ("0 0 * *", "has 4 fields, not five"),
        ("0 0 * * * *", "has 6 fields, not five"),
        ("@daily", "is a macro; write 0 0 * * *"),
        ("@every 6h", "begins with @; write five fields"),
        ("TZ=Europe/Berlin 0 2 * * *", "names a time zone"),
        ("60 * * * *", "has a minute 60; allowed: 0 to 59"),
        ("0 0 * * 7", "allowed: 0 to 6; Sunday is 0"),
        ("0 0 * jänner *", "holds a character"),
        ("0 0 * janus *", "has a month 'janus'; allowed: 1 to 12, jan to dec"),
        ("0 0 * * fri-mon", "begins after its end"),
        ("*/0 * * * *", "with a step of 0"),
        ("*-5 * * * *", "is not *, N, N-N"),
        ("1,,2 * * * *", "is not *, N, N-N"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0\n* * *", "holds a character"),
        ("0 99999999999999999999 * * *", "has a hour"),
    ],
)
def test_what_is_wrong_with_it(text: str, says: str) -> None:
    assert says in cron(text)


@pytest.mark.parametrize(
    ("text", "longest", "shortest"),
    [
        (INTERVALS["busy"], HOUR, HOUR),
        (INTERVALS["production"], 6 * HOUR, 6 * HOUR),
        (INTERVALS["staging"], DAY, DAY),
        ("*/7 * * * *", 420.0, 240.0),
        ("0 */5 * * *", 5 * HOUR, 4 * HOUR),
        ("0 8-18 * * mon-fri", 62 * HOUR, HOUR),
        ("30 6 * * *", DAY, DAY),
        ("0 0 1-31 * fri", DAY, DAY),
        ("0 0 31 * *", 62 * DAY - DAY, 31 * DAY),
        ("0 0 1 * *", 31 * DAY, 28 * DAY),
        ("0 12 1 1 *", 366 * DAY, 365 * DAY),
        ("0 0 29 2 *", 8 * 365 * DAY + DAY, 4 * 365 * DAY + DAY),
    ],
)
def test_gaps(text: str, longest: float, shortest: float) -> None:
    assert (longest_gap(text), shortest_gap(text)) == (longest, shortest)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    item = st.one_of(st.just("*"), number.map(str), span)
    stepped = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.one_of(st.just("*"), st.lists(st.one_of(item, stepped), min_size=1, max_size=3).map(",".join))


WHENEVER = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
SELDOM = st.tuples(st.integers(0, 59).map(str), field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
LOWEST = (0, 0, 1, 1, 0)


def matches(text: str, at: datetime) -> bool:
    """Said anew, as cron's manual page says it, of one moment."""
    values = (at.minute, at.hour, at.day, at.month, at.isoweekday() % 7)

    def one(item: str, value: int, lowest: int) -> bool:
        span, _, step = item.partition("/")
        low, _, high = (str(lowest) if span == "*" else span).partition("-")
        last = 59 if span == "*" else int(high or low)
        return int(low) <= value <= last and (value - int(low)) % int(step or 1) == 0

    fields = [f.split(",") for f in text.split()]
    held = [any(one(i, v, low) for i in items) for items, v, low in zip(fields, values, LOWEST, strict=True)]
    free = ["*" in items or "*/1" in items for items in fields]
    day = (held[2] and held[4]) if free[2] or free[4] else (held[2] or held[4])
    return held[0] and held[1] and held[3] and day


@given(WHENEVER, st.dates(date(2024, 1, 1), date(2031, 12, 31)))
def test_a_day_of_any_schedule(text: str, day: date) -> None:
    it = parse_cron(text)
    moments = [datetime(day.year, day.month, day.day) + timedelta(minutes=n) for n in range(24 * 60)]
    held = [at.hour * 60 + at.minute for at in moments if matches(text, at)]
    assert held == (it.times if day.toordinal() in it.dates(day.year, day.year) else [])


@settings(max_examples=40)
@given(SELDOM, st.integers(2000, 2399))
def test_no_gap_is_longer_or_shorter(text: str, year: int) -> None:
    gaps = {(later - earlier).total_seconds() for earlier, later in pairwise(firings(text, year, year + 1))}
    assert gaps
    assert shortest_gap(text) <= min(gaps)
    assert max(gaps) <= longest_gap(text)


@given(st.text(max_size=40) | st.text("0123456789*/-,? monjanTZ=@", max_size=30))
def test_any_text_is_a_schedule_or_told(text: str) -> None:
    assert cron(text) or longest_gap(text) >= shortest_gap(text) >= 60.0

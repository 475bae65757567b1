"""A schedule in cron's five fields, read exactly as the CronJob controller reads it: minute, hour, day, month, weekday.

The source is github.com/robfig/cron/v3, which the controller uses: Sunday is 0 and never 7, a range does not go round
the end of a week, and where both day and weekday are given, either of them is enough. All times are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MACROS: Mapping[str, str] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CYCLE = 400
"""After so many years the calendar comes again, weekdays and leap years alike."""
_DAY = 24 * 60


@dataclass(frozen=True)
class _Field:
    """One of the five: its name, its bounds, and the words that stand for numbers, the first for ``low``."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, WEEKDAYS),
)
_ITEM = re.compile(r"(?P<first>[*?]|[0-9a-z]+)(-(?P<last>[0-9a-z]+))?(/(?P<step>[0-9]+))?")


@dataclass(frozen=True)
class Cron:
    """When it fires: sorted numbers of each field. ``any_day`` and ``any_weekday``: that field has a ``*`` in it."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    any_day: bool
    any_weekday: bool

    @property
    def either(self) -> bool:
        """Whether a day is enough *or* a weekday; else it must be both, of which one is every day there is."""
        return not (self.any_day or self.any_weekday)

    @property
    def times(self) -> list[int]:
        """When on such a day, in minutes from midnight."""
        return [hour * 60 + minute for hour in self.hours for minute in self.minutes]

    @property
    def daily(self) -> bool:
        """Whether it fires on each day there is."""
        every = len(self.days) == 31 or len(self.weekdays) == 7
        both = len(self.days) == 31 and len(self.weekdays) == 7
        return len(self.months) == 12 and (every if self.either else both)

    def dates(self, first: int, last: int) -> Iterator[int]:
        """The days on which it fires, from one year to the end of another, as ordinals of ``date``."""
        for year in range(first, last + 1):
            for month in self.months:
                start = date(year, month, 1).toordinal()
                beyond = date(year + month // 12, month % 12 + 1, 1).toordinal()
                for ordinal in range(start, beyond):
                    by_day, by_weekday = ordinal - start + 1 in self.days, ordinal % 7 in self.weekdays
                    if (by_day or by_weekday) if self.either else (by_day and by_weekday):
                        yield ordinal


def parse_cron(text: str) -> Cron:
    """The schedule. Raises ValueError with what is wrong, as it reads after the value itself."""
    if not text.isascii() or not text.isprintable():
        raise ValueError("holds a character that no schedule has")
    lower = text.strip().lower()
    if lower.startswith("@"):
        meant = _MACROS.get(lower)
        raise ValueError(f"is a macro; write {meant}" if meant else "begins with @; write five fields")
    if "=" in lower:
        raise ValueError("names a time zone; all times are UTC, leave it out")
    words = lower.split()
    if len(words) != len(_FIELDS):
        raise ValueError(f"has {len(words)} fields, not five: minute hour day month weekday")
    read = [_read(word, field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = (numbers for numbers, _ in read)
    cron = Cron(minutes, hours, days, months, weekdays, any_day=read[2][1], any_weekday=read[4][1])
    if next(cron.dates(2000, 2000), None) is None:  # a leap year: no other has more days
        raise ValueError("never comes: none of these months has such a day")
    return cron


def cron(text: str) -> str:
    """What is wrong with a schedule for a CronJob; nothing where it is good."""
    try:
        parse_cron(text)
    except ValueError as error:
        return str(error)
    return ""


def longest_gap(text: str) -> float:
    """The longest time between two firings that follow one another, in seconds; in UTC, where no hour is skipped.

    Raises ValueError as :func:`parse_cron` does.
    """
    return _gaps(parse_cron(text))[1] * 60.0


def shortest_gap(text: str) -> float:
    """The shortest such time, in seconds. Raises ValueError as :func:`parse_cron` does."""
    return _gaps(parse_cron(text))[0] * 60.0


def _read(word: str, field: _Field) -> tuple[tuple[int, ...], bool]:
    """The numbers of a field, and whether a ``*`` leaves it open: ``*/2`` does not."""
    numbers: set[int] = set()
    is_open = False
    for item in word.split(","):
        found = _ITEM.fullmatch(item)
        if found is None or (found["first"] in "*?" and found["last"] is not None):
            raise ValueError(f"has a {field.name} {item!r} that is not *, N, N-N or one of these with /N")
        step = int(found["step"] or 1)
        if step == 0:
            raise ValueError(f"has a {field.name} {item!r} with a step of 0")
        if found["first"] in "*?":
            low, high = field.low, field.high
            is_open |= step == 1
        else:
            low = _number(found["first"], field)
            high = _number(found["last"], field) if found["last"] else field.high if found["step"] else low
        if low > high:
            raise ValueError(f"has a {field.name} {item!r} that begins after its end")
        numbers.update(range(low, high + 1, step))
    return tuple(sorted(numbers)), is_open


def _number(text: str, field: _Field) -> int:
    if text in field.words:
        return field.words.index(text) + field.low
    if not text.isdigit():
        known = f", {field.words[0]} to {field.words[-1]}" if field.words else ""
        raise ValueError(f"has a {field.name} {text!r}; allowed: {field.low} to {field.high}{known}")
    number = int(text[:9])
    if not field.low <= number <= field.high:
        sunday = "; Sunday is 0" if field.words == WEEKDAYS and number == 7 else ""
        raise ValueError(f"has a {field.name} {number}; allowed: {field.low} to {field.high}{sunday}")
    return number


@lru_cache(maxsize=64)
def _gaps(cron: Cron) -> tuple[int, int]:
    """The shortest and the longest time between two firings, in minutes, over a whole cycle of the calendar."""
    times = cron.times
    within = [later - earlier for earlier, later in pairwise(times)]
    over_night = times[0] - times[-1]
    if cron.daily:
        between: Sequence[int] = (_DAY,)
    else:
        days = list(cron.dates(2000, 2000 + _CYCLE))
        between = [(later - earlier) * _DAY for earlier, later in pairwise(days)]
    every = [*within, min(between) + over_night, max(between) + over_night]
    return min(every), max(every)

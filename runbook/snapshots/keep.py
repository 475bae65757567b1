"""Which snapshots are kept and which may go: pure data in, pure data out.

The newest ``last`` are kept, and of each of the newest ``hourly`` hours that have any the newest one, and so on by day,
ISO week and month, all in UTC. A restore begins with a snapshot that was proven, so the newest verified one is never
let go, whatever the numbers say. Nor is one whose time is not known or lies in the future: then a clock was wrong, and
nothing can be said of its age.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime


@dataclass(frozen=True)
class Keep:
    """How many are kept of each tier; a tier of 0 keeps none by itself."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a negative number, and where nothing at all would be kept."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self)}
        wrong = [name for name, number in numbers.items() if number < 0]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: a number of snapshots cannot be negative")
        if not any(numbers.values()):
            raise ValueError("every tier is 0: that would keep nothing but the newest verified snapshot")


@dataclass(frozen=True)
class Taken:
    """A snapshot as its sidecar tells of it. ``at`` has a time zone, None where its time is not known."""

    name: str
    at: datetime | None
    verified: bool = False


_TIERS: Mapping[str, Callable[[datetime], object]] = {
    "hourly": lambda at: (at.date(), at.hour),
    "daily": lambda at: at.date(),
    "weekly": lambda at: tuple(at.isocalendar())[:2],
    "monthly": lambda at: (at.year, at.month),
}


def reasons(taken: Sequence[Taken], keep: Keep, now: datetime) -> dict[str, list[str]]:
    """Why each snapshot is kept, by name and in the order given; no reason: it may go."""
    why: dict[str, list[str]] = {t.name: [] for t in taken}
    dated = [(t.at.astimezone(UTC), t) for t in taken if t.at is not None and t.at <= now]
    dated.sort(key=lambda pair: (pair[0], pair[1].name), reverse=True)
    newest = [t for _, t in dated]
    for t in taken:
        if t.at is None:
            why[t.name].append("its time is not known")
        elif t.at > now:
            why[t.name].append("its time lies in the future")
    _first(why, (t for t in newest if t.verified), 1, "the newest that is verified")
    _first(why, newest, keep.last, "last")
    for tier, bucket in _TIERS.items():
        _by_bucket(why, dated, getattr(keep, tier), bucket, tier)
    return why


def _first(why: dict[str, list[str]], newest: Iterable[Taken], count: int, reason: str) -> None:
    for _, t in zip(range(count), newest, strict=False):
        why[t.name].append(reason)


def _by_bucket(
    why: dict[str, list[str]],
    newest: Iterable[tuple[datetime, Taken]],
    count: int,
    bucket: Callable[[datetime], object],
    tier: str,
) -> None:
    """The newest of each of the newest buckets that have any."""
    seen: set[object] = set()
    for at, t in newest:
        this = bucket(at)
        if this in seen:
            continue
        if len(seen) == count:
            return
        seen.add(this)
        why[t.name].append(tier)

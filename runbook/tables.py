"""Plain text for people: aligned columns, durations, and text from hosts made harmless for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime


def printable(text: object) -> str:
    """One line without control characters, so that what a host said cannot steer a terminal or break a table."""
    spaced = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "\ufffd" for c in spaced)


def visible(text: str) -> str:
    """The text with its lines as they are, and every character that cannot be seen as its escape."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """Seconds as a person says them, everywhere the same way: ``3.9 s``, ``42 s``, ``1 min 30 s``, ``2 h 5 min``."""
    if round(seconds, 1) < 60:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def utc(moment: datetime | None) -> str:
    """A moment in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def stamp(text: str) -> str:
    """A moment as journals and locks write it (RFC 3339), for people; what is no such moment stays as it is."""
    try:
        return utc(datetime.fromisoformat(text))
    except ValueError:
        return text


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows as lines with their columns aligned; the first row may be a heading."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]

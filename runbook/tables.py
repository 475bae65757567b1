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
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def utc(moment: datetime | None) -> str:
    """A moment in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows as lines with their columns aligned; the first row may be a heading."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]

"""Durations in Go's syntax, as Kubernetes writes them."""

from __future__ import annotations

import re

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]+)?(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
LONGEST = 24 * 3600.0
"""A day, in seconds: nothing in a restore is worth a longer wait."""


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``1h30m``, ``1.5h``, ``500ms``.

    Raises:
        ValueError: no such duration, not above zero, or above ``LONGEST``; the message says which.
    """
    if len(text) > 64:
        raise ValueError("is too long for a duration")
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        raise ValueError(f"has no unit; write {text}s for seconds")
    total, end = 0, 0
    while end < len(text):
        part = _PART.match(text, end)
        if part is None or not (part[1] or part[2]) or not part[0].isprintable():
            raise ValueError("is not a duration")
        nanoseconds = _NANOSECONDS[part[3]]
        fraction = part[2] or ""
        total += int(part[1] or "0") * nanoseconds + int(fraction or "0") * nanoseconds // 10 ** len(fraction)
        end = part.end()
    if not text:
        raise ValueError("is not a duration")
    seconds = total / 1e9
    if total == 0:
        raise ValueError("is no time at all")
    if seconds > LONGEST:
        raise ValueError("is more than a day")
    return seconds


def format_duration(seconds: float) -> str:
    """The usual way to write it, ``parse_duration``'s inverse to the nanosecond: ``90s``, ``30m``, ``1h30m``."""
    left = round(seconds * 1e9)
    if left and left % 1_000_000_000:
        unit = next(u for u in ("ms", "us", "ns") if left % _NANOSECONDS[u] == 0)
        return f"{left // _NANOSECONDS[unit]}{unit}"
    whole = left // 1_000_000_000
    if whole < 600:
        return f"{whole}s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return "".join(f"{n}{u}" for n, u in ((hours, "h"), (minutes, "m"), (rest, "s")) if n)

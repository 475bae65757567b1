"""Cron's five fields."""

from __future__ import annotations

import re


def cron(text: str) -> str:
    """Minute, hour, day, month and weekday."""
    return "" if re.fullmatch(r"[A-Za-z0-9*/,-]+( +[A-Za-z0-9*/,-]+){4}", text) else "has not five fields"

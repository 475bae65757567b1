"""The debug log of a run: JSON lines, redacted, in ``runs/<id>/debug.log``."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def redact(text: str) -> str:
    """The text without private keys, tokens and passwords."""
    raise NotImplementedError


def open_log(path: Path) -> Any:
    """Start logging to that file (0600, appended); returns the logger. Imports structlog: only where it connects."""
    raise NotImplementedError


def close_log() -> None:
    """Close the file; logging goes nowhere again."""

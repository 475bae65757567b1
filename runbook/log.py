"""The debug log of a run: JSON lines, redacted, in ``runs/<id>/debug.log``; for whoever has to find a fault later.

structlog is imported when a log is opened, and so only by commands that connect. Until then, and after, ``logger()``
says nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol, cast

from runbook.redaction import MASK, NAMED, redact
from runbook.step import Secret

__all__ = ["MASK", "Log", "clean", "close_log", "load", "logger", "open_log", "redact"]


def clean(value: object, key: str = "") -> object:
    """A value of a log line, redacted at every depth; under a telling key it is masked whole."""
    if isinstance(value, Secret) or (key and NAMED.search(key) and value not in (None, "", True, False)):
        return MASK
    if isinstance(value, Mapping):
        return {redact(str(k)): clean(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _redactor(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return cast("dict[str, Any]", clean(event))


class Log(Protocol):
    """What can be logged: an event in a few words, and its facts by name."""

    def debug(self, event: str, **facts: object) -> object:
        """What only helps to find a fault."""

    def info(self, event: str, **facts: object) -> object:
        """What was done."""

    def warning(self, event: str, **facts: object) -> object:
        """What was not as expected."""

    def error(self, event: str, **facts: object) -> object:
        """What failed."""


class _Silent:
    def debug(self, event: str, **facts: object) -> None:
        """Nothing."""

    info = warning = error = debug


class _Sink:
    """The file. A log that cannot be written must not stop a run: such lines are lost."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.fd = os.open(path, flags, 0o600)
        os.fchmod(self.fd, 0o600)
        self._mutex = threading.Lock()

    def write(self, text: str) -> None:
        """One whole line at once."""
        with self._mutex, contextlib.suppress(OSError):
            if self.fd >= 0:
                os.write(self.fd, text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Give the file back; later lines are lost."""
        with self._mutex:
            if self.fd >= 0:
                os.close(self.fd)
            self.fd = -1


_SILENT: Log = _Silent()
_logger: Log = _SILENT
_sink: _Sink | None = None


def logger() -> Log:
    """The open log, or one that says nothing."""
    return _logger


def open_log(path: Path) -> Log:
    """Start logging to that file (0600, appended); returns the logger. Raises OSError where it cannot be opened."""
    global _logger, _sink
    close_log()
    structlog = load()
    _sink = _Sink(path)
    _logger = structlog.wrap_logger(
        structlog.WriteLogger(_sink),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            _redactor,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(10),
        cache_logger_on_first_use=True,
    )
    return _logger


def close_log() -> None:
    """Close the file; logging goes nowhere again."""
    global _logger, _sink
    _logger = _SILENT
    if _sink:
        _sink.close()
    _sink = None


def load() -> Any:
    """Import structlog. Its ``dev`` module draws tracebacks with rich where that is there; here it costs time only."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return importlib.import_module("structlog")
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes `import rich` fail, which structlog expects
    try:
        return importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]

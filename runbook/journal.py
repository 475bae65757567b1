"""The journal: append-only, one JSON object a line, each line fsynced before what it announces is done.

Every line has ``seq`` (from 1), ``at`` (RFC 3339, UTC), ``epoch``, ``event``, ``prev`` (SHA-256 of the line before, in
hex; zeros for the first), and ``step`` and ``host`` where they apply. A torn last line is what a crash leaves, and is
dropped; any other damage is named and refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from runbook import lineshape
from runbook.errors import NOTE, Halted
from runbook.log import redact

ZEROS = "0" * 64
NAMES = ("run", "plan", "nodes", "workers", "hosts", "joining", "key", "check")
PLACES = ("plan_file", "plan_base", "file", "base", "holder", "owner", "version")
SUMS = ("plan_digest", "plan_sha256", "snapshot_sha256", "etcdctl_sha256", "etcdutl_sha256", "preview_digest")
EXACT = frozenset((*NAMES, *PLACES, *SUMS, "lines", "from", "to", "trigger", "severity"))
"""What the program reads back by these keys: its own words, names of hosts, paths and sums. All else may be anybody's
text, and is kept without what looks like a secret."""
BROKEN = "it does not follow from the line before (prev differs)"
"""The fault where the line that was changed may as well be the one before."""
Line = dict[str, Any]


class JournalDamaged(Halted):
    """The journal was changed, or lost something other than its last line."""


def now() -> str:
    """The time as the journal writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def sha(raw: bytes) -> str:
    """SHA-256 of one line, without its newline."""
    return hashlib.sha256(raw).hexdigest()


def without_secrets(fields: Mapping[str, object]) -> Line:
    """The fields of a line, with every text that is not the program's own redacted, at every depth."""
    return {key: value if key in EXACT else _redacted(value) for key, value in fields.items()}


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return value


def read(path: Path) -> tuple[list[Line], int]:
    """All valid lines, and how many bytes of the file they take.

    Raises JournalDamaged where anything but a torn last line is wrong.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise JournalDamaged(
            f"{path}: {error.strerror}",
            true="nothing was changed just now; the hosts are as the last engine left them",
            means="without its journal nobody can say where this run stands",
            next=(f"ls -l {shlex.quote(str(path))}{NOTE}is it there, and may you read it?", "runbook runs"),
        ) from error
    lines, good, fault = scan(raw)
    if fault:
        raise damaged(path, len(lines) + 1, fault)
    return lines, good


def scan(raw: bytes) -> tuple[list[Line], int, str]:
    """The valid lines from the beginning, how many bytes they take, and what is wrong with the next ("": nothing).

    A torn last line is nothing wrong: what it announced was never done.
    """
    lines: list[Line] = []
    prev, good, epoch = ZEROS, 0, 0
    pieces = raw.split(b"\n")
    for number, piece in enumerate(pieces[:-1], start=1):
        last = number == len(pieces) - 1 and not pieces[-1]
        line = _parse(piece)
        if line is None and last:
            break  # torn within its last block: what it announced was never done
        fault = _fault(line, prev, number, epoch)
        if line is None or fault:
            return lines, good, fault or "it is not a JSON object"
        lines.append(line)
        prev, good, epoch = sha(piece), good + len(piece) + 1, line["epoch"]
    return lines, good, ""


def _parse(piece: bytes) -> Line | None:
    try:
        value = json.loads(piece)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _fault(line: Line | None, prev: str, number: int, epoch: int) -> str:
    """What is wrong with a line; ``epoch`` is that of the line before, below which no later engine's is."""
    if line is None:
        return ""
    if line.get("prev") != prev:
        return BROKEN
    if line.get("seq") != number:
        return f"seq is {line.get('seq')}, not {number}"
    if fault := lineshape.fault(line):
        return fault
    return f"its epoch is {line['epoch']}, and that of the line before {epoch}" if line["epoch"] < epoch else ""


def damaged(path: Path, number: int, what: str) -> JournalDamaged:
    """The error, for a journal whose line of that number is not as it must be."""
    return JournalDamaged(
        f"{path}:{number}: the journal is damaged: {what}; put it back from a backup of this machine",
        true="nothing was changed just now; the hosts are as the last engine left them",
        means="nobody can say from this file what was done after the line before",
        next=(
            f"runbook adopt --host HOST --run {path.parent.name}{NOTE}any host of it: rebuilds the journal from theirs",
        ),
    )


class _End(NamedTuple):
    """Where the file ends: lines, bytes, all of them safe, and the sum of the last line. All change at once, or not."""

    lines: int
    size: int
    prev: str


class Journal:
    """One run's journal, open for appending. Use by one process only: ``runbook.runs`` holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener: Callable[[Line], None] = lambda _: None
        """Told of each line once it is safe on the disk; what a person sees is made from this."""
        self._mutex = threading.RLock()  # interrupted with it in hand, the same thread must be able to write that down
        self.lines: list[Line] = []
        size, prev = 0, ZEROS
        if path.exists():
            self.lines, size = read(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, size)
        if self.lines:
            prev = sha(os.pread(self._fd, size, 0).rstrip(b"\n").rsplit(b"\n", 1)[-1])
        self._end = _End(len(self.lines), size, prev)
        self.epoch = max((int(line["epoch"]) for line in self.lines), default=0)
        _sync_directory(path.parent)

    def append(self, event: str, fields: Mapping[str, object] | None = None, *, step: str = "", host: str = "") -> Line:
        """Write one line, without the secrets in it, and fsync it.

        Raises Halted, with the file as it was, where that fails. What else may be raised in the middle of it, which is
        Ctrl-C, finds the line whole on the disk, or nothing of it: what it tells of may have been done already.
        """
        with self._mutex:
            end = self._end
            line: Line = {"seq": end.lines + 1, "at": now(), "epoch": self.epoch, "event": event}
            line |= {key: value for key, value in (("step", step), ("host", host)) if value}
            line |= without_secrets(fields or {})
            line["prev"] = end.prev
            raw = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()
            try:
                self._put(line, raw, end)
            except Halted:
                raise
            except BaseException:
                self._put(line, raw, end)
                raise
            self.listener(line)
            return line

    def _put(self, line: Line, raw: bytes, end: _End) -> None:
        """The line behind that end, in the file and here. It may be done again, from wherever it was broken off."""
        try:
            os.ftruncate(self._fd, end.size)  # what a broken attempt left would stand before the line
            os.lseek(self._fd, end.size, os.SEEK_SET)
            view = memoryview(raw + b"\n")
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, end.size)
            raise self._unwritable(error) from error
        self.lines[end.lines :] = [line]
        self._end = _End(end.lines + 1, end.size + len(raw) + 1, sha(raw))

    def _unwritable(self, error: OSError) -> Halted:
        return Halted(
            f"{self.path}: the journal cannot be written: {error.strerror}; make room, or mend the disk",
            true="the change that this line announces was not begun",
            means="without a journal nothing can be resumed, so nothing more is done",
            next=(
                f"df -h {shlex.quote(str(self.path.parent))}",
                f"runbook resume {self.path.parent.name}{NOTE}once there is room",
            ),
        )

    @property
    def size(self) -> int:
        """Bytes, all of them safe on this disk."""
        return self._end.size

    def tail(self, offset: int) -> bytes:
        """What was written from this byte on: whole lines, all of them safe on this disk."""
        with self._mutex:
            return os.pread(self._fd, self._end.size - offset, offset)

    def close(self) -> None:
        """Give the file back. A thread that comes late finds it closed, and never another file under its number."""
        with self._mutex:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def last(lines: list[Line], event: str, **match: object) -> Line | None:
    """The newest line of that event whose fields match."""
    for line in reversed(lines):
        if line["event"] == event and all(line.get(key) == value for key, value in match.items()):
            return line
    return None


def fields(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line without what every line has."""
    return {k: v for k, v in line.items() if k not in ("seq", "at", "epoch", "event", "prev")}

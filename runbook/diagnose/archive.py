"""A ``.tar.zst`` that is private, and there whole or not at all: written beside its place and renamed into it."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shlex
import tarfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from runbook.errors import NOTE, RunbookError, UsageError

LEVEL = 9
"""zstd's, of 22: logs become a tenth, at more than 50 MB/s."""


class Archive:
    """The archive, open for writing; every file in it stands under ``name``/.

    Entering raises UsageError where it cannot be written there. Leaving without :meth:`finish` leaves nothing behind.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.count = 0
        self._part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
        self._when = int(time.time())

    def __enter__(self) -> Self:
        import zstandard  # only here: it takes time that other commands do not have

        refuse_existing(self.path)
        try:
            fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _no_place(self.path, error) from error
        self._file = os.fdopen(fd, "wb")
        os.fchmod(fd, 0o600)
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(self._file, closefd=False)
        self._tar = tarfile.open(fileobj=self._zstd, mode="w|", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of already
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._part.unlink()

    def add(self, place: str, text: str) -> int:
        """One file, of text; its bytes. Raises RunbookError where the disk takes no more."""
        data = text.encode("utf-8", "replace")
        info = tarfile.TarInfo(f"{self.name}/{place}")
        info.size, info.mode, info.mtime = len(data), 0o600, self._when
        try:
            self._tar.addfile(info, io.BytesIO(data))
        except OSError as error:
            raise _no_room(self.path, error) from error
        self.count += 1
        return len(data)

    def finish(self) -> int:
        """Put it in its place, whole and durable; its size in bytes. Raises UsageError where something is there now."""
        import zstandard

        try:
            self._tar.close()
            self._zstd.flush(zstandard.FLUSH_FRAME)
            self._file.flush()
            os.fsync(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            try:
                os.link(self._part, self.path)  # unlike a rename, it never takes another file's place
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                refuse_existing(self.path)
                self._part.rename(self.path)
        except FileExistsError:
            refuse_existing(self.path)
            raise
        except OSError as error:
            raise _no_room(self.path, error) from error
        return size


def refuse_existing(path: Path) -> None:
    """Raises UsageError where something is there already: no archive takes another's place."""
    if os.path.lexists(path):
        raise UsageError(
            f"{path}: there is such a file already",
            true="nothing was written; no host is changed",
            means="an archive never takes another file's place",
            next=(f"ls -l {shlex.quote(str(path))}", f"runbook diagnose -o FILE{NOTE}another name"),
        )


def _no_place(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path}: the archive cannot be written there: {error.strerror}",
        true="nothing was asked of any host, and nothing was written",
        means="it is written into the directory that it shall be in",
        next=(f"ls -ld {shlex.quote(str(path.parent))}", f"runbook diagnose -o FILE{NOTE}in a directory of yours"),
    )


def _no_room(path: Path, error: OSError) -> RunbookError:
    return RunbookError(
        f"{path}: the archive could not be written to its end: {error.strerror}",
        true="nothing was kept of it; no host is changed",
        means="it takes a few MB, most of them logs",
        next=(f"df -h {shlex.quote(str(path.parent))}", f"runbook diagnose -o FILE{NOTE}where there is room"),
    )

"""``file://``: a directory of this machine, or one that is mounted here (NFS).

The directory must be there: one that a mount should have brought, and did not, must not be made on the disk below it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from runbook.snapshots.stores import AlreadyThere, Entry, NotThere, Store, StoreTrouble

_PIECE = 1 << 20
_PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part")
"""A file that is being written. Its writer holds a lock on it, so one that can be locked has lost its writer."""


class Files(Store):
    """The files of one directory."""

    def __init__(self, path: Path) -> None:
        """An absolute path."""
        self.path, self.url = path, f"file://{quote(str(path))}"

    def trial(self) -> None:
        """All that a writer does, under names that no list shows: as root, no permission tells whether it may."""
        self._tidy()
        with self._told("write into"):
            part, fd = self._begun("trial")
        linked = part.with_name(f".trial.{secrets.token_hex(4)}.part")
        try:
            with self._told("write into"):
                _all(fd, os.urandom(_PIECE))  # a disk that compresses has room for a MiB of zeros when it is full
                os.fsync(fd)
                self._linked(part, linked)
        finally:
            for name in (linked, part):
                with contextlib.suppress(OSError):
                    name.unlink()
            os.close(fd)

    def entries(self) -> list[Entry]:
        """Plain files only; what is being written is not there yet."""
        found = []
        with self._told("list"), os.scandir(self.path) as every:
            for entry in every:
                with contextlib.suppress(FileNotFoundError):  # removed since
                    seen = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(seen.st_mode) and not _PART.fullmatch(entry.name):
                        found.append(Entry(entry.name, seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC)))
        return sorted(found, key=lambda e: e.name)

    def read(self, name: str) -> Iterator[bytes]:
        """From beginning to end; a link is not followed."""
        with self._told(f"read {name} in"):
            try:
                fd = os.open(self._place(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                raise NotThere(f"{self.url} has no {name}", "list what it has: runbook snapshot list") from None
            with os.fdopen(fd, "rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    yield piece

    def write(self, name: str, pieces: Iterable[bytes], *, over: bool = False) -> None:
        """Beside its place, synced, then under its name: a crash leaves what the next writer removes."""
        self._place(name)
        self._tidy()
        with self._told(f"write {name} into"):
            part, fd = self._begun(name)
        try:
            for piece in pieces:
                with self._told(f"write {name} into"):
                    _all(fd, piece)
            with self._told(f"write {name} into"):
                os.fsync(fd)
                self._name(part, name, over=over)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
            os.close(fd)

    def remove(self, name: str) -> None:
        """And sync, so that it does not come back."""
        with self._told(f"remove {name} from"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._place(name))
            self._sync()

    def _begun(self, name: str) -> tuple[Path, int]:
        """A new file beside the name's place, locked. Another writer may tidy it away before the lock: then again."""
        while True:
            part = self.path / f".{name}.{secrets.token_hex(4)}.part"
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return part, fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _place(self, name: str) -> Path:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} is no name of a file in a store")
        return self.path / name

    def _name(self, part: Path, name: str, *, over: bool) -> None:
        place = self._place(name)
        if over:
            os.replace(part, place)
        else:
            try:
                self._linked(part, place)
            except FileExistsError:
                raise AlreadyThere(
                    f"{self.url} has a {name} already", "it is not written over; remove it, or wait a second"
                ) from None
        self._sync()

    def _linked(self, part: Path, place: Path) -> None:
        """A second name, which, other than a rename, never takes one that is taken."""
        try:
            os.link(part, place)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise StoreTrouble(
                f"cannot write into {self.url}: its file system has no hard links",
                f"keep snapshots on one that has (ext4, xfs, NFS): df -T {self.path}",
            ) from error

    def _sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _tidy(self) -> None:
        """Remove what writers left that were killed."""
        with self._told("list"), os.scandir(self.path) as every:
            left = [entry.name for entry in every if _PART.fullmatch(entry.name)]
        for name in left:
            with contextlib.suppress(OSError):
                fd = os.open(self.path / name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(self.path / name)
                finally:
                    os.close(fd)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """An error of the disk, told as the store's."""
        try:
            yield
        except OSError as error:
            raise StoreTrouble(f"cannot {what} {self.url}: {error.strerror or error}", self._do(error)) from error

    def _do(self, error: OSError) -> str:
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                return f"make the directory, or mount it: is there anything at {self.path}?"
            case errno.ENOSPC | errno.EDQUOT:
                return f"make room: df -h {self.path}; or let older ones go: runbook snapshot prune"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return f"it must be writable for the user that runs this: ls -ld {self.path}"
        return f"look at it: ls -l {self.path}"


def _all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

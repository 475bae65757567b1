"""Room on this machine's disk for a snapshot that comes from elsewhere, for as long as it is needed and no longer.

A snapshot is every Secret of the cluster. So the copy never has a name: nobody else can open it, and it is gone with
this process, however that ends. It lies where ``TMPDIR`` says, or else below ``/var/tmp``: on a disk, for what lies in
memory there may be no room.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

RESERVE = 64 << 20
"""Bytes that must stay free on this machine's disk."""
PROC = Path("/proc")
_PREFIX = ".fetched-"


def place() -> str:
    """Where the copy lies while it is read."""
    usual = "/var/tmp" if os.access("/var/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()  # noqa: S108
    return os.environ.get("TMPDIR") or usual


def room(size: int) -> IO[bytes]:
    """A file without a name for so many bytes. Raises OSError where there is no room for it."""
    where = place()
    _has_room(where, size)
    with own_disk(where):
        return tempfile.TemporaryFile(dir=where)


@contextlib.contextmanager
def held(size: int, private: Callable[[], Path]) -> Iterator[tuple[IO[bytes], Path]]:
    """A file for so many bytes, and a path by which this process and its children can open it while the block lasts.

    ``private`` gives a directory of this user's alone, for a machine that has no ``/proc`` (a Mac), or none for us:
    there no other process can open a file without a name, so it has one, until the block ends. Where this process is
    killed before, whoever comes next removes what was left.

    Raises:
        OSError: there is no room for it.
    """
    mine = PROC / str(os.getpid())
    if _children_may_look(mine):
        with room(size) as file:
            yield file, mine / "fd" / str(file.fileno())
        return
    own = private()
    _tidy(own)
    _has_room(str(own), size)
    with own_disk(str(own)):
        named = tempfile.NamedTemporaryFile(dir=own, prefix=_PREFIX)  # noqa: SIM115 # below; its mode is 0600
    with named:
        fcntl.flock(named, fcntl.LOCK_EX)
        yield named.file, Path(named.name)


def _children_may_look(mine: Path) -> bool:
    """A program that was given rights of its own, by a file capability, has a ``/proc`` entry that is root's alone."""
    try:
        return mine.stat().st_uid == os.geteuid() and (mine / "fd").is_dir()
    except OSError:
        return False


def _tidy(private: Path) -> None:
    """Remove what was left by who was killed: nobody holds it."""
    for left in private.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _has_room(where: str, size: int) -> None:
    with own_disk(where):
        disk = os.statvfs(where)
    free = disk.f_bavail * disk.f_frsize
    if free < size + RESERVE:
        told = f"{free >> 20} MiB are free in {where} on this machine"
        raise OSError(f"{told}, and for a while it needs {size + RESERVE >> 20} MiB; TMPDIR may name another place")


@contextlib.contextmanager
def own_disk(where: str) -> Iterator[None]:
    """An error of this machine's disk says so: all else that is told here is told of the host."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{where} on this machine: {error.strerror}") from error

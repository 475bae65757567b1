"""Whether a snapshot is whole: asked before it gets as far as any host's disk.

An etcd snapshot is a bbolt file followed by the SHA-256 of all of it: ``size % 512 == 32``. ``etcdutl snapshot
status`` ignores that trailer and accepts flipped bytes and truncation, so it is checked here. A raw copy of
``member/snap/db`` has no trailer; whether such a thing may be restored, only the plan can say.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.errors import NOTE, Refused
from runbook.snapshots.bolt import MAGIC, Database, NotBolt

if TYPE_CHECKING:
    from runbook.plan import Snapshot

TRAILER = 32
_CHUNK = 2 << 20  # fits the second level of a cache, or hashing takes a third longer
_LAST = (1 << 63) - 1
_SMALLEST = 4 * 4096
INTERRUPTED = "The copy was interrupted: copy it again, or use another snapshot."
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}


_KEY = re.compile(rb"SECRET|PRIVATE|[Pp]assword|[Tt]oken")
"""Of a text that has one of these near its beginning, nothing is shown."""


class SnapshotDamaged(Refused):
    """The snapshot is not what it should be (exit code 3); the message names the file, what was found and what to do.

    ``reason`` is one word for programs: missing, unreadable, kind, part, empty, text, packed, truncated, no-trailer,
    trailer, not-bolt, bolt, sha256, changed, revision.
    """

    def __init__(self, path: Path | str, reason: str, found: str, do: str) -> None:
        """``path`` of this machine, or where it is from a store, its URL there."""
        self.reason = reason
        where = f"ls -l {shlex.quote(str(Path(path).parent))}"
        if "://" in str(path):
            where = f"runbook snapshot list {shlex.quote(str(path).rpartition('/')[0])}"
        super().__init__(
            f"{path}: {found}. {do}",
            true="Nothing was sent to any host.",
            means="the cluster is as it was before this command",
            next=(f"{where}{NOTE}is there another one?",),
        )


@dataclass(frozen=True)
class SnapshotFacts:
    """What a whole snapshot is. ``path`` is how messages name it.

    ``size`` in bytes, ``sha256`` of the whole file in hex, ``revision`` the last it holds.

    ``trailer_ok`` is None where there is no trailer to check. ``world_readable``: any user of this machine may read it,
    and with it every Secret of the cluster. ``page_size`` in bytes. ``asks_for_a_login``, ``has_alarms``: how a cluster
    that is restored from it begins.
    """

    path: Path | str
    size: int
    sha256: str
    has_trailer: bool
    trailer_ok: bool | None
    revision: int
    page_size: int
    asks_for_a_login: bool
    has_alarms: bool
    world_readable: bool

    def warnings(self) -> tuple[str, ...]:
        """What a responder should know of it, though it does not stand in the way."""
        told = []
        if self.world_readable:
            told.append(f"{self.path} can be read by every user of its machine, and holds every Secret: chmod 600 it")
        if not self.has_trailer:
            told.append(f"{self.path} has no checksum at its end: only the plan's sha256 can tell whether it is whole")
        halts = "the run will halt in the outage, before the API servers, and say what to type; then resume it"
        if self.asks_for_a_login:
            told.append(f"{self.path} has etcd's own authentication enabled: {halts} (etcdctl auth disable)")
        if self.has_alarms:
            told.append(f"{self.path} holds an alarm, most likely NOSPACE: {halts} (etcdctl alarm disarm)")
        return tuple(told)


def inspect_file(
    path: Path,
    *,
    allow_missing_trailer: bool = False,
    sha256: str | None = None,
    progress: Callable[[int], None] | None = None,
    shown: str = "",
) -> SnapshotFacts:
    """Reads a snapshot once, from beginning to end, and says what it is.

    Args:
        path: a file of this machine.
        allow_missing_trailer: whether a raw copy of ``member/snap/db`` will do, as the plan's key of that name says.
        sha256: what the whole file's SHA-256 must be, in hex; None where nobody said.
        progress: is told how many bytes have been read.
        shown: how messages name it, where that is not its path.

    Raises:
        SnapshotDamaged: it is missing, cannot be read, is no snapshot, not whole, or not the one that was meant.
    """
    refuse_part(path)
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as e:
        raise _unopened(path, e) from None
    try:
        return _Reading(path, fd, shown=shown).facts(allow_missing_trailer, sha256, progress)
    except OSError as e:
        do = "Copy it from a good disk."
        raise SnapshotDamaged(shown or path, "unreadable", f"reading it failed: {e.strerror}", do) from None
    finally:
        os.close(fd)


def inspect_open(
    path: Path, fd: int, *, allow_missing_trailer: bool = False, sha256: str | None = None
) -> SnapshotFacts:
    """As ``inspect_file``, of a copy that is open, and has no name on this machine: ``path`` is the original's.

    Raises:
        SnapshotDamaged: as there.
        OSError: the copy cannot be read, which says nothing of the original.
    """
    return _Reading(path, fd, named=False).facts(allow_missing_trailer, sha256, None)


def refuse_part(path: Path) -> None:
    """Raises SnapshotDamaged for the name of a snapshot that is still being written."""
    if path.name.lower().endswith(".part"):
        do = "Wait until the backup is complete, or name one that is."
        raise SnapshotDamaged(
            path, "part", "its name ends in .part: etcdctl gives that to a snapshot it is writing", do
        )


_SEEN: dict[tuple[object, ...], Future[SnapshotFacts]] = {}
_MUTEX = threading.Lock()


def inspect_source(source: Snapshot) -> SnapshotFacts:
    """A plan's snapshot that lies on this machine, or came here from a store, as :func:`inspect_once` does it."""
    return inspect_once(
        source.path,
        allow_missing_trailer=source.allow_missing_trailer,
        sha256=source.sha256 or None,
        shown=source.shown if source.store else "",
    )


def inspect_once(
    path: Path, *, allow_missing_trailer: bool = False, sha256: str | None = None, shown: str = ""
) -> SnapshotFacts:
    """As ``inspect_file``, which reads all of it; what it found stands as long as nobody has touched the file since.

    For this process alone: the plan is bound and then checked within seconds, and a large file is read once. Whoever
    asks meanwhile, in another thread, waits for the same answer.
    """
    look = partial(inspect_file, path, allow_missing_trailer=allow_missing_trailer, sha256=sha256, shown=shown)
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return look()
    touched = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    key = (path, allow_missing_trailer, sha256, shown, touched)
    with _MUTEX:
        mine = key not in _SEEN
        seeing = _SEEN.setdefault(key, Future())
    if mine:
        try:
            seeing.set_result(look())
        except BaseException as error:
            del _SEEN[key]  # what was wrong may be mended
            seeing.set_exception(error)
    return seeing.result()


def revision_after(facts: SnapshotFacts, bump: int) -> int:
    """The revision at which the restored cluster begins: the snapshot's plus the plan's ``bumpRevision``.

    Raises:
        SnapshotDamaged: the sum does not fit etcd's revisions, which are signed 64-bit numbers.
    """
    after = facts.revision + bump
    if after > _LAST:
        found = f"its revision {facts.revision} plus bumpRevision {bump} is more than etcd's last revision, {_LAST}"
        raise SnapshotDamaged(facts.path, "revision", found, f"Lower bumpRevision to {_LAST - facts.revision} or less.")
    return after


def _unopened(path: Path, error: Exception) -> SnapshotDamaged:
    if isinstance(error, FileNotFoundError):
        do = "Name a file that is there; in a plan (spec.snapshot.from) a path is relative to the plan file."
        return SnapshotDamaged(path, "missing", "there is no such file", do)
    if isinstance(error, PermissionError):
        do = "Run as a user who may read it; do not make it readable for all, it holds every Secret."
        return SnapshotDamaged(path, "unreadable", "you may not read this file", do)
    says = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return SnapshotDamaged(path, "unreadable", f"it cannot be opened: {says}", "Name the snapshot file itself.")


class _Reading:
    """One file, open, and what is known of it before it is read. ``named``: it is this machine's ``path``."""

    def __init__(self, path: Path, fd: int, *, named: bool = True, shown: str = "") -> None:
        self.path = path
        self.shown = shown or path
        self.fd = fd
        self.named = named
        self.before = os.fstat(fd)
        self.size = self.before.st_size

    def facts(
        self, allow_missing_trailer: bool, sha256: str | None, progress: Callable[[int], None] | None
    ) -> SnapshotFacts:
        self._looks_right()
        has_trailer = self.size % 512 == TRAILER
        self._not_cut(self.size - TRAILER if has_trailer else self.size)
        if not has_trailer and not allow_missing_trailer:
            raise self._no_trailer()
        body = self.size - TRAILER if has_trailer else self.size
        of_body, of_all = self._hash(body, progress)
        ends = os.pread(self.fd, TRAILER, body) if has_trailer else of_body
        self._unchanged()
        if has_trailer and ends != of_body:
            raise self._bad(
                "trailer",
                f"its checksum is wrong: it ends in {ends.hex()[:16]}…, its content makes {of_body.hex()[:16]}…",
                "Bytes were changed or lost since etcd wrote it: take another copy, or another snapshot.",
            )
        if sha256 is not None and sha256.lower() != of_all:
            do = "Take the file that the plan means, or correct spec.snapshot.sha256."
            raise self._bad("sha256", f"its SHA-256 is {of_all}, the plan says {sha256.lower()}", do)
        page_size, revision, logins, alarms = self._content(body, exact=has_trailer)
        return SnapshotFacts(
            path=self.shown,
            size=self.size,
            sha256=of_all,
            has_trailer=has_trailer,
            trailer_ok=True if has_trailer else None,
            revision=revision,
            page_size=page_size,
            asks_for_a_login=logins,
            has_alarms=alarms,
            world_readable=bool(self.before.st_mode & stat.S_IROTH),
        )

    def _bad(self, reason: str, found: str, do: str) -> SnapshotDamaged:
        return SnapshotDamaged(self.shown, reason, found, do)

    def _looks_right(self) -> None:
        """What can be said without reading it all."""
        if not stat.S_ISREG(self.before.st_mode):
            kind = "a directory" if stat.S_ISDIR(self.before.st_mode) else "no regular file"
            raise self._bad("kind", f"it is {kind}", "Name the snapshot file itself.")
        if not self.size:
            raise self._bad("empty", "it is empty", "The backup failed when it was taken: use another one.")
        head = os.pread(self.fd, 4096, 0)
        if len(head) >= 20 and int.from_bytes(head[16:20], "little") == MAGIC:
            return self._whole()
        for magic, name in _PACKED.items():
            if head.startswith(magic):
                raise self._bad("packed", f"it is a {name} file", f"Unpack it, and name the unpacked file ({name}).")
        if _is_text(head):
            start = head[:40].decode("utf-8", "replace").split("\n")[0]
            told = "" if _KEY.search(head) else f", beginning with {start!r}"
            raise self._bad("text", f"it is a text{told}", "Name the snapshot file itself.")
        do = "It was made by something else, or damaged: name an etcd snapshot."
        raise self._bad("not-bolt", "it is no etcd snapshot: bbolt's magic number is not where it belongs", do)

    def _whole(self) -> None:
        if self.size % 512 not in (0, TRAILER) or self.size < _SMALLEST:
            found = f"it is cut short: {self.size} bytes is not a multiple of 512, nor 32 more, as a snapshot's size is"
            if self.size % 512 in (0, TRAILER):
                found = f"it is cut short: {self.size} bytes, and no etcd database is smaller than {_SMALLEST}"
            raise self._bad("truncated", found, INTERRUPTED)

    def _not_cut(self, body: int) -> None:
        """A file that is cut at a multiple of 512 bytes has a snapshot's size; how long it was, its head still says."""
        try:
            used = Database(self.fd, body).meta.size
        except NotBolt:
            return  # its checksum, or the reading of its content, says what is wrong
        if used > body:
            found = f"it is cut short: it has {self.size} bytes, and its database alone has {used}"
            raise self._bad("truncated", found, INTERRUPTED)

    def _no_trailer(self) -> SnapshotDamaged:
        return self._bad(
            "no-trailer",
            f"it has no checksum at its end ({self.size} bytes, a multiple of 512; a snapshot has 32 more)",
            "Take one with etcdctl snapshot save. If this is a raw copy of member/snap/db and you have nothing better, "
            "set spec.snapshot.allowMissingTrailer: true, and its sha256.",
        )

    def _hash(self, body: int, progress: Callable[[int], None] | None) -> tuple[bytes, str]:
        """SHA-256 of the first ``body`` bytes, and of all: one pass, for the one is the other's beginning."""
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK))
        done, of_body = 0, b""
        while done < self.size:
            until = body if done < body else self.size
            got = os.preadv(self.fd, [buffer[: min(_CHUNK, until - done)]], done)
            if not got:
                raise self._changed("it became shorter")
            digest.update(buffer[:got])
            done += got
            if done == body:
                of_body = digest.digest()
            if progress is not None:
                progress(done)
        return of_body, digest.hexdigest()

    def _unchanged(self) -> None:
        now = os.fstat(self.fd)
        try:
            there = os.stat(self.path) if self.named else now
        except OSError:
            raise self._changed("its name is gone") from None
        if (now.st_size, now.st_mtime_ns) != (self.size, self.before.st_mtime_ns):
            raise self._changed("it was written to")
        if (there.st_dev, there.st_ino) != (now.st_dev, now.st_ino):
            raise self._changed("another file has taken its name")

    def _changed(self, how: str) -> SnapshotDamaged:
        do = "A backup may still be writing it: wait, or name a snapshot that is complete."
        return self._bad("changed", f"while it was read, {how}", do)

    def _content(self, body: int, exact: bool) -> tuple[int, int, bool, bool]:
        """Page size, last revision, whether it asks for a login, has alarms.

        ``exact``: etcd wrote the file in one go, so it has just the pages in use.
        """
        do = (
            "Use another snapshot." if exact else "It was copied while etcd wrote to it, or cut short: use another one."
        )
        try:
            database = Database(self.fd, body)
            revision = database.last_revision()
        except NotBolt as e:
            raise self._bad("bolt", f"its database is damaged: it {e}", do) from None
        return database.meta.page_size, revision, _said(database.asks_for_a_login), _said(database.has_alarms)


def _said(question: Callable[[], bool]) -> bool:
    """What is only told to the responder keeps nobody from restoring where it cannot be read."""
    try:
        return question()
    except NotBolt:
        return False


def _is_text(head: bytes) -> bool:
    """Whether it reads as text: ASCII without control characters is enough to say so of a wrong file."""
    return all(b in b"\t\n\r\f\x1b" or 0x20 <= b < 0x7F or b >= 0x80 for b in head) and not head.startswith(b"\xff")

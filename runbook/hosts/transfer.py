"""Uploads: a file streamed into the host's own script, which proves its SHA-256 and puts it into place.

Large files are sent by a process of their own for each host, because threads would share one interpreter's lock: by the
system's ``ssh`` (:mod:`runbook.hosts.client`), or where that cannot do it by an interpreter, as here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Protocol

from runbook.hosts import wrapper
from runbook.hosts.address import Address
from runbook.hosts.connection import Link
from runbook.hosts.errands import MARGIN, START, Errand, Streaming, nonce
from runbook.hosts.login import Unreachable
from runbook.hosts.session import Dialogue, Ended, Lost, Opening, Session
from runbook.step import Result
from runbook.transport import Claim

SMALL = 64 * 1024
"""Up to this size a file travels in the script: a channel of its own costs more than that."""
LARGE = 32 * 1024 * 1024
"""From this size on a file gets a process of its own; below, starting one costs more than it saves."""


class SourceTrouble(Exception):
    """What was to be sent cannot be read, or is not what it was."""


class Source(Protocol):
    """Where the bytes come from."""

    def open(self) -> int:
        """Called before each attempt; returns the size. Raises :class:`SourceTrouble`, as ``chunks`` does."""

    def chunks(self, size: int) -> Iterator[bytes]:
        """All bytes, in chunks of at most ``size``."""

    def verdict(self, sha256: str) -> str:
        """Where the fault lies, when the host did not find this sum."""


class Bytes:
    """A small file, given in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self) -> int:  # noqa: D102
        return len(self._content)

    def chunks(self, size: int) -> Iterator[bytes]:  # noqa: D102
        for at in range(0, len(self._content), size):
            yield self._content[at : at + size]

    def verdict(self, sha256: str) -> str:  # noqa: D102
        seen = hashlib.sha256(self._content).hexdigest()
        return "" if seen == sha256 else f"what was to be sent has itself the sha256 {seen}"


class LocalFile:
    """A file of the responder's machine; ``named`` is how messages name it, where that is not its path."""

    def __init__(self, path: str, named: str = "") -> None:
        self._path = Path(path).expanduser()
        self._named = named or self._path
        self._size = 0
        self._stamp = (0, 0, 0)

    def open(self) -> int:  # noqa: D102
        self._stamp = self._look()
        return self._stamp[0]

    def chunks(self, size: int) -> Iterator[bytes]:  # noqa: D102
        with self.opened() as (file, left):
            chunk = file.read(min(size, left))
            while chunk and (left := left - len(chunk)):
                yield chunk
                chunk = file.read(min(size, left))
            if left:
                raise EOFError
        yield chunk  # held back until the file is known to be what it was

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[FileIO, int]]:
        """The file, and how much of it is to be read: all, or EOFError. In the end it must be what it was."""
        short = False
        try:
            with self._path.open("rb", buffering=0) as file:
                yield file, self._stamp[0]
        except OSError as error:
            raise SourceTrouble(f"cannot read {self._named}: {error.strerror}") from error
        except EOFError:
            short = True
        if short or self._look() != self._stamp:
            raise SourceTrouble(f"{self._named} changed while it was sent")

    def verdict(self, sha256: str) -> str:
        """Only asked when the host found another sum; hashing each time would cost every sender a pass."""
        with self._path.open("rb") as file:
            seen = hashlib.file_digest(file, "sha256").hexdigest()
        return "it was damaged on the way" if seen == sha256 else f"{self._named} has itself the sha256 {seen}"

    def _look(self) -> tuple[int, int, int]:
        try:
            seen = self._path.stat()
        except OSError as error:
            raise SourceTrouble(f"cannot read {self._named}: {error.strerror}") from error
        return seen.st_size, seen.st_mtime_ns, seen.st_ino


class NodeFile:
    """A file on another host's disk, read there as root and passed on as it comes."""

    def __init__(self, link: Link, path: str) -> None:
        self._link = link
        self._path = path
        self._session: Session | None = None
        self._size = 0

    def open(self) -> int:  # noqa: D102
        self.close()
        word = nonce()
        try:
            self._session = Session(self._link, wrapper.shell(self._link.address.elevates), word, wrapper.TAIL)
            self._session.send(wrapper.read(word, self._path))
            self._session.next(START)
            frame = self._session.next(START)
        except (Unreachable, Lost, Ended) as error:
            raise SourceTrouble(f"cannot read {self._path} on {self._link.address.label}: {error}") from error
        if not frame.code.isdecimal():
            said = frame.err.decode(errors="replace").strip()
            raise SourceTrouble(f"cannot read {self._path} on {self._link.address.label}: {said}")
        self._size = int(frame.code)
        return self._size

    def chunks(self, size: int) -> Iterator[bytes]:  # noqa: D102
        if self._session is None:
            raise SourceTrouble("not open")
        count = 0
        try:
            self._session.send(b"go\n")
            for block in self._session.raw(wrapper.STALL):
                count += len(block)
                for at in range(0, len(block), size):
                    yield block[at : at + size]
        except Lost as error:
            raise SourceTrouble(f"{self._link.address.label}: {error}") from error
        if count != self._size:
            raise SourceTrouble(f"{self._path} on {self._link.address.label}: {count} of {self._size} bytes came")

    def verdict(self, sha256: str) -> str:  # noqa: D102
        return f"check {self._path} on {self._link.address.label}: sha256sum it there"

    def close(self) -> None:
        """End the reading."""
        if self._session is not None:
            self._session.__exit__(None, None, None)
            self._session = None


@dataclass(frozen=True)
class Delivery:
    """One upload to one host, as plain data. ``path`` is local, or on ``origin`` where that is given.

    ``named`` is how messages name it, "" where its path will do.
    """

    target: Address
    dest: str
    sha256: str
    mode: int
    timeout: float
    run_dir: str
    run: str
    claim: Claim
    key: str
    intent: str
    void: tuple[str, ...] = ()
    path: str = ""
    origin: Address | None = None
    named: str = ""

    def to_json(self) -> str:
        """One line, for the sender process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Delivery:
        """The reverse of :meth:`to_json`."""
        plain = json.loads(text)
        plain["target"] = Address(**plain["target"])
        plain["origin"] = Address(**plain["origin"]) if plain["origin"] else None
        plain["void"] = tuple(plain["void"])
        plain["claim"] = Claim(**{**plain["claim"], "known": tuple(plain["claim"]["known"])})
        return cls(**plain)

    def source(self) -> Source:
        """Where a sender reads."""
        return NodeFile(Link(self.origin), self.path) if self.origin else LocalFile(self.path, self.named)


def deliver(
    link: Link,
    what: Delivery,
    source: Source | None,
    stop: threading.Event,
    opens: Opening = Session,
    stream: Streaming | None = None,
    inline: str | None = None,
) -> Result:
    """Bring a file to a host. No ``source``: the host copies ``what.path`` itself, or ``inline`` is the file.

    ``opens`` and ``stream`` are another way to send the source than the link's.

    The result's code is 0 also where the file was already there. 1: mismatch, or the host or the source could not;
    ``err`` says which. Nothing but a complete, proven file is ever seen under its name.
    """
    guarded = wrapper.Guarded(what.run_dir, what.run, what.claim, what.void)

    def script(word: str) -> bytes:
        size = source.open() if source else len((inline or "").encode("utf-8", "surrogateescape"))
        own = "" if source else what.path
        return guarded.receive(
            word, what.key, what.intent, what.dest, size, what.sha256, what.mode, own, what.timeout, inline
        )

    errand = Errand(link, what.timeout, stop, opens)
    where = f"{what.run_dir}/commands/{what.key}"
    if source and stream is None:
        stream = partial(_stream, link, source)
    try:
        # the host is silent while it computes a sum, so there is no gap to go by
        result = errand.run(script, where, stream, gap=what.timeout)
        if source and result.code == 1 and "sha256 mismatch" in result.err:
            return replace(result, err=f"{result.err.rstrip()} ({source.verdict(what.sha256)})")
    except SourceTrouble as error:
        # the session is closed by now, so the host has seen the end, and removes what it got
        return Result(1, err=f"{what.target.label}: {what.dest} was not delivered: {error}")
    finally:
        if isinstance(source, NodeFile):
            source.close()
    return result


def _stream(link: Link, source: Source, session: Dialogue) -> None:
    """Send all chunks."""
    for chunk in source.chunks(session.packet):
        link.expires = time.monotonic() + 3 * wrapper.STALL
        if not session.push(chunk, wrapper.STALL):
            return  # the script has ended early, and its answer says why
    session.finish()


def by_process(link: Link, what: Delivery, stop: threading.Event) -> Result:
    """Have a fresh interpreter deliver it. Its orders come through standard input, and it ends when that ends."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    sender = subprocess.Popen(
        [sys.executable, "-P", "-m", "runbook.hosts.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the parent to judge
        env={**os.environ, "PYTHONPATH": paths},
    )
    link.expires = time.monotonic() + what.timeout + wrapper.KILL + 2 * MARGIN
    said = b""
    with link.helped(sender), sender:
        if sender.stdin and sender.stdout and not stop.is_set():
            try:
                sender.stdin.write(what.to_json().encode() + b"\n")
                sender.stdin.flush()
                said = sender.stdout.read()
            except OSError:
                said = b""
        sender.kill()
    link.expires = float("inf")
    try:
        return Result(**json.loads(said))
    except (ValueError, TypeError):
        return Result(None, err=f"{what.target.label}: the sender process was ended or died (exit {sender.returncode})")

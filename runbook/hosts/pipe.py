"""One program on one host through the system's own ``ssh``: what ``session`` does with a channel, with three pipes.

OpenSSH enciphers with less work than an interpreter can, and a file's pages go to it without passing through one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from io import FileIO
from types import TracebackType

from runbook.hosts import wrapper
from runbook.hosts.connection import Link
from runbook.hosts.frames import Frames
from runbook.hosts.login import Again, Unreachable
from runbook.hosts.session import Ended, Frame, Lost, Silent, paired
from runbook.tables import duration

SIZE = 1 << 20
"""Bytes that the pipe to ``ssh`` holds, where the kernel gives as many."""
REST = (0.0005, 0.02)
"""Seconds to wait, at least and at most, after the pipe is full. To fill it up at every chance costs more for both."""
READ = 1 << 16
FINAL = ("host key verification failed", "permission denied")
"""What ``ssh`` says when another attempt would end the same way."""


class NoStart(Exception):
    """``ssh`` could not start the program, and never has before: another way may tell why, or do it."""


class Pipe:
    """One exec. Raises :class:`NoStart` until a program has once begun (``began``), then what a session raises."""

    def __init__(self, link: Link, argv: Sequence[str], nonce: str, cap: int, began: threading.Event) -> None:
        self._link = link
        self._argv = argv
        self._began = began
        self._started = False
        self._out, self._err = Frames(nonce, cap), Frames(nonce, cap)
        self._streams: dict[int, Frames] = {}
        self._news, self._room = select.poll(), select.poll()
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Pipe:
        try:
            self._child = subprocess.Popen(
                self._argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the parent to judge
            )
        except OSError as error:
            raise NoStart(f"{self._argv[0]}: {error.strerror}") from error
        self._held.enter_context(self._link.helped(self._child))
        self._listen()
        return self

    def _listen(self) -> None:
        child = self._child
        if not (child.stdin and child.stdout and child.stderr):
            raise AssertionError("all three are pipes")
        self._in = child.stdin
        self._streams = {child.stdout.fileno(): self._out, child.stderr.fileno(): self._err}
        for fd in self._streams:
            self._news.register(fd, select.POLLIN)
        os.set_blocking(self._in.fileno(), False)
        self._room.register(self._in, select.POLLOUT)
        self._holds = self._widen()
        self._rest = REST[0]

    def _widen(self) -> int:
        """Make the pipe to ``ssh`` as large as we may; returns its size."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                return fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, SIZE)
        return 1 << 16

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._child, self._held:
            if kind is None:
                self.finish()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(2)
            self._child.kill()  # its pipes are closed with it, and its exit code is taken
        self._link.expires = float("inf")

    @property
    def packet(self) -> int:
        """See :class:`~runbook.hosts.session.Dialogue`."""
        return SIZE

    def send(self, script: bytes) -> None:
        """See :class:`~runbook.hosts.session.Dialogue`."""
        self.push(script, 30)

    def leave(self) -> None:
        """See :class:`~runbook.hosts.session.Dialogue`: this one ends with its program."""

    def push(self, data: bytes, patience: float) -> bool:
        """See :class:`~runbook.hosts.session.Dialogue`."""
        view = memoryview(data)
        while view:
            self._await_room(patience)
            try:
                view = view[os.write(self._in.fileno(), view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False
        return True

    def pour(self, file: FileIO, count: int, patience: float) -> bool:
        """Send so many bytes of a file; False as with :meth:`push`. EOFError where it has fewer, OSError its own."""
        try:
            if sys.platform == "linux":
                count = self._splice(file, count, patience)
        except BrokenPipeError:
            return False
        while count:
            data = file.read(min(count, SIZE))
            if not data:
                raise EOFError
            count -= len(data)
            self._link.expires = time.monotonic() + 3 * wrapper.STALL
            if not self.push(data, patience):
                return False
        return True

    if sys.platform == "linux":

        def _splice(self, file: FileIO, count: int, patience: float) -> int:
            """Put the file's pages into the pipe, as they are; returns how many bytes are left where that cannot be."""
            since_full = 0
            while count:
                try:
                    moved = os.splice(file.fileno(), self._in.fileno(), min(count, SIZE), flags=os.SPLICE_F_NONBLOCK)
                except BlockingIOError:
                    self._repose(since_full)
                    self._await_room(patience)
                    since_full = 0
                    continue
                except OSError as error:
                    if error.errno == errno.EINVAL:  # a file system that lends no pages
                        return count
                    raise
                if not moved:
                    raise EOFError
                count -= moved
                since_full += moved
                self._link.expires = time.monotonic() + 3 * wrapper.STALL
            return 0

    def _repose(self, refilled: int) -> None:
        """Let ``ssh`` empty a good part of the pipe, but not all of it."""
        if refilled < self._holds // 2:
            self._rest = min(REST[1], self._rest * 1.5)
        elif refilled > self._holds * 3 // 4:
            self._rest = max(REST[0], self._rest / 2)
        time.sleep(self._rest)

    def _await_room(self, patience: float) -> None:
        if not self._room.poll(1000 * patience):
            raise Silent(f"the host took no data for {duration(patience)}")

    def finish(self) -> None:
        """See :class:`~runbook.hosts.session.Dialogue`."""
        self._in.close()

    def next(self, patience: float) -> Frame:
        """See :class:`~runbook.hosts.session.Dialogue`; the first one includes the login."""
        try:
            frame = self._next(patience if self._started else patience + self._link.address.connect_timeout)
        except (Ended, Lost) as error:
            if not self._began.is_set():
                raise NoStart(str(error)) from error
            if self._started or isinstance(error, Ended):
                raise
            final = any(words in str(error).lower() for words in FINAL)
            raise Unreachable(f"{self._link.address.label}: {error}", Again.NEVER if final else Again.LATER) from error
        self._started = True
        self._began.set()
        return frame

    def _next(self, patience: float) -> Frame:
        until = time.monotonic() + patience
        self._link.expires = until + 5
        while True:
            if frame := paired(self._out, self._err):
                return frame
            if not self._streams:
                raise self._end()
            left = until - time.monotonic()
            if left <= 0:
                raise Silent(f"no answer for {duration(patience)}")
            for fd, _ in self._news.poll(1000 * left):
                self._hear(fd)

    def _hear(self, fd: int) -> None:
        data = os.read(fd, READ)
        if data:
            self._streams[fd].feed(data)
        else:
            self._news.unregister(fd)
            del self._streams[fd]

    def _end(self) -> Exception:
        """Output has ended. 255 is the exit code of ``ssh`` itself, and no script of ours has it."""
        try:
            code = self._child.wait(5)
        except subprocess.TimeoutExpired:
            return Lost("ssh closed its output and goes on")
        said = (self._err.rest() or self._out.rest())[-2000:].decode(errors="replace").strip()
        if code == 255 or code < 0:
            return Lost(f"the connection ended: {said or f'ssh ended with {code}'}")
        return Ended(code, said)

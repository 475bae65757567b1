"""One program on one host: its script goes in, framed answers come out, and every wait has an end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from runbook.hosts.connection import Link
from runbook.hosts.frames import Frames
from runbook.hosts.login import connection_errors, said
from runbook.tables import duration

READ = 1 << 24  # more than any window: a buffer is always taken whole, or taking it would be quadratic
PULSE = 2.0


class Lost(Exception):
    """The connection ended, or fell silent, before the host had answered: nobody knows what happens there."""


class Silent(Lost):
    """The connection may stand, but no answer came in the time given."""


class Ended(Exception):
    """The program ended, with a known exit code, before it had answered in full: sudo refused, or no shell there."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code
        self.said = said


@dataclass(frozen=True)
class Frame:
    """One framed answer: output and errors up to the mark ``name``, and how many bytes of each were dropped."""

    name: str
    code: str
    out: bytes
    err: bytes
    out_dropped: int = 0
    err_dropped: int = 0


class Dialogue(Protocol):
    """One program on one host, whatever carries it. The errors are those of :class:`Session`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def send(self, script: bytes) -> None:
        """Hand the script over; what it reads may follow."""

    def push(self, data: bytes, patience: float) -> bool:
        """Send all of it; False where the program has ended, and :meth:`next` tells how."""

    def finish(self) -> None:
        """Nothing more will be sent."""

    def leave(self) -> None:
        """All is said, and nothing runs that could print any more: another script may follow on the same way."""

    def next(self, patience: float) -> Frame:
        """The next answer, within so many seconds."""

    @property
    def packet(self) -> int:
        """So many bytes are best pushed at once."""


Opening = Callable[[Link, str, str, int], Dialogue]
"""Opens a dialogue, as :class:`Session` does: with a link, a command, a nonce, and how much output is kept."""


def paired(out: Frames, err: Frames) -> Frame | None:
    """The next answer, once both streams have brought its mark."""
    if not (out.pieces and err.pieces):
        return None
    one, other = out.pieces.popleft(), err.pieces.popleft()
    return Frame(one.name, one.code, one.body, other.body, one.dropped, other.dropped)


class Bell:
    """The event of a channel's two buffers. They clear it when one of them is empty; only who waits may do that."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Something came, or the channel ended."""
        self._event.set()

    def clear(self) -> None:
        """Asked by a buffer that is empty; the other one may not be."""

    def is_set(self) -> bool:
        """Has something come?"""
        return self._event.is_set()

    def rearm(self) -> None:
        """Wait for news from here on."""
        self._event.clear()

    def wait(self, seconds: float) -> bool:
        """Wait for news."""
        return self._event.wait(seconds)


class Session:
    """One exec on a link. Raises :class:`Unreachable` when it cannot be opened; then nothing has been started.

    ``again``: the script may be sent again, so the shell that an earlier one has left there will do: that it is dead
    may be found out only when nothing comes back from it.
    """

    def __init__(self, link: Link, command: str, nonce: str, cap: int, *, again: bool = True) -> None:
        self._link = link
        self._out, self._err = Frames(nonce, cap), Frames(nonce, cap)
        # every phase has its own deadline; this one is for a thread that is stuck in spite of them
        link.expires = time.monotonic() + 6 * link.address.connect_timeout
        left = link.left(command if again else "")
        self._command, self._over, self._used = command, False, bool(left)
        self._channel = left or link.start(command)
        self._bell = Bell()
        self._channel.in_buffer.set_event(self._bell)  # type: ignore[arg-type]  # it calls set and clear only
        self._channel.in_stderr_buffer.set_event(self._bell)  # type: ignore[arg-type]

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._over and kind is None:
            self._link.leave(self._command, self._channel)
        else:
            with contextlib.suppress(*connection_errors()):
                self._channel.close()
        self._link.expires = float("inf")

    def leave(self) -> None:
        """All is said, and nothing runs that could print any more: the shell may take the next script."""
        self._over = True

    @property
    def packet(self) -> int:
        """What fits one packet exactly: paramiko would cut more with a copy of the rest."""
        return self._channel.out_max_packet_size - 64

    def send(self, script: bytes) -> None:
        """Hand the script over. Its shell, at its end, waits for another: the input stays open."""
        self.push(script, 30)

    def push(self, data: bytes, patience: float) -> bool:
        """Send all of it; False where the program has ended, and :meth:`next` tells how."""
        self._channel.settimeout(patience)
        try:
            while data:
                # one packet takes no more; a chunk of the right size is not copied
                data = data[self._channel.send(data) :]
        except TimeoutError as error:
            raise Silent(f"the host took no data for {duration(patience)}") from error
        except connection_errors() as error:
            return self._broken(error)
        return True

    def finish(self) -> None:
        """Nothing more will be sent."""
        try:
            self._channel.shutdown_write()
        except connection_errors() as error:
            self._broken(error)

    def _broken(self, error: Exception) -> bool:
        if self._channel.exit_status_ready() and self._channel.exit_status >= 0:
            return False
        raise Lost(f"the connection broke while sending: {said(error)}") from error

    def next(self, patience: float) -> Frame:
        """The next answer. Raises :class:`Ended`, or :class:`Lost` also when none comes within so many seconds.

        A shell that was there already needs no time to start: it is lost where its first word does not come at once,
        or where it ends instead, for then it was dead before it was given anything.
        """
        used, self._used = self._used, False
        patience = min(patience, self._link.address.connect_timeout) if used else patience
        until = time.monotonic() + patience
        self._link.expires = until + 5
        while True:
            self._bell.rearm()
            ended = self._channel.closed or bool(self._channel.eof_received)
            self._drain()
            if frame := paired(self._out, self._err):
                return frame
            if ended:
                raise Lost("the shell that waited there has ended") if used else self._end()
            left = until - time.monotonic()
            if left <= 0:
                raise (Lost if used else Silent)(f"no answer for {duration(patience)}")
            if self._link.pulse_lost():
                raise Lost("the far end of the connection stopped answering")
            self._bell.wait(min(left, PULSE))

    def raw(self, patience: float) -> Iterator[bytes]:
        """Standard output from here to its end, unframed, in blocks; errors as with :meth:`next`."""
        until = time.monotonic() + patience
        while True:
            self._link.expires = until + 5
            self._bell.rearm()
            ended = self._channel.closed or bool(self._channel.eof_received)
            while self._channel.recv_stderr_ready():
                self._err.feed(self._channel.recv_stderr(READ))
            if self._channel.recv_ready():
                yield self._channel.recv(READ)
                until = time.monotonic() + patience
            elif ended:
                return
            elif time.monotonic() > until or self._link.pulse_lost():
                raise Silent(f"no answer for {duration(patience)}")
            else:
                self._bell.wait(PULSE)

    def _drain(self) -> None:
        while self._channel.recv_ready():
            self._out.feed(self._channel.recv(READ))
        while self._channel.recv_stderr_ready():
            self._err.feed(self._channel.recv_stderr(READ))

    def _end(self) -> Exception:
        """Output has ended; the exit code may come a moment later. −1 means that nobody knows, as a signal does."""
        self._channel.status_event.wait(5)
        code = self._channel.exit_status
        if code < 0 or 128 < code <= 128 + 64:
            return Lost("the connection or the command ended without an exit code of its own")
        said = (self._err.rest() or self._out.rest())[-2000:]
        return Ended(code, said.decode(errors="replace").strip())

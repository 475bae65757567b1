"""One SSH connection per host, opened when first needed, kept, and opened again when dead."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from runbook.hosts.address import Address
from runbook.hosts.login import Again, Unreachable, connection_errors, jumps, open_hop, quiet_paramiko, said
from runbook.hosts.pulse import Pulse

if TYPE_CHECKING:
    import paramiko

WINDOW = 4 * 1024 * 1024
"""What a host may send before we must have read it."""


class Link:
    """The connection to one host: opened when first needed, kept, reopened when dead.

    Used by one thread at a time, which holds ``lock``; only :meth:`drop` may be called by another. ``expires`` (of
    ``time.monotonic``) is when whoever watches this link should drop it, because the thread inside is stuck.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.lock = threading.Lock()
        self.expires = float("inf")
        self.lost: Callable[[str], None] = lambda _: None
        """Told when the host of a command that is under way does not answer any more."""
        self.forsaken: list[str] = []  # keys of commands whose start nobody could learn
        self._sockets: list[socket.socket] = []
        self._connections: list[Any] = []
        self._pulse: Pulse | None = None
        self._shell: tuple[str, paramiko.Channel] | None = None
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._begun: Future[None] | None = None
        self._cut = False

    def dial(self) -> None:
        """Begin to connect, while nobody needs it yet. What comes of it is told to whoever is the first to need it."""
        begun = self._begun = Future[None]()

        def work() -> None:
            try:
                self._dial()
                if self._cut:  # whoever cut it may have done so before there was anything to cut
                    self.drop()
                begun.set_result(None)
            except BaseException as error:  # it belongs to the caller's thread
                begun.set_exception(error)

        threading.Thread(target=work, name=f"dial-{self.address.name}", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Connected, as far as one can know without asking."""
        connections = self._connections  # another thread may drop them at any moment
        transport = connections[-1].transport if connections else None
        return bool(transport and transport.is_active() and not (self._pulse and self._pulse.stopped))

    def channel(self) -> paramiko.Channel:
        """A new session channel. Raises :class:`Unreachable`."""
        for attempt in (1, 2):
            fresh = not self._begun and not self.alive
            self._arrive()
            connections = self._connections
            if not connections:
                break
            try:
                channel: paramiko.Channel = connections[-1].transport.open_session(
                    window_size=WINDOW, timeout=self.address.connect_timeout
                )
            except connection_errors() as error:
                self.drop()
                # a kept connection may have died since; a new one may not
                if fresh or attempt == 2:
                    raise Unreachable(f"{self.address.label}: no session: {said(error)}") from error
            else:
                return channel
        raise Unreachable(f"{self.address.label}: the connection was cut while it was being made")

    def _arrive(self) -> None:
        """Be connected. What was begun ahead is waited for; where it failed some time ago, it is tried once more."""
        begun, self._begun = self._begun, None
        if begun:
            old = begun.done()
            try:
                begun.result()
            except Unreachable as error:
                if not old or error.again is Again.NEVER:
                    raise
        if not self.alive:
            self.drop()
            self._dial()

    def leave(self, command: str, channel: paramiko.Channel) -> None:
        """The shell ``command`` waits in this channel for its next script: one for each host, for all that is asked."""
        self._shell = command, channel

    def left(self, command: str) -> paramiko.Channel | None:
        """The channel in which the shell ``command`` waits, as far as one can know.

        Another command's shell is closed: a host may allow one session at a time (``MaxSessions``).
        """
        shell, self._shell = self._shell, None
        if not shell:
            return None
        started, channel = shell
        waits = not (channel.closed or channel.eof_received or channel.exit_status_ready())
        if started == command and waits and self.alive:
            return channel
        with contextlib.suppress(*connection_errors()):
            channel.close()
        return None

    def start(self, command: str) -> paramiko.Channel:
        """A new channel in which ``command`` was started. Raises :class:`Unreachable`; then nothing was."""
        channel = self.channel()
        try:
            channel.exec_command(command)
        except connection_errors() as error:
            self.drop()
            raise Unreachable(f"{self.address.label}: cannot start a shell: {said(error)}", Again.LATER) from error
        return channel

    def pulse_lost(self) -> bool:
        """The far end of a connection that has no socket of its own has stopped answering."""
        return bool(self._pulse and self._pulse.lost)

    def drop(self) -> None:
        """Cut the connection at once; whoever waits on it wakes up. Never blocks, and is safe from any thread."""
        self._cut = True
        if self._pulse:
            self._pulse.stop()
        for helper in self._helpers:
            helper.kill()
        sockets, self._sockets, self._connections, self._shell = self._sockets, [], [], None
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def helped(self, helper: subprocess.Popen[bytes]) -> Iterator[None]:
        """While a process works for this host, :meth:`drop` ends it too."""
        self._helpers.append(helper)
        try:
            yield
        finally:
            self._helpers.remove(helper)

    def _dial(self) -> None:
        """Connect, over the jump hosts if there are any."""
        quiet_paramiko()
        target, direct = self.address, True
        through: Any = None
        for hop in jumps(target):
            through = self._reach(target.hop(hop), through)
            direct = False
        connection = self._reach(target, through)
        if not direct or connection.proxied:
            self._pulse = Pulse(connection.transport)

    def _reach(self, address: Address, through: Any) -> Any:
        """Open one connection, trying again within its time where the server was only too busy."""
        until = time.monotonic() + address.connect_timeout
        pause = 0.1
        while True:
            try:
                connection = open_hop(address, through, until, self._sockets.append)
            except Unreachable as error:
                # spread out, so that hosts behind one jump do not all come back at once
                pause = min(1.0, pause * 1.7)
                rest = random.uniform(0.5, 1.0) * pause  # noqa: S311 - no secret depends on it
                if error.again is not Again.AT_ONCE or time.monotonic() + rest >= until:
                    raise
                time.sleep(rest)
            else:
                self._connections.append(connection)
                return connection


_DIALED: dict[Address, Link] = {}


def dial(address: Address) -> None:
    """Begin to connect to a host that somebody will soon have something to ask of."""
    _DIALED[address] = Link(address)
    _DIALED[address].dial()


def link_to(address: Address) -> Link:
    """The link to a host: the one that was dialed ahead, once, or a new one."""
    return _DIALED.pop(address, None) or Link(address)

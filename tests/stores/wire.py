"""The wire between us and a server: it can be listened to, and be cut in the middle of what it carries."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Wire:
    """A port of 127.0.0.1 that leads to another one."""

    def __init__(self, port: int) -> None:
        self._to, self.port = port, 0
        self.sent = bytearray()
        """What went to the server, of all connections."""
        self.cut_up: int | None = None
        """Bytes to the server after which all connections are broken, and none is taken any more."""
        self.cut_down: int | None = None
        """Bytes from the server, likewise."""
        self.breaks = 0
        """So many times more are connections broken after ``cut_down`` bytes; then the wire is whole."""
        self._up = self._down = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.dead = False

    def serve(self, listening: socket.socket) -> None:
        """Until the socket is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                if self.dead:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                for one, other, up in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._carry, args=(one, other, up), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._cut(data, up):
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _cut(self, data: bytes, up: bool) -> bool:
        with self._lock:
            if up:
                self.sent += data[: 1 << 16] if len(self.sent) < 1 << 22 else b""
                self._up += len(data)
            else:
                self._down += len(data)
            if not up and self.breaks and self.cut_down is not None and self._down > self.cut_down:
                self.breaks, self._down = self.breaks - 1, 0
                return True
            too_much = (self.cut_up is not None and self._up > self.cut_up) or (
                self.cut_down is not None and self._down > self.cut_down and not self.breaks and self._final
            )
            self.dead = self.dead or too_much
            return self.dead

    _final = True

    def broken_times(self, times: int, after: int) -> None:
        """Break a connection so many times, each after that many bytes from the server; and never again."""
        self.breaks, self.cut_down, self._final = times, after, False

    def close(self) -> None:
        """All connections."""
        for one in self._open:
            one.close()


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """One that leads to this port."""
    one = Wire(port)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one.port = int(listening.getsockname()[1])
        thread = threading.Thread(target=one.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield one
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            one.close()

"""A heartbeat for connections whose end the kernel cannot see: through a jump host or a ``ProxyCommand``."""

from __future__ import annotations

import threading
import time
from typing import Any

EVERY = 2.0
LIMIT = 7.0


class Pulse:
    """Asks the far sshd for an answer every two seconds; paramiko's own keepalive ignores whether one comes."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._answered = time.monotonic()
        self._halt = threading.Event()
        threading.Thread(target=self._beat, name="ssh-pulse", daemon=True).start()

    @property
    def lost(self) -> bool:
        """No answer for seven seconds."""
        return time.monotonic() - self._answered > LIMIT

    @property
    def stopped(self) -> bool:
        """The link is gone, or is to be thought so."""
        return self._halt.is_set() or self.lost

    def stop(self) -> None:
        """Ask no more."""
        self._halt.set()

    def _beat(self) -> None:
        while not self._halt.wait(EVERY) and self._transport.is_active():
            try:
                # any answer will do, and "no such request" is the usual one
                self._transport.global_request("keepalive@openssh.com", wait=True)
            except Exception:  # noqa: S112 - the transport ended meanwhile; is_active says so
                continue
            if self._transport.is_active():
                self._answered = time.monotonic()

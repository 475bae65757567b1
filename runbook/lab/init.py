"""The first process of a lab's host: a stand-in for systemd (services) and containerd (containers).

It listens on a socket for requests of one JSON line each (from `systemctl`, `crictl` and the kubelet), reaps every
process, and never does anything slow itself.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from runbook.lab import kernel
from runbook.lab.runtime import Runtime
from runbook.lab.wire import RUNNING, SOCKET

SERVICES = {
    "kubelet": ["/opt/runbook-lab/bin/kubelet"],
    "ssh": ["/usr/sbin/sshd", "-D", "-E", "/var/log/sshd.log"],
}
ALIASES = {"sshd": "ssh"}
Json = dict[str, Any]


class Service:
    """A program that runs until it is stopped, and is started again when it ends by itself."""

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name, self.argv = name, argv
        self.pid = 0
        self.wanted = False
        self.since = time.time()
        self.start_at = 0.0  # monotonic; systemd's RestartSec

    def start(self) -> None:
        """Start it where it does not run."""
        self.wanted = True
        if self.pid:
            return
        self.since = time.time()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                signal.set_wakeup_fd(-1)
                log = os.open(f"/var/log/{self.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.execvpe(self.argv[0], self.argv, dict(os.environ))  # noqa: S606 - no shell is meant
            finally:
                os._exit(203)

    def stop(self) -> None:
        """Ask it to end. Only its main process: containers and sessions go on, as under KillMode=process."""
        self.wanted = False
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)

    def ended(self) -> None:
        """It has ended; start it again a little later where it should run."""
        self.pid, self.since = 0, time.time()
        self.start_at = time.monotonic() + 1.0


class Init:
    """The event loop."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.services = {name: Service(name, argv) for name, argv in SERVICES.items() if os.path.exists(argv[0])}
        self.waiting: list[tuple[Callable[[], bool], socket.socket, Json]] = []
        self.clients: dict[int, tuple[socket.socket, bytes]] = {}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.listener.bind(SOCKET)
        os.chmod(SOCKET, 0o666)  # noqa: S103 - anyone may ask whether a service is active; systemctl checks the rest
        self.listener.listen(64)
        self.wake, wake_write = socket.socketpair()
        for end in (self.wake, wake_write):
            end.setblocking(False)
        self.wake_write = wake_write  # kept: closing it would deafen the loop
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """For ever."""
        for service in self.services.values():
            service.start()
        while True:
            readable, _, _ = select.select(
                [self.listener, self.wake, *(c for c, _ in self.clients.values())], [], [], self._nap()
            )
            for ready in readable:
                if ready is self.listener:
                    client = self.listener.accept()[0]
                    client.setblocking(False)
                    self.clients[client.fileno()] = (client, b"")
                elif ready is self.wake:
                    self.wake.recv(4096)
                else:
                    self._read(ready)
            self._reap()
            self._start_due()
            self._answer_waiting()

    def _nap(self) -> float | None:
        naps = [nap for nap in [self.runtime.kill_overdue()] if nap is not None]
        now = time.monotonic()
        naps += [max(0.0, s.start_at - now) for s in self.services.values() if s.wanted and not s.pid]
        return min(naps) if naps else None

    def _start_due(self) -> None:
        now = time.monotonic()
        for service in self.services.values():
            if service.wanted and not service.pid and service.start_at <= now:
                service.start()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self.services.values():
                if service.pid == pid:
                    service.ended()
            self.runtime.ended(pid, status)

    def _read(self, client: socket.socket) -> None:
        key = client.fileno()
        try:
            data = client.recv(1 << 20)
        except OSError:
            data = b""
        so_far = self.clients[key][1] + data
        if not data or so_far.endswith(b"\n"):
            del self.clients[key]
            if so_far.endswith(b"\n"):
                self._serve(client, so_far)
            else:
                client.close()
        else:
            self.clients[key] = (client, so_far)

    def _serve(self, client: socket.socket, line: bytes) -> None:
        try:
            request = json.loads(line)
            until, answer = getattr(self, f"do_{request['op']}")(request)
        except Exception as error:
            until, answer = None, {"error": f"{type(error).__name__}: {error}"}
        if until is None:
            _reply(client, answer)
        else:
            self.waiting.append((until, client, answer))

    def _answer_waiting(self) -> None:
        still = []
        for until, client, answer in self.waiting:
            if until():
                _reply(client, answer)
            else:
                still.append((until, client, answer))
        self.waiting = still

    def do_start(self, request: Json) -> tuple[None, Json]:
        """Start a container."""
        ident = self.runtime.start(request["pod"], request["container"], request["attempt"], request["sandbox"])
        return None, {"id": ident}

    def do_sandbox(self, request: Json) -> tuple[None, Json]:
        """Make a pod's sandbox."""
        return None, {"id": self.runtime.run_sandbox(request["pod"], request["attempt"])}

    def do_stopp(self, request: Json) -> tuple[Callable[[], bool], Json]:
        """Stop a sandbox, and at once whatever runs in it; the answer comes when that has ended."""
        ident = request["id"]
        self.runtime.kill_inside(ident)
        return lambda: self.runtime.stop_sandbox(ident), {"id": ident}

    def do_rmp(self, request: Json) -> tuple[None, Json]:
        """Forget a sandbox that was stopped."""
        self.runtime.remove_sandbox(request["id"])
        return None, {"id": request["id"]}

    def do_stop(self, request: Json) -> tuple[Callable[[], bool] | None, Json]:
        """Stop a container; with `wait`, the answer comes when it has ended."""
        ident = request["id"]
        self.runtime.stop(ident, float(request["grace"]))
        if not request.get("wait"):
            return None, {"id": ident}
        return lambda: self.runtime.containers.get(ident, {}).get("state") != RUNNING, {"id": ident}

    def do_remove(self, request: Json) -> tuple[None, Json]:
        """Forget an ended container."""
        self.runtime.remove(request["id"])
        return None, {"id": request["id"]}

    def do_service(self, request: Json) -> tuple[Callable[[], bool] | None, Json]:
        """Systemctl's start, stop, restart, show; the answer comes when it is done."""
        name = request["name"].removesuffix(".service")
        service = self.services.get(ALIASES.get(name, name))
        if service is None:
            return None, {"unknown": True}
        answer: Json = {"name": service.name, "pid": service.pid, "wanted": service.wanted, "since": service.since}
        verb, old = request["verb"], service.pid
        if verb == "stop":
            service.stop()
            return lambda: not service.pid, answer
        if verb == "restart":
            service.stop()
            service.wanted, service.start_at = True, 0.0

            def restarted() -> bool:
                if service.pid == 0:
                    service.start()
                return service.pid != old

            return restarted, answer
        if verb == "start":
            service.start()
        return None, answer


def _reply(client: socket.socket, answer: Json) -> None:
    try:
        client.setblocking(True)
        client.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        pass  # who asked is gone
    finally:
        client.close()


def main(argv: list[str]) -> int:
    """Become the host."""
    kernel.set_process_name("init")
    os.makedirs("/run/runbook-lab/roots", mode=0o700, exist_ok=True)
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    os.makedirs("/run/lock", mode=0o1777, exist_ok=True)
    Init().run()
    return len(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

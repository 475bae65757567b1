"""Object stores on this machine, real servers on free ports of 127.0.0.1, for tests and benches.

``python -m tests.stores.servers s3|az|gs [DIRECTORY]`` runs one with a bucket named ``snapshots`` until Ctrl-C, and
prints what to set to use it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from runbook.backup import Place
from tests.stores import building, signing

BUCKET = "snapshots"
_UP = 30.0
"""Seconds within which a server answers; Azurite takes two, on a busy machine many more."""


class Server(ABC):
    """One server: ``env`` is what gives access to it; ``url`` the scheme and bucket; ``endpoint`` the server's own."""

    scheme: str
    env: dict[str, str]
    proves_keys = True
    """Whether it looks at who asks."""
    keeps = True
    """Whether what it has outlives its process."""

    def __init__(self, room: Path) -> None:
        self.room, self.port = room, free_port()
        self._running: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def commands(self) -> list[list[str]]:
        """What it consists of."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def place(self, prefix: str = "", bucket: str = BUCKET) -> Place:
        """A place in it, as a plan says it."""
        return Place(f"{self.scheme}://{bucket}{'/' if prefix else ''}{prefix}", endpoint=self.endpoint)

    def start(self) -> None:
        """And wait until it answers."""
        for number, argv in enumerate(self.commands()):
            with (self.room / f"{self.scheme}-{number}.log").open("ab") as log:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.settings()}
                )
            self._running.append(process)
        until = time.monotonic() + _UP
        while not self._answers():
            if time.monotonic() > until or any(process.poll() is not None for process in self._running):
                said = b"".join(path.read_bytes() for path in self.room.glob(f"{self.scheme}-*.log"))
                self.kill()
                raise RuntimeError(f"{self.scheme} server does not start: {said[-600:]!r}")
            time.sleep(0.05)

    def settings(self) -> dict[str, str]:
        """Of its own environment."""
        return {}

    def _answers(self) -> bool:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(link):
            link.request("GET", "/")
            link.getresponse().read()
            return True
        return False

    def kill(self) -> None:
        """At once, as by a power cut."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(30)
        self._running = []

    def stop(self) -> None:
        """In order: it may write down what it has."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(30)
        self._running = []

    def freeze(self, frozen: bool = True) -> None:
        """Let it say nothing more, or go on."""
        for process in self._running:
            process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    @abstractmethod
    def make_bucket(self, name: str = BUCKET) -> None:
        """An empty one."""

    @abstractmethod
    def put(self, key: str, data: bytes, bucket: str = BUCKET) -> None:
        """An object of whatever name, as another program would."""

    @abstractmethod
    def unfinished(self, bucket: str = BUCKET) -> list[str]:
        """Keys of uploads that were begun, and neither finished nor given up."""


class S3(Server):
    """versitygw on a directory; moto where there is no Go."""

    scheme = "s3"

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self.program = building.s3_program()
        self.keys = ("AKIDRUNBOOKTEST", "secret-of-the-tests-0123456789")
        self.env = {"AWS_ACCESS_KEY_ID": self.keys[0], "AWS_SECRET_ACCESS_KEY": self.keys[1]}
        self.proves_keys = self.keeps = "versitygw" in self.program[0]

    def commands(self) -> list[list[str]]:
        if not self.proves_keys:
            return [[*self.program, "-H", "127.0.0.1", "-p", str(self.port)]]
        (self.room / "s3").mkdir(exist_ok=True)
        own = ["--port", f"127.0.0.1:{self.port}", "--keep-alive", "--quiet"]
        return [[*self.program, *own, "posix", str(self.room / "s3")]]

    def settings(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY": self.keys[0], "ROOT_SECRET_KEY": self.keys[1]}

    def make_bucket(self, name: str = BUCKET) -> None:
        signing.s3(self.port, self.keys, "PUT", f"/{name}")

    def put(self, key: str, data: bytes, bucket: str = BUCKET) -> None:
        signing.s3(self.port, self.keys, "PUT", f"/{bucket}/{key}", body=data)

    def unfinished(self, bucket: str = BUCKET) -> list[str]:
        said = signing.s3(self.port, self.keys, "GET", f"/{bucket}", "uploads=").decode()
        return re.findall(r"<Upload>.*?<Key>(.*?)</Key>", said, re.DOTALL)


class Azure(Server):
    """Azurite, with the account that is in its documentation."""

    scheme = "az"
    account = (
        "devstoreaccount1",
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    )

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self.program = building.azurite()
        self.env = dict(zip(("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"), self.account, strict=True))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.account[0]}"

    def commands(self) -> list[list[str]]:
        own = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self.room / "az")]
        # It would tell its maker of its use, and refuse a client that is newer than itself.
        return [[*self.program, *own, "--silent", "--disableTelemetry", "--skipApiVersionCheck"]]

    def make_bucket(self, name: str = BUCKET) -> None:
        signing.azure(self.port, self.account, "PUT", f"/{name}", {"restype": "container"})

    def put(self, key: str, data: bytes, bucket: str = BUCKET) -> None:
        signing.azure(self.port, self.account, "PUT", f"/{bucket}/{key}", {}, data)

    def unfinished(self, bucket: str = BUCKET) -> list[str]:
        """Azure knows of none: parts that were not put together are no blob, and go by themselves after a week."""
        return []


class GCS(Server):
    """fake-gcs-server, with the part of the XML interface that it lacks in front of it."""

    scheme = "gs"
    proves_keys = False

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self.program, self.behind, self.env = building.go_program("fake-gcs-server"), free_port(), {}

    def commands(self) -> list[list[str]]:
        where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(self.behind)]
        where += ["-public-host", f"127.0.0.1:{self.behind}", "-filesystem-root", str(self.room / "gs")]
        front = [sys.executable, "-m", "tests.stores.gcsfront", str(self.port), str(self.behind)]
        return [[str(self.program), *where, "-log-level", "error"], [*front, str(self.room / "parts")]]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.behind), 1).close()
            return super()._answers()
        return False

    def make_bucket(self, name: str = BUCKET) -> None:
        body = f'{{"name": "{name}"}}'.encode()
        signing.asked(self.behind, "POST", "/storage/v1/b", "project=p", {"Content-Type": "application/json"}, body)

    def put(self, key: str, data: bytes, bucket: str = BUCKET) -> None:
        query = f"uploadType=media&name={quote(key, safe='')}"
        signing.asked(self.behind, "POST", f"/upload/storage/v1/b/{bucket}/o", query, {}, data)

    def unfinished(self, bucket: str = BUCKET) -> list[str]:
        said = signing.asked(self.port, "GET", f"/{bucket}", "uploads", {}).decode()
        return re.findall(r"<Key>(.*?)</Key>", said)


KINDS: dict[str, type[Server]] = {"s3": S3, "az": Azure, "gs": GCS}


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextmanager
def running(scheme: str, room: Path) -> Iterator[Server]:
    """A server with an empty bucket, ended at the end. Raises Missing where it cannot be had here."""
    server = KINDS[scheme](room)
    server.start()
    try:
        server.make_bucket()
        yield server
    finally:
        server.kill()


def main() -> None:
    """Run one until Ctrl-C."""
    scheme = sys.argv[1] if len(sys.argv) > 1 else ""
    if scheme not in KINDS:
        raise SystemExit(f"usage: python -m tests.stores.servers {'|'.join(KINDS)} [DIRECTORY]")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job would ignore the first
        signal.signal(number, signal.default_int_handler)
    own = len(sys.argv) < 3
    room = Path(tempfile.mkdtemp(prefix="runbook-store-") if own else sys.argv[2])
    room.mkdir(exist_ok=True)
    try:
        with running(scheme, room) as server:
            for name, value in server.env.items():
                print(f"export {name}={shlex.quote(value)}")
            print(f"# store: {{url: {server.place('prod-eu1').url}, endpoint: {server.endpoint}}}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    signal.pause()
    finally:
        if own:
            shutil.rmtree(room, ignore_errors=True)


if __name__ == "__main__":
    main()

"""Reading a snapshot's content, measured: our reader of the file, against a throwaway etcd on a restored copy.

Run: `python -m tests.bench.reading [SIZE …]`, in MB; 300 and 2000 where none is given. Below /var/tmp some four times
the largest is needed. A size is 300,000 objects of a kilobyte at most, as a whole cluster's, and values of a mebibyte
for the rest; `2000s` is of small objects alone. Both ways count all keys by kind. The second is `etcdutl snapshot
restore`, an etcd started on that, and all keys, without their values, asked of it in pages; its memory is that of the
larger program. Both find the file in the page cache, for its hash was computed before.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbook.lab import toolchain
from runbook.lab.etcdkv import b64
from runbook.snapshots.content import Content, kind_of

OBJECTS = 300_000
BATCH = 1000
PAGE = 4000
KINDS = ("pods", "secrets", "configmaps", "events", "cert-manager.io/certificates")
GOAL_RSS = 200


@dataclass
class Etcd:
    """A throwaway etcd on the loopback."""

    process: subprocess.Popen[bytes]
    port: int

    def call(self, path: str, body: dict[str, Any], link: http.client.HTTPConnection | None = None) -> dict[str, Any]:
        """One request to its JSON gateway."""
        link = link or http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        link.request("POST", path, json.dumps(body))
        answer = link.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"etcd: {said[:300]!r}")
        value: dict[str, Any] = json.loads(said)
        return value

    def counted(self) -> tuple[int, Counter[str]]:
        """All keys, by kind, at one revision."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        kinds: Counter[str] = Counter()
        at, body = b"/", {"range_end": b64(b"0"), "limit": PAGE, "keys_only": True, "serializable": True}
        while True:
            answer = self.call("/v3/kv/range", body | {"key": b64(at)}, link)
            keys = [base64.b64decode(kv["key"]) for kv in answer.get("kvs", [])]
            kinds.update(map(kind_of, keys))
            if not answer.get("more"):
                return sum(kinds.values()), kinds
            at = keys[-1] + b"\0"
            body["revision"] = answer["header"]["revision"]


@contextmanager
def etcd(data: Path, log: Path) -> Iterator[Etcd]:
    """Started on this directory, and serving."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        client, peer = (int(s.getsockname()[1]) for s in sockets)
    urls = {"client": f"http://127.0.0.1:{client}", "peer": f"http://127.0.0.1:{peer}"}
    argv = [str(toolchain.ensure().programs["etcd"]), "--data-dir", str(data), "--name=m1", "--unsafe-no-fsync"]
    argv += [f"--listen-{what}-urls={url}" for what, url in urls.items()]
    argv += [f"--advertise-client-urls={urls['client']}", f"--initial-advertise-peer-urls={urls['peer']}"]
    argv += [f"--initial-cluster=m1={urls['peer']}", "--quota-backend-bytes=8589934592", "--max-txn-ops=100000"]
    argv += ["--max-request-bytes=104857600", "--snapshot-count=100000", "--log-level=error"]
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file)
    one = Etcd(process, client)
    try:
        for _ in range(1200):
            try:
                one.call("/v3/maintenance/status", {})
                break
            except OSError:
                time.sleep(0.05)
        yield one
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def filled(one: Etcd, mb: int, small: bool) -> None:
    """Objects, in transactions of many; then ballast."""
    objects = mb * 1000 if small else min(OBJECTS, mb * 800)
    numbers = iter(range(0, objects, BATCH))
    ballast = iter(range(0 if small else max(0, mb - objects * 1250 // 1_000_000)))

    def writer() -> None:
        link = http.client.HTTPConnection("127.0.0.1", one.port, timeout=120)
        for start in numbers:
            puts = []
            for i in range(start, start + BATCH):
                key = f"/registry/{KINDS[i % len(KINDS)]}/team-{i % 40:02d}/object-{i:07d}".encode()
                puts.append({"request_put": {"key": b64(key), "value": b64(os.urandom(900))}})
            one.call("/v3/kv/txn", {"success": puts}, link)
        for i in ballast:
            key = f"/registry/lab.runbook/ballast/{i:06d}".encode()
            one.call("/v3/kv/put", {"key": b64(key), "value": b64(os.urandom(1 << 20))}, link)

    lock = threading.Lock()
    numbers, ballast = locked(numbers, lock), locked(ballast, lock)
    threads = [threading.Thread(target=writer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def locked(numbers: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    """An iterator for several threads."""
    return iter(lambda: _next(numbers, lock), -1)


def _next(numbers: Iterator[int], lock: threading.Lock) -> int:
    with lock:
        return next(numbers, -1)


def waited(process: subprocess.Popen[Any]) -> float:
    """The peak memory of a program that has been told to end, in MB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1024


def by_reader(path: Path) -> tuple[float, float, int]:
    """Seconds, MB, keys."""
    begun = time.monotonic()
    argv = [sys.executable, "-m", "runbook.snapshots.content"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    with process.stdin, process.stdout:
        process.stdin.write(json.dumps({"path": str(path), "wanted": [], "parent": os.getpid()}))
        process.stdin.close()
        said = process.stdout.read()
    memory = waited(process)
    return time.monotonic() - begun, memory, Content.from_json(said).keys


def by_etcd(path: Path, room: Path) -> tuple[float, float, int]:
    """Seconds, MB, keys."""
    begun = time.monotonic()
    data = room / "restored"
    argv = [str(toolchain.ensure().programs["etcdutl"]), "snapshot", "restore", str(path), "--data-dir", str(data)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory = waited(process)
    with etcd(data, room / "log") as one:
        keys, _ = one.counted()
        one.process.terminate()
        memory = max(memory, waited(one.process))
        took = time.monotonic() - begun
    shutil.rmtree(data)
    return took, memory, keys


def main() -> None:
    """Prints a table; exit code 1 where the reader takes more memory than it may, or the two disagree."""
    sizes = sys.argv[1:] or ["300", "2000"]
    rows: list[tuple[str, ...]] = [("snapshot", "keys", "reader", "memory", "etcd", "memory", "keys/s")]
    bad = False
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="runbook-reading-") as name:
        room = Path(name)
        for size in sizes:
            path = room / "snapshot.db"
            with etcd(room / "etcd", room / "log") as one:
                filled(one, int(size.rstrip("s")), size.endswith("s"))
                save = [str(toolchain.ensure().programs["etcdctl"]), f"--endpoints=127.0.0.1:{one.port}"]
                subprocess.run(
                    [*save, "--command-timeout=600s", "snapshot", "save", path], check=True, capture_output=True
                )
            shutil.rmtree(room / "etcd")
            subprocess.run(["sha256sum", path], check=True, stdout=subprocess.DEVNULL)
            ours, theirs = by_reader(path), by_etcd(path, room)
            bad |= ours[1] > GOAL_RSS or ours[2] != theirs[2]
            told = [f"{way[0]:.1f} s" if i == 0 else f"{way[1]:.0f} MB" for way in (ours, theirs) for i in (0, 1)]
            rows.append((f"{path.stat().st_size / 1e6:.0f} MB", f"{ours[2]:,}", *told, f"{ours[2] / ours[0]:,.0f}"))
            path.unlink()
    for row in rows:
        print("  ".join(f"{cell:>10}" for cell in row))
    sys.exit(bad)


if __name__ == "__main__":
    main()

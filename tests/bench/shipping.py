"""A snapshot's way into a bucket, measured: our pipe, against `cat | zstd -1 | age | curl` to the same server.

Run: `python -m tests.bench.shipping [MIB] [ROUNDS]`; 1024 and 3 where none is given. Below /var/tmp some three times
the size is needed. The server is the tests' S3 server. Both ways take turns, and what counts is the ratio within one
run. The data is like a snapshot's: records of readable keys and fields, half of whose bytes are random. Ours also
hashes what it reads and what it stores, signs each part with its own hash, and knows at the end that all is there;
the other way has one request, made beforehand, with the size that its pipe is known to give.

Exit code 1 where ours is slower than GOAL allows, or takes more memory.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from runbook.backup import Place
from runbook.lab.errors import Missing
from tests.stores import building
from tests.stores.servers import BUCKET, running

GOAL = 0.6
"""Of the other way's throughput, at least."""
GOAL_MB = 150
_RECORD = 4096


def filled(path: Path, mib: int) -> None:
    """Records as etcd has them, of which half is random."""
    kinds = ("pods", "secrets", "configmaps", "events", "leases")
    with path.open("wb") as file:
        for block in range(mib):
            rows = bytearray()
            for number in range((1 << 20) // _RECORD):
                at = block * 256 + number
                key = f"/registry/{kinds[at % 5]}/team-{at % 40:02d}/object-{at:09d}".encode()
                text = f'{{"kind":"{kinds[at % 5]}","uid":"{at * 2654435761 % 2**32:08x}","phase":"Running"}}'.encode()
                head = b"\x0a" + bytes([len(key)]) + key + b"\x10\x01\x18" + at.to_bytes(8, "little") + text
                rows += head + b"\0" * (_RECORD // 2 - len(head)) + os.urandom(_RECORD // 2)
            file.write(rows)


def pieces(path: Path) -> Iterator[bytes]:
    """As they come from a host."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            yield piece


def ours(path: Path, url: str, endpoint: str, key: str, name: str) -> None:
    """In a process of its own, which says what memory it took."""
    from runbook.snapshots.sealing import Sealed
    from runbook.snapshots.store_objects import Objects

    sealed = Sealed(pieces(path), [key])
    Objects(Place(url, endpoint=endpoint)).write(name, sealed)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak
    print(sealed.stored.size, int(peak[1]) // 1024)


class Run:
    """Both ways to the same server, with the same key."""

    def __init__(self, path: Path, place: Place, age: Path) -> None:
        import pyrage

        self.path, self.place, self.age = path, place, age
        self.key = str(pyrage.x25519.Identity.generate().to_public())
        pipe = f"cat {path} | zstd -1 -q | {age} -r {self.key} | wc -c"
        self.size = int(subprocess.run(["bash", "-c", pipe], check=True, capture_output=True).stdout)

    def signed(self, name: str) -> str:
        """A URL that takes one PUT, of whatever content."""
        import obstore
        from obstore.store import S3Store

        store = S3Store(BUCKET, endpoint=self.place.endpoint, client_options={"allow_http": True}, region="us-east-1")
        return obstore.sign(store, "PUT", name, timedelta(hours=1))

    def theirs(self) -> float:
        """Seconds."""
        url = self.signed("theirs")
        curl = f"curl -sS --fail-with-body -T - -H 'Content-Length: {self.size}' -H 'Transfer-Encoding:' '{url}'"
        pipe = f"set -o pipefail; cat {self.path} | zstd -1 -q | {self.age} -r {self.key} | {curl}"
        begun = time.monotonic()
        subprocess.run(["bash", "-c", pipe], check=True)
        return time.monotonic() - begun

    def ours(self) -> tuple[float, int]:
        """Seconds, and MB at most; the start of Python and of all that is imported is in both."""
        argv = [sys.executable, "-m", "tests.bench.shipping", "--ours", str(self.path), self.place.url]
        begun = time.monotonic()
        done = subprocess.run(
            [*argv, self.place.endpoint, self.key, f"ours-{begun}"], check=True, capture_output=True, text=True
        )
        took = time.monotonic() - begun
        size, peak = map(int, done.stdout.split())
        assert abs(size - self.size) < self.size // 50, (size, self.size)
        return took, peak


def main() -> None:
    """Prints a line a round, and the ratio."""
    if sys.argv[1:2] == ["--ours"]:
        return ours(Path(sys.argv[2]), *sys.argv[3:7])
    mib, rounds = (
        (int(text) for text in [*sys.argv[1:3], "1024", "3"][:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 3)
    )
    try:
        age = building.go_program("age")
    except Missing as missing:
        raise SystemExit(f"shipping: not measured: {missing}") from None
    for name in ("zstd", "curl"):
        if not shutil.which(name):
            raise SystemExit(f"shipping: not measured: {name} is not on PATH (Debian: apt-get install {name})")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="runbook-shipping-") as room:
        path = Path(room, "snapshot.db")
        filled(path, mib)
        with running("s3", Path(room)) as server:
            os.environ.update(server.env)
            run = Run(path, server.place("bench"), age)
            print(f"{mib} MiB, {run.size / mib / (1 << 20):.2f} of it once compressed")
            other, own, peaks = [], [], []
            for _ in range(rounds):
                other.append(run.theirs())
                took, peak = run.ours()
                own.append(took)
                peaks.append(peak)
                print(f"cat | zstd -1 | age | curl: {other[-1]:.2f} s; ours: {took:.2f} s, {peak} MB")
    ratio = statistics.median(other) / statistics.median(own)
    print(f"ours has {ratio:.2f} of its throughput (at least {GOAL}), and {max(peaks)} MB (at most {GOAL_MB})")
    sys.exit(ratio < GOAL or max(peaks) > GOAL_MB)


if __name__ == "__main__":
    main()

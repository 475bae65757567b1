"""A snapshot's way into a bucket, measured: our pipe, against `cat | zstd -1 | age | curl` to the same server.

Run: `python -m tests.bench.shipping [MIB] [ROUNDS]`; 1024 and 3 where none is given. Below /var/tmp some three times
the size is needed. The server is the tests' S3 server. Both ways take turns, and what counts is the ratio within one
run. The data is like a snapshot's: records of readable keys and fields, half of whose bytes are random. Ours also
hashes what it reads and what it stores, signs each part with its own hash, and knows at the end that all is there;
the other way has one request, made beforehand, with the size that its pipe is known to give.

With `--over-ssh` as the last word, the file lies on a host of a lab, and both ways fetch it from there: `ssh m1 cat` in
`cat`'s place, and the connection of `snapshot save`.

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
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import yaml

from runbook.backup import Place
from runbook.lab import Lab
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


def fetched(path: Path, lab: str) -> Iterator[bytes]:
    """From the first host of that lab, as `snapshot save` has it."""
    from runbook.hosts.address import Address
    from runbook.hosts.connection import Link
    from runbook.hosts.transfer import NodeFile
    from runbook.plan import Ssh

    there = Lab(lab)
    ssh = Ssh(identity_file=there.identity, known_hosts_file=there.known_hosts)
    source = NodeFile(Link(Address.to("m1", there.nodes[0].ip, ssh)), str(path))
    source.open()
    yield from source.chunks(1 << 20)
    source.close()


def ours(path: Path, url: str, endpoint: str, key: str, name: str, lab: str = "") -> None:
    """In a process of its own, which says what memory it took."""
    from runbook.snapshots.sealing import Sealed
    from runbook.snapshots.store_objects import Objects

    sealed = Sealed(fetched(path, lab) if lab else pieces(path), [key])
    Objects(Place(url, endpoint=endpoint)).write(name, sealed)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak
    print(sealed.stored.size, int(peak[1]) // 1024)


class Run:
    """Both ways to the same server, with the same key."""

    def __init__(self, path: Path, place: Place, age: Path, lab: Lab | None = None) -> None:
        import pyrage

        self.path, self.place, self.age, self.lab = path, place, age, lab
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
        cat = f"ssh -F {self.lab.ssh_config} m1 cat {self.path}" if self.lab else f"cat {self.path}"
        pipe = f"set -o pipefail; {cat} | zstd -1 -q | {self.age} -r {self.key} | {curl}"
        begun = time.monotonic()
        self.done(["bash", "-c", pipe])
        return time.monotonic() - begun

    def done(self, argv: list[str]) -> str:
        """What it prints, run where the server is."""
        start = self.lab.popen_operator if self.lab else subprocess.Popen
        process = start(argv, stdout=subprocess.PIPE)
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{argv[0]}: exit {process.returncode}")
        return str(said.decode())

    def ours(self) -> tuple[float, int]:
        """Seconds, and MB at most; the start of Python and of all that is imported is in both."""
        argv = [sys.executable, "-m", "tests.bench.shipping", "--ours", str(self.path), self.place.url]
        begun = time.monotonic()
        said = self.done([*argv, self.place.endpoint, self.key, f"ours-{begun}", self.lab.name if self.lab else ""])
        took = time.monotonic() - begun
        size, peak = map(int, said.split())
        assert abs(size - self.size) < self.size // 50, (size, self.size)
        return took, peak


def local(stack: ExitStack, path: Path, room: Path, age: Path) -> Run:
    """The file and the server are this machine's."""
    server = stack.enter_context(running("s3", room))
    os.environ.update(server.env)
    return Run(path, server.place("bench"), age)


def over(stack: ExitStack, path: Path, room: Path, age: Path) -> Run:
    """The file is on a host of a lab, and the server in its operator's network."""
    lab = Lab.up("shipping", nodes=1)
    stack.callback(lab.down)
    there = Path("/var/lib/snapshot.db")
    with path.open("rb") as file:
        subprocess.run(lab.argv("m1", ["sh", "-c", f"cat > {there}"]), stdin=file, check=True)
    argv = [sys.executable, "-m", "tests.stores.servers", "s3", str(room / "server")]
    server = lab.popen_operator(argv, stdout=subprocess.PIPE)
    stack.callback(server.communicate)
    stack.callback(server.terminate)
    assert server.stdout
    for line in iter(server.stdout.readline, b""):
        word, _, rest = line.decode().strip().partition(" ")
        if word != "export":
            break
        name, _, value = rest.partition("=")
        os.environ[name] = value.strip("'")
    place = yaml.safe_load(rest)["store"]
    run = Run(path, Place(place["url"], endpoint=place["endpoint"]), age, lab)
    run.path = there
    return run


def main() -> None:
    """Prints a line a round, and the ratio."""
    if sys.argv[1:2] == ["--ours"]:
        return ours(Path(sys.argv[2]), *sys.argv[3:8])
    over_ssh = sys.argv[-1] == "--over-ssh"
    numbers = [int(text) for text in sys.argv[1:] if text.isdecimal()]
    mib, rounds = [*numbers, 1024, 3][:2] if len(numbers) != 1 else (numbers[0], 3)
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
        with ExitStack() as stack:
            run = over(stack, path, Path(room), age) if over_ssh else local(stack, path, Path(room), age)
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

"""Real snapshots of a real etcd: what we say of them is what ``etcdutl`` says."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbook.snapshots.content import Content, kind_of, read
from runbook.snapshots.integrity import SnapshotDamaged, inspect_file

pytestmark = pytest.mark.lab


@dataclass
class Etcd:
    """One etcd on the loopback, with its programs."""

    programs: dict[str, Path]
    data: Path
    url: str
    process: subprocess.Popen[bytes]

    def ctl(self, *argv: str) -> str:
        env = {**os.environ, "ETCDCTL_API": "3"}
        words = [str(self.programs["etcdctl"]), "--endpoints", self.url, *argv]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=60).stdout

    def utl(self, *argv: str) -> str:
        words = [str(self.programs["etcdutl"]), *argv]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    def snapshot(self, path: Path) -> Path:
        self.ctl("snapshot", "save", str(path))
        return path

    def status(self, path: Path) -> int:
        return int(json.loads(self.utl("snapshot", "status", "-w", "json", str(path)))["revision"])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(s.getsockname()[1]) for s in sockets]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    from runbook.lab import toolchain

    programs = toolchain.ensure().programs
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    data = tmp_path / "etcd"
    argv = [str(programs["etcd"]), "--data-dir", str(data), "--name", "m1"]
    argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"m1={peer}", "--log-level", "error"]
    argv += ["--unsafe-no-fsync"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    one = Etcd(programs, data, client, process)
    try:
        for _ in range(100):
            try:
                one.ctl("endpoint", "health")
                break
            except subprocess.CalledProcessError:
                time.sleep(0.1)
        yield one
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def test_an_empty_one(etcd: Etcd, tmp_path: Path) -> None:
    path = etcd.snapshot(tmp_path / "empty.db")
    assert inspect_file(path).revision == etcd.status(path)


def test_as_it_grows(etcd: Etcd, tmp_path: Path) -> None:
    """Many keys, large values, deletions, a compaction: after each, our figure is etcdutl's."""
    big = tmp_path / "big"
    big.write_text("x" * 1_000_000)
    seen: list[int] = []
    for turn in range(4):
        for n in range(25):
            etcd.ctl("put", f"/registry/pods/default/p{turn}-{n}", "v" * (10 << n % 10))
        subprocess.run(
            ["sh", "-c", f'exec "$0" --endpoints {etcd.url} put big < {big}', etcd.programs["etcdctl"]],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        if turn == 1:
            etcd.ctl("del", "--prefix", "/registry/pods/default/p0")
        if turn == 2:
            etcd.ctl("compaction", str(seen[-1]))
        path = etcd.snapshot(tmp_path / f"{turn}.db")
        facts = inspect_file(path)
        assert facts.revision == etcd.status(path)
        assert facts.has_trailer
        assert not facts.world_readable
        seen.append(facts.revision)
    assert seen == sorted(set(seen))
    assert seen[-1] > 100


def test_a_raw_copy_and_a_restored_one(etcd: Etcd, tmp_path: Path) -> None:
    for n in range(10):
        etcd.ctl("put", f"k{n}", "v")
    whole = etcd.snapshot(tmp_path / "whole.db")
    etcd.stop()
    raw = tmp_path / "raw.db"
    shutil.copy(etcd.data / "member/snap/db", raw)
    with pytest.raises(SnapshotDamaged) as caught:
        inspect_file(raw)
    assert caught.value.reason == "no-trailer"
    assert inspect_file(raw, allow_missing_trailer=True).revision == 11

    restored = tmp_path / "restored"
    etcd.utl(
        "snapshot",
        "restore",
        str(whole),
        "--data-dir",
        str(restored),
        "--bump-revision",
        "1000000000",
        "--mark-compacted",
    )
    db = restored / "member/snap/db"
    assert inspect_file(db, allow_missing_trailer=True).revision == 1_000_000_011


def test_what_etcdutl_accepts_and_we_do_not(etcd: Etcd, tmp_path: Path) -> None:
    """Why this check exists: a flipped byte of a value passes ``snapshot status``."""
    etcd.ctl("put", "marker", "find-me-in-the-file")
    path = etcd.snapshot(tmp_path / "flipped.db")
    data = bytearray(path.read_bytes())
    data[data.index(b"find-me-in-the-file")] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert etcd.status(path) == 2
    with pytest.raises(SnapshotDamaged) as caught:
        inspect_file(path)
    assert caught.value.reason == "trailer"


def test_what_lives_is_what_etcd_says(etcd: Etcd, tmp_path: Path) -> None:
    """With history, compacted half-way; and in what a restore with a bump makes of it."""
    for number in range(30):
        etcd.ctl("put", f"/registry/pods/a/{number % 7}", f"v{number}")
        etcd.ctl("put", f"/registry/x.io/things/a/{number % 5}", "w" * 3000 * (number % 4))
        if number % 6 == 5:
            etcd.ctl("del", f"/registry/pods/a/{number % 4}")
        if number == 18:
            etcd.ctl("compact", str(json.loads(etcd.ctl("get", "x", "-w", "json"))["header"]["revision"]), "--physical")
    living = Counter(kind_of(key.encode()) for key in etcd.ctl("get", "/", "--prefix", "--keys-only").split())
    path = etcd.snapshot(tmp_path / "s.db")
    seen = read(path, ["/registry/pods/a/6"])
    assert (dict(seen.kinds), seen.revision) == (dict(living), etcd.status(path))
    assert 0 < seen.compacted < seen.revision
    assert seen.present == ("/registry/pods/a/6",)
    there = tmp_path / "restored"
    bump = ["--bump-revision=1000000000", "--mark-compacted", f"--data-dir={there}"]
    etcd.utl("snapshot", "restore", str(path), *bump)
    after: Content = read(there / "member/snap/db")
    assert (after.kinds, after.revision) == (seen.kinds, seen.revision + 1_000_000_000)

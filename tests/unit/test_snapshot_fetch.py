"""Fetching a snapshot of a host: nothing is left behind, what is not whole is not read, every failure has its word."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runbook.hosts import errands
from runbook.hosts.address import Address
from runbook.hosts.transfer import SourceTrouble
from runbook.snapshots import fetch, reading, scratch
from runbook.snapshots.bolt import NotBolt
from runbook.snapshots.content import Changed, NotWhole, read, touched
from runbook.snapshots.reading import Fetched, There, begin_there
from runbook.step import Command, Result
from tests.unit.bolt_kit import keyspace, snapshot

SAMPLE = Path(__file__).parent / "samples/etcd-3.5.16-kubernetes.db"
WANTED = ("/registry/secrets/default/known", "/registry/secrets/default/none")
ADDRESS = Address("m2", "127.0.0.1", port=1, connect_timeout=1.0)


class Host:
    """A host whose disk is this machine's. ``meanwhile`` is called when half of the file has come over."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], object] = lambda: None
        self.dies = False
        self.streamed = False
        self.silent = False

    def ask(self, _link: object, commands: Sequence[Command]) -> tuple[Result, ...]:
        if self.silent:
            return (Result(None, err="m2 (127.0.0.1:22): no answer within 10 s"),)
        done = subprocess.run(commands[0].words(), capture_output=True, text=True, check=False)
        return (Result(done.returncode, done.stdout, done.stderr),)

    def file(self, _link: object, path: str) -> File:
        return File(self, Path(path))


class File:
    """Stands for NodeFile."""

    def __init__(self, host: Host, path: Path) -> None:
        self.host, self.path = host, path

    def open(self) -> int:
        return self.path.stat().st_size

    def chunks(self, size: int) -> Iterator[bytes]:
        self.host.streamed = True
        data = self.path.read_bytes()
        half = len(data) // 2
        yield data[:half]
        self.host.meanwhile()
        if self.host.dies:
            self.host.silent = True
            raise SourceTrouble(f"{self.path} on m2 (127.0.0.1:22): {half} of {len(data)} bytes came")
        yield data[half:]

    def close(self) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(errands, "ask", made.ask)
    monkeypatch.setattr(fetch, "NodeFile", made.file)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return made


@pytest.fixture
def there(tmp_path: Path) -> There:
    path = tmp_path / "a b; $(id).db"
    path.write_bytes(SAMPLE.read_bytes())
    path.chmod(0o600)
    return There(ADDRESS.to_json(), str(path), WANTED)


def test_it_is_what_it_would_be_on_this_machine(host: Host, there: There) -> None:
    path = Path(there.path)
    found = fetch.fetch(there)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.size, found.revision, found.warnings) == (path.stat().st_size, 51, ())
    plain = read(path, WANTED)
    assert plain.present
    assert replace(found.content, touched=()) == replace(plain, touched=())
    # its date is what tells how old it is, and its size is compared
    assert found.content.touched[:4] == touched(path.stat())[:4]
    assert Fetched.from_json(found.json()) == found


def test_how_far_it_is_can_be_read_meanwhile(host: Host, there: There) -> None:
    size = Path(there.path).stat().st_size
    with reading._followed(there) as told:
        assert reading.coming() == "the snapshot on m2: nothing has come yet"
        seen: list[str] = []
        host.meanwhile = lambda: seen.append(reading.coming())
        fetch._tell(told, 120 << 20, 500 << 20)
        assert reading.coming() == "the snapshot on m2: 120 of 500 MiB"
        assert fetch.fetch(there, told).size == size
        assert os.pread(told or 0, 64, 0).startswith(f"{size} {size}\n".encode())
        assert reading.coming() == f"the snapshot on m2: all {size >> 10} KiB have come, and are being read"
    assert seen == [f"the snapshot on m2: {size >> 11} of {size >> 10} KiB"]
    assert reading.coming() == ""


def test_the_process_is_given_the_file_to_say_so(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    order = {"parent": os.getpid()}
    program = "import json, os, sys; os.pwrite(json.load(sys.stdin)['told'], b'1048576 3145728\\n', 0); print(1)"
    monkeypatch.setattr(sys, "executable", str(Path(there.path).with_name("python")))
    Path(sys.executable).write_text(f"#!/bin/sh\nexec /usr/bin/env python3 -c {shlex.quote(program)}\n")
    Path(sys.executable).chmod(0o755)
    with reading._followed(there) as told:
        assert reading._process("any", {**order, "told": told}, 20, told) == "1\n"
        assert reading.coming() == "the snapshot on m2: 1 of 3 MiB"


def test_a_file_that_everybody_may_read_there_is_told(host: Host, there: There) -> None:
    Path(there.path).chmod(0o604)
    (told,) = fetch.fetch(there).warnings
    assert "can be read by every user of its machine" in told


def test_the_copy_has_no_name_and_is_nobody_elses(host: Host, there: There, tmp_path: Path) -> None:
    copies: list[os.stat_result] = []

    def look() -> None:
        assert list((tmp_path / "tmp").iterdir()) == []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the one that lists them is gone by now
                if os.readlink(f"/proc/self/fd/{fd}").startswith(str(tmp_path / "tmp")):
                    copies.append(os.fstat(int(fd)))

    host.meanwhile = look
    fetch.fetch(there)
    assert [(s.st_nlink, stat.S_IMODE(s.st_mode)) for s in copies] == [(0, 0o600)]


def test_where_no_place_is_named_it_lies_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies below /tmp is often in memory."""
    monkeypatch.delenv("TMPDIR", raising=False)
    asked: list[str] = []
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: asked.append(dir))
    scratch.room(1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    scratch.room(1)
    assert asked == ["/var/tmp", tempfile.gettempdir()]


def flipped(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


@pytest.mark.parametrize(
    ("change", "text", "streamed"),
    [
        (flipped, "its checksum is wrong", True),
        (lambda b: b[:-32], "no checksum at its end", True),
        (lambda b: b[: -32 - 4096], "it is cut short", True),
        (lambda b: b[:-1], "cut short", True),
        (lambda b: b"x" * 5000, "it is no etcd snapshot", False),
        (lambda b: b"", "it is no etcd snapshot", False),
    ],
    ids=["flipped", "no trailer", "cut as a raw copy", "cut short", "another file", "empty"],
)
def test_what_is_not_whole_is_not_read(
    host: Host, there: There, change: Callable[[bytes], bytes], text: str, streamed: bool
) -> None:
    path = Path(there.path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(NotWhole, match=text) as caught:
        fetch.fetch(there)
    assert there.path in str(caught.value)
    assert host.streamed == streamed


def test_a_raw_copy_where_the_plan_allows_it(host: Host, there: There) -> None:
    path = Path(there.path)
    path.write_bytes(path.read_bytes()[:-32])
    found = fetch.fetch(replace(there, allow_missing_trailer=True))
    assert len(found.warnings) == 1
    assert "no checksum at its end" in found.warnings[0]


def test_the_plans_sum_is_that_of_what_came_over(host: Host, there: There) -> None:
    sha256 = hashlib.sha256(Path(there.path).read_bytes()).hexdigest()
    assert fetch.fetch(replace(there, sha256=sha256.upper())).sha256 == sha256
    with pytest.raises(NotWhole, match=f"its SHA-256 is {sha256}, the plan says ffff"):
        fetch.fetch(replace(there, sha256="f" * 64))


def test_what_is_not_there_or_not_complete_is_not_fetched(host: Host, there: There, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    for name, text in (("none.db", "no such file"), ("tmp", "no such file"), ("pipe.db", "no such file")):
        with pytest.raises(NotWhole, match=text):
            fetch.fetch(replace(there, path=str(tmp_path / name)))
    with pytest.raises(NotWhole, match=r"ends in \.part"):
        fetch.fetch(replace(there, path=f"{there.path}.part"))
    assert not host.streamed


def test_a_damaged_tree_below_a_right_checksum(host: Host, there: There) -> None:
    raw = bytearray(keyspace([(i, b"/registry/pods/a/b", b"v") for i in range(2, 9)]))
    raw[raw.index(b"/registry/pods") - 2] = 0x12
    Path(there.path).write_bytes(snapshot(bytes(raw)))
    with pytest.raises(NotBolt, match="has at byte"):
        fetch.fetch(there)


@pytest.mark.parametrize("how", ["written", "appended", "replaced", "removed", "written, and lost"])
def test_a_file_that_changes_meanwhile(host: Host, there: There, tmp_path: Path, how: str) -> None:
    path = Path(there.path)
    data = path.read_bytes()

    def change() -> None:
        if how in ("replaced", "removed"):
            path.unlink()
        if how == "appended":
            path.write_bytes(data + b"x")
        elif how != "removed":
            path.write_bytes(data)
            os.utime(path, (0, time.time() + 5))
        if how == "written, and lost":  # of the file alone: the host answers
            raise SourceTrouble("9 of 10 bytes came")

    host.meanwhile = change
    with pytest.raises(Changed, match="was written to, or replaced, while it was fetched"):
        fetch.fetch(there)


def test_another_mode_is_no_other_content(host: Host, there: There) -> None:
    host.meanwhile = lambda: Path(there.path).chmod(0o640)
    assert fetch.fetch(there).size == Path(there.path).stat().st_size


def test_where_nobody_can_say_whether_it_changed(host: Host, there: There) -> None:
    def silence() -> None:
        host.silent = True

    host.meanwhile = silence
    with pytest.raises(OSError, match=r"whether it changed while it was fetched is not known: m2 .* no answer"):
        fetch.fetch(there)


def test_a_full_disk_of_this_machine_is_told_as_its_own(
    host: Host, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 # closed by whom it is given to
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full)
    with pytest.raises(OSError, match="tmp on this machine: No space left on device"):
        fetch.fetch(there)


def test_a_link_that_dies_half_way(host: Host, there: There, tmp_path: Path) -> None:
    host.dies = True
    with pytest.raises(OSError, match=r"on m2 \(127.0.0.1:22\): \d+ of \d+ bytes came"):
        fetch.fetch(there)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_room_is_told_before_anything_comes(host: Host, there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "RESERVE", 1 << 60)
    with pytest.raises(OSError, match=r"MiB are free in .* on this machine, .* TMPDIR may name another place"):
        fetch.fetch(there)
    monkeypatch.setenv("TMPDIR", "/none/such")
    with pytest.raises(OSError, match="/none/such on this machine: No such file"):
        fetch.fetch(there)
    assert not host.streamed


def test_a_date_without_fractions_is_the_seconds_end() -> None:
    assert fetch._parsed("600 1 2 3 4 5 2026-04-09 14:00:00.250000000 +0000\nx\n")[0][3] == 4_250_000_000
    assert fetch._parsed("600 1 2 3 4 5 2026-04-09 14:00:00\nx")[0][3] == 4_999_999_999
    with pytest.raises(OSError, match="the host's stat says"):
        fetch._parsed("stat: usage")


# --- in a process of its own ---


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[There]:
    """A host that takes connections and says nothing; its key is known."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = int(server.getsockname()[1])
        known = tmp_path / "known_hosts"
        key = "AAAAC3NzaC1lZDI1NTE5AAAA" + "IOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
        known.write_text(f"[127.0.0.1]:{port} ssh-ed25519 {key}\n")
        address = replace(ADDRESS, port=port, known_hosts_file=str(known), connect_timeout=60.0)
        yield There(address.to_json(), "/opt/etcd.db")


def test_a_host_that_cannot_be_reached_is_named(mute: There) -> None:
    one = replace(mute, address=replace(Address.from_json(mute.address), connect_timeout=0.5).to_json())
    first = begin_there(one)
    assert begin_there(one) is first  # while it is under way
    with pytest.raises(OSError, match=r"^m2 \(127\.0\.0\.1:\d+\): "):
        first.result(30)
    assert begin_there(one) is not first  # whether it is still the same there, nobody knows here


def test_it_takes_no_longer_than_it_may(mute: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE", 1.0)
    with pytest.raises(OSError, match="it has not come over within 1 s"):
        begin_there(mute).result(30)


def test_the_process_ends_with_whoever_wants_to_know(mute: There) -> None:
    """Here nobody does: its parent is another than it was told. So a killed command leaves no copy behind."""
    order = json.dumps({**asdict(mute), "parent": 1})
    argv = [sys.executable, "-m", "runbook.snapshots.fetch"]
    done = subprocess.run(argv, input=order, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")

"""Whether damaged snapshots are caught, each with the reason that is true of it."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.snapshots import integrity
from runbook.snapshots.integrity import SnapshotDamaged, SnapshotFacts, inspect_file, inspect_once, revision_after
from tests.unit.bolt_kit import Writer, database

BODY = database(list(range(1, 40)))
WHOLE = BODY + hashlib.sha256(BODY).digest()


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "etcd.db"
    path.write_bytes(WHOLE)
    path.chmod(0o600)
    return path


def refused(path: Path, *, allow: bool = False, sha256: str | None = None) -> SnapshotDamaged:
    with pytest.raises(SnapshotDamaged) as caught:
        inspect_file(path, allow_missing_trailer=allow, sha256=sha256)
    assert caught.value.code == 3
    assert str(path) in str(caught.value)
    assert caught.value.next
    return caught.value


def test_a_whole_one(snapshot: Path) -> None:
    told: list[int] = []
    facts = inspect_file(snapshot, sha256=hashlib.sha256(WHOLE).hexdigest().upper(), progress=told.append)
    assert facts == SnapshotFacts(
        path=snapshot,
        size=len(WHOLE),
        sha256=hashlib.sha256(WHOLE).hexdigest(),
        has_trailer=True,
        trailer_ok=True,
        revision=39,
        page_size=4096,
        asks_for_a_login=False,
        has_alarms=False,
        world_readable=False,
    )
    assert facts.warnings() == ()
    assert told[-1] == len(WHOLE)
    assert told == sorted(told)


def test_a_raw_copy_only_where_the_plan_allows_it(snapshot: Path) -> None:
    snapshot.write_bytes(BODY)
    assert refused(snapshot).reason == "no-trailer"
    facts = inspect_file(snapshot, allow_missing_trailer=True)
    assert (facts.has_trailer, facts.trailer_ok, facts.revision) == (False, None, 39)
    assert facts.sha256 == hashlib.sha256(BODY).hexdigest()
    assert any("no checksum" in w for w in facts.warnings())


def test_what_will_halt_the_run_in_the_outage_is_told_before(snapshot: Path) -> None:
    body = database([5], auth=[(0, b"authEnabled", b"\1")], alarms=[(0, b"\x10\x01", b"")])
    snapshot.write_bytes(body + hashlib.sha256(body).digest())
    login, alarm = inspect_file(snapshot).warnings()
    assert "etcdctl auth disable" in login
    assert "etcdctl alarm disarm" in alarm


def test_a_raw_copy_with_room_at_its_end(snapshot: Path) -> None:
    snapshot.write_bytes(BODY + bytes(1 << 16))  # bbolt grows its file ahead of need
    assert inspect_file(snapshot, allow_missing_trailer=True).revision == 39


def test_readable_by_all_is_warned_of(snapshot: Path) -> None:
    snapshot.chmod(0o644)
    facts = inspect_file(snapshot)
    assert facts.world_readable
    assert any("chmod 600" in w for w in facts.warnings())


@pytest.mark.parametrize(
    ("content", "reason", "says"),
    [
        (b"", "empty", "it is empty"),
        (b"apiVersion: runbook/v1\n" * 100, "text", "'apiVersion: runbook/v1'"),
        ("größer\n".encode() * 100, "text", "größer"),
        (gzip.compress(WHOLE), "packed", "gzip"),
        (bytes(20000), "not-bolt", "magic"),
        (b"\x7fELF" + os.urandom(0) + b"\x01" * 600, "not-bolt", "magic"),
        (WHOLE[:-1], "truncated", "cut short"),
        (WHOLE[: 8192 + 32], "truncated", "smaller"),
        (WHOLE[:-32], "no-trailer", "allowMissingTrailer"),
        (BODY + bytes(32), "trailer", "checksum is wrong"),
        (WHOLE + b"\n", "truncated", "cut short"),
        (WHOLE[:-512], "truncated", "cut short"),
    ],
)
def test_damage_has_its_reason(snapshot: Path, content: bytes, reason: str, says: str) -> None:
    snapshot.write_bytes(content)
    error = refused(snapshot)
    assert error.reason == reason
    assert says in str(error)


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("cut", [512, 4096, 16384])
@pytest.mark.parametrize("page_size", [512, 4096, 16384])
def test_one_that_is_cut_where_a_raw_copy_could_end(snapshot: Path, page_size: int, cut: int, allow: bool) -> None:
    """Its head says how long it was: nobody is to be told that a raw copy would do."""
    body = database(list(range(1, 400)), page_size=page_size)
    snapshot.write_bytes(body[:-cut])
    error = refused(snapshot, allow=allow)
    assert error.reason == "truncated"
    assert f"it is cut short: it has {len(body) - cut} bytes, and its database alone has {len(body)}" in str(error)
    assert "use another snapshot" in str(error)
    assert "allowMissingTrailer" not in str(error)


def test_the_newer_good_meta_page_says_how_long_it_was(snapshot: Path) -> None:
    data = bytearray(BODY)
    data[100:4096] = bytes(3996)
    data[64:72] = bytes(8)  # the first one's checksum is wrong now; the second still says it
    snapshot.write_bytes(data[:-4096])
    assert refused(snapshot).reason == "truncated"


def test_a_flipped_byte(snapshot: Path) -> None:
    data = bytearray(WHOLE)
    data[9000] ^= 1
    snapshot.write_bytes(data)
    assert refused(snapshot).reason == "trailer"
    assert refused(snapshot, allow=True).reason == "trailer"  # the permission is for no trailer, not for a wrong one


def test_another_sha256_than_the_plans(snapshot: Path) -> None:
    error = refused(snapshot, sha256="0" * 64)
    assert error.reason == "sha256"
    assert hashlib.sha256(WHOLE).hexdigest() in str(error)


def test_a_good_trailer_on_another_programs_database(snapshot: Path) -> None:
    writer = Writer()
    body = writer.file(writer.tree([(1, b"other", bytes(32))], 3))
    snapshot.write_bytes(body + hashlib.sha256(body).digest())
    error = refused(snapshot)
    assert error.reason == "bolt"
    assert "another program" in str(error)


def test_places(tmp_path: Path, snapshot: Path) -> None:
    assert refused(tmp_path / "none.db").reason == "missing"
    assert refused(tmp_path).reason == "kind"
    assert refused(snapshot / "below").reason == "unreadable"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").reason == "kind"  # and does not wait for a writer
    for name in ("etcd.db.part", "ETCD.DB.PART"):
        part = tmp_path / name
        part.write_bytes(WHOLE)
        assert refused(part).reason == "part"
    link = tmp_path / "latest"
    link.symlink_to(snapshot)
    assert inspect_file(link).revision == 39


def test_permission_denied(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # root, as whom the tests may run, is never denied
    assert refused(snapshot).reason == "unreadable"


def test_a_bad_disk(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    assert "Input/output error" in str(refused(snapshot))


@pytest.mark.parametrize("how", ["written", "shorter", "replaced", "gone"])
def test_a_file_that_changes_meanwhile(snapshot: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv

    def changing(fd: int, buffers: list[memoryview], offset: int) -> int:
        got = preadv(fd, buffers, offset)
        if offset == 0:
            if how == "written":
                os.utime(snapshot, ns=(1, 1))
            elif how == "shorter":
                os.truncate(snapshot, len(BODY) // 2)
            elif how == "replaced":
                (snapshot.parent / "new").write_bytes(WHOLE)
                (snapshot.parent / "new").rename(snapshot)
            else:
                snapshot.unlink()
        return got

    monkeypatch.setattr(os, "preadv", changing)
    assert refused(snapshot).reason == "changed"


def in_file(data: bytes, then: Callable[[Path], object]) -> None:
    with TemporaryDirectory() as place:
        path = Path(place) / "etcd.db"
        path.write_bytes(data)
        then(path)


@given(index=st.integers(0, len(WHOLE) - 1), change=st.integers(1, 255), allow=st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_flipped_byte_passes(index: int, change: int, allow: bool) -> None:
    data = bytearray(WHOLE)
    data[index] ^= change
    in_file(bytes(data), lambda path: refused(path, allow=allow))


@given(length=st.one_of(st.integers(0, len(WHOLE) - 1), st.integers(0, len(WHOLE) // 512).map(lambda n: n * 512)))
@settings(max_examples=300, deadline=None)
def test_no_truncation_passes(length: int) -> None:
    in_file(WHOLE[:length], refused)
    if length != len(BODY):  # that one is a whole raw database
        in_file(WHOLE[:length], lambda path: refused(path, allow=True))


@given(st.binary(max_size=70000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_noise_never_passes(noise: bytes, allow: bool) -> None:
    in_file(noise, lambda path: refused(path, allow=allow))


def test_the_restored_revision(snapshot: Path) -> None:
    facts = inspect_file(snapshot)
    assert revision_after(facts, 10**9) == 10**9 + 39
    assert revision_after(facts, 2**63 - 1 - 39) == 2**63 - 1
    with pytest.raises(SnapshotDamaged, match=str(2**63 - 1 - 39)):
        revision_after(facts, 2**63 - 39)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A sparse file of 300 MB costs no more memory than its chunks."""
    path = tmp_path / "large.db"
    with path.open("wb") as file:
        file.write(BODY)
        file.truncate(300 << 20)
    code = (
        "import re, sys; from pathlib import Path; from runbook.snapshots.integrity import inspect_file\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "before = peak()\n"
        "assert inspect_file(Path(sys.argv[1]), allow_missing_trailer=True).revision == 39\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 1024


def test_a_file_that_nobody_touched_is_read_once(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = integrity.inspect_file

    def counting(path: Path, **how: Any) -> SnapshotFacts:
        read.append(path)
        return real(path, **how)

    monkeypatch.setattr(integrity, "inspect_file", counting)
    assert inspect_once(snapshot) == inspect_once(snapshot)
    assert len(read) == 1
    damaged = bytearray(snapshot.read_bytes())
    damaged[5000] ^= 1
    stamp = snapshot.stat()
    snapshot.write_bytes(damaged)
    os.utime(snapshot, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(SnapshotDamaged, match="checksum is wrong"):
        inspect_once(snapshot)

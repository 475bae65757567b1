"""A stored snapshot comes here whole or not at all, into a file that nobody else sees and that is gone afterwards."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import pyrage
import pytest

from runbook.hosts.transfer import LocalFile, SourceTrouble
from runbook.snapshots import scratch
from runbook.snapshots.bringing import Coming, bring
from runbook.snapshots.content import touched
from runbook.snapshots.finding import Found
from runbook.snapshots.integrity import SnapshotDamaged, inspect_once
from runbook.snapshots.reading import begin
from runbook.snapshots.sealing import Unsealable
from runbook.snapshots.sidecar import Sidecar
from runbook.snapshots.store_files import Files
from runbook.snapshots.stores import StoreTrouble
from tests.unit.store_kit import IDENTITY, PUBLIC, REVISION, SAMPLE, Shelf


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Shelf(tmp_path / "store")


def private() -> Path:
    raise AssertionError("with /proc no named file is needed")


def found(told: Sidecar) -> Found:
    return Found(told.name, told, told.stored.size, told.taken)


def bring_into(shelf: Shelf, what: Found, file: IO[bytes], keys: tuple[object, ...] = (IDENTITY,)) -> Coming:
    coming = Coming(f"fetching {what.name}", what.size)
    bring(shelf.store, what, keys, file, "here", coming)
    return coming


@pytest.mark.parametrize("recipients", [(), (PUBLIC,)])
@pytest.mark.parametrize("compress", [True, False])
def test_it_is_what_was_taken(shelf: Shelf, compress: bool, recipients: tuple[str, ...]) -> None:
    told = shelf.put(compress=compress, recipients=recipients, hours=7)
    with scratch.held(told.size, private) as (file, path):
        coming = bring_into(shelf, found(told), file)
        assert path.read_bytes() == SAMPLE.read_bytes()
        assert path.stat().st_mtime == told.taken.timestamp()  # what tells its age, where no Lease does
        facts = inspect_once(path, shown=f"{shelf.url}/{told.name}")
        assert (facts.sha256, facts.revision, facts.warnings()) == (told.sha256, REVISION, ())
        assert coming.came == told.stored.size
        assert str(coming) == f"fetching {told.name}: all {coming.size / 1024:.0f} KiB have come, and are being proven"


def test_how_much_has_come() -> None:
    coming = Coming("fetching it", 500 << 20)
    assert str(coming) == "fetching it: nothing has come yet"
    coming.came = 120 << 20
    assert str(coming) == "fetching it: 120 of 500 MiB"


def test_another_tools_plain_file(shelf: Shelf) -> None:
    data = SAMPLE.read_bytes()
    (shelf.path / "etcd.db").write_bytes(data)
    with scratch.held(len(data), private) as (file, path):
        bring_into(shelf, Found("etcd.db", None, len(data)), file)
        assert path.read_bytes() == data
    for size in (len(data) - 1, len(data) + 1):
        with scratch.held(size, private) as (file, _), pytest.raises(Unsealable, match="that the store lists"):
            bring_into(shelf, Found("etcd.db", None, size), file)


def test_the_copy_has_no_name_and_is_nobody_elses(shelf: Shelf, tmp_path: Path) -> None:
    told = shelf.put()
    with scratch.held(told.size, private) as (file, path):
        bring_into(shelf, found(told), file)
        assert list((tmp_path / "tmp").iterdir()) == []
        seen = path.stat()
        assert (seen.st_nlink, stat.S_IMODE(seen.st_mode), seen.st_uid) == (0, 0o600, os.getuid())
        assert os.readlink(path).startswith(str(tmp_path / "tmp"))
    assert not path.exists()


def test_whatever_needs_it_can_read_it_by_that_path(shelf: Shelf, tmp_path: Path) -> None:
    """The checks, the process that reads its content, and those that send it to the hosts."""
    told = shelf.put()
    with scratch.held(told.size, private) as (file, path):
        bring_into(shelf, found(told), file)
        content = begin(path).result(60)
        assert (content.revision, content.touched) == (REVISION, touched(path.stat()))
        source = LocalFile(str(path), "s3://bucket/a.db")
        assert source.open() == told.size
        assert hashlib.sha256(b"".join(source.chunks(4096))).hexdigest() == told.sha256
        read, write = os.pipe()
        with source.opened() as (opened, size):
            assert os.splice(opened.fileno(), write, min(size, 4096)) == 4096
            assert os.read(read, 4096) == SAMPLE.read_bytes()[:4096]
        os.close(read)
        os.close(write)
        child = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
        done = subprocess.run([sys.executable, "-c", child, path], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == told.sha256
        assert list((tmp_path / "tmp").iterdir()) == []


def test_messages_name_it_as_the_store_does(shelf: Shelf) -> None:
    with scratch.held(10_000, private) as (file, path):
        file.write(b"x" * 9000)
        file.flush()
        with pytest.raises(SnapshotDamaged) as caught:
            inspect_once(path, shown="s3://bucket/a b/x.db")
        source = LocalFile(str(path), "s3://bucket/x.db")
        source.open()
        file.write(b"y")
        file.flush()
        with pytest.raises(SourceTrouble, match=r"^s3://bucket/x\.db changed while it was sent"):
            list(source.chunks(4096))
    assert "/proc" not in str(caught.value)
    assert str(caught.value).startswith("s3://bucket/a b/x.db: it is a text")
    assert "runbook snapshot list 's3://bucket/a b'" in str(caught.value)
    with pytest.raises(SourceTrouble, match=r"^cannot read s3://bucket/x\.db: No such file"):
        source.open()


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "another", "gone"])
def test_what_was_changed_in_the_store_does_not_pass(shelf: Shelf, damage: str) -> None:
    told = shelf.put(recipients=(PUBLIC,))
    path = shelf.path / told.name
    data = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(data[:900] + bytes([data[900] ^ 1]) + data[901:])
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "longer":
        path.write_bytes(data + b"x")
    elif damage == "another":
        path.write_bytes((shelf.path / shelf.put(b"other" * 5000, recipients=(PUBLIC,)).name).read_bytes())
    else:
        path.unlink()
    kind = StoreTrouble if damage == "gone" else Unsealable
    with scratch.held(told.size, private) as (file, _), pytest.raises(kind):
        bring_into(shelf, found(told), file)


def test_a_sidecar_that_tells_of_another_file(shelf: Shelf) -> None:
    told = shelf.put()
    other = replace(told, sha256="f" * 64)
    with scratch.held(told.size, private) as (file, _), pytest.raises(Unsealable, match="its sidecar says"):
        bring_into(shelf, found(other), file)


def test_another_key(shelf: Shelf) -> None:
    told = shelf.put(recipients=(PUBLIC,))
    wrong = (pyrage.x25519.Identity.generate(),)
    with scratch.held(told.size, private) as (file, _), pytest.raises(Unsealable, match="cannot be decrypted"):
        bring_into(shelf, found(told), file, wrong)


def test_a_store_that_breaks_off(shelf: Shelf) -> None:
    told = shelf.put(recipients=(PUBLIC,))

    class Broken(Files):
        def read(self, name: str) -> Iterator[bytes]:
            whole = b"".join(super().read(name))
            yield whole[: len(whole) // 2]
            raise StoreTrouble("the connection was lost", "try again")

    with scratch.held(told.size, private) as (file, _), pytest.raises(StoreTrouble, match="the connection was lost"):
        bring(Broken(shelf.path), found(told), [IDENTITY], file, "here", Coming("it", 1))


def test_a_full_disk_is_told_as_this_machines(shelf: Shelf) -> None:
    told = shelf.put()
    failure = pytest.raises(OSError, match="here on this machine: No space left on device")
    with open("/dev/full", "wb", buffering=0) as full, failure:
        bring_into(shelf, found(told), full)


def test_no_room_is_told_before_anything_comes(monkeypatch: pytest.MonkeyPatch, shelf: Shelf) -> None:
    monkeypatch.setattr(scratch, "RESERVE", 1 << 60)
    with pytest.raises(OSError, match="TMPDIR may name another place"), scratch.held(1, private):
        pass


# --- without /proc, as on a Mac ---


def test_where_no_process_can_open_a_nameless_file_it_has_a_name(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf, tmp_path: Path
) -> None:
    monkeypatch.setattr(scratch, "PROC", tmp_path / "none")
    own = tmp_path / "state"
    own.mkdir()
    told = shelf.put()
    with scratch.held(told.size, lambda: own) as (file, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        bring_into(shelf, found(told), file)
        assert inspect_once(path).sha256 == told.sha256
        with scratch.held(1, lambda: own):
            assert path.exists(), "another's is left alone while its process lives"
        assert [p.name for p in own.iterdir()] == [path.name]
    assert list(own.iterdir()) == []


def test_where_children_may_not_look_it_has_a_name_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with scratch.held(1, lambda: tmp_path) as (_, path):
        assert path.parent == tmp_path


def test_what_a_killed_process_left_there_is_removed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "state"
    own.mkdir()
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom runbook.snapshots import scratch\n"
        "scratch.PROC = Path('/none')\n"
        "with scratch.held(1, lambda: Path(sys.argv[1])):\n    print('there', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, own], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        child.kill()
    assert len(list(own.iterdir())) == 1
    monkeypatch.setattr(scratch, "PROC", tmp_path / "none")
    with scratch.held(1, lambda: own):
        assert len(list(own.iterdir())) == 1
    assert list(own.iterdir()) == []


def test_nothing_is_left_of_a_killed_process(tmp_path: Path) -> None:
    """And nobody can open it any more."""
    program = (
        "import time\nfrom runbook.snapshots import scratch\n"
        "with scratch.held(1, None) as (file, path):\n    print(path, flush=True)\n    time.sleep(60)\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env) as child:
        assert child.stdout is not None
        path = Path(child.stdout.readline().decode().strip())
        assert path.exists()
        child.kill()
        child.wait(10)
        deadline = time.monotonic() + 10
        while path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not path.exists()
    assert list(tmp_path.iterdir()) == []

"""A directory as a store: whole or not at all, never over another, and nothing left by a writer that was killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.snapshots.store_files import Files
from runbook.snapshots.stores import AlreadyThere, NotThere, StoreTrouble

NAME = "a-20260409t140000z-3f2a.db"


@pytest.fixture
def store(tmp_path: Path) -> Files:
    return Files(tmp_path)


def names(store: Files) -> list[str]:
    return sorted(os.listdir(store.path))


def test_what_is_written_is_read_and_private(store: Files) -> None:
    before = os.umask(0)
    try:
        store.write(NAME, [b"ab", b"", b"c" * 3_000_000])
    finally:
        os.umask(before)
    assert b"".join(store.read(NAME)) == b"ab" + b"c" * 3_000_000
    assert (store.path / NAME).stat().st_mode & 0o777 == 0o600
    assert [(e.name, e.size) for e in store.entries()] == [(NAME, 3_000_002)]
    assert names(store) == [NAME]


def test_a_name_that_is_taken(store: Files) -> None:
    store.write(NAME, [b"old"])
    with pytest.raises(AlreadyThere, match="not written over"):
        store.write(NAME, [b"new"])
    assert b"".join(store.read(NAME)) == b"old"
    store.write(NAME, [b"new"], over=True)
    assert b"".join(store.read(NAME)) == b"new"
    assert names(store) == [NAME]


def test_a_source_that_breaks_leaves_nothing(store: Files) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100
        raise ConnectionError("the link is lost")

    with pytest.raises(ConnectionError, match="the link is lost"):
        store.write(NAME, broken())
    assert names(store) == []


def test_what_is_not_there(store: Files) -> None:
    with pytest.raises(NotThere, match=f"has no {NAME}"):
        list(store.read(NAME))
    store.remove(NAME)


def test_removed(store: Files) -> None:
    store.write(NAME, [b"x"])
    store.remove(NAME)
    assert names(store) == []


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    store = Files(tmp_path / "not-mounted")
    for work in (store.entries, lambda: store.write(NAME, [b"x"]), lambda: store.remove(NAME)):
        with pytest.raises(StoreTrouble, match="mount it"):
            work()
    assert not store.path.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_names_that_lead_elsewhere(store: Files, name: str) -> None:
    for work in (lambda: list(store.read(name)), lambda: store.remove(name)):
        with pytest.raises(ValueError, match="no name of a file"):
            work()


def test_links_and_directories_are_not_files_of_it(store: Files, tmp_path: Path) -> None:
    (store.path / "link.db").symlink_to("/etc/passwd")
    (store.path / "dir.db").mkdir()
    assert store.entries() == []
    with pytest.raises(StoreTrouble):
        list(store.read("link.db"))


def test_a_full_disk(store: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any write beyond the limit on a file's size fails as one on a full disk does; the real one is in the lab."""

    def full(_: int, __: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(StoreTrouble, match="make room") as caught:
        store.write(NAME, [b"x"])
    assert "No space left on device" in caught.value.what
    assert names(store) == []


def test_more_than_a_sidecar_has(store: Files) -> None:
    store.write(NAME, [b"x" * 100])
    assert store.read_small(NAME, 100) == b"x" * 100
    with pytest.raises(StoreTrouble, match="more than 99 bytes"):
        store.read_small(NAME, 99)


WRITER = """
import sys, time
from pathlib import Path
from runbook.snapshots.store_files import Files
def slow():
    yield b"x" * 100_000
    print("begun", flush=True)
    time.sleep(60)
    yield b"y"
Files(Path(sys.argv[1])).write(sys.argv[2], slow())
"""


def test_a_writer_that_is_killed_leaves_what_the_next_one_removes(store: Files) -> None:
    """And one that lives is left alone."""
    command = [sys.executable, "-c", WRITER, str(store.path)]
    with (
        subprocess.Popen([*command, "living.db"], stdout=subprocess.PIPE, text=True) as living,
        subprocess.Popen([*command, "killed.db"], stdout=subprocess.PIPE, text=True) as killed,
    ):
        try:
            for writer in (living, killed):
                assert writer.stdout
                assert writer.stdout.readline() == "begun\n"
            assert store.entries() == []
            killed.kill()
            killed.wait()
            assert len(names(store)) == 2
            store.write(NAME, [b"x"])
            left = [name for name in names(store) if name != NAME]
            assert len(left) == 1
            assert left[0].startswith(".living.db.")
        finally:
            living.kill()


def test_a_trial_of_writing_leaves_nothing(store: Files) -> None:
    store.trial()
    assert names(store) == []
    (store.path / f".{NAME}.0123abcd.part").write_bytes(b"of a writer that was killed")
    store.trial()
    assert names(store) == []
    store.write(NAME, [b"x"])


def test_a_trial_finds_out_what_a_writer_would(store: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreTrouble, match="mount it"):
        Files(tmp_path / "not-mounted").trial()

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(StoreTrouble, match="its file system has no hard links"):
        store.trial()
    assert names(store) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [("ro", "Read-only file system; it must be writable"), ("size=256k", "No space left on device; make room: df -h")],
)
def test_a_trial_on_such_a_disk(tmp_path: Path, options: str, says: str) -> None:
    """As root, who may do everything but this."""
    mounted = 'mount -t tmpfs -o "$1" none "$2" && exec "$3" -c "$4" "$2"'
    program = "import os, sys; from pathlib import Path; from runbook.snapshots.store_files import Files\n"
    program += "try: Files(Path(sys.argv[1])).trial()\nexcept Exception as e: print(e, os.listdir(sys.argv[1]))"
    argv = ["unshare", "-m", "sh", "-c", mounted, "sh", options, str(tmp_path), sys.executable, program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    assert f"cannot write into file://{tmp_path}: {says}" in done.stdout
    assert done.stdout.endswith(" []\n")

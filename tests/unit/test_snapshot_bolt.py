"""The bbolt reader, on files of its own making, in every shape and damaged in every way; real ones are in *_etcd."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.snapshots.bolt import Database, NotBolt
from tests.unit.bolt_kit import Entry, Writer, branch, database, leaf, opened, revision


def last(data: bytes) -> int:
    with opened(data) as fd:
        return Database(fd, len(data)).last_revision()


@given(
    mains=st.lists(st.integers(1, 2**62), unique=True, max_size=60).map(sorted),
    fan=st.integers(1, 9),
    value=st.sampled_from([0, 1, 100, 5000]),
    page_size=st.sampled_from([4096, 8192, 65536]),
    buckets=st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_the_last_revision_is_found_in_every_shape(
    mains: list[int], fan: int, value: int, page_size: int, buckets: int
) -> None:
    assert last(database(mains, fan, value, page_size, buckets=buckets)) == (mains[-1] if mains else 0)


@given(mains=st.lists(st.integers(1, 2**62), unique=True, max_size=9).map(sorted))
def test_in_an_inline_bucket_too(mains: list[int]) -> None:
    assert last(database(mains, inline=True)) == (mains[-1] if mains else 0)


REVISION_OF_AUTH: Entry = (0, b"authRevision", bytes(8))


@pytest.mark.parametrize(
    ("auth", "alarms", "told"),
    [
        ([], [], (False, False)),
        ([(0, b"authEnabled", b"\0"), REVISION_OF_AUTH], [], (False, False)),
        ([(0, b"authEnabled", b"\1"), REVISION_OF_AUTH], [(0, b"\x08\x07\x10\x01", b"")], (True, True)),
        ([REVISION_OF_AUTH], [(0, b"\x10\x01", b"")], (False, True)),
        ([(0, b"authEnable", b"\1"), (0, b"authEnabled2", b"\1")], [], (False, False)),
    ],
)
def test_what_a_cluster_begins_with_is_told(auth: list[Entry], alarms: list[Entry], told: tuple[bool, bool]) -> None:
    data = database([1, 2], auth=auth, alarms=alarms)
    with opened(data) as fd:
        found = Database(fd, len(data))
        assert (found.asks_for_a_login(), found.has_alarms()) == told
    bare = database([1, 2], buckets=0)
    with opened(bare) as fd:
        found = Database(fd, len(bare))
        assert (found.asks_for_a_login(), found.has_alarms()) == (False, False), "an etcd older than these buckets"


def test_a_tombstone_is_a_revision() -> None:
    writer = Writer()
    inner = writer.tree([(0, revision(4), b"x"), (0, revision(9, 2, tombstone=True), b"x")], 3)
    root = writer.tree([(1, b"key", struct.pack("<QQ", inner, 0))], 3)
    assert last(writer.file(root)) == 9


def test_the_newer_meta_page_counts_and_the_other_serves_where_it_is_damaged() -> None:
    writer = Writer()
    roots = []
    for main in (5, 6):
        inner = writer.tree([(0, revision(main), b"x")], 3)
        roots.append(writer.tree([(1, b"key", struct.pack("<QQ", inner, 0))], 3))
    writer.pages[0] = writer.meta(0, roots[0], 10)
    writer.pages[1] = writer.meta(1, roots[1], 11)
    data = bytearray(b"".join(writer.pages))
    assert last(bytes(data)) == 6
    data[4096 + 16 + 40] ^= 1  # the newer: the older one's tree is still there
    assert last(bytes(data)) == 5
    data[16 + 40] ^= 1
    with pytest.raises(NotBolt, match="checksums"):
        last(bytes(data))


def test_the_second_meta_page_serves_alone() -> None:
    data = bytearray(database([7]))
    data[16:80] = bytes(64)
    assert last(bytes(data)) == 7


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "past its end"),
        (b"\0" * 100000, "magic"),
        (struct.pack(">QHHIII", 0, 4, 0, 0, 0xED0CDAED, 2).ljust(20000, b"\0"), "big-endian"),
    ],
)
def test_no_database(data: bytes, says: str) -> None:
    with pytest.raises(NotBolt, match=says):
        last(data)


def test_another_programs_database() -> None:
    writer = Writer()
    root = writer.tree([(1, b"buckets", struct.pack("<QQ", 2, 0))], 3)
    with pytest.raises(NotBolt, match="another program"):
        last(writer.file(root))


def test_a_key_that_is_no_bucket() -> None:
    writer = Writer()
    root = writer.tree([(0, b"key", struct.pack("<QQ", 2, 0))], 3)
    with pytest.raises(NotBolt, match="another program"):
        last(writer.file(root))


def test_a_circle_ends() -> None:
    writer = Writer()
    circle = len(writer.pages)
    writer.add(*branch([(revision(1), circle)]))
    root = writer.tree([(1, b"key", struct.pack("<QQ", circle, 0))], 3)
    with pytest.raises(NotBolt, match="circle"):
        last(writer.file(root))


def test_a_circle_above_the_bucket_ends() -> None:
    writer = Writer()
    circle = len(writer.pages)
    writer.add(*branch([(b"a", circle)]))
    with pytest.raises(NotBolt, match="deep"):
        last(writer.file(circle))


def small(page: tuple[int, int, bytes]) -> Writer:
    """Meta pages, freelist, the bucket's page 3 as given, and the root page."""
    writer = Writer()
    writer.add(*page)
    root = writer.tree([(1, b"key", struct.pack("<QQ", 3, 0))], 3)
    writer.file(root)
    return writer


DAMAGE: list[tuple[tuple[int, int, bytes], str]] = [  # what stands for the bucket's page, and what is said of it
    ((0x10, 1, b""), "unknown kind 0x10"),
    ((0x01, 0, b""), "empty branch page"),
    (branch([(b"a", 999)]), "points to page 999 of 5"),
    (branch([(b"a", 1)]), "points to page 1 of 5"),
    ((0x02, 400, leaf([(0, revision(1), b"x")])[2]), "more elements at byte 12288"),
    ((0x02, 1, struct.pack("<IIII", 0, 5000, 17, 0)), "key at byte 17304 that goes on past its page"),
    ((0x02, 1, struct.pack("<IIII", 0, 16, 17, 4096) + revision(1)), "value at byte 12337 that goes on past its page"),
    (leaf([(0, b"short", b"x")]), "no revision"),
    (leaf([(0, revision(1).replace(b"_", b"-"), b"x")]), "no revision"),
    (leaf([(0, b"\xff" + revision(1)[1:], b"x")]), "no revision"),
    (leaf([(0, revision(1) + b"tt", b"x")]), "no revision"),
]


@pytest.mark.parametrize(("page", "says"), DAMAGE)
def test_each_damage_is_named(page: tuple[int, int, bytes], says: str) -> None:
    with pytest.raises(NotBolt, match=says):
        last(b"".join(small(page).pages))


def test_a_page_in_another_s_place() -> None:
    writer = small(leaf([(0, revision(1), b"x")]))
    writer.pages[3] = struct.pack("<Q", 4) + writer.pages[3][8:]
    with pytest.raises(NotBolt, match="at page 3 what calls itself page 4"):
        last(b"".join(writer.pages))


def test_a_page_that_goes_on_past_the_end() -> None:
    writer = small(leaf([(0, revision(1), b"x")]))
    writer.pages[3] = writer.pages[3][:12] + struct.pack("<I", 2) + writer.pages[3][16:]
    with pytest.raises(NotBolt, match="page 3 that goes on past the end"):
        last(b"".join(writer.pages))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damage_is_a_clean_error_or_no_harm(data: st.DataObject) -> None:
    raw = bytearray(database([1, 2, 3, 4, 5], fan=2, inline=data.draw(st.booleans())))
    used = [i for i, b in enumerate(raw) if b]
    spots = st.one_of(st.sampled_from(used), st.integers(0, len(raw) - 1))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(spots)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # so that damage below the meta pages, too, is reached with other sizes
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    with suppress(NotBolt):
        assert isinstance(last(bytes(raw)), int)
    for ask in (Database.asks_for_a_login, Database.has_alarms):
        with opened(bytes(raw)) as fd, suppress(NotBolt):
            assert isinstance(ask(Database(fd, len(raw))), bool)


@given(st.binary(max_size=3000))
def test_a_meta_page_before_noise(noise: bytes) -> None:
    writer = Writer(512)
    writer.pages += [b""] * 4
    data = writer.meta(0, 3, 5) + writer.meta(1, 3, 4) + bytes(512) + noise.ljust(3 * 512, b"\xff")
    with pytest.raises(NotBolt):
        last(data)


def test_it_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db"
    path.write_bytes(database(list(range(1, 3000)), fan=50, value=500))
    read, pread = [0], os.pread

    def counted(fd: int, length: int, offset: int) -> bytes:
        read[0] += length
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    with path.open("rb") as file:
        assert Database(file.fileno(), path.stat().st_size).last_revision() == 2999
    assert read[0] < 4096

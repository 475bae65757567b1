"""What a snapshot holds: against a model, on every shape of file, on a real etcd's file, and on damaged ones."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.snapshots import content, reading
from runbook.snapshots.bolt import Database, NotBolt
from runbook.snapshots.content import Content, Encrypted, kind_of, read
from tests.unit.bolt_kit import (
    Entry,
    History,
    Writer,
    key_value,
    keyspace,
    leaf,
    opened,
    revision,
    snapshot,
    text,
    varint,
)

SAMPLE = Path(__file__).parent / "samples/etcd-3.5.16-kubernetes.db"


def told(data: bytes, wanted: frozenset[bytes] = frozenset(), most: int = 600_000) -> content._Tally:
    with opened(data) as fd:
        database = Database(fd, len(data))
        return content._tally(database, content._number(database, b"finishedCompactRev"), wanted, most)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"/registry/pods/default/web", "pods"),
        (b"/registry/minions/m1", "nodes"),
        (b"/registry/services/specs/default/web", "services"),
        (b"/registry/services/endpoints/default/web", "endpoints"),
        (b"/registry/cert-manager.io/certificates/default/web", "certificates.cert-manager.io"),
        (
            b"/registry/apiextensions.k8s.io/customresourcedefinitions/a.b.c",
            "customresourcedefinitions.apiextensions.k8s.io",
        ),
        (b"/registry/clusterroles/system:node", "clusterroles"),
        (b"/registry/configmaps/default/a/b", "configmaps"),
        (b"/registry/health", "other"),
        (b"/registry/services/specs", "other"),
        (b"compact_rev_key", "other"),
        (b"/calico/v1/x/y", "other"),
        (b"x/registry/pods/a", "other"),
        (b"", "other"),
    ],
)
def test_kinds(key: bytes, kind: str) -> None:
    assert kind_of(key) == kind


KEYS = [b"/registry/pods/a/%d" % i for i in range(6)] + [b"/registry/x.io/things/%d" % i for i in range(4)] + [b"k"]
VALUES = [b"", b"v", b"w" * 5000, b"x" * 90_000, None]
LONG = b"/registry/configmaps/" + b"n" * 63 + b"/" + b"m" * 253


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([*KEYS, LONG]), st.sampled_from([b"", b"v", b"w" * 5000, b"x" * 90_000, None])),
        max_size=40,
    ),
    compacted=st.integers(0, 41),
    fan=st.integers(1, 9),
    most=st.sampled_from([2, 600_000]),
    page_size=st.sampled_from([4096, 16384]),
)
@settings(max_examples=150, deadline=None)
def test_live_keys_are_those_of_a_model(
    steps: list[tuple[bytes, bytes | None]], compacted: int, fan: int, most: int, page_size: int
) -> None:
    """After any history, compacted anywhere, in one pass or in many."""
    history = [(number, key, value) for number, (key, value) in enumerate(steps, 2)]
    live = {key for _, key, value in history if value is not None}
    live -= {key for key in live if next(v for _, k, v in reversed(history) if k == key) is None}
    data = keyspace(compact(history, compacted), fan, page_size, {b"finishedCompactRev": revision(compacted)})
    found = told(data, frozenset([LONG, KEYS[0]]), most)
    kinds = Counter(map(kind_of, live))
    assert {content.named(place.decode()): n for place, n in found.places.items()} == kinds
    assert {p.encode() for p in found.present} == live & {LONG, KEYS[0]}


def compact(history: History, at: int) -> History:
    """What etcd keeps: of each key the last up to there, unless it is a tombstone, and all that came later."""
    last = {key: number for number, key, _ in history if number <= at}
    return [e for e in history if e[0] > at or (last[e[1]] == e[0] and e[2] is not None)]


def test_the_mark_of_a_bump_is_no_key() -> None:
    """``etcdutl snapshot restore --bump-revision`` writes an empty entry at the new revision."""
    writer = Writer()
    entries = [(0, revision(2), key_value(b"/registry/pods/a/b", b"v")), (0, revision(1_000_000_002), b"")]
    inner = struct.pack("<QQ", writer.add(*leaf(entries)), 0)
    assert told(writer.file(writer.tree([(1, b"key", inner)], 2))).places == {b"pods": 1}


def test_a_real_etcds_file() -> None:
    found = read(SAMPLE, ["/registry/secrets/default/known", "/registry/secrets/default/none"])
    assert (found.revision, found.keys, found.objects, found.kinds["pods"], found.kinds["nodes"]) == (51, 50, 49, 34, 3)
    assert found.present == ("/registry/secrets/default/known",)
    assert found.volumes == ("pv-1",)
    assert [(m.name, m.id) for m in found.members] == [("m1", "bce89bc5256cfdf")]
    assert (found.voters, found.term, found.cluster_version, found.storage_version) == (
        ("bce89bc5256cfdf",),
        2,
        "3.5.0",
        "",
    )
    assert found.renewed == 1775743200
    assert Content.from_json(found.json()) == found


def test_what_the_small_buckets_say(tmp_path: Path) -> None:
    meta = {
        b"storageVersion": b"3.6.0",
        b"term": struct.pack(">Q", 7),
        b"finishedCompactRev": revision(9),
        b"confState": b"{",
    }
    members = {b"0c": b'{"name": "m3", "peerURLs": ["https://c:2380"]}', b"0a": b"not JSON", b"0b": b'{"name": 1}'}
    path = tmp_path / "s.db"
    path.write_bytes(
        snapshot(keyspace([(2, b"k", b"v")], meta=meta, members=members, cluster={b"clusterVersion": b"3.6.0"}))
    )
    found = read(path)
    assert (found.storage_version, found.cluster_version, found.term, found.compacted) == ("3.6.0", "3.6.0", 7, 9)
    assert found.voters == ()
    assert found.members == (content.Member("0c", "m3", ("https://c:2380",)),)


# --- values: only how they begin ---

SECRET = b"TOP-SECRET-VALUE"


def test_encryption_is_counted_of_what_lives_and_no_value_is_told(tmp_path: Path) -> None:
    history: History = [
        (2, b"/registry/secrets/a/1", b"k8s:enc:aescbc:v1:old:" + SECRET),
        (3, b"/registry/secrets/a/1", b"k8s:enc:aescbc:v1:key1:" + SECRET),
        (4, b"/registry/secrets/a/2", b"k8s:enc:secretbox:v1:key2:" + SECRET),
        (5, b"/registry/configmaps/a/1", b"k8s:enc:kms:v2:plug-in:" + SECRET),
        (6, b"/registry/secrets/a/3", SECRET),
        (7, b"/registry/secrets/a/4", b"x k8s:enc:aesgcm:v1:not-at-its-beginning:" + SECRET),
        (8, b"/registry/secrets/a/5", b"k8s:enc:aesgcm:v1:gone:" + SECRET),
        (9, b"/registry/secrets/a/5", None),
        (10, b"/registry/secrets/a/6", b"k8s:enc:aescbc:v1:key1:" + SECRET * 9000),
        (11, b"/registry/secrets/a/7", b"k8s:enc:aescbc:v1:" + b"\n" + SECRET),
    ]
    path = tmp_path / "s.db"
    path.write_bytes(snapshot(keyspace(history)))
    found = read(path)
    assert found.encrypted == (
        Encrypted("aescbc", "key1", "secrets", 2),
        Encrypted("kms v2", "plug-in", "configmaps", 1),
        Encrypted("secretbox", "key2", "secrets", 1),
    )
    assert "SECRET" not in found.json()


def lease(value: bytes) -> float:
    return told(keyspace([(2, b"/registry/leases/kube-node-lease/m1", value)])).renewed


def test_when_the_newest_lease_was_renewed() -> None:
    spec = text(1, b"m1") + b"\x10\x28" + text(4, b"\x08" + varint(1_775_743_200) + b"\x10\x07")
    raw = text(1, text(1, b"m1") + text(3, b"ns")) + text(2, spec)
    unknown = b"k8s\0" + text(1, text(1, b"coordination.k8s.io/v1") + text(2, b"Lease")) + text(2, raw)
    assert lease(unknown) == 1_775_743_200
    assert lease(b'{"spec":{"renewTime":"2026-04-09T14:00:00.000000Z"}}') == 1_775_743_200
    assert lease(unknown[:-8]) == lease(b'{"spec":{"renewTime":"yesterday"}}') == lease(b"") == 0
    assert lease(b'{"renewTime":"2026-99-09T14:00:00Z"}') == 0


def test_large_values_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(snapshot(keyspace([(i, b"/registry/b/%d" % i, bytes(1 << 20)) for i in range(2, 32)], fan=2)))
    most, total, pread = [0], [0], os.pread

    def counted(fd: int, length: int, offset: int) -> bytes:
        most[0], total[0] = max(most[0], length), total[0] + length
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert read(path).keys == 30
    assert most[0] <= 16 * 4096
    assert total[0] < path.stat().st_size / 50


# --- damage ---


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_a_clean_error_or_no_harm(data: st.DataObject) -> None:
    history = [(i, KEYS[i % len(KEYS)], b"v" * (100_000 if i == 9 else 30)) for i in range(2, 20)]
    raw = bytearray(keyspace(history, fan=2, meta={b"term": bytes(8)}))
    used = [i for i, b in enumerate(raw) if b and b != 0x76]
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.sampled_from(used))] = data.draw(st.integers(0, 255))
    with suppress(NotBolt), opened(bytes(raw)) as fd:
        assert content._content(Database(fd, len(raw)), frozenset(), (0,) * 5).keys >= 0


def test_a_tree_that_turns_in_a_circle() -> None:
    raw = bytearray(keyspace([(i, b"/registry/a/%d" % i, b"v") for i in range(2, 40)], fan=2))
    root = next(at for at in range(0, len(raw), 4096) if raw[at + 8] == 1 and raw[at + 10] == 2)
    page = struct.unpack_from("<Q", raw, root)[0]
    struct.pack_into("<Q", raw, root + 16 + 8, page)  # its first child is itself
    with pytest.raises(NotBolt, match="turns in a circle"):
        told(bytes(raw))


@pytest.mark.parametrize(
    "value", [b"\x0a", b"\x0a\x05abc", b"\x12\x01a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
)
def test_what_is_no_key_and_value(value: bytes) -> None:
    writer = Writer()
    inner = struct.pack("<QQ", writer.add(*leaf([(0, revision(2), value)])), 0)
    with pytest.raises(NotBolt, match="no key and value of etcd"):
        told(writer.file(writer.tree([(1, b"key", inner)], 2)))


def test_a_page_whose_elements_or_values_do_not_fit() -> None:
    entries: list[Entry] = [(0, revision(2), key_value(b"/registry/a/b", b"v"))]
    for where, what in (
        (10, struct.pack("<H", 400)),
        (16 + 12, struct.pack("<I", 9000)),
        (16 + 4, struct.pack("<I", 4090)),
    ):
        writer = Writer()
        number = writer.add(*leaf(entries))
        data = bytearray(writer.file(writer.tree([(1, b"key", struct.pack("<QQ", number, 0))], 2)))
        data[number * 4096 + where : number * 4096 + where + len(what)] = what
        with pytest.raises(NotBolt, match=r"room for|past its page"):
            told(bytes(data))


# --- in a process of its own ---


def test_it_is_read_once_as_long_as_nobody_touches_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(SAMPLE.read_bytes())
    first = reading.begin(path)
    assert reading.begin(path) is first
    assert first.result(30).keys == 50
    path.write_bytes(snapshot(keyspace([(2, b"/registry/pods/a/b", b"v")])))
    assert reading.begin(path).result(30).kinds == {"pods": 1}
    assert reading.begin(path, ["/registry/pods/a/b"]).result(30).present == ("/registry/pods/a/b",)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reading.begin(tmp_path / "none").result(30)
    path = tmp_path / "s.db"
    path.write_bytes(b"x" * 20_000)
    with pytest.raises(NotBolt, match="has no bbolt magic number"):
        reading.begin(path).result(30)
    with pytest.raises(OSError, match="Is a directory"):
        reading.begin(tmp_path).result(30)


def test_the_reading_process_ends_with_whoever_wants_to_know(tmp_path: Path) -> None:
    """Here nobody does: its parent is another than it was told."""
    path = tmp_path / "s.db"
    path.write_bytes(snapshot(keyspace([(i, b"/registry/pods/a/%d" % i, b"v") for i in range(2, 8_000)], fan=40)))
    for parent, code in ((1, 1), (os.getpid(), 0)):
        asked = json.dumps({"path": str(path), "wanted": [], "parent": parent})
        argv = [sys.executable, "-m", "runbook.snapshots.content"]
        done = subprocess.run(argv, input=asked, capture_output=True, text=True, check=False)
        assert (done.returncode, bool(done.stdout)) == (code, not code)


def test_a_file_that_is_written_to_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(SAMPLE.read_bytes())
    whole = content._content

    def slow(*args: Any) -> Content:
        with path.open("ab") as file:
            file.write(b"more")
        return whole(*args)

    monkeypatch.setattr(content, "_content", slow)
    with pytest.raises(content.Changed, match="written to while it was read"):
        read(path)


def test_another_mode_is_no_other_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(SAMPLE.read_bytes())
    whole = content._content

    def meanwhile(*args: Any) -> Content:
        path.chmod(0o640)
        return whole(*args)

    monkeypatch.setattr(content, "_content", meanwhile)
    assert read(path).keys == 50


def test_it_opens_the_file_only_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(SAMPLE.read_bytes())
    path.chmod(0o400)
    before = path.stat()
    read(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (SAMPLE.read_bytes(), before.st_mtime_ns)
    assert json.loads(read(path).json())["keys"] == 50

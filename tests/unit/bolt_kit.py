"""Writes bbolt files as etcd's, small and plain, in every shape."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from tempfile import TemporaryFile

from runbook.snapshots import bolt

Entry = tuple[int, bytes, bytes]  # flags, key, value


def revision(main: int, sub: int = 0, tombstone: bool = False) -> bytes:
    return struct.pack(">Q", main) + b"_" + struct.pack(">Q", sub) + (b"t" if tombstone else b"")


def leaf(entries: Sequence[Entry]) -> tuple[int, int, bytes]:
    """Flags, count and content of a leaf page."""
    data = b"".join(k + v for _, k, v in entries)
    heads, at = b"", 16 * len(entries)
    for index, (flags, key, value) in enumerate(entries):
        heads += struct.pack("<IIII", flags, at - 16 * index, len(key), len(value))
        at += len(key) + len(value)
    return 0x02, len(entries), heads + data


def branch(children: Sequence[tuple[bytes, int]]) -> tuple[int, int, bytes]:
    heads, at = b"", 16 * len(children)
    for index, (key, page) in enumerate(children):
        heads += struct.pack("<IIQ", at - 16 * index, len(key), page)
        at += len(key)
    return 0x01, len(children), heads + b"".join(k for k, _ in children)


class Writer:
    """Writes bbolt files, small and plain."""

    def __init__(self, page_size: int = 4096) -> None:
        self.page_size = page_size
        self.pages = [b"", b""]
        self.add(0x10, 0, b"")

    def add(self, flags: int, count: int, content: bytes) -> int:
        number = len(self.pages)
        size = -(-(16 + len(content)) // self.page_size)
        raw = struct.pack("<QHHI", number, flags, count, size - 1) + content
        raw = raw.ljust(size * self.page_size, b"\0")
        self.pages += [raw[i : i + self.page_size] for i in range(0, len(raw), self.page_size)]
        return number

    def tree(self, entries: Sequence[Entry], fan: int) -> int:
        groups = [entries[i : i + fan] for i in range(0, len(entries), fan)] or [[]]
        level = [(g[0][1] if g else b"", self.add(*leaf(g))) for g in groups]
        while len(level) > 1:
            upper = [level[i : i + max(fan, 2)] for i in range(0, len(level), max(fan, 2))]
            level = [(g[0][0], self.add(*branch(g))) for g in upper]
        return level[0][1]

    def meta(self, number: int, root: int, txid: int) -> bytes:
        body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, self.page_size, 0, root, 0, 2, len(self.pages), txid)
        head = struct.pack("<QHHI", number, 0x04, 0, 0)
        return (head + body + struct.pack("<Q", bolt._fnv1a(body))).ljust(self.page_size, b"\0")

    def file(self, root: int) -> bytes:
        self.pages[0] = self.meta(0, root, 8)
        self.pages[1] = self.meta(1, root, 7)
        return b"".join(self.pages)


def database(
    mains: Sequence[int],
    fan: int = 3,
    value: int = 20,
    page_size: int = 4096,
    inline: bool = False,
    buckets: int = 3,
    auth: Sequence[Entry] = (),
    alarms: Sequence[Entry] = (),
) -> bytes:
    """A bbolt file as etcd's, with those revisions; ``auth`` and ``alarms`` are what these two buckets hold."""
    writer = Writer(page_size)
    entries = [(0, revision(m), b"v" * value) for m in mains]
    if inline:
        flags, count, content = leaf(entries)
        inner = struct.pack("<QQ", 0, 0) + struct.pack("<QHHI", 0, flags, count, 0) + content
    else:
        inner = struct.pack("<QQ", writer.tree(entries, fan), 0)
    held = {b"alarm": alarms, b"auth": auth, b"members": (), b"meta": (), b"zzz": ()}
    root: list[Entry] = []
    for name in list(held)[:buckets]:
        flags, count, content = leaf(held[name])
        root.append((1, name, struct.pack("<QQ", 0, 0) + struct.pack("<QHHI", 0, flags, count, 0) + content))
    return writer.file(writer.tree(sorted([*root, (1, b"key", inner)], key=lambda e: e[1]), max(fan, 2)))


@contextmanager
def opened(data: bytes) -> Iterator[int]:
    with TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def varint(number: int) -> bytes:
    """As protobuf writes a number."""
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def text(number: int, value: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def key_value(key: bytes, value: bytes | None, create: int = 0, mod: int = 0, version: int = 1) -> bytes:
    """An entry of etcd's; without a value a tombstone's."""
    if value is None:
        return text(1, key)
    numbers = b"".join(varint(n << 3) + varint(v) for n, v in ((2, create), (3, mod), (4, version)) if v)
    return text(1, key) + numbers + (text(5, value) if value else b"")


History = Sequence[tuple[int, bytes, bytes | None]]
"""Revision, key, and value; None where it was deleted."""


def keyspace(
    history: History,
    fan: int = 3,
    page_size: int = 4096,
    meta: Mapping[bytes, bytes] | None = None,
    members: Mapping[bytes, bytes] | None = None,
    cluster: Mapping[bytes, bytes] | None = None,
    **more: Mapping[bytes, bytes],
) -> bytes:
    """A bbolt file with this history; ``meta``, ``members`` and ``cluster`` are these buckets, as are ``more``."""
    writer = Writer(page_size)
    entries = [(0, revision(m, 0, v is None), key_value(k, v, m, m)) for m, k, v in history]
    root: list[Entry] = [(1, b"key", struct.pack("<QQ", writer.tree(entries, fan), 0))]
    others = [(name.encode(), bucket) for name, bucket in more.items()]
    for name, held in ((b"meta", meta), (b"members", members), (b"cluster", cluster), *others):
        pairs = [(0, key, value) for key, value in sorted((held or {}).items())]
        root.append((1, name, struct.pack("<QQ", writer.tree(pairs, 64), 0)))
    return writer.file(writer.tree(sorted(root, key=lambda e: e[1]), 8))


def snapshot(data: bytes) -> bytes:
    """With the checksum at its end."""
    return data + hashlib.sha256(data).digest()

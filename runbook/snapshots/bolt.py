"""What an etcd database holds, read straight from its file: its last revision, its alarms, any bucket from end to end.

etcd keeps its data in one bbolt file: a B+ tree of pages, whose root is a bucket of buckets. The bucket ``key`` maps
revisions to values, in order; so its rightmost key is the last revision. That is one page header and one element a
level, whatever the size of the file. Layout: go.etcd.io/bbolt, ``page.go``, ``db.go`` and ``bucket.go`` (the same in
1.3 and 1.4); revisions: go.etcd.io/etcd/server, ``mvcc/revision.go``. Numbers are in the writer's byte order, which
is little-endian on every platform Kubernetes runs on but s390x; such a file is refused with those words.

Reads only, by offset, with every number checked against the file, for the file may be damaged in any way.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = 0xED0CDAED
VERSION = 2
_HEADER = struct.Struct("<QHHI")  # page: id, flags, count, overflow
_META = struct.Struct("<IIIIQQQQQQ")  # magic, version, page size, flags, root, sequence, freelist, end, txid, checksum
_ELEMENT = struct.Struct("<IIQ")  # of a branch: key's offset from here, its size, the page below
_LEAF = struct.Struct("<IIII")  # of a leaf: flags, key's offset from here, its size, the value's size
_BUCKET = struct.Struct("<QQ")  # root page, sequence; an inline page follows where the root is 0
_BRANCH_PAGE, _LEAF_PAGE, _META_PAGE = 0x01, 0x02, 0x04
_BUCKET_LEAF = 0x01
_DEEPEST = 32
_WHOLE = 16
"""Pages: a longer leaf is not read whole, but only its table, its keys and how its values begin."""
_PAGE_SIZES = frozenset(2**n for n in range(9, 17))


class NotBolt(ValueError):
    """The file is no bbolt database, or a damaged one; the message says what is wrong, as it reads after "it"."""


@dataclass(frozen=True)
class Meta:
    """What a bbolt file says of itself. ``pages``: how many pages are in use, of ``page_size`` bytes each."""

    page_size: int
    root: int
    pages: int
    txid: int

    @property
    def size(self) -> int:
        """The bytes in use; a snapshot has exactly these and its trailer."""
        return self.page_size * self.pages


@dataclass(frozen=True, slots=True)
class _Page:
    """A page, by the offset of its header. An inline page has no number and ends where its value ends."""

    offset: int
    flags: int
    count: int
    end: int


class Database:
    """A bbolt file, open for reading by its file descriptor; ``size`` is how many bytes of it count.

    Raises:
        NotBolt: neither of its two meta pages is good.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self.meta = self._meta()

    def last_revision(self) -> int:
        """The main part of the last revision, as ``etcdutl snapshot status`` prints it; 0 in an empty keyspace.

        Raises:
            NotBolt: there is no bucket ``key``, or the way to its last key is damaged.
        """
        found = self._bucket(b"key")
        if found is None:
            raise NotBolt("is a bbolt file without etcd's bucket key: another program's database")
        key = self._last_key(found)
        if key is None:
            return 0
        if len(key) not in (17, 18) or key[8:9] != b"_" or key[0] >= 0x80:  # etcd's revisions are signed
            raise NotBolt(f"has a key that is no revision in its bucket key ({key[:20].hex()})")
        return int.from_bytes(key[:8], "big")

    def asks_for_a_login(self) -> bool:
        """Whether etcd's own authentication is on (etcd's ``schema/auth.go``). Raises NotBolt."""
        auth = self._bucket(b"auth")
        found = self._find(auth, b"authEnabled") if auth else None
        return found is not None and self._read(found[0], found[1]) == b"\x01"

    def has_alarms(self) -> bool:
        """Whether any alarm was raised and not disarmed (``schema/alarm.go``: a key each). Raises NotBolt."""
        alarms = self._bucket(b"alarm")
        return alarms is not None and self._last_key(alarms) is not None

    def value(self, bucket: bytes, name: bytes, most: int = 4096) -> bytes | None:
        """The first ``most`` bytes of a key's value; None where there is no such bucket or key. Raises NotBolt."""
        page = self._bucket(bucket)
        found = self._find(page, name) if page else None
        return None if found is None else self._read(found[0], min(found[1], most))

    def newest_first(self, bucket: bytes, head: int = 4096) -> Iterator[tuple[bytes, bytes, int, int]]:
        """Every key of a bucket, from its last to its first, and its value's first ``head`` bytes, offset and size.

        In memory are a few pages at a time, however large the file. Nothing where there is no such bucket.

        Raises:
            NotBolt: the tree is damaged, or turns in a circle.
        """
        root = self._bucket(bucket)
        stack: list[tuple[_Page | int, int]] = [(root, 0)] if root else []
        seen = 0
        while stack:
            number, depth = stack.pop()
            page, data = self._whole(number) if isinstance(number, int) else (number, b"")
            seen += 1
            if depth > _DEEPEST or seen > self.meta.pages:
                raise NotBolt(f"is more than {_DEEPEST} pages deep, or turns in a circle")
            if page.flags == _LEAF_PAGE:
                yield from self._leaf(page, data, head)
            else:
                table = self._table(page, data)
                stack += [(below, depth + 1) for _, _, below in _ELEMENT.iter_unpack(table)]

    def _whole(self, number: int) -> tuple[_Page, bytes]:
        """A page and all that it holds, in one reading of the file; b"" where it is a long one."""
        page_size = self.meta.page_size
        if not 2 <= number < self.meta.pages:
            return self._page(number), b""
        data = self._read(number * page_size, page_size)
        claims, flags, count, overflow = _HEADER.unpack_from(data)
        if claims != number or overflow or flags != _LEAF_PAGE:
            return self._page(number), b""
        return _Page(number * page_size, flags, count, (number + 1) * page_size), data

    def _table(self, page: _Page, data: bytes) -> bytes:
        """The elements of a page: all that stands between its header and its first key."""
        length = page.count * _LEAF.size
        if page.offset + _HEADER.size + length > page.end:
            raise NotBolt(f"has more elements at byte {page.offset} than the page has room for")
        start = _HEADER.size
        return data[start : start + length] if data else self._read(page.offset + start, length)

    def _leaf(self, page: _Page, data: bytes, head: int) -> Iterator[tuple[bytes, bytes, int, int]]:
        """One leaf, backwards. This is the inner loop: most of the time that a snapshot takes is spent here."""
        length = page.end - page.offset
        if not data and length <= _WHOLE * self.meta.page_size:
            data = self._read(page.offset, length)
        table = self._table(page, data)
        at = _HEADER.size + len(table)
        for _, pos, size, value in reversed(list(_LEAF.iter_unpack(table))):
            at -= _LEAF.size
            start = at + pos + size
            if start + value > length:
                raise NotBolt(f"has a value at byte {page.offset + start} that goes on past its page")
            if data:
                end = start + (value if value < head else head)
                yield data[at + pos : start], data[start:end], page.offset + start, value
            else:
                key = self._within(page, page.offset + at + pos, size)
                yield key, self._read(page.offset + start, min(value, head)), page.offset + start, value

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, for a value that :meth:`newest_first` has only shown the beginning of. Raises NotBolt."""
        return self._read(offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self._size:
            raise NotBolt(f"points to byte {offset + length}, past its end at {self._size}")
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise NotBolt("ended while it was read")
        return data

    def _meta(self) -> Meta:
        """The newer of the two good meta pages. The second's place depends on the page size, the first's does not."""
        wrong: list[str] = []
        good: list[Meta] = []
        for offset in (0, *sorted(_PAGE_SIZES)):
            try:
                meta = self._meta_at(offset)
            except NotBolt as e:
                wrong.append(str(e))
                continue
            if offset in (0, meta.page_size):
                good.append(meta)
        if not good:
            raise NotBolt(wrong[0])
        return max(good, key=lambda m: m.txid)

    def _meta_at(self, offset: int) -> Meta:
        raw = self._read(offset + _HEADER.size, _META.size)
        magic, version, page_size, _, root, _, _, pages, txid, checksum = _META.unpack(raw)
        if magic != MAGIC:
            if int.from_bytes(raw[:4], "big") == MAGIC:
                raise NotBolt("was written on a big-endian machine, which runbook does not read")
            raise NotBolt("has no bbolt magic number")
        if version != VERSION:
            raise NotBolt(f"is of bbolt's format {version}, not {VERSION}")
        if checksum != _fnv1a(raw[:-8]):
            raise NotBolt("has meta pages whose checksums are wrong")
        if page_size not in _PAGE_SIZES or not 2 <= root < pages:
            raise NotBolt(f"has meta pages that make no sense (page size {page_size}, root {root} of {pages})")
        return Meta(page_size, root, pages, txid)

    def _page(self, number: int) -> _Page:
        if not 2 <= number < self.meta.pages:
            raise NotBolt(f"points to page {number} of {self.meta.pages}")
        offset = number * self.meta.page_size
        claims, flags, count, overflow = _HEADER.unpack(self._read(offset, _HEADER.size))
        if claims != number:
            raise NotBolt(f"has at page {number} what calls itself page {claims}")
        if number + overflow >= self.meta.pages:
            raise NotBolt(f"has a page {number} that goes on past the end")
        return self._sound(_Page(offset, flags, count, offset + (1 + overflow) * self.meta.page_size))

    def _sound(self, page: _Page) -> _Page:
        if page.flags not in (_BRANCH_PAGE, _LEAF_PAGE):
            raise NotBolt(f"has at byte {page.offset} a page of the unknown kind {page.flags:#x}")
        if page.flags == _BRANCH_PAGE and not page.count:
            raise NotBolt(f"has an empty branch page at byte {page.offset}")
        return page

    def _key_at(self, page: _Page, index: int) -> tuple[bytes, int, int, int]:
        """An element's key, and: of a branch (page below, 0, 0); of a leaf (its value's offset, size, flags)."""
        at = page.offset + _HEADER.size + index * _LEAF.size
        if at + _LEAF.size > page.end:
            raise NotBolt(f"has more elements at byte {page.offset} than the page has room for")
        raw = self._read(at, _LEAF.size)
        if page.flags == _BRANCH_PAGE:
            pos, size, below = _ELEMENT.unpack(raw)
            return self._within(page, at + pos, size), below, 0, 0
        flags, pos, size, value = _LEAF.unpack(raw)
        key = self._within(page, at + pos, size)
        if at + pos + size + value > page.end:
            raise NotBolt(f"has a value at byte {at + pos + size} that goes on past its page")
        return key, at + pos + size, value, flags

    def _within(self, page: _Page, offset: int, size: int) -> bytes:
        if offset + size > page.end or size > self.meta.page_size * 64:
            raise NotBolt(f"has a key at byte {offset} that goes on past its page")
        return self._read(offset, size)

    def _find(self, page: _Page, name: bytes) -> tuple[int, int, int] | None:
        """The place of that key's value, its size, and its flags, by search from ``page``; None where there is none."""
        for _ in range(_DEEPEST):
            low, high = 0, page.count
            while low < high:  # the first element whose key is greater
                middle = (low + high) // 2
                low, high = (middle + 1, high) if self._key_at(page, middle)[0] <= name else (low, middle)
            if page.flags == _LEAF_PAGE:
                key, offset, size, flags = self._key_at(page, low - 1) if low else (b"", 0, 0, 0)
                return (offset, size, flags) if key == name and low else None
            page = self._page(self._key_at(page, max(low - 1, 0))[1])
        raise NotBolt(f"is more than {_DEEPEST} pages deep")

    def _bucket(self, name: bytes) -> _Page | None:
        """The root page of that bucket; None where there is none."""
        found = self._find(self._page(self.meta.root), name)
        if found is None or not found[2] & _BUCKET_LEAF:
            return None
        offset, size, _ = found
        if size < _BUCKET.size:
            raise NotBolt(f"has a bucket {name.decode()} that is cut short")
        root, _ = _BUCKET.unpack(self._read(offset, _BUCKET.size))
        if root:
            return self._page(root)
        start = offset + _BUCKET.size  # a small bucket's only page stands in its value
        if size < _BUCKET.size + _HEADER.size:
            raise NotBolt(f"has a bucket {name.decode()} that is cut short")
        _, kind, count, _ = _HEADER.unpack(self._read(start, _HEADER.size))
        if kind != _LEAF_PAGE:
            raise NotBolt(f"has an inline page of the wrong kind {kind:#x}")
        return _Page(start, kind, count, offset + size)

    def _last_key(self, page: _Page) -> bytes | None:
        """The rightmost key below ``page``; None where there is none."""
        for _ in range(_DEEPEST):
            if not page.count:
                return None
            key, below, _, _ = self._key_at(page, page.count - 1)
            if page.flags == _LEAF_PAGE:
                return key
            page = self._page(below)
        raise NotBolt(f"is more than {_DEEPEST} pages deep, or turns in a circle")


def _fnv1a(data: bytes) -> int:
    """FNV-1a of 64 bits, bbolt's checksum of a meta page."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFF_FFFF_FFFF_FFFF
    return value

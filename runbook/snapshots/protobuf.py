"""The little of protobuf that it takes to read an entry of etcd's, and when a Kubernetes Lease was renewed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

_RENEWED = re.compile(rb'"renewTime"\s*:\s*"([0-9T:.Z+-]{1,40})"')


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf number and where it ends. Raises IndexError where the data does, or it is longer than any."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError


def value_at(head: bytes, at: int) -> int:
    """Where the value of a ``KeyValue`` begins, from the end of its key on; 0 where it has none."""
    try:
        while head[at] != 0x2A:
            if head[at] & 7:  # create_revision, mod_revision and version are numbers
                return 0
            _, at = varint(head, at + 1)
        return varint(head, at + 1)[1]
    except IndexError:
        return 0


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The fields of a protobuf message, as far as they can be read: number, value, and bytes where it has some."""
    at = 0
    try:
        while at < len(data):
            tag, at = varint(data, at)
            if tag & 7 == 0:
                number, at = varint(data, at)
                yield tag >> 3, number, b""
            elif tag & 7 == 2:
                length, at = varint(data, at)
                yield tag >> 3, 0, data[at : at + length]
                at += length
            else:
                return
    except IndexError:
        return


def _inside(data: bytes, *path: int) -> bytes:
    """A message within messages, by the numbers of its fields."""
    for wanted in path:
        data = next((inner for number, _, inner in _fields(data) if number == wanted and inner), b"")
    return data


def renewed(head: bytes) -> float:
    """When a Lease was renewed, from how its value begins, JSON or Kubernetes' protobuf; 0 where it does not say.

    Fields: k8s.io/apimachinery ``runtime.Unknown.raw`` is 2, k8s.io/api/coordination/v1 ``Lease.spec`` 2,
    ``LeaseSpec.renewTime`` 4, ``MicroTime.seconds`` 1.
    """
    start = head.find(b"k8s\0", 0, 64)
    if start >= 0:
        time = _inside(head[start + 4 :], 2, 2, 4)
        return float(next((value for number, value, _ in _fields(time) if number == 1), 0))
    found = _RENEWED.search(head)
    try:
        return datetime.fromisoformat(found.group(1).decode()).timestamp() if found else 0.0
    except ValueError:
        return 0.0

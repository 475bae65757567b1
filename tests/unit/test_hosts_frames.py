"""Framing: every byte of every command comes back under that command, whatever the packets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runbook.hosts.frames import Frames

NONCE = "0123456789abcdef0123456789abcdef"


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]]


@given(
    bodies=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 255)), min_size=1, max_size=5),
    sizes=st.lists(st.integers(0, 40), max_size=60),
)
def test_bodies_come_back_whatever_the_packets(bodies: list[tuple[bytes, int]], sizes: list[int]) -> None:
    stream = b"".join(body + f"\n{NONCE} {n} {code}\n".encode() for n, (body, code) in enumerate(bodies))
    frames = Frames(NONCE, cap=1000)
    for part in cut(stream + b"rest", sizes):
        frames.feed(part)
    assert [(p.name, p.body, p.code, p.dropped) for p in frames.pieces] == [
        (str(n), body, str(code), 0) for n, (body, code) in enumerate(bodies)
    ]
    assert frames.rest() == b"rest"


def test_what_looks_like_a_mark_but_has_another_nonce_is_output() -> None:
    frames = Frames(NONCE, cap=1000)
    fake = b"\nffffffffffffffffffffffffffffffff 0 0\n" + f"\n{NONCE[:-1]}".encode()
    frames.feed(fake + f"\n{NONCE} 0 3\n".encode())
    (piece,) = frames.pieces
    assert (piece.body, piece.code) == (fake, "3")


@given(size=st.integers(0, 5000), step=st.integers(1, 700))
def test_only_the_cap_is_kept_and_the_rest_is_counted(size: int, step: int) -> None:
    frames = Frames(NONCE, cap=1000)
    data = bytes(i % 251 for i in range(size))
    for part in [data[i : i + step] for i in range(0, size, step)]:
        frames.feed(part)
        assert len(frames.rest()) <= 1000 + len(NONCE) + 2 + step
    frames.feed(f"\n{NONCE} end 0\n".encode())
    (piece,) = frames.pieces
    assert piece.body == data[:1000]
    assert piece.dropped == max(0, size - 1000)

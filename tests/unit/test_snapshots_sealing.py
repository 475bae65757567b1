"""Sealed and opened again: each combination, each damage, the wrong key, a source that breaks, a taker that leaves."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.snapshots.sealing import NoKey, Opened, Sealed, Unsealable, identities_of, recipient
from runbook.snapshots.sidecar import Sidecar, Stored

IDENTITY = pyrage.x25519.Identity.generate()
PUBLIC = str(IDENTITY.to_public())
PLAIN = os.urandom(300_000) + b"x" * 3_000_000 + os.urandom(17)


def pieces(data: bytes, size: int = 65_000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def seal(data: bytes, recipients: tuple[str, ...] = (PUBLIC,), *, compress: bool = True) -> tuple[bytes, Sidecar]:
    sealed = Sealed(pieces(data), recipients, compress=compress)
    stored = b"".join(sealed)
    told = Stored(sealed.stored.size, sealed.stored.sha256, "zstd" if compress else "", recipients)
    plain = sealed.plain
    return stored, Sidecar("a-20260409t140000z-3f2a.db", "a", "2026-04-09T14:00:00Z", plain.sha256, plain.size, told, 1)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("recipients", [(), (PUBLIC,), (PUBLIC, str(pyrage.x25519.Identity.generate().to_public()))])
def test_what_is_sealed_can_be_opened(recipients: tuple[str, ...], compress: bool) -> None:
    stored, told = seal(PLAIN, recipients, compress=compress)
    assert (told.size, told.sha256) == (len(PLAIN), hashlib.sha256(PLAIN).hexdigest())
    assert (told.stored.size, told.stored.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    assert b"".join(Opened(pieces(stored), told, [IDENTITY])) == PLAIN
    assert (b"x" * 1000 in stored) == (not recipients and not compress)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 700), st.booleans(), st.booleans())
def test_any_bytes_in_any_pieces(data: bytes, size: int, compress: bool, encrypt: bool) -> None:
    stored, told = seal(data, (PUBLIC,) if encrypt else (), compress=compress)
    assert b"".join(Opened(pieces(stored, size), told, [IDENTITY])) == data


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[:-1],
    "cut at a piece": lambda data: data[: 65_552 * 2],
    "empty": lambda data: b"",
    "a flipped bit": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "something after it": lambda data: data + b"x",
    "twice": lambda data: data * 2,
    "text": lambda data: b"this is no snapshot" * 9999,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("recipients", [(), (PUBLIC,)])
def test_no_damage_goes_unseen(damage: str, recipients: tuple[str, ...], compress: bool) -> None:
    stored, told = seal(PLAIN, recipients, compress=compress)
    with pytest.raises(Unsealable):
        list(Opened(pieces(DAMAGES[damage](stored)), told, [IDENTITY]))


def test_another_plain_file_under_the_same_sidecar() -> None:
    """Whoever can write to the store can encrypt too: the recipients are public."""
    _, told = seal(PLAIN)
    other, _ = seal(PLAIN[::-1])
    with pytest.raises(Unsealable, match="its sidecar says"):
        list(Opened(pieces(other), told, [IDENTITY]))


def test_a_file_that_would_fill_the_disk() -> None:
    bomb, _ = seal(b"\0" * 50_000_000)
    _, told = seal(b"\0" * 1000)
    with pytest.raises(Unsealable, match="more than the 1000 bytes"):
        next(iter(Opened(pieces(bomb), told, [IDENTITY])))


def test_the_wrong_key_and_none() -> None:
    stored, told = seal(PLAIN)
    with pytest.raises(Unsealable, match="No matching keys"):
        list(Opened(pieces(stored), told, [pyrage.x25519.Identity.generate()]))
    with pytest.raises(Unsealable, match=f"encrypted to {PUBLIC}, and no identity was given"):
        Opened(pieces(stored), told)


@pytest.mark.parametrize("text", ["", "age1qqq", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1", "/etc/passwd"])
def test_what_is_no_recipient(text: str) -> None:
    with pytest.raises(NoKey, match="no age recipient"):
        recipient(text)


def test_identities_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# created: today\n# public key: {PUBLIC}\n{IDENTITY}\n")
    stored, told = seal(b"x")
    assert b"".join(Opened([stored], told, identities_of(file))) == b"x"


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "AGE-SECRET-KEY-1NONSENSE\n", "-----BEGIN OPENSSH PRIVATE KEY-----\n"]
)
def test_a_file_without_an_identity_shows_nothing_of_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(text)
    with pytest.raises(NoKey) as caught:
        identities_of(file)
    assert str(file) in str(caught.value)
    assert "NONSENSE" not in str(caught.value)


class Gone(Exception):
    """The link is lost."""


@pytest.mark.parametrize("recipients", [(), (PUBLIC,)])
def test_a_source_that_breaks_tells_its_own_reason(recipients: tuple[str, ...]) -> None:
    def broken() -> Iterator[bytes]:
        yield PLAIN
        raise Gone("the link is lost")

    with pytest.raises(Gone, match="the link is lost"):
        list(Sealed(broken(), recipients))
    stored, told = seal(PLAIN, recipients)

    def cut() -> Iterator[bytes]:
        yield stored[:100_000]
        raise Gone("the link is lost")

    with pytest.raises(Gone, match="the link is lost"):
        list(Opened(cut(), told, [IDENTITY]))


def test_who_leaves_half_way_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    sealed = Sealed(pieces(os.urandom(20_000_000)), (PUBLIC,))
    next(iter(sealed))
    assert threading.active_count() == before + 1
    sealed.close()
    assert threading.active_count() == before


def peak(work: Any) -> int:
    """Bytes that Python had allocated at most meanwhile."""
    import tracemalloc

    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_snapshot() -> None:
    def through(count: int) -> None:
        block = os.urandom(1 << 20)
        for _ in Sealed((block for _ in range(count)), (PUBLIC,)):
            pass

    assert peak(lambda: through(60)) < 16 << 20

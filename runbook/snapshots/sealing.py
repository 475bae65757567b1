"""What is done to a snapshot on its way to a store and back, in one pass: hashed, compressed, encrypted, hashed again.

zstd first, for what is encrypted cannot be compressed; then age, to recipients that the plan names (public keys, of age
or of SSH). The identities that open it again are given by the person who restores, and stand in no plan. Everything is
a stream of pieces: memory does not grow with the snapshot, and no plain copy is laid on this machine's disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from runbook.planfile.charset import masked
from runbook.snapshots.sidecar import Sidecar
from runbook.snapshots.trailer import Proven

IDENTITY = "RUNBOOK_AGE_IDENTITY"
"""The environment's word for the file with the age identities."""
PIECE = 1 << 20
"""Bytes handed on at once."""
LEVEL = 1
"""zstd's, of 22: a snapshot must be away soon; a higher one saves little on protobuf."""
_PATIENCE = 2.0
"""Seconds for what works beside to notice that nobody takes its pieces any more."""
_DEPTH = 4
"""Pieces that may wait between age and who takes them."""


class Unsealable(ValueError):
    """What came from a store is not what was sealed, or cannot be opened with these identities."""


class Locked(Unsealable):
    """It takes an identity that was not given: nothing is known of what is stored."""


class NoKey(ValueError):
    """A recipient or an identity is none; the message names it, but shows nothing of an identity."""


class Counted:
    """Passes pieces on, and knows their SHA-256 and their size in bytes."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source, self._hash = iter(source), hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        """One after the other; who begins again goes on where the last one stopped."""
        for piece in self._source:
            self._hash.update(piece)
            self.size += len(piece)
            yield piece

    @property
    def sha256(self) -> str:
        """In hex, of what has passed so far."""
        return self._hash.hexdigest()


class Sealed:
    """The pieces as they are stored. At their end ``plain`` and ``stored`` have the sums and sizes of both."""

    def __init__(self, source: Iterable[bytes], recipients: Sequence[str] = (), *, compress: bool = True) -> None:
        """Raises NoKey for what is no recipient. A source that knows its own sum is not hashed once more."""
        keys = [recipient(text) for text in recipients]
        self.plain: Counted | Proven = source if isinstance(source, Proven) else Counted(source)
        pieces: Iterable[bytes] = _compressed(self.plain) if compress else self.plain
        self._beside = _encrypted(pieces, keys) if keys else None
        self.stored = Counted(self._beside or pieces)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.stored)

    def close(self) -> None:
        """End what works beside, where somebody left before the end."""
        if self._beside:
            self._beside.close()


class Opened:
    """The plain pieces of what is stored, as its sidecar tells of it.

    Raises Unsealable while it is read, at its end at the latest: only who has had the end has had a whole snapshot. No
    more bytes come of it than the sidecar names, so that a forged file cannot fill a disk.
    """

    def __init__(self, stored: Iterable[bytes], told: Sidecar, identities: Sequence[Any] = ()) -> None:
        """``identities`` as :func:`identities_of` reads them; Unsealable where it takes some and there are none."""
        if told.stored.recipients and not identities:
            keys = ", ".join(told.stored.recipients)
            raise Locked(f"{told.name} is encrypted to {keys}, and no identity was given to open it with")
        self.told, self.stored = told, Counted(stored)
        self._beside = _decrypted(self.stored, identities) if told.stored.recipients else None
        pieces = self._beside or self.stored
        self.plain = Counted(_decompressed(pieces) if told.stored.compressed else pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.plain:
            if self.plain.size > self.told.size:
                raise Unsealable(f"it holds more than the {self.told.size} bytes that its sidecar tells of")
            yield piece
        for _ in self.stored:
            pass  # what follows the end belongs to the file too, and its sum tells of it
        for kind, seen, told in (("stored", self.stored, self.told.stored), ("plain", self.plain, self.told)):
            if (seen.size, seen.sha256) != (told.size, told.sha256):
                raise Unsealable(
                    f"the {kind} file has {seen.size} bytes and the sha256 {seen.sha256}, "
                    f"its sidecar says {told.size} and {told.sha256}"
                )

    def close(self) -> None:
        """End what works beside, where somebody left before the end."""
        if self._beside:
            self._beside.close()


def recipient(text: str) -> Any:
    """A public key: ``age1…``, or a line as in ``~/.ssh/id_ed25519.pub``. Raises NoKey."""
    import pyrage

    kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
    try:
        return kind.from_str(text)
    except pyrage.RecipientError as error:
        shown = f"{masked(text)!r} is no age recipient (age1…, or an SSH public key)"
        raise NoKey(f"{shown}: {error}" if text == masked(text) else shown) from None


def identities_of(path: Path) -> list[Any]:
    """The identities in a file: lines that begin with ``AGE-SECRET-KEY-``, or one SSH private key. Raises NoKey.

    Raises OSError where it cannot be read.
    """
    import pyrage

    data = path.read_bytes()
    found = []
    try:
        if b"PRIVATE KEY-----" in data:
            return [pyrage.ssh.Identity.from_buffer(data)]
        for line in data.decode("utf-8", "replace").splitlines():
            if line.strip().startswith("AGE-SECRET-KEY-"):
                found.append(pyrage.x25519.Identity.from_str(line.strip()))
    except pyrage.IdentityError as error:
        raise NoKey(f"{path} holds an identity that cannot be read: {error}") from None
    if not found:
        raise NoKey(f"{path} holds no age identity (a line AGE-SECRET-KEY-…, or an SSH private key)")
    return found


def _compressed(source: Iterable[bytes]) -> Iterator[bytes]:
    import zstandard

    chunker = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).chunker(chunk_size=PIECE)
    for piece in source:
        yield from chunker.compress(piece)
    yield from chunker.finish()  # type: ignore[no-untyped-call] # its stub lacks the types


def _decompressed(source: Iterable[bytes]) -> Iterator[bytes]:
    """In pieces of a bounded size, whatever they were compressed from."""
    import zstandard

    file = cast("IO[bytes]", _Reader(source))  # of a file only read is called
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_size=PIECE)
    try:
        while piece := reader.read(PIECE):
            yield piece
    except zstandard.ZstdError as error:
        raise Unsealable(f"the compressed data is damaged: {error}") from None


def _encrypted(source: Iterable[bytes], keys: Sequence[Any]) -> Generator[bytes, None, None]:
    import pyrage

    return _through(lambda reader, writer: pyrage.encrypt_io(reader, writer, list(keys)), source)


def _decrypted(source: Iterable[bytes], identities: Sequence[Any]) -> Generator[bytes, None, None]:
    import pyrage

    def decrypt(reader: _Reader, writer: _Writer) -> None:
        try:
            pyrage.decrypt_io(reader, writer, list(identities))
        except pyrage.DecryptError as error:
            raise Locked(f"it cannot be decrypted: {error}") from None
        except OSError as error:
            if reader.failed or writer.left:
                raise
            raise Unsealable(f"the encrypted data is damaged or cut short: {error}") from None

    return _through(decrypt, source)


class _Left(Exception):
    """Nobody takes what is written any more."""


class _Reader:
    """Pieces as a file to read from. What goes wrong with the source is kept: age tells it in its own words only."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._pieces, self._rest = iter(source), memoryview(b"")
        self.failed: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; b"" at the end."""
        while not self._rest:
            try:
                piece = next(self._pieces, None)
            except BaseException as error:
                self.failed = error
                raise
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        size = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


class _Writer:
    """What is written goes to a queue, in pieces worth waking a thread for; ``left`` where nobody takes it any more."""

    def __init__(self) -> None:
        self.queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self.left = False
        self._waiting, self._size = list[bytes](), 0

    def write(self, data: bytes) -> int:
        """Waits while the queue is full. What comes is some 64 KiB, and the other thread is not woken for each."""
        self._waiting.append(bytes(data))
        self._size += len(data)
        if self._size >= PIECE:
            self._hand_on()
        return len(data)

    def end(self) -> None:
        """No more will be written."""
        self._hand_on()
        self._put(None)

    def _hand_on(self) -> None:
        piece, self._waiting, self._size = b"".join(self._waiting), [], 0
        if piece:
            self._put(piece)

    def _put(self, item: bytes | None) -> None:
        while not self.left:
            try:
                return self.queue.put(item, timeout=0.2)
            except queue.Full:
                continue
        raise _Left

    def flush(self) -> None:
        """What is held back here comes at the end."""


def _through(work: Callable[[_Reader, _Writer], None], source: Iterable[bytes]) -> Generator[bytes, None, None]:
    """What ``work`` writes of what it reads, as pieces; it runs beside, in a thread that ends with the iteration."""
    reader, writer = _Reader(source), _Writer()
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            work(reader, writer)
        except BaseException as error:
            wrong.append(reader.failed or error)
        finally:
            with contextlib.suppress(_Left):
                writer.end()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (piece := writer.queue.get()) is not None:
            yield piece
        if wrong:
            raise wrong[0]
    finally:
        writer.left = True
        thread.join(_PATIENCE)  # its source may be a disk that is away: whoever leaves does not wait for that

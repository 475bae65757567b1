"""``s3://``, ``gs://``, ``az://``: buckets, through one library (obstore, which is Rust's object_store).

It streams, tries again, and sends parts side by side. An object becomes visible with its last part, whole; one that is
not finished is given up, and was never there. What was measured of it, and against what, stands in docs/stores.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from runbook.backup import Place
from runbook.snapshots.beside import Beside, Feed, ahead
from runbook.snapshots.bucket import bucket
from runbook.snapshots.buckettrouble import is_missing, trouble
from runbook.snapshots.silence import Silence, Tell, nobody
from runbook.snapshots.stores import AlreadyThere, Entry, NotThere, Store, StoreTrouble

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, PutResult
    from obstore.store import ObjectStore

T = TypeVar("T")
_READ, _WRITE = "read {} in", "write {} into"
PART = 8 << 20
"""Bytes of one part of an upload: 10,000 of them, which is S3's limit, hold 80 GB; etcd holds a tenth of that."""
AT_ONCE = 3
"""Parts on their way at once."""
PIECE = 1 << 20
"""Bytes handed on at once of what is read."""
_DEPTH = 4
"""Pieces that wait between the library and who gives or takes them."""
FIRST = timedelta(seconds=10)
"""For how long the first request of anything is tried again: who waits for it is told soon."""
PATIENCE = timedelta(seconds=60)
"""For how long each request of a transfer is tried again: a server that was restarted is waited for."""
SILENCE = timedelta(seconds=60)
"""After so long without an answer a request has failed: a part takes less at 140 kB/s."""
_CLEANING = 10.0
"""Seconds that an interrupted upload may take to remove its parts."""


class Objects(Store):
    """The objects right below one prefix of one bucket; those of deeper prefixes are others'."""

    def __init__(self, place: Place, tell: Tell = nobody) -> None:
        """Connects to nothing yet. Raises StoreTrouble for a place, or for credentials, that cannot be meant.

        ``tell`` is told, in a line, where the store is silent for long.
        """
        self.url = place.url.rstrip("/")
        self._silence = Silence(self.url, tell)
        self._quick = bucket(place, FIRST, min(SILENCE, FIRST * 2))
        self._store = bucket(place, PATIENCE, SILENCE)

    def trial(self) -> None:
        """Nothing: who may only put and get could not remove it, and where versions are kept it would stay."""

    def entries(self) -> list[Entry]:
        """Sorted by name; "directories" that a provider's console makes are no files."""
        import obstore

        found = self._call("list", "", self._quick, lambda store: obstore.list_with_delimiter(store)["objects"])
        entries = [Entry(o["path"], o["size"], o["last_modified"]) for o in found if o["path"]]
        return sorted(entries, key=lambda e: e.name)

    def read(self, name: str) -> Iterator[bytes]:
        """From beginning to end; where the connection breaks, on from there, as long as each try brings something."""
        _checked(name)
        got = self._get(self._quick, name)
        size, tag, at, tried = got.meta["size"], got.meta["e_tag"], 0, -1
        while True:
            try:
                with self._told(_READ, name):
                    parts = (bytes(part) for part in got.stream(min_chunk_size=PIECE))
                    for piece in self._waited(ahead(parts, _DEPTH, self._silence.look)):
                        yield piece
                        at += len(piece)
                if at == size:
                    return
                raise StoreTrouble(
                    f"cannot read {name} in {self.url}: it ended after {at} of {size} bytes", "try again"
                )
            except StoreTrouble:
                if at in (tried, size):
                    raise
            tried = at
            got = self._get(self._store, name, at, tag)

    def write(self, name: str, pieces: Iterable[bytes], *, over: bool = False) -> None:
        """Whole or not at all, also where it is interrupted; what was stored has the size of what was sent.

        A small file is made only where there is none, by one request, whoever else writes. Of a larger one this cannot
        be asked through the library: it is looked for before the first part is sent, and again before the last one
        makes it visible. What remains is another writer of the same name, which has a random part, in those
        milliseconds: then one of the two is there, whole.
        """
        _checked(name)
        if not over:
            self._absent(name, self._quick)
        source = iter(pieces)
        begin, ended = _first(source)
        if ended:
            tag, size = self._one(name, begin, over=over), len(begin)
        else:
            tag, size = self._parts(name, chain([begin], source), over=over)
        try:
            self._prove(name, tag, size, over=over)
        except KeyboardInterrupt:
            if not over:
                self.remove(name)
            raise

    def remove(self, name: str) -> None:
        """Nothing where it is not there: not every provider tells."""
        import obstore

        _checked(name)
        with contextlib.suppress(NotThere):
            self._call("remove {} from", name, self._quick, lambda store: obstore.delete(store, name))

    def _get(self, store: ObjectStore, name: str, at: int = 0, tag: str | None = None) -> GetResult:
        """Begin to read there, of the version with that tag. Raises NotThere."""
        import obstore

        options: GetOptions = {}
        if at:
            options["range"] = {"offset": at}
        if tag:
            options["if_match"] = tag
        return self._call(_READ, name, store, lambda store: obstore.get(store, name, options=options))

    def _absent(self, name: str, store: ObjectStore) -> None:
        """Raises AlreadyThere. It is asked for as if to be read: an answer to HEAD has no word of what is wrong."""
        with contextlib.suppress(NotThere):
            self._get(store, name)
            raise self._taken(name)

    def _taken(self, name: str) -> AlreadyThere:
        return AlreadyThere(f"{self.url} has a {name} already", "it is not written over; remove it first")

    def _one(self, name: str, data: bytes, *, over: bool) -> str | None:
        """By one request. The object's tag."""
        import obstore

        mode = "overwrite" if over else "create"
        sending = Beside(lambda: obstore.put(self._store, name, data, mode=mode, use_multipart=False))  # type: ignore[arg-type]
        with self._told(_WRITE, name), self._undone(name, sending, over=over), self._taking():
            return sending.result(self._silence.look)["e_tag"]

    def _parts(self, name: str, pieces: Iterable[bytes], *, over: bool) -> tuple[str | None, int]:
        """In parts, as they come. The object's tag, and the bytes that were sent."""
        import obstore

        feed, size = Feed(_DEPTH), 0
        sending = Beside(
            lambda: obstore.put(self._store, name, feed, use_multipart=True, chunk_size=PART, max_concurrency=AT_ONCE)
        )
        with self._undone(name, sending, feed, over=over):
            for piece in pieces:
                size += len(piece)
                with self._taking():
                    taken = feed.give(piece, sending, self._silence.look)
                if not taken:
                    break
            else:
                if not over:
                    self._absent(name, self._store)
                feed.give(None, sending)
            with self._told(_WRITE, name), self._taking():
                return sending.result(self._silence.look)["e_tag"], size

    @contextlib.contextmanager
    def _undone(self, name: str, sending: Beside[PutResult], feed: Feed | None = None, *, over: bool) -> Iterator[None]:
        """Where the source fails, or a Ctrl-C comes: its parts are removed, or the object where it was finished yet."""
        try:
            yield
        except BaseException:
            if feed and not sending.ended():
                feed.give_up()
            if sending.ended(_CLEANING) and not over:
                with contextlib.suppress(Exception):  # it failed, which is how it should be; or it is removed
                    sending.result()
                    self.remove(name)
            raise

    def _prove(self, name: str, tag: str | None, size: int, *, over: bool) -> None:
        """That what is there now has so many bytes. Raises StoreTrouble, and removes what is not whole."""
        import obstore

        seen = self._call(_WRITE, name, self._store, lambda store: obstore.head(store, name))
        if tag and seen["e_tag"] and seen["e_tag"] != tag:
            if over:
                return  # a later writer of the same name, which is theirs
            raise self._taken(name)
        if seen["size"] != size:
            self.remove(name)
            raise StoreTrouble(
                f"cannot write {name} into {self.url}: of {size} bytes that were sent, the store has {seen['size']}; "
                "it was removed",
                "try again, and look at what stands between: a proxy?",
            )

    def _call(self, what: str, name: str, store: ObjectStore, work: Callable[[ObjectStore], T]) -> T:
        """Of the library, with its errors told; a Ctrl-C does not wait for it."""
        most = FIRST * 3 if store is self._quick else PATIENCE + SILENCE
        with self._told(what, name), self._silence.waiting("not answered", most.total_seconds()):
            return Beside(lambda: work(store)).result(self._silence.look)

    def _taking(self) -> contextlib.AbstractContextManager[None]:
        """It is to take what it is given; where it does not, it is asked to forget that, which may take as long.

        What is on its way to it cannot be seen: only a part that has arrived makes room for more.
        """
        return self._silence.waiting("confirmed nothing", (PATIENCE + SILENCE).total_seconds() * 2)

    def _waited(self, coming: Iterator[bytes]) -> Iterator[bytes]:
        """What comes. Where it does not, it is asked for once more."""
        most = (PATIENCE + SILENCE * 2).total_seconds()
        while True:
            with self._silence.waiting("sent next to nothing", most):
                piece = next(coming, None)
            if piece is None:
                return
            yield piece

    @contextlib.contextmanager
    def _told(self, what: str, name: str) -> Iterator[None]:
        """An error of the library or the provider, told as the store's; its own text, which may hold a key, is left."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except AlreadyExistsError:
            raise self._taken(name) from None
        except PreconditionError:
            raise StoreTrouble(f"{self.url} has another {name} than before", "it was written over; try again") from None
        except (BaseError, OSError, ValueError) as error:
            if "<Code>InvalidBlockList" in str(error):  # Azure: another writer of that name was done first
                raise self._taken(name) from None
            if isinstance(error, FileNotFoundError) and what != _WRITE and is_missing(str(error)):
                raise NotThere(f"{self.url} has no {name}", "list what it has: runbook snapshot list") from None
            raise trouble(self.url, what.format(name), str(error)) from None


def _first(source: Iterator[bytes]) -> tuple[bytes, bool]:
    """What fits one part, or a little more; and whether that is all."""
    begin = bytearray()
    for piece in source:
        begin += piece
        if len(begin) > PART:
            return bytes(begin), False
    return bytes(begin), True


def _checked(name: str) -> None:
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a file in a store")

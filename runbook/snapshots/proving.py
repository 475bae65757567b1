"""``verify``, ``push`` and ``fetch``: a snapshot is read to its end, and what it is compared with what is said of it.

A plain file of this machine is read where it lies. What lies in a store, or is sealed, is opened in a stream into a
file without a name (``scratch``), for what a snapshot holds stands all over its file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from runbook.checks.lost import taken
from runbook.checks.words import size
from runbook.errors import NOTE, Refused, UsageError
from runbook.planfile.charset import masked
from runbook.planfile.places import store_url
from runbook.snapshots import finding, reading, shipping
from runbook.snapshots.bolt import NotBolt
from runbook.snapshots.bringing import Coming, bring
from runbook.snapshots.content import Changed, Content
from runbook.snapshots.integrity import SnapshotDamaged, SnapshotFacts, inspect_file
from runbook.snapshots.origin import Origin
from runbook.snapshots.scratch import held
from runbook.snapshots.sealing import Locked, Unsealable
from runbook.snapshots.sidecar import MAX_BYTES, SUFFIX, NoSidecar, Sidecar
from runbook.snapshots.stores import Store, StoreTrouble
from runbook.snapshots.trailer import NotASnapshot
from runbook.snapshots.urls import SEALED, Reference, parse_reference
from runbook.snapshots.work import Source, Tell, Where, told

PIECE = 1 << 20


@dataclass(frozen=True)
class Proof:
    """A snapshot that was read to its end and is whole. ``compared``: whether a sidecar says the same."""

    name: str
    facts: SnapshotFacts
    content: Content
    compared: bool
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "verified": True,
            "sha256": self.facts.sha256,
            "size": self.facts.size,
            "revision": self.facts.revision,
            "keys": self.content.keys,
            "kinds": dict(self.content.kinds),
            "sidecar": self.compared,
            "warnings": list(self.warnings),
        }

    def text(self) -> str:
        """For people."""
        agrees = "its sidecar says the same" if self.compared else "it has no sidecar to compare with"
        return (
            f"{self.name}: whole: {size(self.facts.size)}, revision {self.facts.revision}, {self.content.keys} keys; "
            f"{agrees}\nsha256 {self.facts.sha256}"
        )


def prove(path: Path, name: str, sidecar: Sidecar | None) -> Proof:
    """Read a plain file to its end: trailer, database, keys, and whatever its sidecar says.

    Raises SnapshotDamaged, or NotASnapshot where it is whole and yet not what it should be; OSError.
    """
    content = reading.begin(path)  # beside the hashing, in a process of its own
    shown = "" if name == str(path) else name
    facts = inspect_file(path, sha256=sidecar.sha256 if sidecar else None, shown=shown)
    try:
        held_ = content.result()
    except (NotBolt, Changed) as error:
        raise NotASnapshot(f"{name}: it {error}") from error
    if not held_.keys:
        raise NotASnapshot(f"{name}: it holds no key")
    differs = _agrees(name, facts, held_, sidecar) if sidecar else ()
    warnings = facts.warnings() if shown == "" else ()  # a copy's mode is not the stored file's
    return Proof(name, facts, held_, sidecar is not None, (*warnings, *differs))


def _agrees(name: str, facts: SnapshotFacts, content: Content, sidecar: Sidecar) -> tuple[str, ...]:
    """Raises NotASnapshot where the sidecar tells of another file; what else differs is told.

    The sum says that it is the file that was taken. Its objects were counted by etcd's own list, which some keys that
    are no Kubernetes' object do not pass.
    """
    for what, has, says in (("size", facts.size, sidecar.size), ("revision", facts.revision, sidecar.revision)):
        if has != says:
            raise NotASnapshot(f"{name}: its {what} is {has}, and its sidecar says {says}")
    kinds = {*content.kinds, *sidecar.kinds} - {"other"} if sidecar.kinds else set()
    pairs = [(kind, content.kinds.get(kind, 0), sidecar.kinds.get(kind, 0)) for kind in sorted(kinds)]
    return tuple(f"it holds {has} {kind}, and its sidecar says {says}" for kind, has, says in pairs if has != says)


# verify.


def verify(source: Source, tell: Tell) -> Proof:
    """A file of this machine, or a snapshot in a store, whose sidecar then says what came of it.

    One that was found damaged is not called verified any more: nobody restores it for the newest, and ``prune`` does
    not keep it in a good one's place.
    """
    word = source.word
    if "://" not in word and not word.endswith(SEALED):
        path = Path(word)
        with _told(word):
            return prove(path, str(path), _beside(path))
    reference = _reference(word)
    with _told(word):
        store = source.store(reference.place_url)
        found = finding.find(store, reference, datetime.now(UTC), source.cluster)
        try:
            with opened(store, found, source.identities, tell) as path:
                proof = prove(path, found.name, found.sidecar)
        except (NotASnapshot, Unsealable, SnapshotDamaged) as error:
            if not isinstance(error, Locked) and getattr(error, "reason", "trailer") in _DAMAGE:
                _noted(store, found, "", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {error}".splitlines()[0], tell)
            raise
    _noted(store, found, shipping.rfc3339(datetime.now(UTC)), "", tell)
    return proof


_DAMAGE = ("empty", "truncated", "no-trailer", "trailer", "not-bolt", "bolt", "sha256")
"""Reasons of SnapshotDamaged that speak of the snapshot, and not of this machine."""


def _noted(store: Store, found: finding.Found, verified: str, damaged: str, tell: Tell) -> None:
    """Write it into the sidecar; who may only read the store has been told all the same."""
    if found.sidecar is None or (found.sidecar.verified, found.sidecar.damaged) == (verified, damaged):
        return
    try:
        told_ = replace(found.sidecar, verified=verified, damaged=damaged)
        store.write(found.name + SUFFIX, [told_.json().encode()], over=True)
    except StoreTrouble as error:
        tell(f"warning: its sidecar still says when it was verified before: {error.what}")
        return
    if damaged:
        tell("its sidecar says from now on that it is damaged: ?latest=verified and prune do not count it")


def _beside(path: Path) -> Sidecar | None:
    """The sidecar beside a plain file; None where there is none. Raises NotASnapshot where it is not its own."""
    beside = path.with_name(path.name + SUFFIX)
    try:
        with beside.open("rb") as file:
            sidecar = Sidecar.from_json(file.read(MAX_BYTES))
    except FileNotFoundError:
        return None
    except NoSidecar as error:
        raise NotASnapshot(f"{beside} cannot be used: {error}") from error
    if sidecar.name != path.name:
        raise NotASnapshot(f"{beside} is the sidecar of {sidecar.name}")
    return sidecar


def _reference(word: str) -> Reference:
    """Raises UsageError for what names no snapshot."""
    url = word if "://" in word else f"file://{quote(str(Path(word).absolute()))}"
    try:
        reference = parse_reference(url)
        if fault := store_url(reference.place_url):
            raise ValueError(fault)
    except ValueError as error:
        raise UsageError(
            f"{masked(word)} {masked(str(error))}",
            true="nothing was changed",
            means="a snapshot is a file of this machine, or STORE/NAME, or STORE?latest=verified",
            next=("runbook snapshot list STORE",),
        ) from error
    return reference


@contextlib.contextmanager
def opened(store: Store, found: finding.Found, identities: Sequence[Any], tell: Tell) -> Iterator[Path]:
    """A snapshot of a store, plain, for as long as the block lasts. Raises StoreTrouble, Unsealable, OSError."""
    from runbook.runs import state_dir

    tell(f"fetching {found.name} from {store.url}: {size(found.size)}")
    with held(found.plain_size, state_dir) as (file, path):
        bring(store, found, identities, file, str(path.parent), Coming(found.name, found.size))
        yield path


@contextlib.contextmanager
def _told(word: str) -> Iterator[None]:
    """A wrong snapshot is told by the name that was typed."""
    look = f"runbook snapshot list {shlex.quote(_folder(word))}{NOTE}is there another one?"
    with told([look]):
        try:
            yield
        except OSError as error:
            raise Refused(
                f"{word}: {error.strerror or error}",
                true="nothing was changed",
                means="whether it is whole is not known",
                next=(look,),
            ) from error


def _folder(word: str) -> str:
    """The store that what was typed lies in, as it is typed."""
    if "://" in word:
        return word.partition("?")[0] if "?" in word else word.rpartition("/")[0]
    return f"file://{Path(word).absolute().parent}"


# push.


def push(file: Path, at: Where, cluster: str, recipients: Sequence[str], known: Origin, tell: Tell) -> Sidecar:
    """Store a plain snapshot of this machine, proven first. Raises RunbookError; nothing is left in the store then."""
    backup = at.backup
    name = backup.name if backup else cluster
    with told([at.typed("list")]):
        at.store.trial()
    with _told(str(file)):
        proof = prove(file, str(file), _beside(file))
    tell(f"{file}: whole, {size(proof.facts.size)}, revision {proof.facts.revision}; to {at.store.url}")
    facts = shipping.Facts(  # the version in the file is the cluster's, and not that of etcd's program
        cluster=name,
        at=datetime.fromtimestamp(taken(proof.content)[0], UTC),
        revision=proof.facts.revision,
        kinds=dict(proof.content.kinds),
        etcd=known.etcd,
        member=known.member,
        fingerprints=dict(known.fingerprints),
    )
    keys = backup.recipients if backup else tuple(recipients)
    with told([at.typed("list")]):
        return shipping.ship(at.store, _pieces(file, proof), facts, keys, compress=backup.compress if backup else True)


def _pieces(file: Path, proof: Proof) -> Iterator[bytes]:
    """The file that was proven, or NotASnapshot: another one may have its name by now."""
    try:
        with file.open("rb", buffering=0) as source:
            seen = os.fstat(source.fileno())
            if (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns) != proof.content.touched[:4]:
                raise NotASnapshot(f"{file}: it was changed or replaced after it had been proven")
            while piece := source.read(PIECE):
                yield piece
    except OSError as error:
        raise NotASnapshot(f"{file}: it can no longer be read: {error.strerror}") from error


# fetch.


def fetch(source: Source, into: Path | None, tell: Tell) -> tuple[Path, Proof]:
    """A stored snapshot as a plain file here, 0600, whole or not at all. Raises UsageError where that file is there.

    It has no name before it is whole: whatever ends this program leaves nothing.
    """
    reference = _reference(source.word)
    with _told(source.word):
        store = source.store(reference.place_url)
        found = finding.find(store, reference, datetime.now(UTC), source.cluster)
        file = into or Path(found.name.removesuffix(".age").removesuffix(".zst"))
        _free(file)
        tell(f"fetching {found.name} from {store.url}: {size(found.size)}; to {file}")
        with _unnamed(file.parent) as (out, path):
            bring(store, found, source.identities, out, str(file.parent), Coming(found.name, found.size))
            os.fsync(out.fileno())
            proof = prove(path, found.name, found.sidecar)
            try:
                _name(path, file)
            except FileExistsError:
                _free(file)
    return file, proof


def _name(path: Path, file: Path) -> None:
    """Give what is open there a name, which, other than a rename, never takes one that is taken.

    Relative to its directory: only so is a link in ``/proc`` followed (open(2) on ``O_TMPFILE``).
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(path.name, file, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _unnamed(directory: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file, 0600, and a path by which it can be read and be given a name while the block lasts.

    Where the file system or the machine has no files without a name, it has a hidden one until the block ends.
    """
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        path, named = Path(f"/proc/{os.getpid()}/fd/{fd}"), False
    except (OSError, AttributeError):
        path, named = directory / f".{secrets.token_hex(8)}.coming", True
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "r+b") as out:
            yield out, path
    finally:
        if named:
            path.unlink(missing_ok=True)


def _free(file: Path) -> None:
    if file.exists() or file.is_symlink():
        raise UsageError(
            f"{file} is there already",
            true="nothing was changed",
            means="a file is never written over",
            next=(f"ls -l {shlex.quote(str(file))}{NOTE}then name another one with -o",),
        )

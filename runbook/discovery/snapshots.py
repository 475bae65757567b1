"""The snapshot that the command line names: on this machine, on the disk of a host of the plan, or in a store."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from runbook.checks.words import on
from runbook.discovery.asks import Stat, Written, written
from runbook.discovery.draft import Source
from runbook.discovery.seen import Seen
from runbook.errors import NOTE, UsageError
from runbook.plan import Place
from runbook.planfile.places import snapshot_url
from runbook.snapshots.bolt import _LEAF_PAGE, Database, NotBolt, _Page
from runbook.snapshots.integrity import SnapshotDamaged, inspect_once
from runbook.snapshots.urls import is_reference, parse_reference

PATIENCE = 20.0
"""Seconds for a store to say what it has; a plan can be written without."""


class Listing(Database):
    """A snapshot that tells the members of its cluster, too."""

    def members(self) -> tuple[Written, ...]:
        """What its bucket ``members`` holds (etcd's ``schema/membership.go``: a JSON text each). Raises NotBolt."""
        found = self._bucket(b"members")
        texts = self._texts(found, 4) if found else ()
        return tuple(w for text in texts if (w := written(text.decode(errors="replace"))))

    def _texts(self, page: _Page, deepest: int) -> Iterator[bytes]:
        for index in range(min(page.count, 100)):
            _, at, octets, _ = self._key_at(page, index)
            if page.flags == _LEAF_PAGE:
                yield self._read(at, min(octets, 1 << 16))
            elif deepest:
                yield from self._texts(self._page(at), deepest - 1)


def members(path: Path) -> tuple[Written, ...]:
    """The members that a snapshot on this machine lists; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            octets = os.fstat(file.fileno()).st_size
            return Listing(file.fileno(), octets - octets % 512).members()
    except (NotBolt, OSError):
        return ()


@dataclass(frozen=True)
class Named:
    """What was typed: a path here, ``node`` and ``path`` of ``host://NODE/path``, a store's ``url``; nothing at all."""

    path: str = ""
    node: str = ""
    url: str = ""

    def on_its_node(self, found: Source, seen: Sequence[Seen], again: Callable[[str], str]) -> Source:
        """A snapshot on a host's disk, by the member's name. Raises UsageError where no host is that node, or has it.

        Where none answers, nobody knows what they are called: that they do not is what is wrong then. ``again``: the
        same command with another snapshot.
        """
        if not self.node or all(s.silent for s in seen):
            return found
        there = next((s for s in seen if self.node in (s.word, s.name, s.place.host)), None)
        if there is None:
            names = ", ".join(s.name or s.word for s in seen if not s.silent)
            silent = ", ".join(s.word for s in seen if s.silent)
            urls = [(s, f"host://{s.name or s.word}{self.path}") for s in seen if not s.silent]
            raise UsageError(
                f"--snapshot host://{self.node}{self.path}: {self.node} is none of the hosts: {names}"
                f"{f'; not known are the names of {silent}: no answer' if silent else ''}",
                true="no host is changed, and no plan was written",
                means="after host:// stands the member's name, or the host as --host names it",
                next=tuple(f"{again(url)}{NOTE}if it lies on {s.name or s.word}" for s, url in urls),
            )
        name = there.name or self.node
        self._lies_there(there, name, seen, again)
        # `etcdutl snapshot status` does not compare the checksum, and to hash a large file takes longer than init may
        damage = f"{self.path} on {name}: its checksum was not compared: `runbook preview --check` does that"
        if there.snapshot is None:
            damage = f"{self.path} on {name}: its revision was not asked, or not told (it takes an etcdutl there)" + (
                "; nor was its checksum compared: `runbook preview --check` does that"
            )
        return Source(f"host://{name}{self.path}", revision=there.snapshot, damage=damage)

    def _lies_there(self, there: Seen, name: str, seen: Sequence[Seen], again: Callable[[str], str]) -> None:
        """Raises UsageError where the host says that no file of that name is there; no answer is none."""
        stat = there.disk.get(self.path)
        if self.path not in there.disk or (stat and stat.kind == "regular file"):
            return
        others = [f"host://{s.name}{b.path}" for s in seen if s.name for b in s.backups][:3]
        told = f"files that may be snapshots were seen at {', '.join(others)}" if others else "none was seen elsewhere"
        folder = self.path if stat and stat.kind == "directory" else os.path.dirname(self.path)
        look = f"{on(there.place, 'ls', '-l', folder)}{NOTE}what is there"
        raise UsageError(
            f"--snapshot host://{self.node}{self.path}: {_instead(stat, name, there.place.host)}",
            true="no host is changed, and no plan was written",
            means=f"there is nothing to restore at that place; {told}",
            next=(look, *(f"{again(url)}{NOTE}if it is this one" for url in others)),
        )


def _instead(stat: Stat | None, name: str, host: str) -> str:
    """What a host has where the snapshot should be."""
    if stat is None:
        return f"{name} ({host}) has no such file"
    if stat.kind == "regular empty file":
        return f"on {name} it is empty: the backup failed when it was taken"
    return f"on {name} it is no file but: {stat.kind}"


def named(word: str, again: Callable[[str], str]) -> Named:
    """What ``--snapshot`` means. Raises UsageError for what no plan could hold, or a file that is not there.

    ``again``: the same command with another snapshot.
    """
    if not word:
        return Named()
    other = f"{again('FILE')}{NOTE}with FILE as it should be"
    if is_reference(word):
        if fault := snapshot_url(word):
            raise _usage(word, fault, "a plan cannot hold that URL", other)
        return Named(url=word)
    if on := re.fullmatch(r"host://([^/]+)(/.*)", word):
        if fault := snapshot_url(word):
            raise _usage(word, fault, "a plan cannot hold that name", other)
        return Named(on[2], on[1])
    path = unquote(word.removeprefix("file://")) if word.startswith("file://") else word
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        fault = snapshot_url(word) or "is no file here"
        raise _usage(word, fault, "runbook reads files of this machine, of a node's disk, and of stores", other)
    full = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(full):
        raise _usage(word, "is a directory", "one file is restored, and which one is yours to say", listing(full))
    if not os.path.isfile(full):
        means = "on this machine there is no file of that name, and no host was asked for it"
        raise _usage(word, "is not there", means, listing(os.path.dirname(full)))
    if fault := snapshot_url(f"file://{quote(full)}"):
        raise _usage(word, fault, "a plan cannot hold that name", listing(os.path.dirname(full)))
    return Named(full)


def listing(folder: str) -> str:
    """The command that shows what is in a directory of this machine, or in the nearest one above it that is there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return f"ls -l {shlex.quote(folder)}{NOTE}what is there"


def _usage(word: str, fault: str, means: str, next_: str) -> UsageError:
    how = "name a file of this machine, host://NODE/path on a node's disk, or a store's URL"
    true = "nothing was connected to, and nothing was written"
    return UsageError(f"--snapshot {word}: it {fault}; {how}", true=true, means=means, next=(next_,))


def source(wanted: Named) -> Source:
    """A local snapshot, read once from beginning to end. Raises SnapshotDamaged (exit code 3) for one of no use.

    Of one in a store only the sidecar is read, where the store answers.
    """
    if wanted.url:
        return _in_a_store(wanted.url)
    if wanted.node or not wanted.path:
        return Source()
    path = Path(wanted.path)
    url = f"file://{quote(wanted.path)}"
    try:
        facts = inspect_once(path)
    except SnapshotDamaged as error:
        if error.reason != "no-trailer":
            raise
        facts = inspect_once(path, allow_missing_trailer=True)
    found = Source(url, facts.sha256, facts.revision, raw=not facts.has_trailer, members=members(path))
    warnings = [w for w in facts.warnings() if facts.has_trailer or "no checksum" not in w]
    if not facts.has_trailer:
        warnings.append(f"{path} has no checksum at its end: `run` refuses it until allowMissingTrailer is true")
    return replace(found, damage="; ".join(warnings))


def _in_a_store(url: str) -> Source:
    """What its sidecar tells of a snapshot in a store, with this machine's own credentials."""
    told: Future[Source] = Future()

    def look() -> None:
        try:
            told.set_result(_looked(url))
        except BaseException as error:  # it belongs to the caller's thread
            told.set_exception(error)

    threading.Thread(target=look, daemon=True).start()
    try:
        return told.result(PATIENCE)
    except TimeoutError:
        return Source(url, damage=f"{url} was not looked into: no answer within {PATIENCE:g} s")


def _looked(url: str) -> Source:
    from runbook.snapshots.finding import find
    from runbook.snapshots.opening import open_store
    from runbook.snapshots.stores import StoreTrouble

    reference = parse_reference(url)
    if reference.place_url.startswith("host://"):
        return Source(url, damage=f"{url} was not looked into: `runbook preview --check` does that")
    try:
        found = find(open_store(Place(reference.place_url), None), reference, datetime.now(UTC))
    except StoreTrouble as error:
        return Source(url, damage=f"{url} was not looked into: {error}")
    if found.sidecar is None:
        return Source(url, damage=f"{url} has no sidecar: its revision is not known before it is fetched")
    keys = found.sidecar.stored.recipients
    hints = [f"now it is {found.name}, of {found.sidecar.cluster}"] if not reference.name else []
    hints += [f"encrypted to {', '.join(keys)}: identityFile, or RUNBOOK_AGE_IDENTITY, opens it"] if keys else []
    # which one the latest is, changes: its sum is none for the plan to hold on to
    sha256 = found.sha256 if reference.name else ""
    return Source(url, sha256, found.sidecar.revision, hints=tuple(hints))

"""``runbook diagnose`` from its arguments to the archive: asks, redacts, writes, and tells what became of it."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbook.checks import places
from runbook.connecting import hosts_of, targets
from runbook.diagnose.archive import Archive, refuse_existing
from runbook.diagnose.contents import Contents, Entry, entry_texts, of
from runbook.diagnose.gather import Answer, Ended, Told, gather
from runbook.diagnose.questions import topics
from runbook.diagnose.scripts import CUT
from runbook.diagnose.subject import Piece, Subject, pieces
from runbook.errors import NOTE, Refused, RunbookError
from runbook.journal import now
from runbook.redaction import masked
from runbook.tables import duration
from runbook.transport import Claim

Say = Callable[[str], None]
_BEGINNING = re.compile(r"(?m)^(\[cut: only the last \d+ bytes are kept\]\n)((?:[ \t]+[^\n]*\n)+)")
"""Indented lines behind a cut: what they belong to is gone, and with it what would tell that they are secret."""


@dataclass(frozen=True)
class Done:
    """What became of it: the archive's place, its bytes, and what is in it."""

    path: str
    octets: int
    contents: Contents


def default_path(name: str) -> Path:
    """``<plan name>-diagnose-<UTC stamp>.tar.zst`` in the current directory."""
    return Path(f"{name}-diagnose-{time.strftime('%Y%m%dt%H%M%Sz', time.gmtime())}.tar.zst")


def diagnose(subject: Subject, path: Path, say: Say) -> Done:
    """Write the archive; ``say`` is told how it goes. Raises Refused where no host answers and there is no run."""
    began = time.monotonic()
    name = path.name.removesuffix(".zst").removesuffix(".tar") or "diagnose"
    contents = Contents(name, subject.what, now(), subject.plan, subject.run.id if subject.run else "")
    contents.doubts += subject.doubts
    refuse_existing(path)
    with _ends_politely(), Archive(path, name) as archive:
        for told in _asked(subject, contents):
            _take(told, subject, archive, contents, say)
        for piece in pieces(subject):
            _keep(piece, archive, contents)
        if not contents.answered and not subject.run:
            raise _nothing(subject, contents)
        contents.entries.sort(key=lambda e: e.file)
        contents.seconds = time.monotonic() - began
        archive.add("MANIFEST.json", contents.manifest())
        archive.add("README.txt", contents.readme())
        return Done(str(path), archive.finish(), contents)


@contextmanager
def _ends_politely() -> Iterator[None]:
    """SIGTERM is as Ctrl-C, so that no half archive stays behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _asked(subject: Subject, contents: Contents) -> Iterator[Told]:
    """What the plan's hosts say. A lab that is down is like hosts that are."""
    if subject.plan is None:
        return
    there = targets(subject.plan, subject.bound)
    contents.hosts |= {t.name: "" for t in there}
    try:
        hosts = hosts_of(subject.plan, Claim(0))(subject.bound)
    except RunbookError as error:
        if subject.run is None:
            raise
        for target in there:
            yield Ended(target.name, error.message)
        return
    try:
        yield from gather(hosts, {t.name: topics(t) for t in there})
    finally:
        hosts.close()


def _take(told: Told, subject: Subject, archive: Archive, contents: Contents, say: Say) -> None:
    """One answer into the archive, or the end of a host."""
    if isinstance(told, Ended):
        contents.hosts[told.host] = told.why
        mine = [e for e in contents.entries if e.host == told.host and not e.why]
        if not mine:
            archive.add(f"hosts/{_safe(told.host)}/no-answer.txt", masked(told.why)[0] + "\n")
        say(f"{told.host}: {len(mine)} answers" if not told.why else of(told.host, told.why))
        return
    topic, result = told.topic, told.result
    entry = Entry(f"hosts/{_safe(told.host)}/{topic.name}.txt", told.host, topic.about, topic.shown)
    contents.entries.append(entry)
    if result.unknown:
        entry.why = masked(result.tail(1))[0] or "no answer"
        return
    entry.exit_code, entry.seconds = result.code, round(result.seconds, 3)
    entry.cut = f"\n{CUT}" in result.out
    text = result.out.strip("\n") + "\n"
    if result.err.strip():
        text += f"\n[its standard error]\n{result.err.strip()}\n"
    text = _BEGINNING.sub(r"\1[indented lines without their beginning are left out]\n", text)
    body, found = masked(text)
    entry.masked = dict(found)
    head = _head(told, subject, entry)
    entry.bytes = archive.add(entry.file, f"{head}\n{body}")


def _head(told: Answer, subject: Subject, entry: Entry) -> str:
    assert subject.plan  # noqa: S101 - somebody answered
    address = next((place.host for place in places(subject.plan) if place.name == told.host), "")
    words = {"answered": f"{now()}, after {duration(told.result.seconds)}"}
    return entry_texts(told.host, address, entry.about, entry.command, entry.exit_code, words)


def _keep(piece: Piece, archive: Archive, contents: Contents) -> None:
    """One file of this machine into the archive."""
    entry = Entry(piece.place, "", piece.source, "", cut=piece.cut, why=piece.why)
    contents.entries.append(entry)
    if piece.text is None:
        return
    # Journals and logs are lines of JSON, each for itself; a half one may not take the next with it.
    units = piece.text.splitlines(keepends=True) if piece.place.endswith((".jsonl", ".log")) else [piece.text]
    texts = [masked(unit) for unit in units]
    entry.masked = {}
    for _, found in texts:
        for kind, count in found.items():
            entry.masked[kind] = entry.masked.get(kind, 0) + count
    entry.bytes = archive.add(piece.place, "".join(text for text, _ in texts))


def _safe(host: str) -> str:
    """A host's name as the name of a directory."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", host).strip(".") or "_"


def _nothing(subject: Subject, contents: Contents) -> Refused:
    silent = "\n".join(f"  {of(name, why)}" for name, why in contents.hosts.items())
    plan = shlex.quote(str(subject.plan.file)) if subject.plan else "RUN"
    return Refused(
        f"no host of {subject.what} answers, and no run of it is known on this machine:\n{silent}",
        true="no archive was written; no host is changed",
        means="there is nothing to put into one but the plan itself",
        next=(
            f"runbook runs{NOTE}what this machine knows",
            f"runbook diagnose {plan}{NOTE}from the machine that began the restore, or once a host answers",
        ),
    )

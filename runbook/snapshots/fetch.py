"""Fetching a snapshot that lies on a host, to read what it holds: the reading process for ``host://`` snapshots.

All of it comes over, in one stream, and is then read as any file of this machine. A host need not have Python, so it
cannot read its own; to read only the pages that are needed takes nearly all of them (each key's newest revision is
somewhere in the bucket ``key``), one round trip after the other. A run brings the file over in any case, to pass it on.

The copy has no name, and is gone with this process, however that ends (``scratch``).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from runbook.hosts import errands
from runbook.hosts.address import Address
from runbook.hosts.connection import Link
from runbook.hosts.transfer import NodeFile, SourceTrouble
from runbook.snapshots import scratch
from runbook.snapshots.bolt import MAGIC
from runbook.snapshots.content import WRITTEN, Changed, NotWhole, answer, read_open
from runbook.snapshots.integrity import SnapshotDamaged, inspect_open, refuse_part
from runbook.snapshots.reading import Fetched, There
from runbook.step import Command, Result

CHUNK = 1 << 20
GONE = 3
"""What ``LOOK`` ends with where there is no file."""

LOOK = r"""
set -u
[ -f "$1" ] || { echo "there is no such file" >&2; exit 3; }
stat -L -c '%a %d %i %s %Y %Z %y' -- "$1" || exit 4
od -A n -t x1 -j 16 -N 4 -- "$1" | tr -d ' \n'
"""
"""Its mode; what changes where somebody writes to the file or replaces it, as ``snapshots.content.touched`` has it, and
the date once more for its fractions; then what every database of etcd has at byte 16."""


def fetch(there: There, told: int | None = None) -> Fetched:
    """Fetch it, prove that it is whole, and read it; how far it is stands in the file of the number ``told``.

    Raises:
        NotWhole: it is no whole snapshot, or not the one that the plan means, or not there.
        NotBolt: it is whole, and its database is damaged.
        Changed: it was written to meanwhile.
        OSError: it could not be fetched, or not be read here.
    """
    link = Link(Address.from_json(there.address))
    path = Path(there.path)
    try:
        refuse_part(path)
        before, mode = _seen(link, path)
        with scratch.room(before[2]) as copy:
            _stream(link, path, copy, before, told)
            trailer = there.allow_missing_trailer
            facts = inspect_open(path, copy.fileno(), allow_missing_trailer=trailer, sha256=there.sha256 or None)
            facts = replace(facts, world_readable=bool(mode & stat.S_IROTH))  # the copy is not
            content = replace(read_open(copy.fileno(), there.wanted), touched=before)
    except SnapshotDamaged as error:
        raise NotWhole(error.message) from error
    finally:
        link.drop()
    return Fetched(facts.sha256, facts.size, facts.revision, facts.warnings(), content)


def _ask(link: Link, path: Path) -> Result:
    command = Command(("sh", "-c", LOOK, "runbook", str(path)), 20.0, changes=False)
    return errands.ask(link, [command])[0]


def _seen(link: Link, path: Path) -> tuple[tuple[int, ...], int]:
    """What the host says of the file, and its mode, so that nothing is fetched that is no snapshot."""
    result = _ask(link, path)
    if result.code == GONE:
        raise NotWhole(f"{path}: {result.tail()}")
    if not result.ok:
        raise OSError(result.tail() or f"it cannot be looked at (exit code {result.code})")
    touched, mode, magic = _parsed(result.out)
    if magic != MAGIC.to_bytes(4, "little").hex():
        raise NotWhole(f"{path}: it is no etcd snapshot: bbolt's magic number is not where it belongs")
    return touched, mode


def _parsed(text: str) -> tuple[tuple[int, ...], int, str]:
    """Device, inode, size, and both times in nanoseconds; the mode; and the magic number in hex."""
    line, _, magic = text.partition("\n")
    words = line.split(maxsplit=6)
    if len(words) < 7 or not all(word.isdecimal() for word in words[:6]) or set(words[0]) & {"8", "9"}:
        raise OSError(f"the host's stat says {line[:80]!r}")
    device, inode, size, written, status = map(int, words[1:6])
    fraction = re.search(r":\d\d\.(\d{1,9})", words[6])
    # a stat without fractions leaves the second's end: a Lease that was renewed in that second is no younger
    rest = int(fraction[1].ljust(9, "0")) if fraction else 10**9 - 1
    return (device, inode, size, written * 10**9 + rest, status * 10**9), int(words[0], 8), magic.strip()


def _stream(link: Link, path: Path, copy: IO[bytes], before: tuple[int, ...], told: int | None) -> None:
    """All of it. Where it has changed meanwhile, that is the reason, whatever else went wrong."""
    source, trouble = NodeFile(link, str(path)), None
    try:
        source.open()
        for chunk in source.chunks(CHUNK):
            with scratch.own_disk(scratch.place()):
                copy.write(chunk)
            _tell(told, copy.tell(), before[2])
    except SourceTrouble as error:
        trouble = OSError(str(error))
    finally:
        source.close()
    with scratch.own_disk(scratch.place()):
        copy.flush()
    after = _ask(link, path)
    if after.code == GONE or (after.ok and _parsed(after.out)[0][:WRITTEN] != before[:WRITTEN]):
        raise Changed("was written to, or replaced, while it was fetched")
    if trouble:
        raise trouble
    if not after.ok:
        raise OSError(f"whether it changed while it was fetched is not known: {after.tail()}")


def _tell(told: int | None, came: int, size: int) -> None:
    """So many bytes of so many, as the first line of that file."""
    if told is not None:
        with contextlib.suppress(OSError):  # only a word for who waits
            os.pwrite(told, f"{came} {size}\n".encode(), 0)


def _work(order: dict[str, Any]) -> str:
    given = {name: order[name] for name in There.__dataclass_fields__}
    return fetch(There(**given | {"wanted": tuple(order["wanted"])}), order.get("told")).json()


if __name__ == "__main__":
    answer(_work)

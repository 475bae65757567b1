"""``host://NODE/DIRECTORY``: a directory on the disk of a node of the plan, over SSH.

The directory must be there, as for ``file://``. What is on a cluster's own node is lost with it: such a store serves
beside another, or for a cluster that a restore plan on another machine reads.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from runbook.hosts import errands, wrapper
from runbook.hosts.address import Address
from runbook.hosts.connection import Link
from runbook.hosts.errands import START, nonce
from runbook.hosts.login import Unreachable
from runbook.hosts.session import Ended, Frame, Lost, Session
from runbook.hosts.transfer import NodeFile, SourceTrouble
from runbook.plan import Plan
from runbook.snapshots.stores import AlreadyThere, Entry, NotThere, Store, StoreTrouble
from runbook.step import Command, Result

SECONDS = 60.0
"""For a question, or for a file to be given its name."""
SLOWEST = 20e6
"""Bytes a second at which a host's disk can at least be written, and read to be hashed."""
CHUNK = 1 << 20
GONE, TAKEN = 3, 4
"""Exit codes of the scripts: there is no such directory; the name is taken."""

ENTRIES = r"""
cd -- "$1" 2>/dev/null || { echo "there is no directory $1" >&2; exit 3; }
find . -maxdepth 1 -type f ! -name '.*.part' -printf '%s %T@ %f\n'
"""

RECEIVE = r"""
dir=$1 name=$2
cd -- "$dir" 2>/dev/null || { echo "there is no directory $dir" >&2; frame gone 0; exit 0; }
# What a writer left that was killed: hours old, and nobody holds it. One that is being given its name is younger.
find . -maxdepth 1 -type f -name '.*.part' -mmin +60 | while IFS= read -r left; do
  flock -n "$left" rm -f -- "$left"
done
part=.$name.$nonce.part
trap 'rm -f -- "$part"' EXIT
trap 'exit 1' HUP INT TERM PIPE
: 2>/dev/null >"$part" || { echo "cannot write there" >&2; frame failed 0; exit 0; }
exec 8<"$part"
flock 8
frame go 0
cat >"$part" || { frame failed 0; exit 0; }
sync "$part" 2>/dev/null || sync
# Whoever sends nothing more may have ended, or be dead: only the one who is there to read this has sent all.
frame got "$(stat -c %s "$part")"
trap - EXIT
"""

NAME = r"""
cd -- "$1" || exit 3
part=.$2.$3.part
seen=$({ openssl dgst -sha256 -r 2>/dev/null || sha256sum; } <"$part" | cut -c 1-64)
[ "$seen" = "$4" ] || { echo "what came has the sha256 $seen, not $4" >&2; rm -f -- "$part"; exit 1; }
if [ -n "$5" ]; then
  mv -f -- "$part" "$2" || exit 1
else
  ln -- "$part" "$2" 2>/dev/null || { [ -e "$2" ] && code=4 || code=1; rm -f -- "$part"; exit "$code"; }
  rm -f -- "$part"
fi
sync . 2>/dev/null || sync
"""
"""Directory, name, the receiving script's word, the sum, and whether a file there is written over (not: "").

A link, other than a rename, never takes a name that is taken."""

TRIAL = r"""
cd -- "$1" 2>/dev/null || { echo "there is no directory $1" >&2; exit 3; }
part=.trial.$2.part linked=.trial.$2.2.part
trap 'rm -f -- "$part" "$linked"' EXIT
trap 'exit 1' HUP INT TERM PIPE
head -c 1048576 /dev/urandom >"$part" && { sync "$part" 2>/dev/null || sync; } && ln -- "$part" "$linked"
"""
"""All that a writer does, with random bytes: a disk that compresses has room for zeros when it is full."""

REMOVE = r"""
cd -- "$1" 2>/dev/null || exit 3
rm -f -- "$2" && { sync . 2>/dev/null || sync; }
"""


class HostFiles(Store):
    """The files of one directory of one node."""

    at_once = 1

    def __init__(self, plan: Plan, node: str, directory: str) -> None:
        """``node`` is one of the plan's; ``directory`` an absolute path there."""
        from runbook.connecting import enter_lab

        enter_lab(plan)
        place = plan.node(node)
        self.url, self._dir = f"host://{node}{directory}", directory.rstrip("/")
        self._link = Link(Address.to(place.name, place.host, place.ssh))
        self._mutex = threading.Lock()

    def trial(self) -> None:
        """All that a writer does, under names that no list shows."""
        self._ask("write into", TRIAL, nonce())

    def entries(self) -> list[Entry]:
        """Plain files only; what is being written is not there yet."""
        result = self._ask("list", ENTRIES)
        found = []
        for line in result.out.splitlines():
            size, at, name = [*line.split(" ", 2), "", ""][:3]
            try:
                found.append(Entry(name.removeprefix("./"), int(size), datetime.fromtimestamp(float(at), UTC)))
            except (ValueError, OverflowError):
                continue  # the second line of a name that has a line feed in it is nobody's snapshot
        return sorted(found, key=lambda e: e.name)

    def read(self, name: str) -> Iterator[bytes]:
        """From beginning to end."""
        with self._mutex:
            file = NodeFile(self._link, f"{self._dir}/{_checked(name)}")
            try:
                file.open()
                yield from file.chunks(CHUNK)
            except SourceTrouble as error:
                if "No such file" in str(error):
                    raise NotThere(f"{self.url} has no {name}", "list what it has: runbook snapshot list") from None
                raise StoreTrouble(f"cannot read {name} in {self.url}: {error}", "is the host there?") from error
            finally:
                file.close()

    def write(self, name: str, pieces: Iterable[bytes], *, over: bool = False) -> None:
        """Beside its place, synced, its sum compared, then under its name."""
        with self._mutex:
            try:
                word, sha256, sent = self._received(_checked(name), pieces)
            except (Unreachable, Lost, Ended) as error:
                self._link.drop()
                raise self._trouble(f"write {name} into", str(error)) from error
            result = self._one(NAME, name, word, sha256, "over" if over else "", seconds=SECONDS + sent / SLOWEST)
        if result.code == TAKEN:
            do = "it is not written over; remove it, or wait a second"
            raise AlreadyThere(f"{self.url} has a {name} already", do)
        if not result.ok:
            raise self._trouble(f"write {name} into", result.tail(1))

    def remove(self, name: str) -> None:
        """And sync, so that it does not come back."""
        self._ask(f"remove {name} from", REMOVE, _checked(name))

    def _received(self, name: str, pieces: Iterable[bytes]) -> tuple[str, str, int]:
        """Send all pieces; the word in the part file's name, and the sum and size of what was sent."""
        word, digest, size = nonce(), hashlib.sha256(), 0
        text = wrapper.streaming(word, [self._dir, name], RECEIVE)
        shell = wrapper.streaming_shell(self._link.address.elevates, len(text))
        with Session(self._link, shell, word, 1 << 16) as session:
            session.send(text)
            session.next(START)
            frame = session.next(START)
            if frame.name == "go":
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    if not self._pushed(session, piece):
                        break
                session.finish()
                frame = session.next(SECONDS + size / SLOWEST)
        if frame.name != "got" or frame.code != str(size):
            raise self._trouble(f"write {name} into", _said(frame) or f"{frame.code} of {size} bytes came")
        return word, digest.hexdigest(), size

    def _pushed(self, session: Session, piece: bytes) -> bool:
        step = session.packet
        return all(session.push(piece[at : at + step], SECONDS) for at in range(0, len(piece), step))

    def _ask(self, what: str, text: str, *words: str) -> Result:
        with self._mutex:
            result = self._one(text, *words)
        if not result.ok:
            raise self._trouble(what, result.tail(1))
        return result

    def _one(self, text: str, *words: str, seconds: float = SECONDS) -> Result:
        command = Command(("sh", "-c", text, "runbook", self._dir, *words), seconds, changes=False, large=True)
        return errands.ask(self._link, [command])[0]

    def _trouble(self, what: str, said: str) -> StoreTrouble:
        node = self._link.address
        if "no directory" in said:
            return StoreTrouble(
                f"cannot {what} {self.url}: {said}", f"make it on {node.host}: mkdir -m 700 {self._dir}"
            )
        if "No space" in said:
            return StoreTrouble(f"cannot {what} {self.url}: {said}", f"make room on {node.host}: df -h {self._dir}")
        return StoreTrouble(f"cannot {what} {self.url}: {said}", f"look at {self._dir} on {node.host}")


def _said(frame: Frame) -> str:
    return frame.err.decode(errors="replace").strip() or frame.out.decode(errors="replace").strip()


def _checked(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a file in a store")
    return name

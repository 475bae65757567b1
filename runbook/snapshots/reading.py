"""Reading a snapshot's content beside other work: in a process of its own, once, and begun as early as may be.

In a process of its own because it is all computing: in a thread, it would slow down the connections to the hosts, and
its memory would stay with the program. One that lies on a host is fetched by that process first (``fetch``).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from runbook.checks.words import so_far
from runbook.snapshots.bolt import NotBolt
from runbook.snapshots.content import DAMAGED, NOT_WHOLE, WRITTEN, WRITTEN_TO, Changed, Content, NotWhole, touched
from runbook.tables import duration

LONGEST = 600.0
"""Seconds for the largest snapshot that etcd allows, on a slow disk."""
PATIENCE = 180.0
"""Seconds for one to be fetched and read. A link that is too slow for that keeps nobody from a restore for longer: what
the snapshot holds is then not known, and a warning says so."""

T = TypeVar("T")
_Key = tuple[Path, tuple[str, ...], tuple[int, ...]]


@dataclass(frozen=True)
class There:
    """A snapshot on a host's disk: what the process that fetches it is told.

    ``address`` is the host's, as :meth:`runbook.hosts.address.Address.to_json` writes it. ``wanted`` are keys of etcd.
    ``sha256`` and ``allow_missing_trailer`` are the plan's; "" where it says none.
    """

    address: str
    path: str
    wanted: tuple[str, ...] = ()
    sha256: str = ""
    allow_missing_trailer: bool = False


@dataclass(frozen=True)
class Fetched:
    """What a snapshot of a host is and holds, by the copy that came over: whole, and the one that the plan means.

    ``size`` in bytes, ``sha256`` of all that came, in hex; ``warnings`` are those of
    :meth:`runbook.snapshots.integrity.SnapshotFacts.warnings`.
    """

    sha256: str
    size: int
    revision: int
    warnings: tuple[str, ...]
    content: Content

    @staticmethod
    def from_json(text: str) -> Fetched:
        """What :meth:`json` wrote."""
        value: dict[str, Any] = json.loads(text)
        value["warnings"] = tuple(value["warnings"])
        return Fetched(**value | {"content": Content.from_json(value["content"])})

    def json(self) -> str:
        """As one line."""
        return json.dumps(vars(self) | {"content": self.content.json()})


_BEGUN: dict[_Key, Future[Content]] = {}
_UNDER_WAY: dict[There, Future[Fetched]] = {}
_COMING: dict[There, IO[bytes]] = {}
"""The file in which the process that fetches says how far it is."""
_LOCK = threading.Lock()


def begin(path: Path, wanted: Sequence[str] = ()) -> Future[Content]:
    """Begin to read a snapshot's content, where nobody has since it was last written to; for this program alone.

    The future raises NotBolt or Changed (the message says what is wrong, as it reads after "it"), or OSError.
    """
    try:
        key = (path, tuple(sorted(wanted)), touched(path.stat()))
    except (OSError, ValueError) as error:
        failed: Future[Content] = Future()
        failed.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        return failed
    with _LOCK:
        if key not in _BEGUN:
            _BEGUN[key] = beside(lambda: _read(*key))
        return _BEGUN[key]


def begin_there(there: There) -> Future[Fetched]:
    """Begin to fetch a snapshot of a host and to read it; whoever asks while that is under way gets the same answer.

    Not whoever asks later: whether the file is still the same there, only the host could say. The future raises
    NotWhole, NotBolt or Changed, or OSError where it could not be fetched or read; the message says why.
    """

    def work() -> Fetched:
        try:
            with _followed(there) as told:
                order = {**asdict(there), "told": told}
                return Fetched.from_json(_process("runbook.snapshots.fetch", order, PATIENCE, told))
        except subprocess.TimeoutExpired:
            raise OSError(f"it has not come over within {duration(PATIENCE)}") from None
        finally:
            with _LOCK:
                del _UNDER_WAY[there]

    with _LOCK:
        if there not in _UNDER_WAY:
            _UNDER_WAY[there] = beside(work)
        return _UNDER_WAY[there]


def coming() -> str:
    """What is being fetched now from a host, and how much of it has come, in words; "" where nothing is."""
    from runbook.hosts.address import Address

    with _LOCK:
        said = {there: os.pread(file.fileno(), 64, 0).partition(b"\n")[0].split() for there, file in _COMING.items()}
    for there, words in said.items():
        what = f"the snapshot on {Address.from_json(there.address).name}"
        if len(words) != 2:
            return f"{what}: nothing has come yet"
        came, size = (int(word) for word in words)
        return f"{what}: {so_far(came, size)}{' have come, and are being read' if came >= size else ''}"
    return ""


@contextlib.contextmanager
def _followed(there: There) -> Iterator[int | None]:
    """The number of a file without a name, for the process to say how far it is; none where there is no room."""
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 # below, beside what else ends with it
    except OSError:
        yield None
        return
    with file:
        with _LOCK:
            _COMING[there] = file
        try:
            yield file.fileno()
        finally:
            with _LOCK:
                del _COMING[there]


def beside(work: Callable[[], T]) -> Future[T]:
    """Do it in a thread of its own, which keeps nobody from leaving."""
    told: Future[T] = Future()

    def run() -> None:
        try:
            told.set_result(work())
        except Exception as error:  # it belongs to whoever asks for the result
            told.set_exception(error)

    # a daemon: Ctrl-C is not kept waiting for it
    threading.Thread(target=run, daemon=True).start()
    return told


def _read(path: Path, wanted: tuple[str, ...], before: tuple[int, ...]) -> Content:
    told = _process("runbook.snapshots.content", {"path": str(path.absolute()), "wanted": wanted})
    content = Content.from_json(told)
    if content.touched[:WRITTEN] != before[:WRITTEN]:
        raise Changed("was written to, or replaced, while it was read")
    return content


def _process(module: str, order: Mapping[str, Any], seconds: float = LONGEST, told: int | None = None) -> str:
    """What a reading process says. Raises what its exit code means; it has ended in any case.

    ``told`` is a file that it is given, by its number.
    """
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=json.dumps({**order, "parent": os.getpid()}),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        pass_fds=() if told is None else (told,),
        env={**os.environ, "PYTHONPATH": paths},
    )
    said = done.stderr.strip().rpartition("\n")[2][:500]
    kind = {DAMAGED: NotBolt, WRITTEN_TO: Changed, NOT_WHOLE: NotWhole}.get(done.returncode)
    if kind:
        raise kind(said)
    if done.returncode:
        raise OSError(said if said and done.returncode == 1 else f"the reading process died (exit {done.returncode})")
    return done.stdout

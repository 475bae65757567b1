"""Reading a snapshot's content beside other work: in a process of its own, once, and begun as early as may be.

In a process of its own because it is all computing: in a thread, it would slow down the connections to the hosts, and
its memory would stay with the program. One that lies on a host is fetched by that process first (``fetch``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

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
            _BEGUN[key] = _beside(lambda: _read(*key))
        return _BEGUN[key]


def begin_there(there: There) -> Future[Fetched]:
    """Begin to fetch a snapshot of a host and to read it; whoever asks while that is under way gets the same answer.

    Not whoever asks later: whether the file is still the same there, only the host could say. The future raises
    NotWhole, NotBolt or Changed, or OSError where it could not be fetched or read; the message says why.
    """

    def work() -> Fetched:
        try:
            return Fetched.from_json(_process("runbook.snapshots.fetch", asdict(there), PATIENCE))
        except subprocess.TimeoutExpired:
            raise OSError(f"it has not come over within {duration(PATIENCE)}") from None
        finally:
            with _LOCK:
                del _UNDER_WAY[there]

    with _LOCK:
        if there not in _UNDER_WAY:
            _UNDER_WAY[there] = _beside(work)
        return _UNDER_WAY[there]


def _beside(work: Callable[[], T]) -> Future[T]:
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


def _process(module: str, order: Mapping[str, Any], seconds: float = LONGEST) -> str:
    """What a reading process says. Raises what its exit code means; it has ended in any case."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=json.dumps({**order, "parent": os.getpid()}),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    said = done.stderr.strip().rpartition("\n")[2][:500]
    kind = {DAMAGED: NotBolt, WRITTEN_TO: Changed, NOT_WHOLE: NotWhole}.get(done.returncode)
    if kind:
        raise kind(said)
    if done.returncode:
        raise OSError(said if said and done.returncode == 1 else f"the reading process died (exit {done.returncode})")
    return done.stdout

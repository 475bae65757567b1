"""Reading a snapshot's content beside other work: in a process of its own, once, and begun as early as may be.

In a process of its own because it is all computing: in a thread, it would slow down the connections to the hosts, and
its memory would stay with the program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from runbook.snapshots.bolt import NotBolt
from runbook.snapshots.content import DAMAGED, WRITTEN, WRITTEN_TO, Changed, Content, touched

LONGEST = 600.0
"""Seconds for the largest snapshot that etcd allows, on a slow disk."""

_Key = tuple[Path, tuple[str, ...], tuple[int, ...]]
_BEGUN: dict[_Key, Future[Content]] = {}
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
            _BEGUN[key] = Future()
            # a daemon: Ctrl-C is not kept waiting for it
            threading.Thread(target=_run, args=(key, _BEGUN[key]), daemon=True).start()
        return _BEGUN[key]


def _run(key: _Key, told: Future[Content]) -> None:
    try:
        told.set_result(_read(*key))
    except Exception as error:  # it belongs to whoever asks for the result
        told.set_exception(error)


def _read(path: Path, wanted: tuple[str, ...], before: tuple[int, ...]) -> Content:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "runbook.snapshots.content"],
        input=json.dumps({"path": str(path.absolute()), "wanted": wanted, "parent": os.getpid()}),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    said = done.stderr.strip().rpartition("\n")[2][:500]
    if done.returncode == DAMAGED:
        raise NotBolt(said)
    if done.returncode == WRITTEN_TO:
        raise Changed(said)
    if done.returncode:
        raise OSError(f"{said or 'the reading process died'} (exit {done.returncode})")
    content = Content.from_json(done.stdout)
    if content.touched[:WRITTEN] != before[:WRITTEN]:
        raise Changed("was written to, or replaced, while it was read")
    return content

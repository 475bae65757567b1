"""Where runs live on the responder's machine: one directory a run, with its journal, its plan, and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbook.errors import Held, RunbookError, UsageError
from runbook.journal import Journal, Line, now, read
from runbook.replay import Replay, replay


def state_dir() -> Path:
    """``$RUNBOOK_STATE_DIR``, else ``$XDG_STATE_HOME/runbook``, else ``~/.local/state/runbook``; made, mode 0700.

    Raises RunbookError where it cannot be made.
    """
    own = os.environ.get("RUNBOOK_STATE_DIR")
    base = os.environ.get("XDG_STATE_HOME")
    path = Path(own) if own else (Path(base) if base else Path.home() / ".local/state") / "runbook"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / "runs").mkdir(mode=0o700, exist_ok=True)
        (path / "runs").chmod(0o700)  # not its parent: that may be a directory of the responder's own
    except OSError as error:
        raise RunbookError(
            f"{path}: the journal's directory cannot be made: {error.strerror}",
            true="nothing was begun",
            means="without a journal nothing can be resumed, so nothing is done",
            next=("RUNBOOK_STATE_DIR=/a/directory/with/room runbook …",),
        ) from error
    return path


def holder() -> str:
    """Who works from where: ``user@machine``, of harmless characters only, because it is written on hosts."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9@._-]", "_", f"{user}@{socket.gethostname()}")


def new_id(name: str) -> str:
    """``<plan name>-<UTC yyyymmddthhmmssz>-<4 hex>``."""
    return f"{name}-{datetime.now(UTC):%Y%m%dt%H%M%Sz}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Run:
    """One run's directory."""

    path: Path

    @property
    def id(self) -> str:
        """The run id."""
        return self.path.name

    @property
    def journal_path(self) -> Path:
        """The journal."""
        return self.path / "journal.jsonl"

    @property
    def plan_path(self) -> Path:
        """The plan as approved."""
        return self.path / "plan.yaml"

    @property
    def settings_path(self) -> Path:
        """The plan that a ``resume --plan`` brought, where one did: other connection, timeout or verify settings."""
        return self.path / "plan.resumed.yaml"

    def lines(self) -> list[Line]:
        """The journal's valid lines; raises JournalDamaged."""
        return read(self.journal_path)[0]

    def replay(self) -> Replay:
        """The derived state; raises JournalDamaged."""
        return replay(self.lines())

    def files(self) -> dict[str, bytes]:
        """What the hosts keep copies of, beside the journal."""
        found = (path for path in (self.plan_path, self.settings_path) if path.exists())
        return {path.name: path.read_bytes() for path in found}

    @contextlib.contextmanager
    def locked(self) -> Iterator[Journal]:
        """The journal, open for this process alone. Raises Held where another process has the run."""
        with self.held_here():
            journal = Journal(self.journal_path)
            try:
                yield journal
            finally:
                journal.close()

    @contextlib.contextmanager
    def held_here(self) -> Iterator[None]:
        """The run's directory, for this process alone. Raises Held where another process has it."""
        with open(self.path / "lock", "a+", opener=private) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise _held(self.id, file.read()) from error
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "holder": holder(), "since": now()}))
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)


def private(path: str, flags: int) -> int:
    """An opener for files of the responder's alone."""
    return os.open(path, flags, 0o600)


def _held(run: str, text: str) -> Held:
    try:
        who = json.loads(text)
        shown = f"process {who['pid']} of {who['holder']}, since {who['since']}"
    except (ValueError, KeyError, TypeError):
        shown = "another process"
    return Held(
        f"the run {run} is being worked on by {shown}",
        true="nothing was changed just now",
        means="two engines at once would contradict each other",
        next=(f"runbook status {run}",),
    )


def create(run_id: str, plan_text: bytes, header: Mapping[str, Any]) -> Run:
    """A new run's directory, with the plan as approved and the journal's first line."""
    run = Run(state_dir() / "runs" / run_id)
    run.path.mkdir(mode=0o700)
    with open(run.plan_path, "xb", opener=private) as file:
        file.write(plan_text)
        file.flush()
        os.fsync(file.fileno())
    journal = Journal(run.journal_path)
    try:
        journal.append("run", {"run": run_id, **header})
    finally:
        journal.close()
    return run


def all_runs() -> list[Run]:
    """Every run, the newest first."""
    found = [Run(path) for path in (state_dir() / "runs").iterdir() if (path / "journal.jsonl").exists()]
    return sorted(found, key=lambda r: (r.journal_path.stat().st_mtime, r.id), reverse=True)


def find(name: str | None) -> Run:
    """The run that a responder means: by its id or an unambiguous prefix, or the only one that is not closed.

    Raises UsageError where there is none, or more than one.
    """
    known = all_runs()
    if name:
        exact = [r for r in known if r.id == name]
        fits = exact or [r for r in known if r.id.startswith(name)]
    else:
        fits = [r for r in known if not _closed(r)]
    if len(fits) == 1:
        return fits[0]
    listed = "\n".join(f"  {r.id}" for r in (fits or known)[:20])
    if not known:
        raise UsageError(f"no run is known in {state_dir()}", next=("runbook run PLAN",))
    if not fits:
        what = f"no run begins with {name!r}" if name else "every run has been closed: name the one you mean"
        raise UsageError(f"{what}; known are:\n{listed}", next=("runbook runs",))
    what = (
        f"{name!r} fits more than one run" if name else "more than one run has not been closed: name the one you mean"
    )
    raise UsageError(f"{what}:\n{listed}", next=("runbook runs",))


def _closed(run: Run) -> bool:
    try:
        past = run.replay()
        return past.closed or not past.header  # without a first line, nothing was ever begun
    except RunbookError:
        return False  # damaged: not closed, and the responder must hear of it

"""Where runs live on the responder's machine: one directory a run, with its journal, its plan, and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import re
import secrets
import shlex
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from runbook.errors import NOTE, Held, RunbookError
from runbook.journal import Journal, Line, now, read
from runbook.replay import Replay, replay
from runbook.tables import stamp


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
        raise _no_room(path, error.strerror) from error
    return path


def _no_room(path: Path, why: str | None) -> RunbookError:
    return RunbookError(
        f"{path}: the journal's directory cannot be made: {why}",
        true="nothing was begun, and no host is changed",
        means="without a journal nothing can be resumed, so nothing is done",
        next=(
            f"df -h {shlex.quote(str(path.parent))}",
            f"export RUNBOOK_STATE_DIR=/a/directory/with/room{NOTE}then the command again",
        ),
    )


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
class AtWork:
    """The process of this machine that works on a run now; 0 and "" where it has not yet said so."""

    pid: int = 0
    holder: str = ""
    since: str = ""

    def document(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def __str__(self) -> str:
        who = f"process {self.pid} of {self.holder} on this machine" if self.pid else "another process of this machine"
        return who + (f", since {stamp(self.since)}" if self.since else "")


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
        """The derived state; raises JournalDamaged. A run without a first line has its directory's name."""
        past = replay(self.lines())
        past.run = past.run or self.id
        return past

    def engine(self) -> AtWork | None:
        """The process that holds this run's directory now; None where none does, so that no engine works on it here."""
        try:
            with open(self.path / "lock") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return _at_work(file.read())
        except OSError:  # no engine was ever begun
            return None
        return None

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
            if not _lock(file):
                file.seek(0)
                raise _held(self.id, _at_work(file.read()))
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


def _lock(file: IO[str]) -> bool:
    """Lock the file; a `status` that looks at the lock in this very moment is waited for."""
    for wait in (0.05, 0.1, 0.2, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(wait)
        else:
            return True
    return False


def _at_work(text: str) -> AtWork:
    try:
        who = json.loads(text)
        return AtWork(int(who["pid"]), str(who["holder"]), str(who["since"]))
    except (ValueError, KeyError, TypeError):
        return AtWork()


def _held(run: str, engine: AtWork) -> Held:
    return Held(
        f"the run {run} is being worked on by {engine}",
        true="nothing was changed just now",
        means="that engine goes on; two at once would contradict each other",
        next=(f"runbook status {run}",),
    )


def create(run_id: str, plan_text: bytes, header: Mapping[str, Any]) -> Run:
    """A new run's directory, with the plan as approved and the journal's first line. Raises RunbookError."""
    run = Run(state_dir() / "runs" / run_id)
    try:
        run.path.mkdir(mode=0o700)
        with open(run.plan_path, "xb", opener=private) as file:
            file.write(plan_text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _no_room(run.path, error.strerror) from error
    journal = Journal(run.journal_path)
    try:
        journal.append("run", {"run": run_id, **header})
    finally:
        journal.close()
    return run


def all_runs() -> list[Run]:
    """Every run, the newest first."""
    found = [Run(path) for path in (state_dir() / "runs").iterdir() if (path / "journal.jsonl").exists()]
    return sorted(found, key=lambda r: (_begun(r), r.journal_path.stat().st_mtime, r.id), reverse=True)


def _begun(run: Run) -> float:
    """When the run began, as its id says, in seconds since 1970; else when its journal was last written."""
    stamp = re.search(r"-(\d{8}t\d{6})z-", run.id)
    if stamp is None:
        return run.journal_path.stat().st_mtime
    return datetime.strptime(stamp[1], "%Y%m%dt%H%M%S").replace(tzinfo=UTC).timestamp()

"""A run's own copy of its plan was edited, or is gone: what to type to have it back, and then the command again.

Nothing is offered that was not compared: another file is the approved plan only where its SHA-256 says so. Else the
hosts have the approved text, and ``adopt`` brings it; their logins are taken from whatever plan of the run is left.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.errors import NOTE

if TYPE_CHECKING:
    from runbook.plan import Node
    from runbook.replay import Replay
    from runbook.runs import Run


def again(verb: str, run: str, without: Sequence[str] = (), *options: str) -> str:
    """The command that was typed, to be typed again; empty ``options`` are left out."""
    left_out = (word for name in without for word in ("--without", name))
    return shlex.join(["runbook", verb, run, *left_out, *(o for o in options if o)])


def missing(run: Run, past: Replay, typed: str) -> tuple[str, ...]:
    """Where it cannot be read; ``typed`` is the command that needs it."""
    look = f"ls -l {shlex.quote(str(run.plan_path))}{NOTE}is it there, and may you read it?"
    return look, _restored(run, past), typed


def edited(run: Run, past: Replay, typed: str) -> tuple[str, ...]:
    """Where it is not what was approved any more; ``typed`` is the command that needs it."""
    restored = _restored(run, past)
    if past.state in ("complete", "rolled-back") or past.closed:  # nothing is left to resume with other settings
        return restored, typed
    # where the plan's relative paths begin, or they would name other files
    base = Path(str(past.header.get("plan_base", "")))
    copy = shlex.quote(str((base if base.is_dir() else Path()) / f"{past.header.get('plan', 'plan')}-edited.yaml"))
    return (
        f"cp {shlex.quote(str(run.plan_path))} {copy}{NOTE}first, where what was written there is wanted",
        restored,
        typed,
        f"runbook resume {run.id} --plan {copy}{NOTE}instead: with the connection, timeout and verify settings in it",
    )


def _restored(run: Run, past: Replay) -> str:
    """The command that brings the approved text back."""
    from runbook.held import adoption
    from runbook.situation import plan_file

    file = Path(str(past.header.get("plan_file", "")))
    if _is_approved(file, past):
        return f"cp {plan_file(past)} {shlex.quote(str(run.plan_path))}{NOTE}the plan as it was approved"
    place = next(_places(run, past, file), None)
    if place is None:
        return f"runbook adopt --run {run.id} --host HOST{NOTE}any host of the run: brings its copy back"
    return f"{adoption(place, run.id)}{NOTE}brings the plan as it was approved back from the hosts"


def _is_approved(file: Path, past: Replay) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == past.header.get("plan_sha256")
    except (OSError, ValueError):
        return False


def _places(run: Run, past: Replay, file: Path) -> Iterator[Node]:
    """Hosts of the run, the likeliest to answer first, by what is left of its plan: good to log in by, no more."""
    from runbook import planfile
    from runbook.errors import RunbookError

    base = Path(str(past.header.get("plan_base", "/")))
    left = [(run.settings_path, Path(past.settings_base))] if past.settings_base else []
    for path, start in (*left, (run.plan_path, base), (file, base)):
        try:
            plan = planfile.load(path, base=start)
        except RunbookError:
            continue
        # another cluster's plan may have come to lie where this one was
        if plan.name == past.header.get("plan") and [n.name for n in plan.nodes] == past.header.get("nodes"):
            yield from (n for n in plan.nodes if n.name not in past.absent)

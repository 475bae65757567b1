"""A distribution's procedure as the engine, the preview and the report see it: steps, and the things around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runbook.procedures import scripts
from runbook.step import NOTHING, Action, Command, Probe, Step, Target, Upload
from runbook.tables import duration

SCRIPTS = {text: name for name, text in vars(scripts).items() if name.isupper() and isinstance(text, str)}
"""The names of the procedure's shell texts, by text."""


@dataclass(frozen=True)
class Procedure:
    """A distribution's procedure: its steps, and the things around them.

    ``lock`` is the step among them that takes and releases the hosts' locks; ``may_roll_back`` is asked before
    anything is undone; ``sweep`` is what ``finish`` removes; ``by_hand`` is what a person types on a host where a
    rollback cannot go on. ``kept`` is the part of ``may_roll_back`` that a person can mend: the old data is where it
    was put; ``put_back`` is what that person types. ``swept`` says that nothing of a run is left on a host.
    """

    steps: tuple[Step, ...]
    lock: Step
    may_roll_back: Callable[[Target], Probe]
    sweep: Callable[[Target], Sequence[Command]]
    by_hand: Callable[[Target], Sequence[str]] = lambda _: ()
    kept: Callable[[Target], Probe] = lambda _: NOTHING
    put_back: Callable[[Target], Sequence[str]] = lambda _: ()
    swept: Callable[[Target], Probe] = lambda _: NOTHING


def words(action: Action) -> str:
    """An action for the journal: a command's words, an upload's destination; secrets masked, scripts by name."""
    if isinstance(action, Upload):
        return f"upload {action.dest} sha256 {action.sha256}"
    shown = [f"<{SCRIPTS.get(str(w), 'script')}>" if "\n" in str(w) else str(w) for w in action.argv]
    return " ".join(shown)


_STOP = re.compile(r"sh -c <STOP> runbook .* (\d+)((?: [a-z-]+)+)")
"""The journal's words for stopping static pods: how many seconds the kubelet has, and their names."""


def waits(said: str) -> str:
    """What an action waits for on its host, by its words in the journal; "" where those have to do.

    To stop a pod takes its grace period, and where the kubelet sees no API server all the time that it is given.
    """
    found = _STOP.fullmatch(said)
    if not found:
        return ""
    names, limit = ", ".join(found[2].split()), duration(int(found[1]))
    return (
        f"the kubelet to stop {names}, grace periods included; after {limit} at the latest crictl stops what still runs"
    )

"""Which run a responder means: by its id or an unambiguous prefix, or the only one that fits the command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from runbook import runs, situation, status
from runbook.errors import NOTE, RunbookError, UsageError
from runbook.replay import Replay
from runbook.runs import Run
from runbook.tables import columns, stamp

ENDED = ("complete", "rolled-back")
"""The states in which nothing is left to resume, and a rollback is a decision of its own."""


_WHOLE = re.compile(r".+-\d{8}t\d{6}z-[0-9a-f]{4}")
"""A whole run id."""
SHOWN = 5
"""Candidates that are listed, the newest first: somebody at three in the morning means one of these."""


class Known(NamedTuple):
    """A run of this machine, and its journal replayed; None where that is damaged."""

    run: Run
    past: Replay | None

    @property
    def closed(self) -> bool:
        """Over for good. A damaged journal is not: the responder must hear of it."""
        return self.past is not None and (self.past.closed or not self.past.header)

    @property
    def part_way(self) -> bool:
        """It can be resumed; of a damaged one nobody can say, so it may be meant."""
        return not self.closed and (self.past is None or not (self.past.state in ENDED or self.past.finishing))

    @property
    def state(self) -> str:
        """As ``runbook runs`` says it."""
        if self.past is None:
            return "its journal is damaged"
        return status.shown_state(status.document(self.past.lines, self.past))


def known() -> list[Known]:
    """Every run of this machine, the newest first."""
    return [Known(run, _replayed(run)) for run in runs.all_runs()]


def _replayed(run: Run) -> Replay | None:
    try:
        return run.replay()
    except RunbookError:
        return None


def find(name: str | None, verb: str) -> Run:
    """The run that is meant for ``runbook VERB``.

    Where none is named: the only one that is not closed; for ``resume``, ``rollback`` and ``diagnose`` else the only
    one that is part-way; for ``status`` else the newest that is part-way, the newest that is open, or the newest of
    all: to ask how things stand is no mistake where nothing is open. Raises UsageError where there is none, or more
    than one.
    """
    if name is not None:
        return _named(name, verb)
    every = known()
    open_ = [k for k in every if not k.closed]
    part_way = [k for k in open_ if k.part_way]
    if len(open_) == 1:
        return open_[0].run
    if verb in ("resume", "rollback", "diagnose") and len(part_way) == 1:
        return part_way[0].run
    if verb == "status" and every:
        return (part_way or open_ or every)[0].run
    if not every:
        raise _none(verb)
    if not open_:
        raise _which("no run is open, all have been closed: name the one that you mean", every, "report")
    fits = part_way if verb in ("resume", "rollback") and part_way else _able(open_, verb)
    if not fits:
        raise _which(f"none of the open runs is one to {verb}", open_, "status")
    raise _which(f"more than one run is open: name the one to {verb}", fits, verb)


def others(chosen: Run) -> list[dict[str, str]]:
    """The other runs that are not closed, with their states."""
    return [{"run": k.run.id, "state": k.state} for k in known() if not k.closed and k.run != chosen]


def all_closed() -> int:
    """How many runs are known here, where each of them is closed; 0 where one is open, or none is known."""
    every = known()
    return len(every) if all(k.closed for k in every) else 0


def _named(name: str, verb: str) -> Run:
    if not name:
        raise UsageError(
            "RUN is an empty word",
            true="nothing was changed",
            means="every run begins with it; a variable may not be set",
            next=("runbook runs",),
        )
    every = runs.all_runs()
    fits = [r for r in every if r.id == name] or [r for r in every if r.id.startswith(name)]
    if len(fits) == 1:
        return fits[0]
    if not every:
        raise _none(verb)
    if fits:
        candidates = [Known(r, _replayed(r)) for r in fits]
        able = _able(candidates, verb)
        if not able:
            raise _which(f"none of the runs that {name!r} fits is one to {verb}", candidates, "status")
        raise _which(f"{name!r} fits more than one run", able, verb)
    if _WHOLE.fullmatch(name):  # it is one, and to offer another in its place would be dangerous
        raise UsageError(
            f"the run {name} is not known on this machine, in {runs.state_dir()}",
            true="nothing was changed",
            means="a run is known on the machine that began it, to the user who began it",
            next=(
                f"runbook adopt --host [user@]HOST --run {name}{NOTE}any host of it that holds its directory",
                f"runbook runs{NOTE}those that are known here",
            ),
        )
    able = _able(known(), verb)
    raise _which(f"no run begins with {name!r}", able or known(), verb if able else "status")


def _none(verb: str) -> UsageError:
    own = (f"runbook diagnose PLAN{NOTE}of a plan's hosts, without a run",) if verb == "diagnose" else ()
    return UsageError(
        f"no run is known on this machine, in {runs.state_dir()}",
        true="nothing was changed",
        means="a run is known on the machine that began it, to the user who began it",
        next=(
            *own,
            f"runbook adopt --host [user@]HOST{NOTE}a run that hosts are in the middle of, begun on another machine",
            f"runbook run PLAN{NOTE}a new one",
        ),
    )


def _which(what: str, fits: Sequence[Known], verb: str) -> UsageError:
    """The candidates with their states, and the command for each."""
    shown = fits[:SHOWN]
    listed = columns([(k.run.id, k.state, _last(k)) for k in shown], "  ")
    if rest := len(fits) - len(shown):
        listed.append(f"  or one of {rest} older ones: runbook runs")
    return UsageError(
        "\n".join([f"{what}. {'It may be' if len(fits) > 1 else 'The only one'}:", *listed]),
        true="nothing was changed",
        means="a command works on one run",
        next=tuple(_command(k, verb) for k in shown),
    )


def _last(k: Known) -> str:
    return f"last sign of life {stamp(k.past.lines[-1]['at'])}" if k.past and k.past.lines else ""


def _fits(k: Known, verb: str) -> bool:
    """Whether the command makes sense for that run: some always do, and of a damaged journal nobody can say."""
    return (
        k.past is None
        or verb in ("report", "diagnose", "status")
        or any(c.startswith(f"runbook {verb} ") for c in _own(k))
    )


def _able(runs_: Sequence[Known], verb: str) -> list[Known]:
    """Those for which the command can work: what is part-way can go on and back, whatever is the likeliest for it."""
    return [k for k in runs_ if _fits(k, verb) or (k.part_way and verb in ("resume", "rollback"))]


def _own(k: Known) -> tuple[str, ...]:
    return situation.commands(k.past, k.run.id) if k.past else ()


def _command(k: Known, verb: str) -> str:
    """The command for that run, with what its state needs."""
    return next((c for c in _own(k) if c.startswith(f"runbook {verb} ")), f"runbook {verb} {k.run.id}")

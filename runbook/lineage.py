"""Which journal is the true one, where machines and hosts hold different copies of it.

An engine claims each host with an epoch and a word of its own, and the host writes both down. So the hosts say whose
journal it is: the newest engine's that they accepted. An epoch that only a journal speaks of counts for nothing: every
refused engine raises its own. Of an engine that only a minority of hosts accepted, no step can have gone beyond those
hosts, so whom a majority accepted comes first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from runbook.adopt import PLAN, SETTINGS, Held, Typed
from runbook.copies import JOURNAL
from runbook.errors import NOTE, Halted
from runbook.facts import together
from runbook.journal import Line
from runbook.replay import Replay, replay
from runbook.transport import LOCK

Word = tuple[int, str]
"""An engine: its epoch, and its own word; "" where it had none, and only the epoch counts."""
Accepted = Mapping[Word, frozenset[str]]
"""The engines that hosts are known to have accepted, and which hosts."""
SAME = ", the same up to there"
NORMAL = f"{SAME}, which is normal: a host gets the newest lines when something is about to be done, if it answers then"
"""Of a copy on a host that is a whole beginning of the chosen journal: nobody went another way."""


@dataclass(frozen=True)
class Choice:
    """The journal to go on with, where it is from, the plan that it names, and what differs elsewhere."""

    source: str
    journal: bytes
    plan: bytes
    settings: bytes
    past: Replay
    epoch: int
    differs: tuple[str, ...]


def choose(copies: Mapping[str, Held | str], run: str, typed: Typed) -> Choice:
    """The best of the copies. Raises Halted where no copy is of use, with what to type after what was ``typed``."""
    known = {name: h for name, h in copies.items() if isinstance(h, Held)}
    useful = {name: _unrefused(h) for name, h in known.items() if h.lines and h.lines[0].get("run") == run}
    if not useful:
        raise _no_journal(copies, run, typed)
    accepted = _accepted(useful, known)
    ranks = {name: _rank(h, accepted, useful) for name, h in useful.items()}
    source, best = max(useful.items(), key=lambda item: ranks[item[0]])
    past = replay(best.lines)
    differs = [
        *_newer(best, accepted, useful),
        *_damage(source, best),
        *together((n, text) for n, h in copies.items() if n != source and (text := _differs(useful.get(n, h), best))),
    ]
    settings = next((h.files[SETTINGS] for h in (best, *useful.values()) if SETTINGS in h.files), b"")
    # Higher than any that is spoken of, true or not, so that no two engines ever have the same.
    epoch = max(max(h.epoch, h.lines[-1]["epoch"] if h.lines else 0) for h in known.values())
    return Choice(
        source, best.files[JOURNAL][: best.good], _plan(past, useful, run), settings, past, epoch, tuple(differs)
    )


def _plan(past: Replay, useful: Mapping[str, Held], run: str) -> bytes:
    wanted = past.header.get("plan_sha256")
    plans = [h.files[PLAN] for h in useful.values() if PLAN in h.files]
    plan = next((text for text in plans if hashlib.sha256(text).hexdigest() == wanted), None)
    if plan is None:
        raise Halted(
            f"no host holds the plan that {run} was approved with (sha256 {wanted})",
            true="nothing was changed",
            means="without the plan nobody can say what the steps of this run are",
            next=("look for plan.yaml in the run's directory on the hosts that did not answer",),
        )
    return plan


# Who was accepted.


def engines(lines: Sequence[Line]) -> list[Word]:
    """The engines of a journal, in their order; of one that names none, its last epoch alone."""
    found = [(int(line["epoch"]), str(line["owner"])) for line in lines if _begins(line) and line.get("owner")]
    return found or [(int(lines[-1]["epoch"]), "")] * bool(lines)


def _begins(line: Line) -> bool:
    return line["event"] in ("engine", "adopted")


def _accepted(useful: Mapping[str, Held], known: Mapping[str, Held]) -> Accepted:
    """By the epoch that a host wrote down; and the last engine of its copy, which it let write there."""
    found: dict[Word, set[str]] = {}
    for name, h in known.items():
        if h.here:
            continue
        words = [(h.epoch, h.owner)] * bool(h.epoch) + (engines(h.lines)[-1:] if name in useful else [])
        for word in words:
            found.setdefault(word, set()).add(name)
    return {word: frozenset(names) for word, names in found.items()}


def _has(held: Held, word: Word) -> bool:
    """Whether a journal is, or goes back to, that engine's."""
    epoch, owner = word
    return word in engines(held.lines) if owner else any(line["epoch"] == epoch for line in held.lines)


def _rank(held: Held, accepted: Accepted, useful: Mapping[str, Held]) -> tuple[int, int, int, bool, int, int, bool]:
    """Lineage first, then a whole chain, then length; of equals the one that most others agree with, and a host's."""
    own = {word: len(names) for word, names in accepted.items() if _has(held, word)}
    majority = len(held.lines[0].get("nodes") or useful) // 2 + 1
    widely = max((epoch for (epoch, _), count in own.items() if count >= majority), default=0)
    newest, by = max(((epoch, count) for (epoch, _), count in own.items()), default=(0, 0))
    length = len(held.lines)
    agree = sum(1 for other in useful.values() if other.lines[length - 1 : length] == held.lines[-1:])
    return widely, newest, by, not held.fault, length, agree, not held.here


def _unrefused(held: Held) -> Held:
    """This machine's journal without what its engines wrote down after the hosts had refused them: none of it was done.

    The one that was refused first may have worked until then; if it had not begun anything, it is left out whole.
    """
    if not held.here:
        return held
    since = next((i for i in reversed(range(len(held.lines))) if held.lines[i]["event"] == "adopted"), 0)
    refused = next((i for i in range(since, len(held.lines)) if held.lines[i]["event"] == "superseded"), None)
    if refused is None:
        return held
    began = max((i for i in range(refused) if _begins(held.lines[i])), default=0)
    worked = any(line["event"] == "begin" for line in held.lines[began:refused])
    keep = refused if worked or held.lines[began]["event"] != "engine" else began
    pieces = held.files[JOURNAL].splitlines(keepends=True)[:keep]
    return replace(held, lines=held.lines[:keep], good=sum(map(len, pieces)), fault="")


# What is told.


def _newer(best: Held, accepted: Accepted, useful: Mapping[str, Held]) -> list[str]:
    """Newer engines that hosts accepted, and of whom the chosen journal does not know."""
    own = max((epoch for epoch, owner in accepted if _has(best, (epoch, owner))), default=0)
    found = []
    for word, names in sorted(accepted.items(), reverse=True):
        if word[0] > own and not _has(best, word):
            lost = not any(_has(h, word) for h in useful.values())
            where = "whose journal is nowhere" if lost else "whom most of the run's hosts never accepted"
            told = "what it did there is told by its commands alone"
            found.append(f"{', '.join(sorted(names))}: claimed by an engine of epoch {word[0]}, {where}: {told}")
    if not own and accepted:
        found.append("no host that answered knows any engine of this journal")
    return found


def _damage(source: str, best: Held) -> list[str]:
    at = len(best.lines) + 1
    return [f"{source}: line {at} or {at + 1} is damaged ({best.fault}); neither, nor what follows, is used"] * bool(
        best.fault
    )


def _differs(other: Held | str, best: Held) -> str:
    """What a copy differs in from the chosen one; one that is only shorter is no reason for alarm, and says so."""
    if isinstance(other, str):
        return other
    if not other.lines:
        return f"no journal{f' ({other.fault})' if other.fault else ''}"
    same = sum(1 for mine, theirs in zip(best.lines, other.lines, strict=False) if mine == theirs)
    if same < len(other.lines):
        newest = other.lines[-1]["epoch"]
        return f"its journal differs from line {same + 1} on ({len(other.lines)} lines, epoch {newest})"
    if other.fault:
        at = len(other.lines) + 1
        return f"line {at} or {at + 1} of its journal is damaged ({other.fault})"
    behind = len(best.lines) - len(other.lines)
    return f"{behind} line{'s' if behind > 1 else ''} behind{SAME if other.here else NORMAL}" if behind else ""


def _no_journal(copies: Mapping[str, Held | str], run: str, typed: Typed) -> Halted:
    """Only where every host that was asked showed an empty directory of the run may a lock be removed by hand."""
    shown = "; ".join(f"{name}: {_worth(h)}" for name, h in copies.items()) or "no directory of it was found"
    message = f"no host holds a journal of {run}: {shown}"
    more = f"{typed.again(run)} --host HOST{NOTE}with all its control-plane hosts"
    if copies and all(isinstance(h, Held) and not h.files and _only_locked(h) for h in copies.values()):
        return Halted(
            message,
            true="nothing was changed",
            means="the run locked these hosts and had, by all that can be seen, changed nothing else",
            next=(
                f"{more}, if these were not all",
                f"on each host, where they all say the same and you know that nobody works on it: rm {LOCK}",
            ),
        )
    return Halted(
        message,
        true="nothing was changed; the lock stays, for the cluster may be in the outage of that run",
        means="its journal lies in another directory than was looked in, or on other hosts than were asked",
        next=(
            more,
            f"{typed.again(run, 'DIR')}{NOTE}DIR: its plan's spec.paths.workspace, where it has its own",
        ),
    )


def _only_locked(held: Held) -> bool:
    """Nothing was begun there but the lock's own step: before any other the host gets its copies."""
    return all(key.startswith("LockHosts.") for key in held.commands)


def _worth(held: Held | str) -> str:
    return held if isinstance(held, str) else held.fault or "no journal"

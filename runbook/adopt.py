"""Taking a run over on another machine, from what the hosts hold: plan, journal, epochs.

Nothing here changes a service. The hosts learn one thing: that a newer engine has the run, so that a forgotten one can
change nothing more.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runbook.copies import JOURNAL
from runbook.errors import Halted, UsageError
from runbook.journal import Line, scan
from runbook.replay import Replay, replay
from runbook.step import Command, Result, Target
from runbook.transport import LOCK, Hosts

PLAN, SETTINGS = "plan.yaml", "plan.resumed.yaml"
LOOK = r"""
set -u
if [ -e "$1" ]; then printf 'lock '; head -c 4096 -- "$1" | base64 | tr -d '\n'; echo; fi
shift
for dir in "$@"; do
  for run in "$dir"/*/; do
    [ -f "${run}journal.jsonl" ] && printf 'run %s\n' "$(printf %s "${run%/}" | base64 | tr -d '\n')"
  done
done
exit 0
"""
"""lock, workspaces; read-only. What runs a host knows, in words that no name can break."""
FETCH = r"""
set -u
cd -- "$1" || exit 1
for name in plan.yaml plan.resumed.yaml journal.jsonl epoch; do
  if [ -f "$name" ]; then printf '%s ' "$name"; base64 < "$name" | tr -d '\n'; echo; fi
done
"""
"""run dir; read-only. Its copies."""
TIME = 60.0


@dataclass(frozen=True)
class Seen:
    """What a host knows of runs: which one its lock names ("": none), and their directories there."""

    lock: str = ""
    holder: str = ""
    dirs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """A host's copies, and how much of its journal is valid. ``fault``: what is wrong with the line after."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    epoch: int = 0
    lines: tuple[Line, ...] = ()
    good: int = 0
    fault: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        """The highest epoch wins, then the longest valid journal."""
        return (max((int(line["epoch"]) for line in self.lines), default=0), len(self.lines))


def look(hosts: Hosts, targets: Sequence[Target], workspaces: Sequence[str]) -> dict[str, Seen | str]:
    """What each host knows of runs; a string is why it could not be asked."""
    ask = Command(("sh", "-c", LOOK, "runbook", LOCK, *workspaces), TIME, changes=False)
    answers = hosts.ask({t.name: [ask] for t in targets})
    return {name: _seen(results[0]) for name, results in answers.items()}


def _seen(result: Result) -> Seen | str:
    if not result.ok:
        return result.tail() or f"exit code {result.code}"
    lock: dict[str, str] = {}
    dirs = []
    for line in result.out.splitlines():
        kind, _, value = line.partition(" ")
        text = _decoded(value).decode(errors="replace")
        if kind == "lock":
            lock = _json(text)
        elif kind == "run":
            dirs.append(text)
    if directory := lock.get("dir"):
        dirs.append(directory)
    return Seen(str(lock.get("run", "")), str(lock.get("holder", "")), tuple(dict.fromkeys(dirs)))


def _json(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def fetch(hosts: Hosts, dirs: Mapping[str, str]) -> dict[str, Held | str]:
    """Each host's copies of one run, by the run's directory there; a string is why there are none."""
    asks = {name: [Command(("sh", "-c", FETCH, "runbook", dir_), TIME, changes=False)] for name, dir_ in dirs.items()}
    answers = hosts.ask(asks) if asks else {}
    return {name: _held(results[0]) for name, results in answers.items()}


def _held(result: Result) -> Held | str:
    if not result.ok:
        return result.tail() or "it has no directory of this run"
    pairs = (line.partition(" ") for line in result.out.splitlines())
    files = {name: _decoded(value) for name, _, value in pairs if name}
    epoch = files.pop("epoch", b"").split()
    return held(files, int(epoch[0]) if epoch and epoch[0].isdigit() else 0)


def held(files: Mapping[str, bytes], epoch: int = 0) -> Held:
    """What these files are worth."""
    lines, good, fault = scan(files.get(JOURNAL, b""))
    return Held(files, epoch, tuple(lines), good, fault)


def run_of(seen: Mapping[str, Seen | str], wanted: str = "") -> str:
    """Which run is to be taken over. Raises UsageError where there is none, or more than one could be meant."""
    known = [s for s in seen.values() if isinstance(s, Seen)]
    if not known:
        shown = "; ".join(f"{host}: {why}" for host, why in seen.items())
        raise Halted(f"no host could be asked: {shown}", true="nothing was changed", next=("runbook adopt --host …",))
    locked = sorted({s.lock for s in known if s.lock})
    there = sorted({dir_.rsplit("/", 1)[-1] for s in known for dir_ in s.dirs})
    if wanted:
        if wanted in there:
            return wanted
        raise UsageError(
            f"--run {wanted}: no host that was asked holds it; they hold {', '.join(there) or 'no run at all'}",
            true="nothing was changed",
        )
    found = locked if len(locked) == 1 else there
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            "no host that was asked holds a run",
            true="nothing was changed",
            means="there is nothing to take over: no lock, and no directory of a run",
            next=("runbook run PLAN",),
        )
    raise UsageError(
        f"the hosts hold several runs: {', '.join(found)}",
        true="nothing was changed",
        next=tuple(f"runbook adopt --run {run} --host …" for run in found),
    )


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


def choose(copies: Mapping[str, Held | str], run: str) -> Choice:
    """The best of the copies. Raises Halted where no copy is of use."""
    held = {name: h for name, h in copies.items() if isinstance(h, Held) and h.lines and h.lines[0].get("run") == run}
    if not held:
        shown = "; ".join(f"{name}: {_worth(h)}" for name, h in copies.items())
        raise Halted(
            f"no host holds a journal of {run}: {shown}",
            true="nothing was changed",
            means="the run locked these hosts and had, by all that can be seen, changed nothing else",
            next=(f"on each host, once you know that nobody works on it: rm {LOCK}",),
        )
    source, best = max(held.items(), key=lambda item: item[1].rank)
    past = replay(best.lines)
    wanted = past.header["plan_sha256"]
    plans = [h.files[PLAN] for h in held.values() if PLAN in h.files]
    plan = next((text for text in plans if hashlib.sha256(text).hexdigest() == wanted), None)
    if plan is None:
        raise Halted(
            f"no host holds the plan that {run} was approved with (sha256 {wanted})",
            true="nothing was changed",
            means="without the plan nobody can say what the steps of this run are",
            next=("look for plan.yaml in the run's directory on the hosts that did not answer",),
        )
    settings = next((h.files[SETTINGS] for h in (best, *held.values()) if SETTINGS in h.files), b"")
    epoch = max(max(h.epoch, h.rank[0]) for h in copies.values() if isinstance(h, Held))
    differs = tuple(text for name, h in copies.items() if name != source and (text := _differs(name, h, best)))
    if best.fault:
        differs = (
            f"{source}: line {len(best.lines) + 1} is damaged ({best.fault}); what follows is not used",
            *differs,
        )
    return Choice(source, best.files[JOURNAL][: best.good], plan, settings, past, epoch, differs)


def _worth(held: Held | str) -> str:
    return held if isinstance(held, str) else held.fault or "no journal"


def _differs(name: str, other: Held | str, best: Held) -> str:
    if isinstance(other, str):
        return f"{name}: {other}"
    if not other.lines:
        return f"{name}: no journal"
    same = sum(1 for mine, theirs in zip(best.lines, other.lines, strict=False) if mine == theirs)
    if same < len(other.lines):
        return f"{name}: its journal differs from line {same + 1} on ({len(other.lines)} lines, epoch {other.rank[0]})"
    if other.fault:
        return f"{name}: line {len(other.lines) + 1} of its journal is damaged ({other.fault})"
    behind = len(best.lines) - len(other.lines)
    return f"{name}: {behind} line{'s' if behind > 1 else ''} behind" if behind else ""

"""Whose time was it? The wall time of a run, split by step into waiting for others, the snapshot's transfer, and ours.

Four sources say it: the journal (which step, when, and when each action began and ended), the hosts' records of
commands (``commands/KEY.intent`` is written just before a command starts, ``.rc`` just after its end), the trace of
the calls (``traced.py``), and the process's own start and end.

The engine makes one call after the other, so the calls' times add up. Of a call, the slowest host counts:

* waiting ("theirs"): on that host, the seconds in which etcdctl, etcdutl, kubectl, crictl or systemctl ran, or a script
  around one of them; and where a condition is waited for, all from the first question to the last round that somebody
  answered with no: these questions lie within the wait, which would be no shorter without them
* transfer: staging the snapshot and the tools, from the action's beginning to its end
* ours: all the rest: starting Python, reading and hashing here, connecting, round trips, the wrapper and its fsyncs,
  manifests moved, hashes and syncs and renames on the hosts, the journal
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runbook.journal import Line
from tests.bench.traced import Call

STARTING, ENDING = "(starting)", "(ending)"


@dataclass
class Share:
    """Seconds of one step, or of a whole run."""

    wall: float = 0.0
    theirs: float = 0.0
    transfer: float = 0.0

    @property
    def own(self) -> float:
        """What neither others nor the transfer needed."""
        return self.wall - self.theirs - self.transfer

    def __iadd__(self, other: Share) -> Share:
        self.wall += other.wall
        self.theirs += other.theirs
        self.transfer += other.transfer
        return self


@dataclass(frozen=True)
class Records:
    """What is known of a run after it: its journal, its calls, and for each host and key how long the command ran."""

    lines: Sequence[Line]
    calls: Sequence[Call]
    ran: Mapping[tuple[str, str], float]
    since: float
    until: float


@dataclass
class _Acts:
    """The journal's begin and end lines, by host: when, and under which key."""

    begins: dict[tuple[str, str], float] = field(default_factory=dict)
    ends: dict[tuple[str, str], float] = field(default_factory=dict)


def by_step(known: Records) -> dict[str, Share]:
    """Each step's share, in the order of the steps; what lies before the first and after the last has names too."""
    ends = _step_ends(known.lines)
    bounds = [(STARTING, _at(known.lines[0])), *ends, (ENDING, known.until)]
    shares: dict[str, Share] = {}
    begun = known.since
    for name, until in bounds:
        shares[name] = Share(wall=until - begun)
        begun = until
    acts = _acts(known.lines)
    for call in known.calls:
        step = next((name for name, until in bounds if call["since"] < until), ENDING)
        shares[step] += _of_call(call, acts, known.ran)
    return shares


def _step_ends(lines: Sequence[Line]) -> list[tuple[str, float]]:
    return [
        (line["step"], _at(line)) for line in lines if line["event"] == "step" and line["to"] in ("DONE", "SKIPPED")
    ]


def _at(line: Line) -> float:
    return datetime.fromisoformat(line["at"]).timestamp()


def _acts(lines: Sequence[Line]) -> _Acts:
    acts = _Acts()
    for line in lines:
        if line["event"] in ("begin", "end"):
            times = acts.begins if line["event"] == "begin" else acts.ends
            times[line["host"], line["key"]] = _at(line)
    return acts


def _of_call(call: Call, acts: _Acts, ran: Mapping[tuple[str, str], float]) -> Share:
    """What of a call was not ours; its wall time is its step's already."""
    took = call["until"] - call["since"]
    if call["waiting"] or call["call"] == "sleep":
        return Share(theirs=took)
    if call["call"] == "ask":
        answers: list[list[tuple[str, float]]] = list(call["hosts"].values())
        slowest = max(answers, key=lambda asked: sum(s for _, s in asked), default=[])
        return Share(theirs=min(took, sum(s for kind, s in slowest if kind == "theirs")))
    return _of_act(call, acts, ran) if call["call"] == "act" else Share()


def _of_act(call: Call, acts: _Acts, ran: Mapping[tuple[str, str], float]) -> Share:
    done = {k: t for k, t in acts.ends.items() if call["since"] <= t <= call["until"]}
    if not done:
        return Share()
    last = max(done, key=lambda k: done[k])[0]
    share = Share()
    for host, key in done:
        kind = call["hosts"][host][int(key.rsplit(".", 1)[-1])] if host == last else "own"
        if kind == "theirs":
            share.theirs += ran.get((host, key), 0.0)
        elif kind == "transfer":
            share.transfer += done[host, key] - acts.begins[host, key]
    return share


def total(shares: Mapping[str, Share]) -> Share:
    """All steps together."""
    whole = Share()
    for share in shares.values():
        whole += share
    return whole


def medians(rounds: Sequence[Mapping[str, Share]]) -> dict[str, Share]:
    """Each figure's median over the rounds."""
    from statistics import median

    seen: dict[str, list[Share]] = defaultdict(list)
    for shares in rounds:
        for name, share in shares.items():
            seen[name].append(share)
    return {
        name: Share(median(s.wall for s in of), median(s.theirs for s in of), median(s.transfer for s in of))
        for name, of in seen.items()
    }

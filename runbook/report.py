"""The timeline of a run, from its journal: what was done where and when, what was seen, and what is left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from runbook import facts
from runbook.facts import once
from runbook.held import in_words
from runbook.replay import at

if TYPE_CHECKING:
    from runbook.journal import Line
    from runbook.plan import Plan
    from runbook.replay import Replay

PROOF = "StartEtcd"
PROVEN = (
    "the planned members and no other, one cluster id, the restored one",
    "every member answers, and all agree on a leader",
    "equal hashes on all members at the restored revision, which none is below",
    "no alarm",
)
"""The clauses of the cross-member proof that ``StartEtcd`` waits for, as every host sees the cluster."""
COMPACTED = "older revisions are compacted, so that no watch goes on with them"


@dataclass
class Attempt:
    """One time at which a step was done or undone. Where an engine was cut off, ``result`` says so.

    ``joining`` is the host that came back and was given the step by itself; "" where it was all hosts' step.
    """

    step: str
    what: str
    epoch: int
    began: datetime
    ended: datetime | None = None
    result: str = ""
    joining: str = ""
    saw: dict[str, str] = field(default_factory=dict)
    commands: list[tuple[datetime, datetime]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took; 0 where its end is not known."""
        return (self.ended - self.began).total_seconds() if self.ended else 0.0

    @property
    def waited(self) -> float:
        """For how long of it no command of the run was running: settling, and waiting for the postcondition."""
        busy, until = 0.0, self.began
        for begin, end in sorted(self.commands):
            busy += max(0.0, (end - max(begin, until)).total_seconds())
            until = max(until, end)
        return max(0.0, self.seconds - busy)


def document(lines: Sequence[Line], past: Replay, plan: Plan | None = None) -> dict[str, Any]:
    """The report for programs. With the plan it names what remains on the hosts exactly, and what to do by hand."""
    from runbook import situation
    from runbook.preview import NEVER_RESTORED

    return {
        "run": past.run,
        "header": {k: v for k, v in past.header.items() if k not in ("seq", "epoch", "event", "prev")},
        "outcome": {
            "state": past.state,
            "why": in_words(past.why),
            "refused": past.refused,
            "halted_from": past.halted_from if past.state == "halted" else "",
            "closed": past.closed,
            "accepted": past.accepted,
            "superseded": past.outdated,
            "means": situation.meaning(past),
        },
        "began": lines[0]["at"] if lines else "",
        "ended": lines[-1]["at"] if lines else "",
        "outage_seconds": past.outage_seconds(),
        "outages": [
            {
                "from": start.isoformat(),
                "to": end.isoformat() if end else None,
                "seconds": round(((end or past.known_until) - start).total_seconds(), 3),
            }
            for start, end in past.outages
        ],
        "engines": engines(lines),
        "steps": [_plain(a) for a in attempts(lines)],
        "hosts": _hosts(lines, past),
        "findings": [_pick(line, "at", "check", "severity", "host", "saw", "do") for line in _all(lines, "finding")],
        "failures": failures(lines),
        "proof": proof(lines, plan),
        "remains": remains(past, plan),
        "timeline": timeline(lines),
        "follow_up": _follow_up(past, plan),
        "never_restored": list(NEVER_RESTORED),
        "next": [c for c in situation.commands(past, past.run) if not c.startswith("runbook report ")],
    }


def markdown(lines: Sequence[Line], past: Replay, plan: Plan | None = None) -> str:
    """The report for people."""
    from runbook.reporttext import text

    return text(document(lines, past, plan))


def engines(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Every process that worked on the run: who began, took over or resumed, from where, and until when."""
    found: list[dict[str, Any]] = []
    for line in lines:
        if line["event"] == "engine":
            found.append(_pick(line, "epoch", "at", "command", "holder", "version"))
        elif line["event"] == "adopted":
            found.append({**_pick(line, "epoch", "at", "holder", "version"), "command": "adopt"})
        if found:
            found[-1]["last"] = line["at"]
    return found


def attempts(lines: Sequence[Line]) -> list[Attempt]:
    """Every attempt at every step, in order."""
    found: list[Attempt] = []
    open_: dict[str, Attempt] = {}
    begun: dict[tuple[str, str], datetime] = {}
    for line in lines:
        event, step = line["event"], line.get("step", "")
        if event == "step":
            _take(line, found, open_)
        elif event == "begin":
            begun[(line.get("host", ""), line.get("key", ""))] = at(line)
        elif event == "end":
            since = begun.pop((line.get("host", ""), line.get("key", "")), None)
            if step in open_ and since:
                open_[step].commands.append((since, at(line)))
    return found


def _take(line: Line, found: list[Attempt], open_: dict[str, Attempt]) -> None:
    step, to, now, joining = line["step"], line["to"], at(line), str(line.get("joining", ""))
    if to in ("ACTING", "UNDOING"):
        if step in open_:
            open_[step].result = "cut off"
        open_[step] = Attempt(step, "do" if to == "ACTING" else "undo", int(line["epoch"]), now, joining=joining)
        found.append(open_[step])
    elif to != "PENDING":
        attempt = open_.pop(step, None)
        if attempt is None:
            attempt = Attempt(step, "look", int(line["epoch"]), now, joining=joining)
            found.append(attempt)
        saw = {host: in_words(once(str(said))) for host, said in (line.get("saw") or {}).items()}
        attempt.ended, attempt.result, attempt.saw = now, to, saw


def failures(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Every command that failed, or whose end nobody knows, with its last words."""
    begun: dict[tuple[str, str], str] = {}
    found = []
    for line in lines:
        key = (line.get("host", ""), line.get("key", ""))
        if line["event"] == "begin":
            begun[key] = line.get("action", "")
        elif line["event"] == "end" and line.get("code") != 0:
            said = {"said": in_words(once(str(line.get("said", ""))))}
            found.append({**_pick(line, "at", "step", "host", "code"), **said, "action": begun.get(key, "")})
    return found


def proof(lines: Sequence[Line], plan: Plan | None = None) -> dict[str, Any] | None:
    """The cross-member proof, where it was seen: when, by which hosts, and what it says; None where it never was.

    A host that came back later saw it then, together with the others.
    """
    seen = [line for line in _all(lines, "step") if line["step"] == PROOF and line["to"] in ("DONE", "SKIPPED")]
    whole = [line for line in seen if "joining" not in line][-1:]
    if not whole:
        return None
    later = [line for line in seen if "joining" in line and line["seq"] > whole[0]["seq"]]
    hosts = [host for line in (*whole, *later) for host, saw in (line.get("saw") or {}).items() if saw == "yes"]
    compacted = [COMPACTED] if plan is None or plan.cluster.mark_compacted else []
    return {"at": whole[0]["at"], "hosts": list(dict.fromkeys(hosts)), "says": [*PROVEN, *compacted]}


def remains(past: Replay, plan: Plan | None) -> list[str]:
    """What the run left on the hosts, until ``finish``."""
    if past.closed:
        return [f"on {host}, without which the run was closed: all that it had left there" for host in past.left]
    if not past.begun("LockHosts"):
        return []
    run = past.run
    places = sorted({d for n in plan.nodes for d in (n.paths.data_dir, n.paths.wal_dir) if d}) if plan else []
    spaces = sorted({n.paths.workspace for n in plan.nodes}) if plan else []
    beside = " and ".join(places) or "the data directory (and the WAL directory)"
    of_run = f"{' and '.join(spaces) or '<workspace>'}/{run}"
    copies = (
        "the plan and the journal" if past.steps.get("SaveManifests") == "UNDONE" else "plan, journal and manifests"
    )
    staged = ", the snapshot" if past.steps.get("StageSnapshot", "PENDING") not in ("PENDING", "UNDONE") else ""
    left = [f"{of_run}: copies of {copies}{staged}, commands' results"]
    swapped = past.steps.get("SwapData", "PENDING")
    if swapped == "UNDONE":
        left.append(f".{run}.discarded in {beside}: the restored data, with what was written to it")
        if past.discarded_on:
            left.append(f"{of_run}/discarded.db on {past.discarded_on}: a snapshot of that, if etcd still answered")
    elif past.begun("SwapData"):
        left.append(f".{run}.old in {beside}: the old data, complete")
    elif past.begun("RestoreAside") and past.steps["RestoreAside"] != "UNDONE":
        left.append(f".{run}.restored in {beside}: the restored data, not in place")
    left += [f"on {host}, absent: all that the run had put there before" for host in past.absent if past.holds(host)]
    return left


def timeline(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Every line that is worth a sentence."""
    from runbook.board import Board
    from runbook.procedures.kubeadm import STEPS

    board = Board(None, STEPS)
    return [{"at": line["at"], "epoch": line["epoch"], "text": s.strip()} for line in lines for s in board.take(line)]


def _follow_up(past: Replay, plan: Plan | None) -> list[dict[str, str]]:
    if plan is None or past.state not in ("complete", "unverified"):
        return []
    from runbook.preview import follow_up
    from runbook.step import Binding

    return follow_up(plan, Binding(past.run, absent=tuple(past.absent)))


def _hosts(lines: Sequence[Line], past: Replay) -> dict[str, dict[str, Any]]:
    told = facts.told_by(lines, past)
    found: dict[str, dict[str, Any]] = {host: {"true": fact, "commands": 0, "failed": 0} for host, fact in told.items()}
    for line in _all(lines, "end"):
        host = found.setdefault(line.get("host", ""), {"true": "", "commands": 0, "failed": 0})
        host["commands"] += 1
        host["failed"] += line.get("code") != 0
    return found


def _plain(a: Attempt) -> dict[str, Any]:
    return {
        "id": a.step,
        "joining": a.joining,
        "what": a.what,
        "epoch": a.epoch,
        "began": a.began.isoformat(),
        "ended": a.ended.isoformat() if a.ended else None,
        "seconds": round(a.seconds, 3),
        "waited": round(a.waited, 3),
        "result": a.result or "not ended",
        "saw": a.saw,
        "commands": len(a.commands),
    }


def _all(lines: Sequence[Line], event: str) -> list[Line]:
    return [line for line in lines if line["event"] == event]


def _pick(line: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: line.get(key, "") for key in keys}

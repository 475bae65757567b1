"""Where a run stands, what was last seen on each host, whether an engine is at work, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runbook import facts
from runbook.errors import lined
from runbook.held import in_words
from runbook.replay import FOUND
from runbook.tables import columns, duration, printable, stamp, visible

if TYPE_CHECKING:
    from runbook.journal import Line
    from runbook.replay import Replay
    from runbook.runs import AtWork


def document(
    lines: Sequence[Line],
    past: Replay,
    hosts: Mapping[str, str] | None = None,
    *,
    engine: AtWork | None = None,
    others: Sequence[Mapping[str, str]] = (),
    all_closed: int = 0,
) -> dict[str, Any]:
    """For programs; ``hosts`` is what the hosts said just now, where they were asked, else the journal's last word.

    ``engine`` is the process on this machine that works on the run now; ``others`` are runs that are not closed either;
    ``all_closed`` is how many runs are known here, where no run was named and none is open.
    """
    from runbook import situation

    known = facts.gather(lines, past)
    return {
        "run": past.run,
        "plan": past.header.get("plan", ""),
        "ticket": past.header.get("ticket", ""),
        "snapshot": past.header.get(FOUND) or past.header.get("snapshot", ""),
        "state": past.state,
        "refused": past.refused,
        "never_began": past.never_began,
        "halted_from": past.halted_from if past.state == "halted" else "",
        "why": in_words(past.why),
        "step": past.current,
        "step_state": past.steps.get(past.current, ""),
        "steps": dict(past.steps),
        "outage_seconds": past.outage_seconds(),
        "outage_running": past.in_outage,
        "superseded": past.outdated,
        "hosts": dict(hosts) if hosts is not None else {host: str(fact) for host, fact in known.items()},
        "seen": {host: fact.at for host, fact in known.items()},
        "silent": facts.silent(known),
        "engine": engine.document() if engine else None,
        "absent": sorted(past.absent),
        "means": situation.meaning(past),
        "next": list(_next(past, engine)),
        "by_hand": list(past.by_hand),
        "closed": past.closed,
        "updated": lines[-1]["at"] if lines else "",
        "others": [dict(other) for other in others],
        "all_closed": all_closed,
    }


def _next(past: Replay, engine: AtWork | None) -> tuple[str, ...]:
    """A run that is being worked on takes no other command."""
    from runbook import situation

    return (f"runbook status {past.run}",) if engine else situation.commands(past, past.run)


def text(document: Mapping[str, Any], past: Replay) -> str:
    """For people."""
    from runbook import situation

    rows: list[tuple[str, str]] = [
        ("run", document["run"]),
        ("plan", document["plan"] + (f", ticket {document['ticket']}" if document["ticket"] else "")),
        *_labelled("snapshot", [document["snapshot"]] if document["snapshot"] else []),
        ("state", _state(document)),
        ("engine", _engine(document["engine"])),
        ("step", f"{document['step']} {document['step_state']}".strip() or "none has begun"),
        ("outage", _outage(document)),
        *((f"on {host}", _seen(document, host)) for host in document["hosts"]),
        *_labelled("absent", situation.owed(past)),
        *_labelled("means", document["means"].split("; ")),
        *_labelled("besides", [f"{o['run']} ({o['state']}): runbook status {o['run']}" for o in document["others"]]),
        *_labelled("besides", _none_open(document["all_closed"])),
    ]
    shown = [(label, printable(said)) for label, said in rows]
    advice = _labelled("next", [visible(line) for line in _advice(document, past)])
    card = _labelled("by hand", [visible(line) for line in document["by_hand"]])
    return "\n".join(columns([*shown, *advice, *card]))


def _none_open(all_closed: int) -> list[str]:
    which, are = ("the only one", "is") if all_closed == 1 else (f"all {all_closed}", "are")
    return [f"no run is open: {which} known on this machine {are} closed"] * bool(all_closed)


def _labelled(label: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    return [(label if i == 0 else "", line) for i, line in enumerate(lines)]


def shown_state(document: Mapping[str, Any]) -> str:
    """The state as a person says it: a run that a check refused was never rolled back in earnest."""
    if document["refused"]:
        return "refused"
    if document["never_began"]:
        return "never began"
    if document["superseded"]:
        return f"{document['state']} when {'ended' if document['closed'] else 'taken over'} elsewhere"
    return f"{document['state']}{', closed' if document['closed'] else ''}"


def _state(document: Mapping[str, Any]) -> str:
    halted = f" (from {document['halted_from']})" if document["halted_from"] else ""
    why = f": {document['why']}" if document["why"] else ""
    if document["refused"]:
        return f"refused, nothing was changed{why}"
    return f"{shown_state(document)}{halted}{why}"


def _engine(engine: Mapping[str, Any] | None) -> str:
    if engine is None:
        return "no engine is working on it on this machine"
    since = f", since {stamp(engine['since'])}" if engine["since"] else ""
    who = f"process {engine['pid']} of {engine['holder']}" if engine["pid"] else "a process"
    return f"{who} on this machine is working on it now{since}"


def _outage(document: Mapping[str, Any]) -> str:
    outage = document["outage_seconds"]
    if not outage:
        return "none"
    if document["superseded"]:
        return f"{duration(outage)}, as far as this machine knows" if document["outage_running"] else duration(outage)
    return duration(outage) + (", still going on" if document["outage_running"] else "")


def _seen(document: Mapping[str, Any], host: str) -> str:
    """What was last seen there. What the state's reason tells already is not told again."""
    said, at = document["hosts"][host], document["seen"].get(host, "")
    true, _, amiss = said.partition(f"; {document['step']}: ")
    if amiss and amiss in document["why"]:
        said = f"{true}; it did not answer at last" if host in document["silent"] else true
    return f"last seen {stamp(at)}: {said}" if at else said


def _advice(document: Mapping[str, Any], past: Replay) -> list[str]:
    """The commands, each with a word on it."""
    from runbook import situation

    if document["engine"]:
        return [*document["next"], "(wait: while an engine works on the run, no other command may)"]
    return lined(situation.advice(past, document["run"]))


def runs_table(documents: Sequence[Mapping[str, Any]]) -> str:
    """One line a run, in the order given."""
    rows = [("RUN", "STATE", "STEP", "OUTAGE", "LAST SIGN OF LIFE")]
    for d in documents:
        outage = duration(d["outage_seconds"]) if d["outage_seconds"] else "-"
        state = f"{shown_state(d)}, at work now" if d["engine"] else shown_state(d)
        rows.append((d["run"], state, d["step"] or "-", outage, stamp(d["updated"]) or d["why"] or "-"))
    return "\n".join(columns([tuple(printable(cell) for cell in row) for row in rows]))

"""Where a run stands, what is true on each host, and the next command to type; all from its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runbook.tables import columns, duration, printable

if TYPE_CHECKING:
    from runbook.journal import Line
    from runbook.replay import Replay

UNTOUCHED = "nothing of this run was done here"
AFTER = {
    "CheckEverything": "checked, untouched",
    "LockHosts": "locked for this run; the old cluster serves",
    "SaveManifests": "manifests saved; the old cluster serves",
    "StageSnapshot": "snapshot staged; the old cluster serves",
    "RestoreAside": "snapshot restored beside the data; the old cluster serves",
    "StopControllers": "controllers stopped; API server and etcd serve the old data",
    "StopApiServers": "controllers and API server stopped; etcd runs on the old data",
    "StopEtcd": "control plane stopped; the old data is in place",
    "SwapData": "control plane stopped; the restored data is in place, the old is kept beside it",
    "StartEtcd": "etcd runs on the restored data, proven with the others; the API server is stopped",
    "StartApiServers": "API server and etcd serve the restored data; the controllers are stopped",
    "StartControllers": "the control plane serves the restored data; the old is kept beside it",
    "RestartKubelets": "the control plane serves the restored data, kubelet restarted; the old is kept beside it",
    "RestartWorkerKubelets": "kubelet restarted",
    "VerifyCluster": "the restored cluster serves and is verified; the old data is kept beside it",
}
"""What is true on a host once a step is done there; once a step is undone, the words of the step before are."""


def document(lines: Sequence[Line], past: Replay, hosts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """For programs; ``hosts`` is what the hosts said just now, where they were asked, else the journal's last word."""
    from runbook import situation

    absent = sorted(getattr(past, "absent", ()))
    return {
        "run": past.run,
        "plan": past.header.get("plan", ""),
        "ticket": past.header.get("ticket", ""),
        "state": past.state,
        "halted_from": past.halted_from if past.state == "halted" else "",
        "why": past.why,
        "step": past.current,
        "step_state": past.steps.get(past.current, ""),
        "steps": dict(past.steps),
        "outage_seconds": past.outage_seconds(),
        "outage_running": past.in_outage,
        "hosts": dict(hosts) if hosts is not None else told_by(lines, past),
        "absent": absent,
        "means": situation.meaning(past),
        "next": list(situation.commands(past, past.run)),
        "closed": past.closed,
        "updated": lines[-1]["at"] if lines else "",
    }


def told_by(lines: Sequence[Line], past: Replay) -> dict[str, str]:
    """What the journal says last about each host."""
    names = [*past.header.get("nodes", ()), *past.header.get("workers", ())]
    if past.closed:
        return dict.fromkeys(names, "nothing of this run is left here")
    facts, doing = dict.fromkeys(names, UNTOUCHED), dict.fromkeys(names, "")
    for line in lines:
        if line["event"] == "step":
            _take_step(line, facts, doing)
        elif line["event"] in ("begin", "end") and line.get("host"):
            host = line["host"]
            facts.setdefault(host, UNTOUCHED)
            doing[host] = _action(line)
    return {host: f"{fact}; {doing[host]}" if doing.get(host) else fact for host, fact in facts.items()}


def _take_step(line: Line, facts: dict[str, str], doing: dict[str, str]) -> None:
    step, to = line["step"], line["to"]
    for host, saw in (line.get("saw") or {}).items():
        if not host:
            continue
        facts.setdefault(host, UNTOUCHED)
        verdict = str(saw).partition(":")[0]
        if to in ("UNDONE", "STUCK"):
            facts[host] = before(step) if verdict == "yes" else facts[host]
        elif verdict == "yes":
            facts[host] = AFTER.get(step, f"{step} done")
        doing[host] = f"{step}: {saw}" if verdict in ("no", "unknown") else ""


def before(step: str) -> str:
    """What is true on a host where the step was undone."""
    names = [name for name in AFTER if name != "RestartWorkerKubelets"]
    index = names.index(step) if step in names else 0
    return (
        AFTER[names[index - 1]]
        if index
        else "old data and services as before the run"
        if step in names
        else f"{step} undone"
    )


def _action(line: Line) -> str:
    what = f"{line.get('step', '')}: "
    if line["event"] == "begin":
        return f"{what}a command was begun at {line['at']}, and its end is not known"
    if line.get("code") == 0:
        return ""
    said = f": {line['said']}" if line.get("said") else ""
    return f"{what}{'nobody knows how its command ended' if line.get('code') is None else 'a command failed'}{said}"


def text(document: Mapping[str, Any]) -> str:
    """For people."""
    halted = f" (from {document['halted_from']})" if document["halted_from"] else ""
    why = f": {document['why']}" if document["why"] else ""
    outage = document["outage_seconds"]
    rows = [
        ("run", document["run"]),
        ("plan", document["plan"] + (f", ticket {document['ticket']}" if document["ticket"] else "")),
        ("state", f"{document['state']}{halted}{', closed' if document['closed'] else ''}{why}"),
        ("step", f"{document['step']} {document['step_state']}".strip() or "none has begun"),
        (
            "outage",
            (duration(outage) + (", still going on" if document["outage_running"] else "")) if outage else "none",
        ),
        *((f"on {host}", said) for host, said in document["hosts"].items()),
        *([("absent", ", ".join(document["absent"]))] if document["absent"] else []),
        ("means", document["means"]),
        *(("next" if i == 0 else "", command) for i, command in enumerate(document["next"])),
    ]
    return "\n".join(columns([(label, printable(said)) for label, said in rows]))


def runs_table(documents: Sequence[Mapping[str, Any]]) -> str:
    """One line a run, in the order given."""
    rows = [("RUN", "STATE", "STEP", "OUTAGE", "LAST SIGN OF LIFE")]
    for d in documents:
        outage = duration(d["outage_seconds"]) if d["outage_seconds"] else "-"
        state = f"{d['state']}, closed" if d["closed"] else d["state"]
        rows.append((d["run"], state, d["step"] or "-", outage, d["updated"][:19] or printable(d["why"]) or "-"))
    return "\n".join(columns([tuple(printable(cell) for cell in row) for row in rows]))

"""What the journal last saw on each host: what is true there, when that was seen, and what was amiss at last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook.held import in_words

if TYPE_CHECKING:
    from runbook.journal import Line
    from runbook.replay import Replay

UNTOUCHED = "nothing of this run was done here"
AFTER = {
    "CheckEverything": "checked, untouched",
    "LockHosts": "locked for this run; the old cluster is as it was found",
    "SaveManifests": "manifests saved; the old cluster is as it was found",
    "StageSnapshot": "snapshot staged; the old cluster is as it was found",
    "RestoreAside": "snapshot restored beside the data; the old cluster is as it was found",
    "StopControllers": "controllers stopped; API server and etcd are as they were found, on the old data",
    "StopApiServers": "controllers and API server stopped; etcd is as it was found, on the old data",
    "StopEtcd": "control plane stopped; the old data is in place",
    "SwapData": "control plane stopped; the restored data is in place, the old is kept beside it",
    "StartEtcd": "etcd runs on the restored data, proven with the others; the API server is stopped",
    "StartApiServers": "API server and etcd serve the restored data; the controllers are stopped",
    "StartControllers": "the control plane serves the restored data; the old is kept beside it",
    "RestartKubelets": "the control plane serves the restored data, kubelet restarted; the old is kept beside it",
    "RestartWorkerKubelets": "kubelet restarted",
    "VerifyCluster": "the restored cluster serves and is verified; the old data is kept beside it",
}
"""What is true on a host once a step is done there; once a step is undone, the words of the step before are.

Of what the run has not stopped they do not say that it serves: a cluster that is dead is restored with the same steps.
"""
UNSURE = (
    "the restored cluster serves, with nothing amiss found here, but is not verified; the old data is kept beside it"
)
"""What is true where the last check said yes of a host, while it, or a step before it, said no of another."""
BEGUN = {
    "RestoreAside": "the restore beside the data was begun",
    "StopControllers": "the controllers were told to stop",
    "StopApiServers": "the API server was told to stop",
    "StopEtcd": "etcd was told to stop",
    "SwapData": "the swap was begun",
    "StartEtcd": "etcd was told to start on the restored data",
    "StartApiServers": "the API server was told to start",
    "StartControllers": "the controllers were told to start",
    "RestartKubelets": "the kubelet was told to restart",
    "RestartWorkerKubelets": "the kubelet was told to restart",
}
"""What was begun on a host where the step is not proven to be done."""
TAKEN_BACK = {
    "StopControllers": "the controllers were told to start again",
    "StopApiServers": "the API server was told to start again, on the old data",
    "StopEtcd": "etcd was told to start again, on the old data",
    "SwapData": "the swap back was begun",
    "StartEtcd": "etcd was told to stop",
    "StartApiServers": "the API server was told to stop",
    "StartControllers": "the controllers were told to stop",
}
"""The same for a step that is being undone."""


@dataclass
class Fact:
    """One host: what is true there, and what was begun since then without proof.

    ``at`` is when it last answered (RFC 3339), "" where it never did; ``silent``: it did not at last.
    """

    true: str = UNTOUCHED
    begun: str = ""
    at: str = ""
    amiss: str = ""
    silent: bool = False

    @property
    def known(self) -> str:
        """What can be said of the host."""
        return f"{self.true}; since then {self.begun} (not proven)" if self.begun else self.true

    def __str__(self) -> str:
        return f"{self.known}; {self.amiss}" if self.amiss else self.known


def gather(lines: Sequence[Line], past: Replay) -> dict[str, Fact]:
    """Every host of the run; those that the journal's first line names come first, in the plan's order."""
    names = [*past.header.get("nodes", ()), *past.header.get("workers", ())]
    facts = {name: Fact() for name in names}
    undoing = False
    for line in lines:
        if line["event"] == "step":
            undoing = line["to"] == "UNDOING"
            _take_step(line, facts)
        elif line["event"] == "present" and facts.get(line["host"], Fact()).true == AFTER["CheckEverything"]:
            facts[line["host"]].true = before("CheckEverything")  # alone, it had every step but that one undone
        elif ".sweep." in line.get("key", "") and line.get("host"):
            _take_removal(line, facts.setdefault(line["host"], Fact()))
        elif line["event"] in ("begin", "begun", "end") and line.get("host"):
            _take_action(line, facts.setdefault(line["host"], Fact()), TAKEN_BACK if undoing else BEGUN)
    if not _verified(past):
        said, sure = (text.partition("; ")[0] for text in (UNSURE, AFTER["VerifyCluster"]))
        for fact in facts.values():
            fact.true = fact.true.replace(sure, said)
    if past.closed and lines:
        swept = Fact("nothing of this run is left here", at=lines[-1]["at"])
        kept = "the run was closed without it ({why}): what the run left here is here still"
        return {h: Fact(kept.format(why=past.left[h]), at=f.at) if h in past.left else swept for h, f in facts.items()}
    return facts


def _verified(past: Replay) -> bool:
    """Whether all of the cluster is: one host's yes says nothing of the others."""
    return all(
        past.steps.get(step, "DONE") in ("DONE", "SKIPPED") for step in ("RestartWorkerKubelets", "VerifyCluster")
    )


def told_by(lines: Sequence[Line], past: Replay) -> dict[str, str]:
    """The facts in words, by host."""
    return {host: str(fact) for host, fact in gather(lines, past).items()}


def silent(facts: dict[str, Fact]) -> list[str]:
    """The hosts that did not answer when they were last asked."""
    return [host for host, fact in facts.items() if fact.silent]


def together(by_host: Iterable[tuple[str, str]]) -> list[str]:
    """One sentence for each thing that is told of hosts, with all the hosts of which it is: ``m1, m2: …``."""
    hosts: dict[str, list[str]] = {}
    for host, said in by_host:
        hosts.setdefault(without_label(said, host), []).append(host)
    return [f"{', '.join(h for h in names if h)}: {said}" if any(names) else said for said, names in hosts.items()]


def without_label(said: str, host: str) -> str:
    """The transport begins its sentences with the host: once is enough, and without it equal ones are seen to be."""
    first, _, rest = said.partition(": ")
    return rest if host and rest and (first == host or first.startswith(f"{host} (")) else said


def once(*said: str) -> str:
    """Several reasons as one, each fragment told a single time."""
    parts = [part for text in said for part in text.split("; ") if part]
    return "; ".join(dict.fromkeys(parts))


def _take_step(line: Line, facts: dict[str, Fact]) -> None:
    step, to = line["step"], line["to"]
    for host, told in (line.get("saw") or {}).items():
        if not host:
            continue
        fact = facts.setdefault(host, Fact())
        verdict, _, why = str(told).partition(": ")
        fact.silent = verdict == "unknown"
        fact.at = fact.at if fact.silent else line["at"]
        if verdict == "yes":
            fact.true = before(step) if to in ("UNDONE", "STUCK") else AFTER.get(step, f"{step} done")
            fact.begun = ""
        reason = without_label(once(in_words(why)), host) or ("it did not answer" if fact.silent else "it is not done")
        fact.amiss = f"{step}: {reason}" if verdict in ("no", "unknown") else ""


def _take_removal(line: Line, fact: Fact) -> None:
    """What `finish` removes is not kept any more: neither while it does, nor where it was cut off."""
    serves, _, _ = fact.true.partition("; ")
    done = line["event"] == "end" and line.get("code") == 0
    fact.true = f"{serves}; what the run had kept here {'is removed' if done else 'is being removed, or is gone'}"
    fact.at, fact.amiss = line["at"], ""


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


def _take_action(line: Line, fact: Fact, begun: Mapping[str, str]) -> None:
    what = f"{line.get('step', '')}: "
    if line["event"] in ("begin", "begun"):
        fact.begun = begun.get(line.get("step", ""), fact.begun)
        when = f" at {line['at']}" if line["event"] == "begin" else ""  # the host recorded it, and not when
        fact.amiss = f"{what}a command was begun{when}, and its end is not known"
        return
    fact.silent = line.get("code") is None
    fact.at = fact.at if fact.silent else line["at"]
    if line.get("code") == 0:
        fact.amiss = ""
        return
    said = f": {in_words(line['said'])}" if line.get("said") else ""
    fact.amiss = f"{what}{'nobody knows how its command ended' if fact.silent else 'a command failed'}{said}"

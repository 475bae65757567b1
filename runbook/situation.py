"""The three sentences that end every failure: what is true, what that means for the cluster, what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TypedDict

from runbook import facts
from runbook.errors import NOTE, bare
from runbook.held import in_words
from runbook.lifecycle import FINISHED, Verdict, View
from runbook.replay import Replay
from runbook.tables import duration, stamp


class Sentences(TypedDict):
    """As the errors take them."""

    true: str
    means: str
    next: tuple[str, ...]


def describe(past: Replay, run: str, views: Mapping[str, View] | None = None) -> Sentences:
    """The sentences for where the run stands; ``views`` is what the hosts said last, where the journal has it not."""
    return {"true": _true(past, views or {}), "means": meaning(past), "next": advice(past, run)}


def remembered(past: Replay, run: str) -> Sentences:
    """The sentences by the journal alone, where no host is asked: what is true is told as of when one last answered."""
    ends = past.lines[-1]["at"] if past.lines else ""
    heard = max((fact.at for fact in facts.gather(past.lines, past).values()), default="")
    true = _true(past, {}, "it did not answer at last")
    if heard:
        true = f"as of {stamp(heard)}, when a host last answered this machine:\n{true}"
    elif ends:
        true = f"as of {stamp(ends)}, when this machine's journal ends:\n{true}"
    return {**describe(past, run), "true": true}


def not_back(past: Replay, run: str, views: Mapping[str, View], lost: Sequence[str] = ()) -> Sentences:
    """The sentences where a rollback may not begin: a host says no, is silent, or has ``lost`` its old data."""
    silent = [host for host, view in views.items() if view.verdict is Verdict.UNKNOWN]
    means = (
        "a host that does not answer may hold a later run's data: nothing is undone on a guess, and the run waits"
        if silent
        else f"{', '.join(lost)} would get stuck half-way, with the others on their old data: the run waits"
        if lost
        else "going back from here would throw away what somebody else put there, or get stuck half-way"
    )
    again, later = bare(back(past, run)), [f"runbook runs{NOTE}a later run whose data is in place is rolled back first"]
    if silent:
        later = [f"{again}{NOTE}once {', '.join(silent)} answers again", *_without(past, again, silent)]
    elif lost:
        later = [f"{again}{NOTE}once the old data is there again on {', '.join(lost)}"]
        later += _without(past, again, lost, "where it is lost for good: only the others go back")
    true = f"nothing was changed just now\n{_true(past, views)}"
    return {"true": true, "means": means, "next": (*later, f"runbook status {run}")}


def half_gone(past: Replay, run: str, hosts: Sequence[str]) -> Sentences:
    """The sentences where the run's directory is gone from hosts, but not all that it did there, or not from all."""
    goes = f"runbook resume {run}" if past.state not in ("rolling-back", "stuck") else bare(back(past, run))
    return {
        "true": f"nothing was changed just now\n{_true(past, {})}",
        "means": "a run without its directory can go neither on nor back there: the saved manifests were in it",
        "next": (
            f"find out who removed it from {', '.join(hosts)}: was a host set up anew, or a `runbook finish` cut off?",
            *_without(past, goes, hosts, "where the other hosts can go on without it"),
            f"runbook report {run}{NOTE}all that was done, and where the old data was put",
        ),
    }


def closing_without(run: str, silent: Sequence[str]) -> str:
    """The command that closes a run although hosts of it do not answer."""
    its = "it is" if len(silent) == 1 else "they are"
    return f"runbook finish {run} --accept{NOTE}closes the run without {', '.join(silent)}, if {its} gone for good"


def closed(past: Replay) -> str:
    """How a run was closed."""
    if past.left:
        return f"closed without {', '.join(past.left)}: what the run left there is there still"
    return "closed: nothing of this run is left on the hosts"


def objections(views: Mapping[str, View]) -> str:
    """What the hosts that do not say yes said, each thing once, with its hosts; "" as a host is the whole plan."""
    saw = [
        (host, facts.once(in_words(view.saw)) or f"{view.verdict}")
        for host, view in views.items()
        if view.verdict in (Verdict.NO, Verdict.UNKNOWN)
    ]
    return "; ".join(facts.together(saw)) or "not done"


def plan_file(past: Replay) -> str:
    """The plan that the run began with, as a word of a command line."""
    return shlex.quote(str(past.header.get("plan_file") or "PLAN"))


# What is true.


def _true(past: Replay, views: Mapping[str, View], silence: str = "it does not answer now") -> str:
    known = facts.gather(past.lines, past)
    known |= {host: facts.Fact() for host in views if host and host not in known}
    silent = {h for h, fact in known.items() if fact.silent} | {
        h for h, view in views.items() if view.verdict is Verdict.UNKNOWN
    }
    said = [(h, f"{fact.known}{f'; {silence}' if h in silent else ''}") for h, fact in known.items()]
    return "\n".join(facts.together(said)) or "nothing was done on any host"


# What it means.

ELSEWHERE = (
    "the run was finished, or rolled back and closed, on another machine: what came of it is known there, and what "
    "this machine's journal says is old"
)
PUT_BACK = "the old data, manifests and services were put back, as this run had found them"
"""What was done, and not how the cluster is: it may have been dead before, and a later run may have restored it."""
SUPERSEDED = "the run goes on, or has ended, without this machine: what is known of it here is old"


def superseded(adopt: str, run: str) -> tuple[str, ...]:
    """What to type where another machine has taken the run over; ``adopt`` is the command that takes it back."""
    ask = f"ask who took {run} over; on that machine: runbook status {run}"
    return ask, f"{adopt}{NOTE}only where that machine is lost: takes the run back"


def _stopped(past: Replay, step: str) -> bool:
    """Whether this run began to stop something, and has not given it back everywhere."""
    return past.begun(step) and past.steps[step] != "UNDONE"


def api_is_down(past: Replay) -> bool:
    """Whether this run stopped the API servers and has none of them proven back."""
    return _stopped(past, "StopApiServers") and past.steps.get("StartApiServers") not in FINISHED


def _awaited(past: Replay) -> list[str]:
    """Hosts that the run waits for: those that do not answer, and are not absent."""
    return [host for host in facts.silent(facts.gather(past.lines, past)) if host not in past.absent]


def owed(past: Replay) -> list[str]:
    """What there is to know about nodes that the run went on without, a sentence each."""
    if not past.absent or past.closed:
        return []
    names = ", ".join(past.absent)
    if all(states.get("RestartKubelets") in FINISHED for states in past.absent.values()):
        return [
            f"{names}: has got every step of the run, and is owed the last checks, which `runbook resume` asks again"
        ]
    its, with_ = ("its", "it") if len(past.absent) == 1 else ("their", "them")
    return [
        f"{names}: absent, and owed {its} steps: until then start neither etcd nor the kubelet there by hand",
        f"to do without {with_} for good: on a host that serves, etcdctl member list, etcdctl member remove ID, "
        f"kubectl delete node {names.replace(',', '')}; then runbook finish {past.run} --accept",
    ]


def outage(past: Replay) -> str:
    """How long this run has stopped the control plane, which may have been down before; "" where it never did."""
    if not past.outages:
        return ""
    took = duration(past.outage_seconds())
    if past.in_outage and not past.outdated:
        return f"the control plane is down, so far for {took}"
    known = ", as far as this machine knows" if past.in_outage else ""
    return f"this run had the control plane stopped for {took}{known}"


def meaning(past: Replay) -> str:
    """What it means for the cluster."""
    if past.elsewhere:
        return ELSEWHERE
    if past.superseded:
        return SUPERSEDED
    if past.never_began:
        return "this run never began: nothing was done on any host, and there is nothing to go on with"
    ended = _ended(past)
    if ended:
        left = [f"what the run left on {', '.join(past.left)} is there still"] if past.left else []
        return "; ".join([ended, *left, *owed(past)[:1]])
    if not _stopped(past, "StopControllers"):
        said = [
            PUT_BACK if past.begun("StopControllers") else "the old cluster is as it was: nothing of it was stopped"
        ]
    else:
        said = [_serving(past), _data(past)]
    waits = _awaited(past)
    if waits:
        said.append(f"the run waits for {', '.join(waits)}: by itself it goes neither on nor back without an answer")
    return "; ".join([*said, *owed(past)[:1]])


def _ended(past: Replay) -> str:
    """For a run that is over, or whose removal has begun; "" for others."""
    served = past.begun("StopControllers")
    if past.state == "rolled-back" and served:
        if past.finishing:
            return PUT_BACK + ("" if past.closed else "; the removal of what the run left has begun and not ended")
        kept = (
            f", and as a snapshot on {past.discarded_on}, discarded.db in the run's directory, if etcd still answered"
        )
        where = f"what was discarded is kept until `runbook finish`: .{past.run}.discarded in the data directory{kept}"
        return f"{PUT_BACK}; {where}" if past.discarded_on else PUT_BACK
    if past.state == "rolled-back":
        prepared = past.begun("LockHosts")
        removed = "; what had been prepared was removed again" if prepared else ""
        return f"nothing was changed: the old cluster is as this run found it{removed}"
    if past.closed and served:
        others = "the other hosts" if past.left else "the hosts"
        return f"the restored cluster serves; nothing of the run is left on {others}, so there is no way back"
    if past.finishing and served:
        return (
            "the restored cluster serves; the removal of the old data has begun on some hosts and not ended on all: "
            "there is no way back"
        )
    if past.state == "complete":
        return "the restored cluster serves; the old data is kept beside it until `runbook finish`"
    return ""


def _serving(past: Replay) -> str:
    if api_is_down(past):
        return (
            f"the Kubernetes API is down (outage so far {duration(past.outage_seconds())}): running workloads go on, "
            "but nothing is scheduled or repaired"
        )
    if past.steps.get("StartApiServers") in FINISHED:
        whose = "the restored cluster serves"
    elif past.begun("StopApiServers"):  # and undone
        whose = "the old cluster's API servers have their manifests and their data back"
    else:
        whose = "the API servers were not stopped, they are as this run found them"
    if past.steps.get("StartControllers") in FINISHED:
        doubt = ", but a check of it said no, so nobody knows that it is well" if past.state == "unverified" else ""
        return whose + doubt
    return f"{whose}, but the scheduler and the controller-manager are stopped: nothing is scheduled or repaired"


def _data(past: Replay) -> str:
    state = past.steps.get("SwapData", "PENDING")
    if state in FINISHED:
        return "the old data is kept, complete, in a hidden directory beside the new"
    if state in ("PENDING", "BLOCKED", "UNDONE"):
        return "the old data is in its place"
    return "on each host the old data is either in its place or kept, complete, in a hidden directory beside it"


# What to type.
def owing(past: Replay, run: str) -> str:
    """The command that gives absent nodes what they are owed, once they are back."""
    return bare(back(past, run)) if past.state == "rolled-back" else f"runbook resume {run}"


def commands(past: Replay, run: str) -> tuple[str, ...]:
    """The commands that make sense now, the likeliest first; bare, for programs."""
    return tuple(bare(command) for command in advice(past, run))


def advice(past: Replay, run: str) -> tuple[str, ...]:
    """The commands that make sense now, the likeliest first, each with a word on what it does."""
    if past.elsewhere:
        return (
            f"ask who took {run} over; on that machine: runbook report {run}",
            f"runbook report {run}{NOTE}what this machine did of it",
        )
    if past.superseded:
        return superseded(past.superseded, run)
    if past.never_began:
        return (f"runbook run PLAN{NOTE}a new run",)
    if past.refused and (past.closed or not past.begun("LockHosts")):
        return _anew(past)
    if past.closed:
        told = (f"runbook report {run}",) if past.begun("StopControllers") else _anew(past)
        later = f"runbook finish {run}{NOTE}once {', '.join(past.left)} is back: removes what the run left there"
        return (*told, later) if past.left else told
    if past.finishing and past.state != "rolling-back":  # there it is the rollback's own
        return (f"runbook finish {run}{NOTE}goes on removing what the run left",)
    report = f"runbook report {run}{NOTE}the timeline, for the post-mortem"
    removes = "removes the old data, and with it the way back"
    if past.absent and past.state in ("complete", "rolled-back"):
        names, complete = ", ".join(past.absent), past.state == "complete"
        gives = f"{owing(past, run)}{NOTE}once {names} is back: it gets the steps that it is owed"
        closes = (
            f"runbook finish {run} --accept{NOTE}closes the run without {names}{f': {removes}' if complete else ''}"
        )
        return (gives, report, closes, *([back(past, run)] if complete else []))
    by_state: dict[str, tuple[str, ...]] = {
        "complete": (
            report,
            f"runbook finish {run}{NOTE}when the cluster is well: {removes}",
            back(past, run),
        ),
        "unverified": (
            f"runbook resume {run}{NOTE}checks again",
            _with_plan(past, run, "after other spec.verify settings were written there"),
            f"runbook finish {run} --accept{NOTE}accepts it as it is: {removes}",
            back(past, run),
        ),
        "rolled-back": (report, f"runbook finish {run}{NOTE}removes what the run left on the hosts"),
        "rolling-back": (f"runbook resume {run}{NOTE}goes on going back",),
        "stuck": (f"{bare(back(past, run))}{NOTE}tries again to go back",),
    }
    return by_state.get(past.state) or _forward(past, run)


def _anew(past: Replay) -> tuple[str, ...]:
    words = " ".join([plan_file(past), *(f"--without {name}" for name in past.absent)])
    return f"runbook preview --check {words}", f"runbook run {words}"


def _forward(past: Replay, run: str) -> tuple[str, ...]:
    """For a run that is part-way, or was when its engine ended."""
    silent = _awaited(past)
    on = "goes on from here"
    other: tuple[str, ...] = ()
    if silent:
        on = f"goes on, once {', '.join(silent)} answers again"
        other = (_with_plan(past, run, "where it has another address now, after writing that there"),)
        other = (*other, *_without(past, f"runbook resume {run}", silent))
    elif past.current == "StartControllers" and past.steps["StartControllers"] in ("BLOCKED", "FAILED"):
        on = "asks for the Secrets again"
        other = (_with_plan(past, run, "after mending spec.verify.secrets there, where the plan was wrong"),)
    elif "bumpRevision" in past.why:  # it is pinned: going on cannot mend it
        first = f"{bare(back(past, run))}{NOTE}back to the old data; then a run with the bumpRevision that would do"
        return first, f"runbook resume {run}"
    back_ = f"{bare(back(past, run))}{NOTE}back to the old data, once all hosts answer" if silent else back(past, run)
    return f"runbook resume {run}{NOTE}{on}", *other, back_


def _without(
    past: Replay,
    command: str,
    silent: Sequence[str],
    why: str = "where it will not come back soon: it is owed its steps",
) -> list[str]:
    """The same command without these hosts, where they are a minority."""
    if len({*silent, *past.absent}) > (len(past.header.get("nodes", ())) - 1) // 2:
        return []
    names = " ".join(f"--without {name}" for name in silent)
    return [f"{command} {names}{NOTE}{why}"]


def _with_plan(past: Replay, run: str, when: str) -> str:
    file = "FILE" if plan_file(past) == "PLAN" else plan_file(past)
    return f"runbook resume {run} --plan {file}{NOTE}{when}"


def back(past: Replay, run: str) -> str:
    """The rollback, with the consent that it needs where the restored cluster has taken writes."""
    if past.begun("StartApiServers"):
        thrown = "back to the old data: throws away what was written since"
        return f"runbook rollback {run} --discard-writes{NOTE}{thrown}"
    return (
        f"runbook rollback {run}{NOTE}back to the old data"
        if past.begun("StopControllers")
        else (f"runbook rollback {run}{NOTE}removes what was prepared")
    )

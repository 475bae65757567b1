"""The three sentences that end every failure: what is true, what that means for the cluster, what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from runbook.lifecycle import Verdict, View
from runbook.replay import Replay


class Sentences(TypedDict):
    """As the errors take them."""

    true: str
    means: str
    next: tuple[str, ...]


def describe(past: Replay, run: str, views: Mapping[str, View] | None = None) -> Sentences:
    """The sentences for where the run stands; ``views`` is what the hosts said last."""
    return {"true": _true(past, views or {}), "means": meaning(past), "next": commands(past, run)}


def _true(past: Replay, views: Mapping[str, View]) -> str:
    step = f"step {past.current} is {past.steps[past.current]}" if past.current else "no step has begun"
    hosts = "; ".join(f"{host or 'here'}: {_said(view)}" for host, view in views.items())
    return f"{step}; {hosts}" if hosts else step


def _said(view: View) -> str:
    plain = {Verdict.YES: "done", Verdict.READY: "ready, not begun", Verdict.UNKNOWN: "did not answer"}
    return view.saw or plain.get(view.verdict, "not done")


def api_is_down(past: Replay) -> bool:
    """Whether this run stopped the API servers and has none of them proven back."""
    stopped = past.begun("StopApiServers") and past.steps["StopApiServers"] != "UNDONE"
    return stopped and past.steps.get("StartApiServers") not in ("DONE", "SKIPPED")


def meaning(past: Replay) -> str:
    """What it means for the cluster."""
    owed = f"; {', '.join(past.absent)} is still owed its steps" if past.absent and not past.closed else ""
    return _meaning(past) + owed


def _meaning(past: Replay) -> str:
    if past.state == "rolled-back":
        return (
            "the old data, manifests and services are back" if past.begun("StopControllers") else "nothing was changed"
        )
    if past.closed and past.begun("StopControllers"):
        return "the restored cluster serves; nothing of the run is left on the hosts, so there is no way back"
    if past.finishing:
        return "the removal of what the run left has begun on some hosts and not ended on all: there is no way back"
    if past.state == "complete":
        return "the restored cluster serves; the old data is kept beside it until `runbook finish`"
    if not past.begun("StopControllers") or past.steps["StopControllers"] == "UNDONE":
        return "the old cluster is as it was: nothing of it was stopped"
    said = []
    if api_is_down(past):
        said.append(
            f"the Kubernetes API is down (outage so far {past.outage_seconds():.0f} s): running workloads go on, "
            "but nothing is scheduled or repaired"
        )
    elif past.begun("StartApiServers"):
        said.append("the restored cluster serves")
    else:
        said.append("the API servers still serve the old data, the controllers are stopped")
    if past.begun("SwapData") and past.steps["SwapData"] != "UNDONE":
        said.append("the old data is kept, complete, in a hidden directory beside the new")
    else:
        said.append("the old data is in its place")
    return "; ".join(said)


def owing(past: Replay, run: str) -> str:
    """The command that gives absent nodes what they are owed, once they are back."""
    return _back(past, run) if past.state == "rolled-back" else f"runbook resume {run}"


def _back(past: Replay, run: str) -> str:
    return f"runbook rollback {run}" + (" --discard-writes" if past.begun("StartApiServers") else "")


def commands(past: Replay, run: str) -> tuple[str, ...]:
    """The commands that make sense now, the likeliest first."""
    back = _back(past, run)
    if past.closed:
        return (f"runbook report {run}",) if past.begun("StopControllers") else ("runbook run PLAN",)
    if past.finishing:
        return (f"runbook finish {run}",)
    owed = (owing(past, run),) if past.absent else ()
    by_state: dict[str, tuple[str, ...]] = {
        "complete": (*owed, f"runbook report {run}", f"runbook finish {run}", back),
        "unverified": (f"runbook resume {run}", f"runbook finish {run} --accept", back),
        "rolled-back": (*owed, f"runbook report {run}", f"runbook finish {run}"),
        "rolling-back": (f"runbook resume {run}",),
        "stuck": (back,),
    }
    return by_state.get(past.state, (f"runbook resume {run}", back))

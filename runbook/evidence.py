"""What the commands on the hosts tell beyond a journal that is not the newest: which steps were begun, and taken back.

Each changing command leaves its key on its host, and the key names its step. A step that was begun and that the journal
does not know would never be taken back by a rollback, and ask nobody's consent: so it is written into the journal as
begun, before anybody goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runbook.lifecycle import FINISHED
from runbook.replay import ADOPTED, Replay
from runbook.step import Phase, Step

KEY = re.compile(r"([A-Za-z]+)\.(do|undo)\.[0-9]+\.[0-9]+\.[0-9]+")
"""A command's key (``hands.Hands.carry_out``, ``transport.Hosts.act``)."""
STATES = {Phase.PREPARE: "preparing", Phase.OUTAGE: "outage", Phase.VERIFY: "verifying"}
"""The state in which an engine that is killed leaves a run, by the phase of the step that it was in."""
BACK = ("rolling-back", "stuck", "rolled-back")
TAKEN = ("UNDOING", "UNDONE", "STUCK")


@dataclass(frozen=True)
class Found:
    """A line for the journal."""

    event: str
    fields: Mapping[str, object]
    step: str = ""
    host: str = ""


@dataclass(frozen=True)
class Evidence:
    """The steps that hosts have begun, or begun to take back, unknown to the journal; with those hosts."""

    begun: Mapping[str, Sequence[str]]
    taken_back: Mapping[str, Sequence[str]]

    def told(self) -> list[str]:
        """In words, for a person."""
        kinds = (("begun", self.begun), ("begun to be taken back", self.taken_back))
        return [
            f"{', '.join(hosts)}: {step} was {what} there, and the journal did not know it; now it does"
            for what, steps in kinds
            for step, hosts in steps.items()
        ]


def gather(commands: Mapping[str, Sequence[str]], past: Replay, steps: Sequence[Step]) -> Evidence:
    """What the hosts' commands tell, by the keys of those begun on each. An absent node has a story of its own."""
    begun: dict[str, list[str]] = {}
    taken_back: dict[str, list[str]] = {}
    for name, begun_there in commands.items():
        if name in past.absent:
            continue
        keys = {(found[1], found[2]) for key in begun_there if (found := KEY.fullmatch(key))}
        for step in (s.id() for s in steps):
            if {(step, "do"), (step, "undo")} & keys and not past.begun(step):
                begun.setdefault(step, []).append(name)
            if (step, "undo") in keys and past.steps.get(step) not in TAKEN:
                taken_back.setdefault(step, []).append(name)
    return Evidence(begun, taken_back)


def records(commands: Mapping[str, Sequence[str]], past: Replay) -> list[Found]:
    """A line for each command of the step at hand that its host has a record of, and the journal does not announce.

    A copy of a journal ends before its engine's last commands: with the first of them the outage may have begun.
    """
    announced = {(line.get("host"), line.get("key")) for line in past.lines if line["event"] in ("begin", "begun")}
    return [
        Found("begun", {"key": key}, past.current, name)
        for name, begun_there in commands.items()
        if name not in past.absent
        for key in begun_there
        if (found := KEY.fullmatch(key)) and found[1] == past.current and (name, key) not in announced
    ]


def lines(evidence: Evidence, past: Replay, steps: Sequence[Step]) -> list[Found]:
    """The journal's lines that make it know, in order."""
    back = past.state in BACK or bool(evidence.taken_back)
    newest = next((s for s in reversed(steps) if s.id() in evidence.begun), None)
    found = _steps(evidence, past, [s.id() for s in steps], newest.id(), back=back) if newest else []
    to = ""
    if evidence.taken_back and past.state not in BACK:
        to = "rolling-back"
    elif newest and past.state == "rolled-back":
        to = "stuck"  # it is not: a rollback goes on from here, and asks for the consent that it needs
    elif newest and not back:
        to = STATES[newest.phase]
    if to and to != past.state:
        why = "the hosts hold commands of this run that no journal knows"
        found.append(Found("state", {"from": past.state, "to": to, "why": why}))
    return found


def _steps(evidence: Evidence, past: Replay, order: Sequence[str], newest: str, *, back: bool) -> list[Found]:
    """The steps up to the newest that was begun.

    Forward a barrier stood before that one, so those before it were done. Once a rollback is in play nothing is taken
    for done: it is taken back, which a host that has nothing of it can bear.
    """
    found = []
    for step in order[: order.index(newest) + 1]:
        state = past.steps.get(step, "PENDING")
        if state in FINISHED or (back and past.begun(step)):
            continue
        done = step != newest and not back
        saw = dict.fromkeys(evidence.begun[newest], "yes" if done else "no: a command of it was begun here")
        fields = {"from": state, "to": "DONE" if done else "UNKNOWN", "trigger": ADOPTED, "saw": saw}
        found.append(Found("step", fields, step))
    return found

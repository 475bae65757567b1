"""All that a run would do, gathered from the steps: what preview and digest are made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runbook import __version__
from runbook.plan import Plan
from runbook.step import Action, Binding, Command, Irreversible, Probe, Scope, Step, Target, Upload

if TYPE_CHECKING:
    from runbook.checks import Check
    from runbook.procedure import Procedure


@dataclass(frozen=True)
class Part:
    """One step on one host."""

    ready: Probe
    do: tuple[Action, ...]
    done: Probe
    clue: Probe
    undo: tuple[Action, ...] | Irreversible
    undone: Probe


@dataclass(frozen=True)
class CheckPart:
    """One read-only check: what it asks of each host, and ("") of the responder's machine."""

    check: Check
    asks: dict[str, tuple[Command, ...]]


@dataclass(frozen=True)
class StepPart:
    """One step on all its hosts; ``checks`` decide it where there are any."""

    step: Step
    hosts: dict[str, Part]
    checks: tuple[CheckPart, ...]


@dataclass(frozen=True)
class Outlook:
    """Everything, with placeholders for the run and its holder."""

    plan: Plan
    bound: Binding
    steps: tuple[StepPart, ...]
    unlock: dict[str, tuple[Action, ...]]
    may_roll_back: dict[str, Probe]
    sweep: dict[str, tuple[Command, ...]]


def placeholders(plan: Plan, bound: Binding) -> Binding:
    """The binding as before the run: the same for every run of this plan.

    The SHA-256 of a snapshot on a node, or in a store, is not known then, unless the plan says it.
    """
    source = plan.snapshot
    sha256 = (source.sha256 or "$SHA256") if source.node or source.store else bound.sha256
    return replace(bound, run="$RUN", holder="$HOLDER", sha256=sha256)


def gather(plan: Plan, bound: Binding, procedure: Procedure) -> Outlook:
    """Ask every step its questions for every host that takes part: all but the binding's absent nodes."""
    plan, bound = plan.as_written(), placeholders(plan, bound)
    nodes = [Target(plan, bound, n) for n in plan.nodes if n.name not in bound.absent]
    workers = [Target(plan, bound, w) for w in plan.workers]
    by_scope = {Scope.ALL: nodes, Scope.FIRST: nodes[:1], Scope.WORKERS: workers}
    steps = []
    for step in procedure.steps:
        asked = [*nodes, *workers] if step.checks else by_scope[step.on]
        checks = _checks(step.checks, plan, bound, asked) if step.checks else ()
        steps.append(StepPart(step, {n.name: _part(step, n) for n in asked}, checks))
    return Outlook(
        plan,
        bound,
        tuple(steps),
        {n.name: _actions(procedure.lock.undo(n)) for n in nodes},
        {n.name: procedure.may_roll_back(n) for n in nodes},
        {n.name: tuple(procedure.sweep(n)) for n in (*nodes, *workers)},
    )


def _part(step: Step, n: Target) -> Part:
    undo = step.undo(n)
    return Part(
        step.ready(n),
        tuple(step.do(n)),
        step.done(n),
        step.clue(n),
        undo if isinstance(undo, Irreversible) else tuple(undo),
        step.undone(n),
    )


def _actions(undo: Sequence[Action] | Irreversible) -> tuple[Action, ...]:
    return () if isinstance(undo, Irreversible) else tuple(undo)


def _checks(group: str, plan: Plan, bound: Binding, targets: Sequence[Target]) -> tuple[CheckPart, ...]:
    from runbook.checks import all_checks

    found = []
    for check in all_checks(group):
        if check.applies(plan):
            asks = {"": tuple(check.local(plan, bound)), **{n.name: tuple(check.asks(n)) for n in targets}}
            found.append(CheckPart(check, {host: commands for host, commands in asks.items() if commands}))
    return tuple(found)


def questions(outlook: Outlook) -> list[tuple[str, str, Command]]:
    """Every question of every probe: (what it asks, host, command)."""
    probes = [
        (host, p)
        for s in outlook.steps
        for host, part in s.hosts.items()
        for p in (part.ready, part.done, part.clue, part.undone)
    ]
    probes += list(outlook.may_roll_back.items())
    return [(q.says, host, q.ask) for host, p in probes for q in p.questions]


# The digest.


def digest(outlook: Outlook) -> str:
    """SHA-256, in hex, over a canonical JSON of it all: every word of every command, scripts in full.

    The plan counts by its meaning, comments and layout apart; a secret counts as masked.
    """
    plain = {
        "version": __version__,
        "plan": outlook.plan.digest(),
        "snapshot": outlook.bound.sha256,
        "steps": [_step(s, outlook.plan) for s in outlook.steps],
        "unlock": _by_host(outlook.unlock, lambda actions: [_action(a, outlook.plan) for a in actions]),
        "may_roll_back": _by_host(outlook.may_roll_back, _probe),
        "sweep": _by_host(outlook.sweep, lambda commands: [_command(c) for c in commands]),
    }
    raw = json.dumps(plain, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(raw.encode()).hexdigest()


def _by_host(hosts: dict[str, Any], plain: Callable[[Any], object]) -> dict[str, object]:
    return {host: plain(value) for host, value in hosts.items()}


def _step(s: StepPart, plan: Plan) -> dict[str, Any]:
    return {
        "id": s.step.id(),
        "phase": s.step.phase,
        "on": s.step.on,
        "consent": s.step.consent,
        "group": s.step.checks,
        "checks": [
            {
                "id": c.check.id(),
                "within": c.check.within(plan),
                "asks": _by_host(c.asks, lambda cs: [_command(x) for x in cs]),
            }
            for c in s.checks
        ],
        "hosts": _by_host(s.hosts, lambda part: _plain_part(part, plan)),
    }


def _plain_part(part: Part, plan: Plan) -> dict[str, Any]:
    undo = part.undo
    return {
        "ready": _probe(part.ready),
        "do": [_action(a, plan) for a in part.do],
        "done": _probe(part.done),
        "clue": _probe(part.clue),
        "undo": undo.why if isinstance(undo, Irreversible) else [_action(a, plan) for a in undo],
        "undone": _probe(part.undone),
    }


def _probe(p: Probe) -> dict[str, Any]:
    return {"wait": p.wait, "questions": [{"says": q.says, "ask": _command(q.ask)} for q in p.questions]}


def _action(action: Action, plan: Plan) -> dict[str, Any]:
    if isinstance(action, Command):
        return _command(action)
    return _upload(action, plan)


def _command(c: Command) -> dict[str, Any]:
    return {
        "argv": [str(w) for w in c.argv],
        "timeout": c.timeout,
        "changes": c.changes,
        "bare": c.bare,
        "optional": c.optional,
    }


def _upload(u: Upload, plan: Plan) -> dict[str, Any]:
    sha256 = u.sha256
    if u.content is not None and u.content == plan.text:
        sha256 = "$PLAN"  # the plan's digest stands for it, so that a comment does not count
    return {
        "dest": u.dest,
        "sha256": sha256,
        "source": u.source,
        "node": u.source_node,
        "mode": u.mode,
        "timeout": u.timeout,
    }

"""Binding a plan to what it names: the snapshot's SHA-256, the tools' sums, a run's approved text.

What is bound is journalled at the start of a run, and may not change while it lasts.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runbook import planback, runs, waiting
from runbook.errors import NOTE, Halted, Refused, UsageError
from runbook.journal import Journal, damaged
from runbook.plan import Plan
from runbook.replay import Replay
from runbook.step import Binding, Command
from runbook.transport import Hosts


class PlanMissing(Halted):
    """A run's plan is not in its directory on this machine, or cannot be read there."""


def _tool_sums(plan: Plan) -> dict[str, str]:
    if not plan.tools.upload:
        return {}
    sums = {}
    for tool in ("etcdctl", "etcdutl"):
        path = plan.tools.upload / tool
        try:
            with path.open("rb") as file:
                sums[f"{tool}_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Refused(
                f"spec.tools.upload: {path}: {error.strerror}; "
                f"put etcdctl and etcdutl into {plan.tools.upload}, or leave spec.tools.upload empty",
                true="no host is changed",
                means="nothing was begun",
                next=(check_again(plan, Binding()),),
            ) from error
    return sums


def planned_binding(plan: Plan) -> Binding:
    """What the plan itself says, and the sums of the tools that are brought along."""
    return replace(Binding(sha256=plan.snapshot.sha256 or "$SHA256"), **_tool_sums(plan))  # type: ignore[arg-type]


def preview_binding(plan: Plan) -> tuple[Binding, str]:
    """What a preview can know without a connection, and a note on the snapshot. Raises Refused for a damaged file."""
    bound = planned_binding(plan)
    if plan.snapshot.node:
        return bound, f"the snapshot is on {plan.snapshot.node}: its sha256 and its state are found out at the start"
    from runbook.snapshots.integrity import inspect_source

    source = plan.snapshot
    if source.store and not source.fetched:
        which = f"it is {source.name}, and" if source.name else "which snapshot it is,"
        return bound, f"{which} its sha256 and its state are found out at the start"
    if not source.path.exists():
        return bound, f"{source.path} is not there yet: its sha256 and its state are found out at the start"
    facts = inspect_source(source)
    return replace(bound, sha256=facts.sha256), f"{facts.size} bytes, revision {facts.revision}"


def leaving_out(plan: Plan, bound: Binding, names: Sequence[str]) -> Binding:
    """The binding of a run that begins without these nodes.

    Raises UsageError for unknown ones, for too many, and for the one that holds the snapshot.
    """
    from runbook.debts import most_absent

    most_absent(plan, names)
    if plan.snapshot.node in names:
        raise UsageError(
            f"--without {plan.snapshot.node}: spec.snapshot.from takes the snapshot from that node's disk",
            true="nothing was changed",
            means="the other nodes have nothing to be restored from",
            next=(f"runbook validate {shlex.quote(str(plan.file))}{NOTE}after naming a snapshot elsewhere there",),
        )
    return replace(bound, absent=tuple(n.name for n in plan.nodes if n.name in names))


def typed(plan: Plan, bound: Binding) -> str:
    """The plan, and the nodes that are left out, as words of a command line."""
    return shlex.join([str(plan.file), *(word for name in bound.absent for word in ("--without", name))])


def full_binding(plan: Plan, bound: Binding, hosts_of: Callable[[Binding], Hosts]) -> Binding:
    """The binding with the snapshot's SHA-256, asked of the node that holds it where the plan does not say it."""
    if bound.known:
        return bound
    if plan.snapshot.fetched:
        from runbook.snapshots.integrity import inspect_source

        return replace(bound, sha256=inspect_source(plan.snapshot).sha256)
    if plan.snapshot.node is None:
        raise Refused(
            f"spec.snapshot.from: {plan.snapshot.path} is not there",
            true="no host is changed",
            means="nothing was begun",
            next=(f"ls -l {shlex.quote(str(plan.snapshot.path.parent))}", check_again(plan, bound)),
        )
    from runbook.procedures import scripts

    node = plan.snapshot.node
    ask = Command(
        ("sh", "-c", scripts.DIGEST, "runbook", str(plan.snapshot.path)), plan.timeouts.restore, changes=False
    )
    hosts = hosts_of(bound)
    try:
        result = hosts.ask({node: [ask]})[node][0]
    finally:
        hosts.close()
    if not result.ok or not result.out.split():
        raise Refused(
            f"spec.snapshot.from: {plan.snapshot.path} on {node} cannot be read: {result.tail()}",
            true="no host is changed",
            means="nothing was begun",
            next=(f"{check_again(plan, bound)}{NOTE}after correcting spec.snapshot.from, or once that host answers",),
        )
    return replace(bound, sha256=result.out.split()[0])


def check_again(plan: Plan, bound: Binding) -> str:
    """The command that asks all checks."""
    return f"runbook preview --check {typed(plan, bound)}"


def binding_for_checks(plan: Plan) -> tuple[Binding, str]:
    """The checks tell of a damaged snapshot beside all else that they find; what it holds is read meanwhile."""
    from runbook.checks.content import begin_reading

    begin_reading(plan)
    if not (plan.snapshot.node or plan.snapshot.store):
        waiting.say(sys.stderr, f"reading {plan.snapshot.path} on this machine: its checksum")
    try:
        return preview_binding(plan)
    except Refused as error:
        return Binding(sha256=plan.snapshot.sha256 or "$SHA256"), error.message


def bound_plan(run: runs.Run, past: Replay, typed: str, *, settings: bool = True) -> tuple[Plan, Binding]:
    """A run's plan as approved, with later connection settings, and its binding; ``typed`` is the command that asks.

    Raises UsageError where the approved text was edited, PlanMissing where it cannot be read.
    """
    from runbook import planfile

    header = past.header
    base = Path(_told(run, header, "plan_base"))
    text = approved(run, past, typed)
    if hashlib.sha256(text).hexdigest() != _told(run, header, "plan_sha256"):
        raise UsageError(
            f"{run.plan_path} is not the plan that was approved: it was edited",
            true="nothing was changed just now",
            means="a run goes on with the plan that it began with, or not at all",
            next=planback.edited(run, past, typed),
        )
    plan = planfile.load(run.plan_path, base=base)
    if settings and past.settings_base:
        newer = planfile.load(run.settings_path, base=Path(past.settings_base))
        plan = _with_settings(plan, newer)
    sums = {key: header.get(key, "") for key in ("etcdctl_sha256", "etcdutl_sha256")}
    # "" where the last engine ended before its first checks had: nothing is changed then, and the next one learns it
    sha256 = _told(run, header, "snapshot_sha256") or Binding.sha256
    return plan, Binding(run.id, sha256, runs.holder(), **sums)


def approved(run: runs.Run, past: Replay, typed: str) -> bytes:
    """The text of the plan that a run began with, or that lies in its place. Raises PlanMissing."""
    try:
        return run.plan_path.read_bytes()
    except OSError as error:
        raise PlanMissing(
            f"{run.plan_path}: {error.strerror}: the plan that {run.id} began with cannot be read",
            true="nothing was changed just now; the hosts are as the last engine left them",
            means="the journal says where the run stands, and only the plan what its steps do",
            next=planback.missing(run, past, typed),
        ) from error


def _told(run: runs.Run, header: Mapping[str, object], key: str) -> str:
    """What the journal's first line says, without which no plan can be bound. Raises JournalDamaged."""
    if not isinstance(header.get(key), str):
        raise damaged(run.journal_path, 1, f"it is of the event run and lacks {key}")
    return str(header[key])


def _with_settings(plan: Plan, newer: Plan) -> Plan:
    """The newer plan, which differs in nothing pinned, with the approved text, whose copy is on the hosts."""
    from runbook import planfile

    changed = planfile.pinned_differences(plan, newer)
    if changed:
        raise UsageError(
            f"{newer.file}: this may not change during a run: {', '.join(changed)}",
            true="nothing was changed just now",
            means="only connection, timeout and verify settings may be brought by --plan",
            next=(
                f"diff {shlex.quote(str(newer.file))} {shlex.quote(str(plan.file))}{NOTE}set these as they are there",
            ),
        )
    return replace(newer, text=plan.text)


def newer_settings(plan: Plan, file: Path) -> Plan:
    """``resume --plan``: the plan with the file's settings. Raises UsageError where anything pinned differs."""
    from runbook import planfile

    return _with_settings(plan, planfile.load(file))


def keep_settings(run: runs.Run, file: Path, journal: Journal) -> None:
    """Keep that file with the run, whole at once, and journal where its relative paths begin."""
    part = run.settings_path.with_suffix(".part")
    with open(part, "wb", opener=runs.private) as out:
        out.write(file.read_bytes())
        out.flush()
        os.fsync(out.fileno())
    part.replace(run.settings_path)
    journal.append("settings", {"file": str(file.absolute()), "base": str(file.absolute().parent)})

"""The preview as people read it: hosts, steps, barriers, the outage, the undo, every command, the digest."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runbook import __version__, outlook, preview
from runbook.replay import SERVES_AGAIN, STOPS_FIRST
from runbook.shown import Scripts, action_line, grouped, in_order
from runbook.step import Action, Command, Irreversible, Phase, Probe
from runbook.tables import columns, duration, printable, visible

if TYPE_CHECKING:
    from runbook.outlook import CheckPart, Outlook, StepPart
    from runbook.plan import Plan
    from runbook.precheck import Verdict

PHASES = {
    Phase.PREPARE: "PREPARE: nothing of the old cluster is touched; what serves goes on serving",
    Phase.OUTAGE: "OUTAGE: stop all, swap all, start all",
    Phase.VERIFY: "VERIFY: the restored cluster serves; is it well?",
}
BARRIER = "═══ BARRIER ═══ no host goes on until every host is done"
CONSENT = (
    "! From here on the restored cluster takes writes. Once this step has begun, going back throws them away, "
    "and `runbook rollback` needs --discard-writes."
)
OWN_TEXT = "the plan's own shell text, run as it stands in spec.verify.checks (the only shell text of a plan):"
PAD = "    "


def text(whole: Outlook, note: str, verdict: Verdict | None = None) -> str:
    """All of it; the last line is the digest."""
    scripts = preview.named_scripts(whole)
    lines = [
        *_head(whole, note, verdict),
        *_hosts(whole.plan, whole.bound.absent),
        *_covers(),
        *_steps(whole, scripts),
        *_ends(whole, scripts),
    ]
    lines += [*_questions(whole, scripts), *_scripts(scripts), ""]
    lines += [*verdict.lines(), ""] if verdict else []
    lines.append(f"digest: {outlook.digest(whole)}")
    return visible("\n".join(lines))


def _head(whole: Outlook, note: str, verdict: Verdict | None) -> list[str]:
    plan, cluster = whole.plan, whole.plan.cluster
    seen = verdict.sha256 if verdict else ""
    bump = f"every revision raised by {cluster.bump_revision}" if cluster.bump_revision else "revisions not raised"
    marked = "older revisions marked as compacted" if cluster.mark_compacted else "older revisions not marked"
    rows = [
        ("plan", f"{plan.name} ({plan.file})"),
        *([("ticket", printable(plan.ticket))] if plan.ticket else []),
        ("snapshot", printable(plan.snapshot.source)),
        ("sha256", _sum(whole, seen, verdict.place if verdict else "")),
        *([("", printable(note))] if note and not seen else []),
        *([("", fetches(plan))] if plan.snapshot.node or plan.snapshot.store else []),
        ("cluster", f"token {cluster.token}; {bump}; {marked}"),
        ("program", f"runbook {__version__}"),
    ]
    count, absent = f"{len(plan.nodes)} host{'s' if len(plan.nodes) > 1 else ''}", whole.bound.absent
    if absent:
        count = f"{len(plan.nodes) - len(absent)} of {count}, without {', '.join(absent)}"
    asked = "Nothing has been connected to, and nothing was changed"
    if verdict:
        asked = "The hosts were asked questions, and nothing was changed" if verdict.asked else asked
        asked += f": {verdict.counted}; told before the last line"
    return [
        f"PREVIEW: restore etcd from a snapshot on {count}. {asked}.",
        "",
        *columns(rows, "  "),
        "",
        "  In the commands, $RUN is the run's id, $HOLDER who runs it from where; <NAME> is one of the scripts below.",
    ]


def _sum(whole: Outlook, seen: str, place: str) -> str:
    """The snapshot's SHA-256, ``seen`` by the checks at its ``place``, or else as the digest has it."""
    bound = "$" not in whole.bound.sha256
    if seen:
        found = f"{seen}, as found {place} now"
        return found if bound else f"{found}; this preview's digest does not speak of it"
    unknown = "not known before the run: this preview's digest does not speak of the snapshot's content"
    return whole.bound.sha256 if bound else unknown


def fetches(plan: Plan) -> str:
    """What is done with a snapshot that lies on a node, or in a store, so that it can be checked."""
    if plan.snapshot.store:
        return "it is fetched, opened and checked here, in a file without a name, and sent to the hosts from there"
    there = printable(f"cat {shlex.quote(str(plan.snapshot.path))}")
    return f"its content is checked here: `{there}` on {plan.snapshot.node}, into a file without a name, soon gone"


def _hosts(plan: Plan, absent: Sequence[str]) -> list[str]:
    rows = [("member", "host", "peer URLs", "client URLs", "data", "WAL")]
    for n in plan.nodes:
        ssh = f"{n.ssh.user}@{n.host}:{n.ssh.port}"
        wal = n.paths.wal_dir or "in the data directory"
        rows.append((n.name, ssh, " ".join(n.peer_urls), " ".join(n.client_urls), n.paths.data_dir, wal))
    workers = [f"{w.ssh.user}@{w.host}:{w.ssh.port}" for w in plan.workers]
    owed = (
        "nothing is done there, and the digest does not speak of it: the steps are owed, for a later `runbook resume`"
    )
    told = [
        *([f"  workers: {', '.join(workers)}"] if workers else []),
        *([f"  without {', '.join(absent)}: {owed}"] if absent else []),
    ]
    return ["", "HOSTS", *columns(rows, "  "), *told]


def _covers() -> list[str]:
    return [
        "",
        "WHAT THE OUTAGE COVERS",
        *(f"  - {line}" for line in preview.OUTAGE_COVERS),
        "",
        "WHAT A SNAPSHOT NEVER BRINGS BACK",
        *(f"  - {line}" for line in preview.NEVER_RESTORED),
    ]


# The steps.


def _steps(whole: Outlook, scripts: Scripts) -> list[str]:
    lines = ["", "STEPS, in this order"]
    before: Phase | None = None
    for number, s in enumerate(whole.steps, start=1):
        phase = s.step.phase
        if before is not None and (phase is not before or phase is Phase.OUTAGE):
            lines += ["", BARRIER]
        if phase is not before:
            lines += ["", f"── {PHASES[phase]} ──"]
        if s.step.id() == STOPS_FIRST:
            lines += ["", "▼▼▼ OUTAGE BEGINS with the first manifest that this step parks"]
        lines += ["", *_step(number, s, scripts)]
        if s.step.id() == SERVES_AGAIN:
            lines += ["", "▲▲▲ OUTAGE ENDS when the last API server is ready"]
        before = phase
    return lines


def _step(number: int, s: StepPart, scripts: Scripts) -> list[str]:
    hosts = ", ".join(s.hosts) or "no host: the plan names no workers"
    lines = [f"{number:2}. {s.step.title()}", f"{PAD}[{s.step.id()} · {s.step.phase} · on {hosts}]"]
    if not s.hosts:
        return lines
    lines += _says("may start when", [p.ready for p in s.hosts.values()])
    if s.step.consent:
        lines.append(f"{PAD}{CONSENT}")
    lines += _listed("does", {host: p.do for host, p in s.hosts.items()}, scripts)
    lines += _checks(s.checks)
    lines += _says("done when", [p.done for p in s.hosts.values()])
    lines += _says("where not, tells", [p.clue for p in s.hosts.values()])
    undos = {host: () if isinstance(p.undo, Irreversible) else p.undo for host, p in s.hosts.items()}
    never = [(host, p.undo.why) for host, p in s.hosts.items() if isinstance(p.undo, Irreversible)]
    lines += [f"{PAD}cannot be undone on {', '.join(on)}: {why}" for on, why in grouped(never)]
    undo = _listed("undone by", undos, scripts)
    if not undo and not never:
        undo = [f"{PAD}undo: nothing to take back"]
    return [*lines, *undo, *_says("undone when", [p.undone for p in s.hosts.values()])]


def _says(label: str, probes: Sequence[Probe]) -> list[str]:
    """What a probe claims; the same words on all hosts."""
    found = []
    for p in dict.fromkeys((p.says, p.wait) for p in probes if p.questions):
        wait = f" (waits for up to {duration(p[1])})" if p[1] else ""
        found.append(f"{PAD}{label}: {p[0]}{wait}")
    return found


def _listed(label: str, actions: Mapping[str, Sequence[Action]], scripts: Scripts) -> list[str]:
    """Every action once for the hosts that share it."""
    shown = {host: [_with_remark(a, scripts) for a in todo] for host, todo in actions.items()}
    lines, heading = [], ""
    for hosts, line in in_order(shown):
        remark, _, command = line.partition("\0")
        mine = f"on {', '.join(hosts)}{remark}:"
        if mine != heading:
            lines.append(f"{PAD}  {mine}")
            heading = mine
        lines.append(f"{PAD}    {command}")
    return [f"{PAD}{label}:", *lines] if lines else []


def _with_remark(action: Action, scripts: Scripts) -> str:
    optional = isinstance(action, Command) and action.optional
    return f"{' (a failure is noted, and the step goes on)' if optional else ''}\0{action_line(action, scripts)}"


def _checks(checks: Sequence[CheckPart]) -> list[str]:
    if not checks:
        return []
    lines = [f"{PAD}asks, read-only, all hosts at once (the commands stand below under QUESTIONS):"]
    return lines + [f"{PAD}  - {c.check.title()}" for c in checks]


# After the steps.


def _ends(whole: Outlook, scripts: Scripts) -> list[str]:
    plan = whole.plan
    lines = ["", "AT THE END", *_listed("the hosts' locks are released", whole.unlock, scripts)]
    lines.append(f"{PAD}all that could still serve is kept on the hosts until `runbook finish`, the old data first")
    lines += ["", "IF SOMETHING FAILS"]
    lines.append(f"{PAD}while preparing: what was prepared is removed again; nothing of the old cluster was touched")
    lines.append(f"{PAD}later: the run halts, says what is true, and waits for `runbook resume` or `runbook rollback`,")
    lines.append(f"{PAD}which undoes the steps in reverse order, on every host, behind the same barriers")
    lines += _says("it asks first", list(whole.may_roll_back.values()))
    lines += ["", "LATER, ONLY BY `runbook finish`, ON CONFIRMATION", *_listed("removes", whole.sweep, scripts)]
    lines += ["", "BY HAND, AFTERWARDS: printed here, not run"]
    for todo in preview.follow_up(plan, whole.bound):
        lines += [f"{PAD}{todo['why']}:", f"{PAD}  on {todo['on']}: {todo['command']}"]
    return lines


def _questions(whole: Outlook, scripts: Scripts) -> list[str]:
    """Every read-only command, by what it asks."""
    own = {c.run for c in whole.plan.verify.checks}
    asked = [
        (c.check.title(), host or "this machine", x)
        for s in whole.steps
        for c in s.checks
        for host, xs in c.asks.items()
        for x in xs
    ]
    lines = ["", "QUESTIONS: read-only; none of them changes a host"]
    lines += _by_title([a for a in asked if not _is_own(a[2], own)] + outlook.questions(whole), scripts)
    mine = [a for a in asked if _is_own(a[2], own)]
    if mine:
        lines += ["", f"THE PLAN'S OWN CHECKS: {OWN_TEXT}", *_own(whole.plan), *_by_title(mine, scripts)]
    return lines


def _is_own(command: Command, own: set[str]) -> bool:
    return command.argv[:2] == ("sh", "-c") and len(command.argv) == 3 and str(command.argv[2]) in own


def _own(plan: Plan) -> list[str]:
    rows = [(printable(c.name), f"on {c.on}", f"within {duration(c.within)}") for c in plan.verify.checks]
    return columns(rows, "  ")


def _by_title(asked: Sequence[tuple[str, str, Command]], scripts: Scripts) -> list[str]:
    found: dict[str, dict[str, dict[str, None]]] = {}
    for title, host, command in asked:
        found.setdefault(title, {}).setdefault(scripts.line(command), {})[host] = None
    lines = []
    for title, commands in found.items():
        lines.append(f"  {title}")
        heading = ""
        for line, hosts in commands.items():
            mine = f"    on {', '.join(hosts)}:"
            lines += [mine] if mine != heading else []
            lines.append(f"      {line}")
            heading = mine
    return lines


def _scripts(scripts: Scripts) -> list[str]:
    lines = ["", "SCRIPTS: constants of this program, given their words as arguments"]
    for name in sorted(scripts.used, key=lambda n: (n in scripts.own, "." in n, n)):
        what = " (from the plan's spec.verify.checks)" if name in scripts.own else ""
        body = scripts.used[name].strip("\n").split("\n")
        lines += ["", f"  <{name}>{what}", *(f"{PAD}  {line}" if line else "" for line in body)]
    return lines

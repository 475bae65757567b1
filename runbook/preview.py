"""What a run would do, exactly, without a connection: every step, every command, and a digest of it all.

``document`` is for programs, ``render`` for people; both end with the same digest, which ``run --approve`` compares.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from runbook import __version__, outlook
from runbook.replay import SERVES_AGAIN, STOPS_FIRST
from runbook.shown import Scripts, constants
from runbook.step import Action, Binding, Command, Irreversible, Probe, Target, Upload

if TYPE_CHECKING:
    from runbook.outlook import Outlook, Part, StepPart
    from runbook.plan import Plan
    from runbook.precheck import Verdict
    from runbook.procedure import Procedure

NEVER_RESTORED = (
    "the data of persistent volumes: they stay as they are now, or are gone where they were deleted since",
    "container images, and the containers' own files and logs",
    "anything outside etcd: certificates, manifests, kubelet and CNI files, load balancers, DNS, cloud resources",
    "objects written after the snapshot: what was created since is forgotten, what was deleted since is back",
)
"""What no snapshot of etcd holds."""

OUTAGE_COVERS = (
    "the Kubernetes API on every host: kubectl, controllers, operators and webhooks get no answer",
    "scheduling and repair: no pod is placed, restarted elsewhere, scaled or rotated while it lasts",
    "not the running workloads: containers go on, and so does what kube-proxy and the CNI have set up already",
)
"""What is down from the first manifest parked to the last API server ready."""


def digest(plan: Plan, bound: Binding, procedure: Procedure) -> str:
    """SHA-256, in hex, over all that a run of this plan by this program would do.

    The same before and during a run: the run id and its holder count as placeholders.
    """
    return outlook.digest(outlook.gather(plan, bound, procedure))


def document(plan: Plan, bound: Binding, procedure: Procedure) -> dict[str, Any]:
    """The preview for programs. A long shell text stands as ``<NAME>``; ``scripts`` has it by that name."""
    whole = outlook.gather(plan, bound, procedure)
    scripts = named_scripts(whole)
    steps = [_step(s, scripts) for s in whole.steps]
    unlock = {host: _actions(actions, scripts) for host, actions in whole.unlock.items()}
    rollback = {host: _probe(p, scripts) for host, p in whole.may_roll_back.items()}
    finish = {host: _actions(commands, scripts) for host, commands in whole.sweep.items()}
    return {
        "program": f"runbook {__version__}",
        "plan": _plan(whole),
        "absent": list(whole.bound.absent),
        "steps": steps,
        "outage": {"from": STOPS_FIRST, "to": SERVES_AGAIN, "covers": list(OUTAGE_COVERS)},
        "unlock": unlock,
        "before_rollback": rollback,
        "finish": finish,
        "follow_up": follow_up(plan, whole.bound),
        "scripts": scripts.used,
        "never_restored": list(NEVER_RESTORED),
        "digest": outlook.digest(whole),
    }


def render(plan: Plan, bound: Binding, procedure: Procedure, *, note: str = "", verdict: Verdict | None = None) -> str:
    """The preview for people; its last line is ``digest: <64 hex>``.

    ``note`` is shown beside the snapshot; ``verdict`` is what the hosts were found to be like, where they were asked.
    """
    from runbook.previewtext import text

    return text(outlook.gather(plan, bound, procedure), note, verdict)


def follow_up(plan: Plan, bound: Binding) -> list[dict[str, str]]:
    """What to do by hand afterwards, for the program does not: ``why``, ``on`` (a host) and ``command``."""
    from runbook.kube import etcdctl
    from runbook.shown import quote

    first = Target(plan, bound, Target(plan, bound, plan.nodes[0]).present[0])
    kubectl = f"kubectl --kubeconfig {quote(first.node.paths.kubeconfig)} -n kube-system"
    leases = etcdctl(first, "get", "--prefix", "--keys-only", "/registry/masterleases/")
    proxies = "kube-proxy on every node may hold Services and endpoints that the restored cluster does not know"
    cni = "the same for the CNI: find its DaemonSet, and restart it"
    stale = (
        "only where addresses changed since the snapshot: stale entries keep dead API servers in the "
        "`kubernetes` endpoints; delete those of addresses that are gone with `etcdctl del KEY`"
    )
    return [
        {"why": proxies, "on": first.name, "command": f"{kubectl} rollout restart daemonset kube-proxy"},
        {"why": cni, "on": first.name, "command": f"{kubectl} get daemonsets"},
        {"why": stale, "on": first.name, "command": " ".join(quote(w) for w in leases.argv)},
    ]


def named_scripts(whole: Outlook) -> Scripts:
    """The names of all constant shell texts that the procedure and its checks may use."""
    from runbook.procedures import scripts

    names = constants(scripts)
    for name in sorted(
        {type(c.check).__module__ for s in whole.steps for c in s.checks} | {"runbook.checks.words", "runbook.kube"}
    ):
        module = sys.modules.get(name)
        for text, constant in (constants(module) if module else {}).items():
            names.setdefault(text, f"{name.rpartition('.')[2]}.{constant}")
    return Scripts(names)


# The document's parts.


def _plan(whole: Outlook) -> dict[str, Any]:
    plan = whole.plan
    return {
        "name": plan.name,
        "file": str(plan.file),
        "ticket": plan.ticket,
        "digest": plan.digest(),
        "snapshot": {
            "from": plan.snapshot.source,
            "sha256": None if "$" in whole.bound.sha256 else whole.bound.sha256,
        },
        "cluster": {
            "token": plan.cluster.token,
            "bump_revision": plan.cluster.bump_revision,
            "mark_compacted": plan.cluster.mark_compacted,
        },
        "nodes": [
            {
                "name": n.name,
                "host": n.host,
                "peer_urls": list(n.peer_urls),
                "client_urls": list(n.client_urls),
            }
            for n in plan.nodes
        ],
        "workers": [w.host for w in plan.workers],
    }


def _step(s: StepPart, scripts: Scripts) -> dict[str, Any]:
    step = s.step
    return {
        "id": step.id(),
        "title": step.title(),
        "phase": str(step.phase),
        "on": str(step.on),
        "consent": step.consent,
        "checks": [
            {
                "id": c.check.id(),
                "title": c.check.title(),
                "asks": {host or "local": [scripts.argv(x) for x in asks] for host, asks in c.asks.items()},
            }
            for c in s.checks
        ],
        "hosts": {host: _part(part, scripts) for host, part in s.hosts.items()},
    }


def _part(part: Part, scripts: Scripts) -> dict[str, Any]:
    do = _actions(part.do, scripts)
    plain = {
        "ready": _probe(part.ready, scripts),
        "commands": do["commands"],
        "uploads": do["uploads"],
        "done": _probe(part.done, scripts),
        "clue": _probe(part.clue, scripts),
        "undo": [] if isinstance(part.undo, Irreversible) else _actions(part.undo, scripts)["commands"],
        "undone": _probe(part.undone, scripts),
    }
    return plain | ({"irreversible": part.undo.why} if isinstance(part.undo, Irreversible) else {})


def _actions(actions: tuple[Action, ...] | tuple[Command, ...], scripts: Scripts) -> dict[str, list[Any]]:
    """Commands in order, and uploads, each with how many of the commands go before it."""
    commands: list[list[str]] = []
    uploads: list[dict[str, Any]] = []
    for action in actions:
        if isinstance(action, Upload):
            uploads.append(_upload(action, len(commands)))
        else:
            commands.append(scripts.argv(action))
    return {"commands": commands, "uploads": uploads}


def _upload(u: Upload, after: int) -> dict[str, Any]:
    source = "plan" if u.content is not None else u.source
    return {
        "from": f"{u.source_node}:{source}" if u.source_node else source,
        "to": u.dest,
        "sha256": u.sha256,
        "mode": f"{u.mode:04o}",
        "after_commands": after,
    }


def _probe(p: Probe, scripts: Scripts) -> dict[str, Any]:
    return {"says": p.says, "wait": p.wait, "asks": [scripts.argv(q.ask) for q in p.questions]}

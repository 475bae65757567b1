"""Which member a snapshot is taken from: one that is healthy, a follower where there is one.

All hosts are asked at once, and every one that cannot serve is told of. Nothing is changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runbook import kube, parse, x509
from runbook.backup import Backup
from runbook.checks import certificates, locks
from runbook.checks.words import on, script
from runbook.errors import NOTE, Held, Refused
from runbook.parse import EndpointStatus
from runbook.plan import Node
from runbook.snapshots.taking import TIDY, directory
from runbook.step import Binding, Command, Result, Target
from runbook.transport import LOCK, Hosts

FACTS = r"""
set -u
manifests=$1
shift
for tool in "$@"; do command -v -- "$tool" > /dev/null || echo "missing $tool"; done
sed -n 's/^ *image: *//p' "$manifests/kube-apiserver.yaml" 2> /dev/null | head -n 1
:
"""
"""Which of these programs is missing; then the API server's image."""
HEALTHY = 12.0
"""Seconds within which a member that can give a snapshot says how it is."""
SKEW = 60.0
"""Seconds by which a host's clock may differ from this machine's before it is told."""


@dataclass(frozen=True)
class Chosen:
    """The member, and what it is. ``fingerprints`` as in a sidecar; ``warnings`` in a responder's words."""

    target: Target
    status: EndpointStatus
    kubernetes: str
    fingerprints: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def node(self) -> Node:
        """Its host."""
        return self.target.node


@dataclass
class _Heard:
    """What one host told. ``why`` it cannot serve, ``do`` what would mend it; both "" where it can."""

    target: Target
    status: EndpointStatus | None = None
    kubernetes: str = ""
    fingerprints: dict[str, str] = field(default_factory=dict)
    now: datetime | None = None
    why: str = ""
    do: str = ""
    warns: list[str] = field(default_factory=list)


def targets(backup: Backup) -> list[Target]:
    """Every host of the plan."""
    return [Target(backup.hosts, Binding(run="snapshots"), node) for node in backup.hosts.nodes]


def choose(backup: Backup, hosts: Hosts, now: datetime) -> Chosen:
    """Ask all hosts, and choose. Raises Refused where none can serve, Held where a restore holds one of them."""
    asked = targets(backup)
    answers = hosts.ask({t.name: _questions(t) for t in asked})
    for target in asked:
        _free(backup, target, answers[target.name][0])
    heard = [_judged(target, answers[target.name]) for target in asked]
    able = [h for h in heard if h.status and not h.why]
    if not able:
        raise _none(backup, heard)
    clusters = {h.status.cluster_id for h in able if h.status}
    if len(clusters) > 1:
        raise _two_clusters(backup, able)
    able.sort(key=_last)
    best = able[0]
    assert best.status is not None  # noqa: S101 # able has only such
    warns = [f"{h.target.name}: {h.why}; to mend it: {h.do}" for h in heard if h.why]
    warns += [f"{h.target.name}: {text}" for h in heard for text in h.warns]
    if best.now and abs(skew := (best.now - now).total_seconds()) > SKEW:
        warns.append(
            f"the clock of {best.target.name} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
        )
    return Chosen(best.target, best.status, best.kubernetes, best.fingerprints, tuple(warns))


def _last(heard: _Heard) -> tuple[bool, bool]:
    """Whom etcd has something to say of comes after all others, and of those the leader, who has work enough."""
    status = heard.status
    return (
        bool(status and (status.errors or not status.leader)),
        bool(status and status.leader == status.member_id),
    )


def _questions(n: Target) -> Sequence[Command]:
    wait = min(n.plan.timeouts.command, HEALTHY)
    paths, tools = n.node.paths, n.plan.tools
    return [
        script(locks.READ, LOCK, paths.workspace),
        script(FACTS, paths.manifests, *(() if tools.upload else (tools.etcdctl, tools.etcdutl))),
        script(certificates.READ, *_files(n.node)),
        kube.etcdctl(n, "endpoint", "status", "-w", "json", timeout=wait, early=True),
        kube.etcdctl(n, "endpoint", "health", timeout=wait, early=True),
        script(TIDY, directory(n)),
    ]


def _files(node: Node) -> tuple[str, ...]:
    """What etcd is asked with, and what tells one cluster from another."""
    pki = certificates.pki(node)
    return (node.paths.etcd_ca, node.paths.etcd_cert, f"{pki}/ca.crt", f"{pki}/front-proxy-ca.crt")


def _free(backup: Backup, target: Target, result: Result) -> None:
    """Raises Held where a run has that host: what is half restored is no cluster to take a snapshot of."""
    held = locks.holder(result.out) if result.ok else None
    if held is None:
        return
    raise Held(
        f"{target.name} ({target.node.host}) is held by the run {held.run or '(its lock cannot be read)'}"
        f"{f', of {held.holder}' if held.holder else ''}{f', since {held.since}' if held.since else ''}"
        f"{f'; last sign of life {held.life}' if held.life else ''}",
        true="no snapshot was taken, and nothing was changed",
        means="a restore is under way there, or was left half-way: what it has begun is no cluster to save",
        next=(
            f"runbook status {held.run}".rstrip() + f"{NOTE}on the machine that it was begun on",
            f"{typed('save', backup)}{NOTE}once that run is finished",
        ),
    )


def _judged(target: Target, results: Sequence[Result]) -> _Heard:
    """What that host's answers come to; the first thing that keeps it from serving is the one that is told."""
    found = _Heard(target)
    silent = next((r for r in results if r.unknown), None)
    if silent:
        found.why, found.do = silent.tail(), on(target.node, "true")
        return found
    _, facts, certs, status, health, _ = results
    lines = facts.out.splitlines()
    missing = [line.removeprefix("missing ") for line in lines if line.startswith("missing ")]
    image = next((line for line in lines if not line.startswith("missing ")), "")
    found.kubernetes = version[1] if (version := re.search(r":(v\d+\.\d+\.\d+[\w.-]*)\"?$", image)) else ""
    if missing:
        found.why = f"it has no {' and no '.join(missing)}"
        found.do = "install etcd-client there, or name both in spec.tools, or bring them along: spec.tools.upload"
    elif (expired := _certificates(found, certs))[0]:
        found.why, found.do = expired
    else:
        _etcd(found, status, health)
    return found


def _certificates(found: _Heard, result: Result) -> tuple[str, str]:
    """What keeps etcd from being asked, and how to mend it; the fingerprints of what can be read."""
    node = found.target.node
    try:
        seen = certificates.seen(result.out)
    except parse.ParseError as error:
        return f"its certificates cannot be read: {error}", on(node, "ls", "-laR", certificates.pki(node))
    found.now = seen.now
    for path in _files(node):
        try:
            read = x509.certificate(seen.pem(path))
        except parse.ParseError:
            continue
        if path != node.paths.etcd_cert:
            found.fingerprints[path.removeprefix(f"{certificates.pki(node)}/")] = read.fingerprint
        vital = path in (node.paths.etcd_ca, node.paths.etcd_cert)
        if vital and read.not_after <= seen.now:
            return f"{path} has expired on {read.not_after:%F %T} UTC", _renewal(node, path)
        if vital and (days := (read.not_after - seen.now).days) < 30:
            found.warns.append(f"{path} expires in {days} days; to renew it: {_renewal(node, path)}")
    return "", ""


def _renewal(node: Node, path: str) -> str:
    if path == node.paths.etcd_ca:
        return "kubeadm renews no CA: it must be replaced by hand"
    restart = f"mv {node.paths.manifests}/etcd.yaml /root/ && sleep 30 && mv /root/etcd.yaml {node.paths.manifests}/"
    return f"{on(node, 'kubeadm', 'certs', 'renew', 'etcd-server')}, then restart that member: {restart}"


def _etcd(found: _Heard, status: Result, health: Result) -> None:
    look = on(found.target.node, "crictl", "ps", "-a", "--name", "etcd")
    try:
        found.status = next(iter(parse.endpoint_status(status.out)), None) if status.out.strip() else None
    except parse.ParseError as error:
        found.why, found.do = str(error), look
        return
    if found.status is None:
        found.why, found.do = f"its etcd does not answer: {status.tail(1)}", look
    elif found.status.is_learner:
        found.why, found.do = "it is a learner, which has no vote and may lack data", look
    elif any("CORRUPT" in error for error in found.status.errors):
        found.why = "it has the alarm CORRUPT: its data differs from the other members'"
        found.do = "replace that member; its snapshot would be of damaged data"
    elif not health.ok:
        found.why, found.do = f"it is not healthy: {health.tail(1)}", look
    else:
        found.warns += [f"etcd says: {error}" for error in found.status.errors]


def _none(backup: Backup, heard: Sequence[_Heard]) -> Refused:
    told = [f"  {h.target.name} ({h.target.node.host}): {h.why}\n    to mend it: {h.do}" for h in heard]
    return Refused(
        "\n".join([f"no member of {backup.name} can give a snapshot:", *told]),
        true="no snapshot was taken, and nothing was changed",
        means="the newest snapshot is the one before",
        next=(typed("list", backup), f"{typed('save', backup)}{NOTE}after mending one of them"),
    )


def _two_clusters(backup: Backup, able: Sequence[_Heard]) -> Refused:
    ids: Iterator[str] = (f"{h.target.name} is in {h.status.cluster_id:x}" for h in able if h.status)
    return Refused(
        f"the members are not of one cluster: {', '.join(ids)}",
        true="no snapshot was taken, and nothing was changed",
        means="a member was restored or started by itself; of which of them a snapshot is wanted, only you can say",
        next=(f"{typed('save', backup)}{NOTE}with a plan that names the nodes of one of them",),
    )


def typed(command: str, backup: Backup) -> str:
    """A command to type about this plan."""
    return f"runbook snapshot {command} {shlex.quote(str(backup.file))}"

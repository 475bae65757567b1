"""What one host sees of the whole etcd cluster: is it the planned one, whole, of one mind, and without an alarm?

Each judge returns "" where all is well, else what was seen instead. They serve the proof of the outage and the check
after it; :func:`total` makes an answer that cannot be read an objection too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from runbook import parse
from runbook.plan import Node
from runbook.step import Result, Target

Judge = Callable[[Target, Result], str]

AUTHENTICATION = re.compile(r"auth: user not found|etcdserver: (?:permission denied|user name |invalid auth token)")
"""How etcd refuses whoever has only a certificate: hashes first. The API servers could not log in either."""


def total(judge: Judge, n: Target) -> Callable[[Result], str]:
    """The judge for this host, which never raises."""

    def judged(result: Result) -> str:
        if AUTHENTICATION.search(result.err):
            hint = "`etcdctl --user root auth disable`, then resume"
            return f"authentication is on; it came with the snapshot: {hint} ({result.tail(1)})"
        try:
            return judge(n, result)
        except parse.ParseError as error:
            return f"{error} ({result.tail(1)})" if result.tail(1) else str(error)

    return judged


def planned(n: Target) -> tuple[int, dict[int, Node]]:
    """The cluster id, and the members by their ids, as etcd computes both from the plan and the token."""
    ids = parse.member_ids({node.name: node.peer_urls for node in n.plan.nodes}, n.token)
    return parse.cluster_id(ids.values()), {ids[node.name]: node for node in n.plan.nodes}


def present(n: Target) -> tuple[int, dict[int, Node]]:
    """The cluster id, and the members that must answer: all but the absent ones."""
    cluster, nodes = planned(n)
    return cluster, {id_: node for id_, node in nodes.items() if node.name not in n.bound.absent}


def members(n: Target, result: Result) -> str:
    """``member list``: this host's member answers, in the restored cluster; exactly the planned ones, all voters."""
    if not result.ok:
        return f"etcd does not answer: {result.tail(1)}"
    seen = parse.member_list(result.out)
    cluster, nodes = planned(n)
    if seen.cluster_id != cluster:
        return f"cluster id {seen.cluster_id:x} is not the restored cluster's, {cluster:x}"
    if seen.member_id not in nodes or nodes[seen.member_id].name != n.name:
        who = nodes[seen.member_id].name if seen.member_id in nodes else f"the member {seen.member_id:x}"
        return f"{who} answers on this host's client URL, not {n.name}"
    found = {m.id: tuple(sorted(m.peer_urls)) for m in seen.members}
    if found != {id_: tuple(sorted(node.peer_urls)) for id_, node in nodes.items()}:
        list_ = ", ".join(f"{m.name or '(unstarted)'}={'/'.join(m.peer_urls)}" for m in seen.members)
        return f"the members are not the planned ones: {list_}"
    learners = [m.name for m in seen.members if m.is_learner]
    return f"still learners: {', '.join(learners)}" if learners else ""


def endpoints(n: Target, result: Result) -> str:
    """``endpoint status`` of all: every member answers, in the restored cluster, with one leader and no error."""
    cluster, nodes = present(n)
    if not result.ok:
        seen = parse.endpoint_status(result.out) if result.out.strip() else ()
        silent = [node.name for id_, node in nodes.items() if id_ not in {s.member_id for s in seen}]
        who = f", not {', '.join(silent)}" if seen and silent else ""
        return f"not every member answers{who}: {result.tail(1)}"
    seen = parse.endpoint_status(result.out)
    ids = {s.member_id for s in seen}
    if ids < set(nodes) and len(ids) == len(seen) and {s.cluster_id for s in seen} == {cluster}:
        silent = [node.name for id_, node in nodes.items() if id_ not in ids]
        return f"{len(seen)} of {len(nodes)} members answer, not {', '.join(silent)}"
    if ids != set(nodes) or len(seen) != len(nodes):
        return f"{len(seen)} endpoints answer with the ids {', '.join(f'{s.member_id:x}' for s in seen)}"
    for status in seen:
        if status.cluster_id != cluster:
            return f"{status.endpoint} is in the cluster {status.cluster_id:x}, not in {cluster:x}"
        if status.errors:
            return f"{status.endpoint} reports {'; '.join(status.errors)}"
        if not status.leader:
            return f"{status.endpoint} has no leader"
    leaders = {s.leader for s in seen}
    return f"the members do not agree on a leader: {', '.join(f'{x:x}' for x in leaders)}" if len(leaders) > 1 else ""


def alarms(n: Target, result: Result) -> str:
    """``alarm list``: none."""
    if not result.ok:
        return f"the alarms could not be read: {result.tail(1)}"
    _, nodes = planned(n)
    seen = parse.alarms(result.out)
    shown = ", ".join(
        f"{a.kind} on {nodes[a.member_id].name if a.member_id in nodes else f'{a.member_id:x}'}" for a in seen
    )
    hint = "; it came with the snapshot: make room, then `etcdctl alarm disarm`, then resume"
    return f"alarm: {shown}{hint}" if seen else ""


def hashes(n: Target, seen: Sequence[parse.HashKV], where: str) -> str:
    """``endpoint hashkv`` of all: of every member, in the restored cluster, and the same; ``where`` is for people."""
    cluster, nodes = present(n)
    if len(seen) != len(nodes) or {s.member_id for s in seen} != set(nodes):
        ids = ", ".join(f"{s.member_id:x}" for s in seen)
        return f"the hashes come from {len(seen)} members ({ids}), not from the {len(nodes)} planned ones"
    if {s.cluster_id for s in seen} != {cluster}:
        return "a hash comes from another cluster"
    if len({(s.hash, s.compact_revision) for s in seen}) > 1:
        shown = ", ".join(f"{s.endpoint} {s.hash} (compacted {s.compact_revision})" for s in seen)
        return f"the members hold different data at {where}: {shown}"
    return ""

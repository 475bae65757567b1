"""The cross-member proof: do all members hold the restored data, the same data, and nothing else?

``endpoint health`` proves nothing: it was seen healthy with different data on every member, with N clusters of one, and
with an empty cluster. So each host is asked what it sees of the whole cluster, and every view must be the same one:
the planned members and no other, the cluster id that follows from plan and token, one hash at the restored revision,
history before it compacted, no alarm.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from runbook import parse
from runbook.kube import etcdctl
from runbook.procedures import scripts
from runbook.procedures.cluster import client_port
from runbook.procedures.words import in_run, script
from runbook.step import Command, Probe, Result, Target, probe

ANSWER = 8.0
"""Seconds for one question to etcd. Short: it is asked again, and a silent etcd keeps etcdctl waiting to the end."""

HASHING = 60.0
"""Seconds for all members to hash their data at one revision: it grows with the data; by then all of them answer."""

SINCE = 1_000_000
"""Revisions that an etcd may have made since it was last asked: 1,500 writes a second for ten minutes."""


AUTHENTICATION = re.compile(r"auth: user not found|etcdserver: (?:permission denied|user name |invalid auth token)")
"""How etcd refuses whoever has only a certificate: hashes first. The API servers could not log in either."""


def _judged(judge: Callable[[Target, Result], str], n: Target) -> Callable[[Result], str]:
    def total(result: Result) -> str:
        if AUTHENTICATION.search(result.err):
            hint = "`etcdctl --user root auth disable`, then resume"
            return f"authentication is on; it came with the snapshot: {hint} ({result.tail(1)})"
        try:
            return judge(n, result)
        except parse.ParseError as error:
            return f"{error} ({result.tail(1)})" if result.tail(1) else str(error)

    return total


def present_ids(n: Target) -> tuple[int, set[int]]:
    """The cluster id, and the ids of the members that must answer: all but the absent ones."""
    cluster, planned = planned_ids(n)
    ids = parse.member_ids({node.name: node.peer_urls for node in n.plan.nodes}, n.token)
    return cluster, planned.keys() - {ids[name] for name in n.bound.absent}


def planned_ids(n: Target) -> tuple[int, dict[int, tuple[str, ...]]]:
    """The cluster id, and by member id its peer URLs, as etcd will compute them from the plan and the token."""
    members = {node.name: node.peer_urls for node in n.plan.nodes}
    ids = parse.member_ids(members, n.token)
    return parse.cluster_id(ids.values()), {ids[name]: urls for name, urls in members.items()}


def _members(n: Target, result: Result) -> str:
    if not result.ok:
        return f"etcd does not answer: {result.tail(1)}"
    seen = parse.member_list(result.out)
    cluster, planned = planned_ids(n)
    if seen.cluster_id != cluster:
        return f"cluster id {seen.cluster_id:x} is not the restored cluster's, {cluster:x}"
    found = {m.id: tuple(sorted(m.peer_urls)) for m in seen.members}
    if found != {id_: tuple(sorted(urls)) for id_, urls in planned.items()}:
        list_ = ", ".join(f"{m.name or '(unstarted)'}={'/'.join(m.peer_urls)}" for m in seen.members)
        return f"the members are not the planned ones: {list_}"
    learners = [m.name for m in seen.members if m.is_learner]
    return f"still learners: {', '.join(learners)}" if learners else ""


def _endpoints(n: Target, result: Result) -> str:
    if not result.ok:
        return f"not every member answers: {result.tail(1)}"
    cluster, planned = present_ids(n)
    seen = parse.endpoint_status(result.out)
    if {s.member_id for s in seen} != planned or len(seen) != len(planned):
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


def _hashes(n: Target, result: Result) -> str:
    if not result.ok:
        return f"the hashes could not be compared: {result.tail(1)}"
    head, _, rest = result.out.partition("\n")
    least = int(head) if head.strip().isdigit() else 0
    seen = parse.hashkv(rest)
    cluster, planned = present_ids(n)
    if len(seen) != len(planned) or {s.member_id for s in seen} != planned:
        ids = ", ".join(f"{s.member_id:x}" for s in seen)
        return f"the hashes come from {len(seen)} members ({ids}), not from the {len(planned)} planned ones"
    if {s.cluster_id for s in seen} != {cluster}:
        return "a hash comes from another cluster"
    if len({(s.hash, s.compact_revision) for s in seen}) > 1:
        shown = ", ".join(f"{s.endpoint} {s.hash} (compacted {s.compact_revision})" for s in seen)
        return f"the members hold different data at revision {least}: {shown}"
    low = [s for s in seen if s.revision < least]
    return f"{low[0].endpoint} is at revision {low[0].revision}, below {least}" if low else ""


def _compacted(n: Target, result: Result) -> str:
    if result.ok:
        return "a read at an older revision answered: the history was not marked as compacted"
    if "required revision has been compacted" in result.err:
        return ""
    return f"a read at an older revision: {result.tail(1)}"


def _alarms(n: Target, result: Result) -> str:
    if not result.ok:
        return f"the alarms could not be read: {result.tail(1)}"
    seen = parse.alarms(result.out)
    shown = ", ".join(f"{a.kind} on {a.member_id:x}" for a in seen)
    hint = "; it came with the snapshot: make room, then `etcdctl alarm disarm`, then resume"
    return f"alarm: {shown}{hint}" if seen else ""


def _at_restored_revision(n: Target, text: str, *words: str, everyone: bool = False) -> Command:
    """An etcdctl command at a revision that the host computes from the snapshot's figures and the plan's bump."""
    ask = etcdctl(n, *words, timeout=HASHING, everyone=everyone)
    bump = str(n.plan.cluster.bump_revision)
    return script(text, in_run(n, "snapshot.json"), bump, *ask.words(), timeout=HASHING + 2, changes=False)


def same_data_everywhere(n: Target, *, brief: bool = False) -> Probe:
    """The cross-member proof, as this host sees the cluster; ``brief``: what may have changed since it was whole."""
    ask = partial(etcdctl, n, timeout=ANSWER)
    # The others have compacted that revision away when an absent member is back: one that all of them have now serves.
    if n.bound.joining:
        hashes = _at_restored_revision(n, scripts.REVISION_NOW, everyone=True)
    else:
        words = ("endpoint", "hashkv", "-w", "json")
        hashes = _at_restored_revision(n, scripts.SNAPSHOT_REVISION, *words, everyone=True)
    members, status = ask("member", "list", "-w", "json"), ask("endpoint", "status", "-w", "json", everyone=True)
    proof = probe("the planned members, in the restored cluster", members, _judged(_members, n))
    if not brief:
        # Before the members' status, which tells of alarms too, but not what to do about them.
        proof &= probe("no alarms", ask("alarm", "list", "-w", "json"), _judged(_alarms, n))
        proof &= probe("every member answers", status, _judged(_endpoints, n))
    proof &= probe("equal hashes at the restored revision", hashes, _judged(_hashes, n))
    if n.plan.cluster.mark_compacted and not brief:
        old = _at_restored_revision(n, scripts.COMPACTED, "get", "runbook", "--keys-only")
        proof &= probe("older revisions are compacted", old, _judged(_compacted, n))
    return proof


def bump_enough(n: Target) -> Probe:
    """With all API servers down: the restored revision will be above the last one that the living etcd knows.

    A dead etcd has nobody to compare with, and is what this is for: the first check has warned of it. One that lived
    while this was prepared and is silent now has written since, up to this moment at most: the restored revision must
    then be above the one of that time by a margin, and the step notes that no more is known (``leader_last``).
    """

    def judge(n: Target, result: Result) -> str:
        if result.code not in (0, 4):
            return result.tail()
        head, _, rest = result.out.partition("\n\n" if "\n\n" in result.out else "\n")
        snapshot = parse.snapshot_status(head)
        seen = parse.endpoint_status(rest) if rest.strip() else ()
        if not seen or n.plan.cluster.bump_revision == 0:
            return ""
        least = max(s.revision for s in seen) + (SINCE if result.code == 4 else 0)
        restored = snapshot.revision + n.plan.cluster.bump_revision
        if restored > least:
            return ""
        enough = least - snapshot.revision + 1_000_000_000
        if result.code == 4:
            was = f"etcd gives no answer any more, and was at revision {least - SINCE} while this was prepared"
            return f"{was}; restored: {restored}, which may be below its last; bumpRevision {enough} would do"
        return f"the living etcd is at revision {least}, restored: {restored}; bumpRevision {enough} would do"

    status = etcdctl(n, "endpoint", "status", "-w", "json", timeout=5)
    words = (n.run_dir, client_port(n), *status.words())
    ask = script(scripts.LAST_REVISION, *words, timeout=15, changes=False)
    return probe("the bump is above the last living revision", ask, _judged(judge, n))

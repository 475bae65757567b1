"""The cross-member proof: do all members hold the restored data, the same data, and nothing else?

``endpoint health`` proves nothing: it was seen healthy with different data on every member, with N clusters of one, and
with an empty cluster. So each host is asked what it sees of the whole cluster, and every view must be the same one: the
planned members and no other, itself among them, the cluster id that follows from plan and token, history compacted
before the restored revision, no alarm. And every member tells the hash of its data at that revision: all the same. The
first host asks for these: each is its member's own answer whoever asks, and to make every member hash once for every
host would make the outage longer for nothing.
"""

from __future__ import annotations

from functools import partial

from runbook import clusterview, parse
from runbook.clusterview import total
from runbook.kube import etcdctl
from runbook.procedures import scripts
from runbook.procedures.pods import client_port
from runbook.procedures.words import in_run, script
from runbook.step import NOTHING, Command, Probe, Result, Target, probe

ANSWER = 8.0
"""Seconds for one question to etcd. Short: it is asked again, and a silent etcd keeps etcdctl waiting to the end."""

HASHING = 60.0
"""Seconds for all members to hash their data at one revision: it grows with the data; by then all of them answer."""

SINCE = 1_000_000
"""Revisions that an etcd may have made since it was last asked: 1,500 writes a second for ten minutes."""


def _hashes(n: Target, result: Result) -> str:
    if not result.ok:
        return f"the hashes could not be compared: {result.tail(1)}"
    head, _, rest = result.out.partition("\n")
    least = int(head) if head.strip().isdigit() else 0
    seen = parse.hashkv(rest)
    low = [s for s in seen if s.revision < least]
    differ = clusterview.hashes(n, seen, f"revision {least}")
    return differ or (f"{low[0].endpoint} is at revision {low[0].revision}, below {least}" if low else "")


def _compacted(n: Target, result: Result) -> str:
    if result.ok:
        return "a read at an older revision answered: the history was not marked as compacted"
    if "required revision has been compacted" in result.err:
        return ""
    return f"a read at an older revision: {result.tail(1)}"


def _at_restored_revision(n: Target, text: str, *words: str, everyone: bool = False) -> Command:
    """An etcdctl command at a revision that the host computes from the snapshot's figures and the plan's bump."""
    ask = etcdctl(n, *words, timeout=HASHING, everyone=everyone)
    bump = str(n.plan.cluster.bump_revision)
    return script(text, in_run(n, "snapshot.json"), bump, *ask.words(), timeout=HASHING + 2, changes=False)


def _all_hashes(n: Target) -> Command:
    # The others have compacted that revision away when an absent member is back: one that all of them have now serves.
    if n.bound.joining:
        return _at_restored_revision(n, scripts.REVISION_NOW, everyone=True)
    return _at_restored_revision(n, scripts.SNAPSHOT_REVISION, "endpoint", "hashkv", "-w", "json", everyone=True)


def same_data_everywhere(n: Target, *, brief: bool = False) -> Probe:
    """The cross-member proof, as this host sees the cluster; ``brief``: what may have changed since it was whole."""
    ask = partial(etcdctl, n, timeout=ANSWER)
    members, status = ask("member", "list", "-w", "json"), ask("endpoint", "status", "-w", "json", everyone=True)
    proof = probe("the planned members, in the restored cluster", members, total(clusterview.members, n), slow=True)
    if not brief:
        # Before the members' status, which tells of alarms too, but not what to do about them.
        proof &= probe("no alarms", ask("alarm", "list", "-w", "json"), total(clusterview.alarms, n), slow=True)
        proof &= probe("every member answers", status, total(clusterview.endpoints, n))
    if n.name in (n.present[0].name, n.bound.joining):
        proof &= probe("equal hashes at the restored revision", _all_hashes(n), total(_hashes, n), slow=True)
    if n.plan.cluster.mark_compacted and not brief:
        old = _at_restored_revision(n, scripts.COMPACTED, "get", "runbook", "--keys-only")
        proof &= probe("older revisions are compacted", old, total(_compacted, n), slow=True)
    return proof


def bump_enough(n: Target) -> Probe:
    """With all API servers down: the restored revision will be above the last one that the living etcd knows.

    A dead etcd has nobody to compare with, and is what this is for: the first check has warned of it. One that lived
    while this was prepared and is silent now has written since, up to this moment at most: the restored revision must
    then be above the one of that time by a margin, and the step notes that no more is known (``leader_last``). A host
    that joins later is not asked: the others serve what was restored, and what it knew decides nothing any more.
    """
    if n.bound.joining:
        return NOTHING

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
    words = (n.run_dir, str(client_port(n)), *status.words())
    ask = script(scripts.LAST_REVISION, *words, timeout=15, changes=False)
    return probe("the bump is above the last living revision", ask, total(judge, n), slow=True)

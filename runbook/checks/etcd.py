"""After the restore: do the members still hold the same data, in the cluster that was planned?

The cross-member proof of the outage asks at the restored revision. The API servers compact that one away after five
minutes, so this asks at a current one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook import parse
from runbook.checks import Answers, Finding, heard
from runbook.checks.verify import OnCluster
from runbook.checks.words import listed, on, script
from runbook.kube import etcdctl
from runbook.plan import Plan
from runbook.step import Binding, Command, Result, Target

HASHES = r"""
set -u
all=$1
shift
rev=$("$@" endpoint status -w json | tr ',{}' '\n\n\n' |
  sed -n 's/^ *"revision": *\([0-9][0-9]*\) *$/\1/p' | sort -n | tail -n 1)
[ -n "$rev" ] || { echo "this member tells no revision" >&2; exit 3; }
"$@" endpoint hashkv ${all:+"$all"} --rev "$rev" -w json
"""
"""``--cluster``, or "" where etcdctl is told the members by name; etcdctl with its flags. All members' hashes at the
present revision."""


class EtcdHealthy(OnCluster):
    """Every member is in the planned cluster, holds the same data and raises no alarm."""

    order = 10

    def within(self, plan: Plan) -> float:
        """It was so already before the API servers started."""
        return plan.timeouts.quorum

    def of(self, n: Target) -> Sequence[Command]:
        """This host's view of the whole cluster."""
        return [
            etcdctl(n, "member", "list", "-w", "json"),
            etcdctl(n, "endpoint", "status", "-w", "json", timeout=15, everyone=True),
            etcdctl(n, "alarm", "list", "-w", "json"),
            _hashes_of_all(n),
        ]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Each host's own view must be the same, and the planned one."""
        for node, results in heard(answers, plan.nodes):
            target = Target(plan, bound, node)
            judges = (_members, _endpoints, _alarms, _hashes)
            bad = [text for judge, result in zip(judges, results, strict=True) if (text := judge(target, result))]
            if bad:
                do = f"look at its log: {on(node, 'crictl', 'ps', '-a', '--name', 'etcd')}, then crictl logs"
                yield self.blocks(node.name, "; ".join(bad), do)
            else:
                yield self.ok(node.name, f"{len(target.present)} members, one cluster, equal data, no alarm")


def _hashes_of_all(n: Target) -> Command:
    """Of all members that take part: where some are absent, only these are asked, and by name."""
    ask = etcdctl(n, timeout=5, everyone=bool(n.bound.absent))
    return script(HASHES, "" if n.bound.absent else "--cluster", *ask.words(), timeout=25)


def _planned(n: Target) -> tuple[int, dict[int, str]]:
    """The cluster id, and the members' names by their ids, as etcd computes them from plan and token."""
    ids = parse.member_ids({node.name: node.peer_urls for node in n.plan.nodes}, n.token)
    return parse.cluster_id(ids.values()), {id_: name for name, id_ in ids.items()}


def _members(n: Target, result: Result) -> str:
    if not result.ok:
        return f"etcd does not list its members: {result.tail(1)}"
    try:
        seen = parse.member_list(result.out)
    except parse.ParseError as error:
        return str(error)
    cluster, names = _planned(n)
    if seen.cluster_id != cluster:
        return f"the cluster id is {seen.cluster_id:x}, not the restored cluster's {cluster:x}"
    wrong = [m for m in seen.members if m.id not in names]
    if wrong or len(seen.members) != len(names):
        return f"the members are not the planned ones: {listed(m.name or f'{m.id:x}' for m in seen.members)}"
    learners = [m.name for m in seen.members if m.is_learner]
    return f"still learners: {listed(learners)}" if learners else ""


def _endpoints(n: Target, result: Result) -> str:
    try:
        seen = parse.endpoint_status(result.out) if result.out.strip() else ()
    except parse.ParseError as error:
        return str(error)
    _, names = _planned(n)
    present = {node.name for node in n.present}
    silent = {id_ for id_, name in names.items() if name in present} - {s.member_id for s in seen}
    if silent or not result.ok:
        who = listed(names[i] for i in silent)
        return f"members that do not answer: {who}" if who else f"endpoint status: {result.tail(1)}"
    errors = [f"{s.endpoint}: {listed(s.errors)}" for s in seen if s.errors]
    return "; ".join(errors)


def _alarms(n: Target, result: Result) -> str:
    if not result.ok:
        return f"the alarms could not be read: {result.tail(1)}"
    try:
        seen = parse.alarms(result.out)
    except parse.ParseError as error:
        return str(error)
    _, names = _planned(n)
    shown = listed(f"{a.kind} of {names.get(a.member_id, f'{a.member_id:x}')}" for a in seen)
    return f"alarms: {shown} (make room, then etcdctl alarm disarm)" if seen else ""


def _hashes(n: Target, result: Result) -> str:
    if not result.ok:
        return f"the members' data could not be compared: {result.tail(1)}"
    try:
        seen = parse.hashkv(result.out)
    except parse.ParseError as error:
        return str(error)
    if len(seen) != len(n.present):
        return f"{len(seen)} of {len(n.present)} members gave a hash"
    if len({(s.hash, s.compact_revision) for s in seen}) > 1:
        shown = listed(f"{s.endpoint} {s.hash} (compacted {s.compact_revision})" for s in seen)
        return f"the members hold different data: {shown}"
    return ""

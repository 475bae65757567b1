"""After the restore: do the members still hold the same data, in the cluster that was planned?

The cross-member proof of the outage asks at the restored revision. The API servers compact that one away after five
minutes, so this asks at a current one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook import clusterview, parse
from runbook.checks import Answers, Finding, heard
from runbook.checks.verify import OnCluster
from runbook.checks.words import on, script
from runbook.clusterview import total
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
        """This host's view of the whole cluster; the members' hashes are the same whoever asks for them."""
        views = [
            etcdctl(n, "member", "list", "-w", "json"),
            etcdctl(n, "endpoint", "status", "-w", "json", timeout=15, everyone=True),
            etcdctl(n, "alarm", "list", "-w", "json"),
        ]
        return [*views, *([_hashes_of_all(n)] if n.name == n.present[0].name else [])]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Each host's own view must be the same, and the planned one."""
        for node, results in heard(answers, plan.nodes):
            n = Target(plan, bound, node)
            judges = (clusterview.members, clusterview.endpoints, clusterview.alarms, _hashes)
            told = [total(judge, n)(result) for judge, result in zip(judges, results, strict=False)]
            bad = [text for text in told if text]
            if bad:
                do = f"look at its log: {on(node, 'crictl', 'ps', '-a', '--name', 'etcd')}, then crictl logs"
                yield self.blocks(node.name, "; ".join(bad), do)
            else:
                yield self.ok(node.name, f"{len(n.present)} members, one cluster, equal data, no alarm")


def _hashes_of_all(n: Target) -> Command:
    """Of all members that take part: where some are absent, only these are asked, and by name."""
    ask = etcdctl(n, timeout=5, everyone=bool(n.bound.absent))
    return script(HASHES, "" if n.bound.absent else "--cluster", *ask.words(), timeout=25)


def _hashes(n: Target, result: Result) -> str:
    if not result.ok:
        return f"the members' data could not be compared: {result.tail(1)}"
    return clusterview.hashes(n, parse.hashkv(result.out), "their present revision")

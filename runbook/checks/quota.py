"""Does the snapshot fit below etcd's quota? Above it the restored cluster refuses its first write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook.checks import Answers, Finding, heard
from runbook.checks.disk import DiskSpace, snapshot_size
from runbook.checks.manifests import etcd_pods, read_all
from runbook.checks.words import is_node, on, size
from runbook.plan import Plan
from runbook.step import Binding, Command, Target

DEFAULT = 2 << 30
"""Bytes: etcd's own quota where --quota-backend-bytes is not set, or 0."""


class Quota(DiskSpace):
    """The snapshot's data is below etcd's quota on every host."""

    order = 51

    def asks(self, n: Target) -> Sequence[Command]:
        """The manifests, and what tells the snapshot's size."""
        return [read_all(n), *super().asks(n)[1:]] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """The alarm is raised by the first write after the restore, when going back already costs what was written."""
        octets = snapshot_size(plan, answers)
        if octets is None:
            return  # the snapshot's own check says what is wrong with it
        pods = etcd_pods(plan, answers)
        for node, _ in heard(answers, [n for n in plan.nodes if n.name in pods]):
            flag = pods[node.name].flag("quota-backend-bytes", "0")
            quota = int(flag) if flag.isdigit() and int(flag) else DEFAULT
            told = f"the snapshot has {size(octets)}, etcd's quota (--quota-backend-bytes) is {size(quota)}"
            do = f"raise --quota-backend-bytes: {on(node, 'vi', f'{node.paths.manifests}/etcd.yaml')} (8 GiB at most)"
            if octets >= quota:
                yield self.blocks(node.name, f"{told}: the restored cluster would refuse every write", do)
            elif octets > quota * 9 // 10:
                yield self.warns(node.name, f"{told}: little is left", f"{do}; or defragment once it serves")
            else:
                yield self.ok(node.name, told)

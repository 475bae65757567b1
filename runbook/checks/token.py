"""Is the new cluster's token another than the present one's? Else both have the same ids, and old members may join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook import parse
from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.manifests import etcd_pods, read_all
from runbook.checks.members import own_status, statuses
from runbook.checks.words import is_node
from runbook.plan import Plan
from runbook.step import Binding, Command, Target

DEFAULT = "etcd-cluster"
"""etcd's own token where --initial-cluster-token is not set; kubeadm does not set it."""


class Token(Check):
    """The new cluster's token is not the present cluster's."""

    at_first = True
    order = 44

    def applies(self, plan: Plan) -> bool:
        """Only where the plan gives one: the run's own name is always new."""
        return "$RUN" not in plan.cluster.token

    def asks(self, n: Target) -> Sequence[Command]:
        """What etcd.yaml says, and the id of the cluster that lives, which the token is part of."""
        return [read_all(n), own_status(n)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A manifest's token only counted when its cluster was first made; the id tells of a restored one."""
        pods = etcd_pods(plan, answers)
        for node, (_, status) in heard(answers, plan.nodes):
            token = Target(plan, bound, node).token
            id_ = parse.cluster_id(parse.member_ids({n.name: n.peer_urls for n in plan.nodes}, token).values())
            do = "leave spec.cluster.token out: each run then has its own"
            if any(seen.cluster_id == id_ for seen in statuses(status)):
                saw = f"the cluster that lives was made with the token {token} too, so that both would have one id"
                yield self.blocks(node.name, saw, do)
            elif node.name in pods and pods[node.name].flag("initial-cluster-token", DEFAULT) == token:
                saw = f"{token} is the token of etcd.yaml, or etcd's own where that sets none: the old members know it"
                yield self.blocks(node.name, saw, do)
            elif not statuses(status):
                saw = (
                    f"whether the old cluster was made with the token {token} cannot be asked: its etcd does not answer"
                )
                yield self.warns(node.name, saw, do)
            elif node.name in pods:
                yield self.ok(node.name, f"{token} is new")

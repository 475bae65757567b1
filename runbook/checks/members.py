"""Is every living member, and every control-plane node, in the plan?

One of three restored alone leaves two clusters that both accept writes: whoever lives has to take part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from runbook import kube, parse
from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import is_node, listed
from runbook.plan import Plan
from runbook.step import Binding, Command, Result, Target

LISTING = 10.0
"""Seconds for all nodes of a large cluster."""
DOWN = (
    "connection refused",
    "was refused",
    "timeout",
    "timed out",
    "EOF",
    "deadline exceeded",
    "unavailable",
    "leader",
)
REFUSED = re.compile(r"x509: [^\"\\]{1,120}|tls: [^\"\\]{1,120}|etcdserver: permission denied")
"""What etcdctl says where something listens that does not believe it, or that it does not believe."""
QUICK = 5.0
"""Seconds for one question to etcd: a living member answers at once, and a dead cluster must not hold up the checks."""


def own_status(n: Target) -> Command:
    """This host's own member, which answers without a quorum too; asked before any tool is brought along."""
    return kube.etcdctl(n, "endpoint", "status", "-w", "json", timeout=QUICK, early=True)


def statuses(result: Result) -> tuple[parse.EndpointStatus, ...]:
    """The endpoints that answered; none where the output cannot be read."""
    try:
        return parse.endpoint_status(result.out) if result.out.strip() else ()
    except parse.ParseError:
        return ()


class Members(Check):
    """Every living member of the cluster is in the plan."""

    at_first = True
    order = 30

    def asks(self, n: Target) -> Sequence[Command]:
        """The member list needs a quorum; the member's own status does not."""
        if not is_node(n):
            return ()
        return [
            own_status(n),
            kube.etcdctl(n, "member", "list", "-w", "json", timeout=QUICK, early=True),
            kube.etcdctl(n, "endpoint", "status", "--cluster", "-w", "json", timeout=15, early=True),
        ]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Who is listed anywhere, who of them answers, and who of those is not planned."""
        answered = list(heard(answers, plan.nodes))
        no_tool = [node.name for node, results in answered if results[0].code in (126, 127)]
        living: dict[int, str] = {}
        clusters: set[int] = set()
        listed_members: dict[int, parse.Member] = {}
        for _, (own, members, everyone) in answered:
            for status in (*statuses(own), *statuses(everyone)):
                living[status.member_id] = status.endpoint
                clusters.add(status.cluster_id)
            if (seen := _members(members)) is not None:
                listed_members |= {m.id: m for m in seen.members}
        if len(no_tool) == len(answered):
            if answered:
                do = "compare by hand: list the members of the old cluster, and see that the plan has each of them"
                saw = "there is no etcdctl on the hosts yet, nor an etcd container that has one: no member can be asked"
                yield self.warns("", saw, do)
            return
        if not living:
            refused = [f"{node.name}: {found[0]}" for node, (own, *_) in answered if (found := REFUSED.search(own.err))]
            if refused:
                saw = f"etcd answers, and refuses these certificates: {listed(refused)}"
                yield self.warns("", saw, "compare by hand: nobody can say whether members outside of the plan live")
            else:
                yield self.ok("", "no etcd answers anywhere: a dead cluster has nothing to compare with")
            return
        yield from self._listed(plan, listed_members, living, clusters)

    def _listed(
        self, plan: Plan, members: dict[int, parse.Member], living: dict[int, str], clusters: set[int]
    ) -> Iterator[Finding]:
        strangers = {i: m for i, m in members.items() if not _planned(plan, m)}
        for id_, m in strangers.items():
            who = f"member {m.name or '(never started)'} at {listed(m.peer_urls)}"
            if id_ in living:
                do = "add it to spec.nodes: restored without it, there would be two clusters"
                yield self.blocks("", f"{who} lives and is not in the plan", do)
            else:
                do = "make sure that it is gone for good, and does not come back with the old data"
                yield self.warns("", f"{who} is listed, does not answer, and is not in the plan", do)
        if not members:
            do = "compare by hand: nobody can say whether members outside of the plan still live"
            yield self.warns("", "members answer, but without a quorum they do not list the cluster", do)
        if len(clusters) > 1:
            shown = listed(f"{c:x}" for c in sorted(clusters))
            yield self.warns(
                "", f"the hosts are in different clusters already: {shown}", "find out why before you go on"
            )
        learners = [m.name for m in members.values() if m.is_learner]
        if learners:
            yield self.warns("", f"learners become voters: {listed(learners)}", "remove them afterwards, if need be")
        if members and not strangers:
            yield self.ok("", f"{len(living)} of {len(members)} members answer; all are in the plan")


def _members(result: Result) -> parse.MemberList | None:
    try:
        return parse.member_list(result.out) if result.ok else None
    except parse.ParseError:
        return None


def _planned(plan: Plan, member: parse.Member) -> bool:
    """By peer URL; by name where a host's address has changed."""
    return any(n.name == member.name or set(n.peer_urls) & set(member.peer_urls) for n in plan.nodes)


def nodes_listing(n: Target) -> Command:
    """The nodes, as this host's kubeconfig reaches the API."""
    return replace(kube.kubectl(n, "get", "--raw", "/api/v1/nodes", timeout=LISTING), large=True)


def is_down(said: str) -> bool:
    """What kubectl says where nothing listens, or what listens has no etcd behind it."""
    return any(words in said for words in DOWN)


class ControlPlaneNodes(Check):
    """Every control-plane node that the API server knows is in the plan."""

    at_first = True
    order = 31

    def asks(self, n: Target) -> Sequence[Command]:
        """Any host's own API server may answer."""
        if not is_node(n):
            return ()
        return [nodes_listing(n)]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """By name (kubeadm's node name is the member's), or by address."""
        known: dict[str, parse.KubeNode] = {}
        odd: dict[str, str] = {}
        for node, (result,) in heard(answers, plan.nodes):
            try:
                known |= {n.name: n for n in (parse.nodes(result.out) if result.ok else ())}
                said = "" if result.ok else result.tail(1)
            except parse.ParseError as error:
                said = str(error)
            if said and not is_down(said):
                odd[node.name] = said
        if not known:
            if odd:
                saw = f"the nodes cannot be listed: {'; '.join(f'{host}: {said}' for host, said in odd.items())}"
                yield self.warns("", saw, "compare by hand: is every control-plane node in the plan?")
            else:
                yield self.ok("", "no API server answers: nothing to compare with")
            return
        names = {n.name for n in plan.nodes}
        hosts = {urlsplit(url).hostname for n in plan.nodes for url in n.peer_urls} | {n.host for n in plan.nodes}
        strangers = [
            n for n in known.values() if n.control_plane and n.name not in names and not hosts & set(n.addresses)
        ]
        for who in strangers:
            ready = "Ready" if who.ready else f"not Ready ({who.why})"
            do = f"add it to spec.nodes; if it is gone for good: kubectl delete node {who.name}"
            yield self.blocks("", f"control-plane node {who.name}, {ready}, is not in the plan", do)
        if not strangers:
            count = sum(n.control_plane for n in known.values())
            yield self.ok("", f"{count} control-plane nodes known, all in the plan")

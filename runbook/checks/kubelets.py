"""What each host itself must have: a kubelet that obeys, and the owner that the plan names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook import parse
from runbook.checks import Answers, Check, Finding, Severity, heard, places
from runbook.checks.members import is_down, nodes_listing
from runbook.checks.words import ask, is_node, listed, on, script
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Target
from runbook.tables import duration


class KubeletActive(Check):
    """The kubelet is active on every host."""

    order = 35

    def asks(self, n: Target) -> Sequence[Command]:
        """Systemd's one word."""
        return [ask("systemctl", "is-active", "kubelet")]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A kubelet that does not run stops no pod, and starts none."""
        for place, (result,) in heard(answers, places(plan)):
            state = result.out.strip()
            if result.ok and state == "active":
                yield self.ok(place.name, "active")
            else:
                do = on(place, "systemctl", "start", "kubelet")
                say = self.blocks if isinstance(place, Node) else self.warns  # a worker's stops and starts nothing here
                yield say(place.name, f"the kubelet is {state or result.tail() or 'not active'}", do)


class Runtime(Check):
    """The container runtime answers on every control-plane host."""

    order = 36

    def asks(self, n: Target) -> Sequence[Command]:
        """As the steps ask it."""
        return [ask("crictl", "ps", "-a", "-o", "json")] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Without crictl nobody could say that a container is gone."""
        for node, (result,) in heard(answers, plan.nodes):
            try:
                found = parse.containers(result.out) if result.ok else None
            except parse.ParseError:
                found = None
            if found is None:
                saw = f"`crictl ps` fails: {result.tail()}"
                do = f"set its endpoint in /etc/crictl.yaml, or start the runtime: {on(node, 'crictl', 'info')}"
                yield self.blocks(node.name, saw, do)
            else:
                yield self.ok(node.name, f"{sum(c.running for c in found)} containers run")


class KubeletObeys(Check):
    """The kubelets will stop pods when their manifests go."""

    at_first = True
    severity, order = Severity.WARNS, 37

    def asks(self, n: Target) -> Sequence[Command]:
        """The questions of two other checks, which are put once."""
        return [ask("crictl", "ps", "-a", "-o", "json"), nodes_listing(n)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """One that was started while no API server ran deletes no pod before it has seen one (kubelet's sources)."""
        serving, read = [], False
        for node, (result, nodes) in heard(answers, plan.nodes):
            try:
                found = parse.containers(result.out) if result.ok else ()
            except parse.ParseError:
                continue
            read = read or result.ok
            down = not nodes.ok and is_down(nodes.tail(1))  # in a crash loop its container runs in this moment
            if any(c.running and c.name == "kube-apiserver" for c in found) and not down:
                serving.append(node.name)
        if serving:
            yield self.ok("", f"an API server serves on {listed(serving)}, which the kubelets can have seen")
        elif read:
            wait = duration(plan.timeouts.stop)
            saw = "no API server serves: a kubelet that was started while none did may refuse to stop pods"
            do = (
                f"nothing to do: what a kubelet has not stopped after timeouts.stop ({wait}) is stopped through the "
                "runtime, so each stop may take that long; do not restart a kubelet meanwhile"
            )
            yield self.warns("", saw, do)


OWNER = r"""
getent passwd "$1" > /dev/null || echo "user $1"
getent group "$2" > /dev/null || echo "group $2"
"""


class OwnerExists(Check):
    """The owner that the plan names exists on every control-plane host."""

    order = 65

    def applies(self, plan: Plan) -> bool:
        """By default the new data gets the old data's owner."""
        return plan.owner != "keep"

    def asks(self, n: Target) -> Sequence[Command]:
        """The names that the host does not know."""
        user, _, group = n.plan.owner.partition(":")
        return [script(OWNER, user, group or user)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Numbers need no name."""
        for node, (result,) in heard(answers, plan.nodes):
            unknown = [line for line in result.out.splitlines() if not line.split()[-1].isdigit()]
            if unknown or not result.ok:
                do = "set spec.restore.owner: keep, unless that host's etcd.yaml runs etcd as another user"
                yield self.blocks(node.name, f"there is no {' and no '.join(unknown) or result.tail()}", do)
            else:
                yield self.ok(node.name, plan.owner)

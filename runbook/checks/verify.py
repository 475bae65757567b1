"""After the restore: is the serving cluster well? Asked again and again until it is, or its time is over."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from runbook import parse
from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import is_node, listed, on, script
from runbook.kube import kubectl
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Result, Target

QUICK = 10.0
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
KUBE_SYSTEM = "kube-system"


class OnCluster(Check):
    """A check of the serving cluster, asked on every control-plane host."""

    group = "verify"

    def within(self, plan: Plan) -> float:
        """Controllers need a while to catch up with a restored cluster."""
        return plan.timeouts.nodes_ready

    def asks(self, n: Target) -> Sequence[Command]:
        """The same of every control-plane host."""
        return self.of(n) if is_node(n) else ()

    def of(self, n: Target) -> Sequence[Command]:
        """What to ask of a control-plane host."""
        return ()


LISTING = 30.0
"""Seconds for all nodes or pods of a large cluster."""


class _FromApi(OnCluster):
    """A check of one list of the API, which any API server gives; the first that answers is believed."""

    path = ""

    def of(self, n: Target) -> Sequence[Command]:
        """One request, plain JSON."""
        return [replace(kubectl(n, "get", "--raw", self.path, timeout=LISTING), large=True)]

    def first(self, plan: Plan, answers: Answers) -> tuple[str, str]:
        """The first good answer, and else what was said instead of one."""
        said = []
        for node, (result,) in heard(answers, plan.nodes):
            if result.ok:
                return result.out, ""
            said.append(f"{node.name}: {result.tail(1)}")
        return "", listed(said)


class NodesReady(_FromApi):
    """All nodes are Ready."""

    order, path = 20, "/api/v1/nodes"

    def applies(self, plan: Plan) -> bool:
        """The plan may do without."""
        return plan.verify.nodes_ready

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Which are not, and why; absent ones are known to be silent."""
        text, instead = self.first(plan, answers)
        try:
            nodes = parse.nodes(text) if text else ()
        except parse.ParseError as error:
            nodes, instead = (), str(error)
        waiting = [f"{n.name} ({n.why})" for n in nodes if not n.ready and n.name not in bound.absent]
        if instead and not nodes:
            yield self.blocks("", f"no API server lists the nodes: {instead}", "look at the API servers")
        elif not nodes:
            yield self.blocks("", "the restored cluster has no node at all", "is it the right snapshot?")
        elif waiting:
            do = f"look at a kubelet: {on(plan.nodes[0], 'journalctl', '-u', 'kubelet', '-n', '50')}"
            yield self.blocks("", f"not Ready: {listed(waiting)}", do)
        else:
            but = f", but for {listed(bound.absent)}, which the run goes on without" if bound.absent else ""
            yield self.ok("", f"{sum(n.ready for n in nodes)} nodes Ready{but}")


class Pods(_FromApi):
    """The control-plane pods of every planned node run and are ready."""

    order, path = 30, "/api/v1/pods"

    def applies(self, plan: Plan) -> bool:
        """The plan may do without."""
        return plan.verify.pods

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Control plane blocks; other pods that are not well are only told of: they may have been so before."""
        text, instead = self.first(plan, answers)
        if not text:
            yield self.blocks("", f"no API server lists the pods: {instead}", "look at the API servers")
            return
        try:
            pods = parse.pods(text)
        except parse.ParseError as error:
            yield self.blocks("", str(error), "look at the API servers")
            return
        yield from self._control_plane([n for n in plan.nodes if n.name not in bound.absent], pods)
        unwell = [f"{p.namespace}/{p.name} ({p.waiting or p.phase})" for p in pods if _unwell(p)]
        if unwell:
            more = f" and {len(unwell) - 5} more" if len(unwell) > 5 else ""
            saw = f"other pods are not well: {listed(unwell[:5])}{more}"
            yield self.warns(
                "", saw, "compare with before; pods newer than the snapshot are unknown to the cluster now"
            )

    def _control_plane(self, nodes: Sequence[Node], pods: Sequence[parse.KubePod]) -> Iterator[Finding]:
        mine = {p.name: p for p in pods if p.namespace == KUBE_SYSTEM}
        for node in nodes:
            bad = []
            for component in CONTROL_PLANE:
                pod = mine.get(f"{component}-{node.name}")
                if pod is None:
                    bad.append(f"{component}-{node.name} is missing")
                elif pod.phase != "Running" or not pod.ready or pod.waiting:
                    bad.append(f"{pod.name} is {pod.waiting or pod.phase or 'not started'}, not ready")
            if bad:
                do = f"look at it: {on(node, 'crictl', 'ps', '-a')}"
                yield self.blocks(node.name, "; ".join(bad), do)
            else:
                yield self.ok(node.name, "its control-plane pods are ready")


def _unwell(pod: parse.KubePod) -> bool:
    if pod.namespace == KUBE_SYSTEM and pod.name.startswith(tuple(f"{c}-" for c in CONTROL_PLANE)):
        return False
    return pod.waiting == "CrashLoopBackOff" or (pod.phase in ("Pending", "Unknown") and not pod.deleting)


THERE = r"""
if "$@" > /dev/null; then echo there; else exit 1; fi
"""
"""The kubectl words. What they print may be a Secret: it never leaves the host, nor this shell."""


class _Objects(OnCluster):
    """Objects that must be readable through every host's own API server."""

    @abstractmethod
    def named(self, plan: Plan) -> Mapping[str, str]:
        """What the plan calls each object, and its path in the API."""

    def applies(self, plan: Plan) -> bool:
        """Only where the plan names some."""
        return bool(self.named(plan))

    def of(self, n: Target) -> Sequence[Command]:
        """One request an object; only whether it could be read comes back."""
        gets = (kubectl(n, "get", "--raw", path, timeout=QUICK) for path in self.named(n.plan).values())
        return [script(THERE, *get.words(), timeout=QUICK + 2) for get in gets]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Per host: its API server may use other keys than its neighbour's."""
        names = list(self.named(plan))
        for node, results in heard(answers, plan.nodes):
            bad = [f"{n}: {_reason(r)}" for n, r in zip(names, results, strict=True) if not r.ok]
            if bad:
                do = "is it in the snapshot? For Secrets: has every host the encryption configuration of that time?"
                yield self.blocks(node.name, f"cannot be read: {'; '.join(bad)}", do)
            else:
                yield self.ok(node.name, listed(names))


def _reason(result: Result) -> str:
    """Why kubectl failed: its standard error, which holds no object."""
    return " ".join(result.err.split())[-200:] or f"exit code {result.code}"


class Secrets(_Objects):
    """The named Secrets can be read through every API server."""

    order = 40

    def named(self, plan: Plan) -> Mapping[str, str]:
        """``namespace/name``."""
        pairs = ((s, s.partition("/")) for s in plan.verify.secrets)
        return {s: f"/api/v1/namespaces/{namespace}/secrets/{name}" for s, (namespace, _, name) in pairs}


_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_KINDS = {
    "clusterrole": "clusterroles",
    "clusterrolebinding": "clusterrolebindings",
    "role": "roles",
    "rolebinding": "rolebindings",
}


class Rbac(_Objects):
    """The named roles and bindings can be read through every API server."""

    order = 50

    def named(self, plan: Plan) -> Mapping[str, str]:
        """``clusterrole/name``, ``role/namespace/name``, and the bindings likewise."""
        return {text: rbac_path(text) for text in plan.verify.rbac}


def rbac_path(text: str) -> str:
    """The API path of one entry of ``spec.verify.rbac``."""
    kind, *rest = text.split("/")
    plural = _KINDS[kind.lower()]
    if len(rest) == 1:
        return f"{_RBAC}/{plural}/{quote(rest[0], safe=':')}"
    namespace, name = rest[0], quote(rest[1], safe=":")
    return f"{_RBAC}/namespaces/{namespace}/{plural}/{name}"


class OwnChecks(OnCluster):
    """The plan's own checks pass."""

    order = 60

    def applies(self, plan: Plan) -> bool:
        """Only where the plan has some."""
        return bool(plan.verify.checks)

    def within(self, plan: Plan) -> float:
        """The longest of theirs; all are asked again until all pass."""
        return max((c.within for c in plan.verify.checks), default=0.0)

    def asks(self, n: Target) -> Sequence[Command]:
        """The plan's text, as a shell command, on the hosts that it names; ``all`` are the control-plane hosts."""
        return [_own(c.run, c.within) for c in n.plan.verify.checks if _runs_on(c.on, n.place)]

    def local(self, plan: Plan, bound: Binding) -> Sequence[Command]:
        """Those on the responder's machine."""
        return [_own(c.run, c.within) for c in plan.verify.checks if c.on == "local"]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """By the exit code."""
        yield from self._told("", [c.name for c in plan.verify.checks if c.on == "local"], answers.get("", ()))
        for node, results in heard(answers, plan.nodes):
            yield from self._told(node.name, [c.name for c in plan.verify.checks if _runs_on(c.on, node)], results)

    def _told(self, host: str, names: Sequence[str], results: Sequence[Result]) -> Iterator[Finding]:
        for name, result in zip(names, results, strict=True):
            if result.ok:
                yield self.ok(host, name)
            else:
                saw = f"{name}: exit code {result.code}: {result.tail() or 'it printed nothing'}"
                yield self.blocks(host, saw, "run the check by hand; it is in spec.verify.checks of the plan")


def _own(text: str, within: float) -> Command:
    timeout = max(1.0, min(within, 60.0)) if within else 60.0
    return Command(("sh", "-c", text), timeout, changes=False, stray=True)


def _runs_on(on_: str, place: object) -> bool:
    return isinstance(place, Node) and on_ in ("all", place.name)

"""Words for the static pods: their manifests, their containers and sandboxes, and the ports that they listen on."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from runbook import lastwords, parse
from runbook.procedures import scripts
from runbook.procedures.words import STATIC_PODS, in_run, look, script, silent
from runbook.step import Command, Probe, Result, Target, probe

KUBE_SYSTEM = "kube-system"
API_PORT = 6443
ALONE = 10.0
"""Seconds for the kubelet of a host that joins later to stop a pod, before it is stopped by crictl."""
LISTENING = 10.0
"""Seconds for crictl to tell of a container that has ended."""
METRICS_PORT = 2381
"""Where kubeadm's etcd serves its metrics: opened last, so it tells that the member serves its peers."""


def client_port(n: Target) -> int:
    """Where this host's member listens for clients."""
    return _port(n.node.client_urls, 2379)


def peer_port(n: Target) -> int:
    """Where it listens for its peers."""
    return _port(n.node.peer_urls, 2380)


def etcd_ports(n: Target) -> tuple[int, int]:
    """Both."""
    return client_port(n), peer_port(n)


def _port(urls: Sequence[str], usual: int) -> int:
    try:
        return urlsplit(urls[0]).port or usual
    except (IndexError, ValueError):
        return usual


def _manifests(n: Target) -> tuple[str, str]:
    """Where the kubelet reads them, and where this run's copies are."""
    return n.node.paths.manifests, in_run(n, "manifests")


def save(n: Target) -> Command:
    """Keep durable copies of the manifests in the run's directory."""
    return script(scripts.SAVE, *_manifests(n), *STATIC_PODS, timeout=n.plan.timeouts.command)


def unsave(n: Target) -> Command:
    """Remove those copies, where the manifests themselves are in their places."""
    return script(scripts.UNSAVE, *_manifests(n), *STATIC_PODS, timeout=n.plan.timeouts.command)


def stop(n: Target, *names: str) -> Command:
    """Take manifests out of the kubelet's sight, their saved copies compared first, and wait until their pods are gone.

    Past the deadline, crictl stops them.
    """
    # The kubelet of a host that comes back alone has seen no API server yet, and stops nothing before it has.
    limit = min(n.plan.timeouts.stop, ALONE) if n.bound.joining else n.plan.timeouts.stop
    words = (*_manifests(n), str(max(1, int(limit))), *names)
    return script(scripts.STOP, *words, timeout=limit + 60 * len(names))


def start(n: Target, *names: str, unless: str = "") -> Command:
    """Give manifests back, each whole at once; ``unless``: another one that must not be there yet."""
    return script(scripts.START, *_manifests(n), n.bound.run, unless, *names, timeout=n.plan.timeouts.command)


def in_place(n: Target, *names: str) -> Probe:
    """The manifests are where the kubelet reads them, the same to the byte as the saved ones."""
    files = [f"{name}.yaml" for name in names]
    says = f"{', '.join(files)} in place"
    return look(says, scripts.IN_PLACE, *_manifests(n), *files, timeout=n.plan.timeouts.command)


def unchanged(n: Target) -> Probe:
    """What is in place of the manifests is what this run saved; absent ones are no matter."""
    says, wait = "the manifests are as they were saved", n.plan.timeouts.command
    return look(says, scripts.UNCHANGED, *_manifests(n), *STATIC_PODS, timeout=wait, judge=silent)


def stopped(n: Target, *names: str) -> Probe:
    """The manifests are parked, no container runs, and the kubelet wants no such pod any more."""

    def judge(result: Result) -> str:
        if result.code == 1:
            return silent(result)
        if not result.ok:
            return f"crictl could not say: {result.tail()}"
        listed, _, boxes = result.out.partition("----\n")
        try:
            return _left(n, names, parse.containers(listed), parse.sandboxes(boxes))
        except parse.ParseError as error:
            return str(error)

    says = f"{', '.join(names)} stopped: parked, no container, no pod"
    return look(says, scripts.STOPPED, *_manifests(n), *names, timeout=n.plan.timeouts.command, judge=judge)


def _left(
    n: Target, names: Sequence[str], containers: Sequence[parse.Container], sandboxes: Sequence[parse.Sandbox]
) -> str:
    """What is left of these components on the host, in words; "" where nothing is."""
    found = []
    for name in names:
        alive = [c.id[:13] for c in containers if c.running and (c.name, c.namespace) == (name, KUBE_SYSTEM)]
        if alive:
            found.append(f"{name} still runs: {', '.join(alive)}")
        # By its labels, or by the name that kubeadm's pod has: a manifest may have lost the ones, a node the other.
        ready = [s for s in sandboxes if s.ready and s.namespace == KUBE_SYSTEM]
        pods = [s for s in ready if s.component == name or s.pod == f"{name}-{n.node.name}"]
        if pods and not alive:
            shown = ", ".join(f"{s.pod} ({s.id[:13]})" for s in pods)
            found.append(f"the kubelet still wants {name}, whose pod is ready: {shown}")
    return "; ".join(found)


def runs(n: Target, *names: str) -> Probe:
    """A container of each runs."""

    def judge(result: Result) -> str:
        if not result.ok:
            return f"crictl could not say: {result.tail()}"
        try:
            seen = [c for c in parse.containers(result.out) if c.namespace == KUBE_SYSTEM]
        except parse.ParseError as error:
            return str(error)
        missing = [name for name in names if name not in {c.name for c in seen if c.running}]
        never = [name for name in missing if name not in {c.name for c in seen}]
        why = f", and the kubelet has made no {', '.join(never)}: its log there says why" if never else ""
        return f"no container {', '.join(missing)} runs{why}" if missing else ""

    ask = ("crictl", "ps", "-a", "-o", "json", "--label", f"io.kubernetes.pod.namespace={KUBE_SYSTEM}")
    says = f"{', '.join(names)} run{'s' if len(names) == 1 else ''}"
    return probe(says, Command(ask, n.plan.timeouts.command), judge)


def last_words(n: Target, name: str) -> Probe:
    """The objection is how its newest container that has ended did so, and the end of its log; none where none has.

    Those that ended before this run stopped it are gone (``scripts.STOP``). Where crictl cannot say, there is nothing
    to tell: whether one runs is asked beside this, and says so.
    """
    ask = script(scripts.LAST_WORDS, name, timeout=min(LISTENING, n.plan.timeouts.command), changes=False)
    return probe(f"the last words of {name}", ask, lambda result: lastwords.of(name, result.out))


def closed(n: Target, *ports: int) -> Probe:
    """Nothing listens on these ports of the host."""

    def judge(result: Result) -> str:
        held = _listening(result)
        if held is None:
            return f"ss could not say: {result.tail()}"
        mine = [str(port) for port in ports if port in held]
        return f"something still listens on {', '.join(mine)}" if mine else ""

    says = f"port{'s' if len(ports) > 1 else ''} {', '.join(map(str, ports))} closed"
    return probe(says, Command(("ss", "-Hltn"), n.plan.timeouts.command), judge)


def listens(n: Target, port: int) -> Probe:
    """Something listens on the port: cheap to ask, where asking the server itself would take long to fail."""

    def judge(result: Result) -> str:
        held = _listening(result)
        if held is None:
            return f"ss could not say: {result.tail()}"
        return "" if port in held else f"nothing listens on {port}"

    return probe(f"port {port} open", Command(("ss", "-Hltn"), n.plan.timeouts.command), judge)


def _listening(result: Result) -> set[int] | None:
    """The listening ports in what ``ss -Hltn`` prints; None where it failed."""
    if not result.ok:
        return None
    words = [line.split() for line in result.out.splitlines()]
    ends = [w[3].rsplit(":", 1)[-1] for w in words if len(w) > 3]
    return {int(end) for end in ends if end.isdigit()}

"""What crictl says: the containers of a host, and the sandboxes of its pods, as typed data."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.shape import ParseError, Shape, brief, from_json

__all__ = ["Container", "Sandbox", "containers", "sandboxes"]


@dataclass(frozen=True)
class Container:
    """One container of ``crictl ps -a -o json``; ``state`` is CRI's word, ``CONTAINER_EXITED`` for one.

    Names come from the kubelet's labels: a container's own name may hold "etcd" for many reasons.
    """

    id: str
    name: str
    namespace: str
    pod: str
    state: str
    attempt: int

    @property
    def running(self) -> bool:
        """It runs, or may: whatever is not known to have exited counts as alive."""
        return self.state != "CONTAINER_EXITED"


def containers(text: str) -> tuple[Container, ...]:
    """What ``crictl ps -a -o json`` says; it prints no exit codes (``crictl inspect`` would)."""
    top = Shape(from_json(text, "crictl ps"), "crictl ps")
    if "containers" not in list(top):  # it is printed when empty too: anything else is no list of containers
        raise ParseError(f"crictl ps: no list of containers in {brief(text)}")
    return tuple(_container(c) for c in top.children("containers"))


def _container(c: Shape) -> Container:
    labels, meta = c.maybe("labels"), c.maybe("metadata")
    return Container(
        id=c.text("id"),
        name=labels.text("io.kubernetes.container.name", meta.text("name", "")),
        namespace=labels.text("io.kubernetes.pod.namespace", ""),
        pod=labels.text("io.kubernetes.pod.name", ""),
        state=c.text("state"),
        attempt=meta.number("attempt", 0),
    )


@dataclass(frozen=True)
class Sandbox:
    """One pod's sandbox of ``crictl pods -o json``. ``component`` is a control-plane pod's, as kubeadm labels it.

    The kubelet keeps it ready as long as it wants the pod, also while no container runs in it.
    """

    id: str
    pod: str
    namespace: str
    component: str
    state: str

    @property
    def ready(self) -> bool:
        """Whatever is not known to be stopped counts as ready."""
        return self.state != "SANDBOX_NOTREADY"


def sandboxes(text: str) -> tuple[Sandbox, ...]:
    """What ``crictl pods -o json`` says."""
    top = Shape(from_json(text, "crictl pods"), "crictl pods")
    if "items" not in list(top):  # as with containers
        raise ParseError(f"crictl pods: no list of pods in {brief(text)}")
    return tuple(_sandbox(s) for s in top.children("items"))


def _sandbox(s: Shape) -> Sandbox:
    labels, meta = s.maybe("labels"), s.maybe("metadata")
    control_plane = labels.text("tier", "") == "control-plane"
    return Sandbox(
        id=s.text("id"),
        pod=meta.text("name", labels.text("io.kubernetes.pod.name", "")),
        namespace=meta.text("namespace", labels.text("io.kubernetes.pod.namespace", "")),
        component=labels.text("component", "") if control_plane else "",
        state=s.text("state"),
    )

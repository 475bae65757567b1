"""Is this a control plane of kubeadm's kind at all: static pods, with an etcd of its own on each host?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import is_node, listed, on, script
from runbook.plan import Plan
from runbook.step import Binding, Command, Target

SIGNS = {
    "EKS": ("/etc/eks", "/usr/bin/nodeadm"),
    "GKE": ("/home/kubernetes/kube-env", "/etc/srv/kubernetes"),
    "AKS": ("/opt/azure/containers",),  # azure.json is also on kubeadm's own hosts there
    "k3s": ("/etc/rancher/k3s", "/var/lib/rancher/k3s"),
    "RKE2": ("/etc/rancher/rke2", "/var/lib/rancher/rke2"),
    "MicroK8s": ("/var/snap/microk8s",),
    "k0s": ("/var/lib/k0s", "/etc/k0s"),
    "Talos": ("/etc/machine-config", "/system/state"),
    "OpenShift": ("/etc/kubernetes/static-pod-resources", "/var/lib/openshift"),
}
"""By distribution, directories and files that only its hosts have."""
MANAGED = ("EKS", "GKE", "AKS")
OWN_WAY = {
    "k3s": "k3s server --cluster-reset --cluster-reset-restore-path=FILE",
    "RKE2": "rke2 server --cluster-reset --cluster-reset-restore-path=FILE",
    "MicroK8s": "microk8s dbctl restore FILE",
    "k0s": "k0s restore FILE",
    "Talos": "talosctl bootstrap --recover-from=FILE",
    "OpenShift": "cluster-restore.sh DIRECTORY",
}

LOOK = r"""
dir=$1
shift
[ -e "$dir/etcd.yaml" ] && echo "pod etcd"
[ -e "$dir/kube-apiserver.yaml" ] && echo "pod kube-apiserver"
own="--etcd-servers=https?://(127\.|localhost|\[::1\])"
grep -qE -e "$own" "$dir/kube-apiserver.yaml" 2> /dev/null && echo "own etcd"
for p in "$@"; do [ -e "$p" ] && echo "sign $p"; done
[ "$(systemctl is-active etcd 2> /dev/null)" = active ] && echo "service etcd"
:
"""


def ask(manifests: str) -> Command:
    """What of these signs a host has; read-only."""
    return script(LOOK, manifests, *(path for paths in SIGNS.values() for path in paths))


def named(text: str) -> list[str]:
    """The distributions whose signs :data:`LOOK` found."""
    there = {line.removeprefix("sign ") for line in text.splitlines() if line.startswith("sign ")}
    return [name for name, paths in SIGNS.items() if there & set(paths)]


def refusal(text: str) -> tuple[str, str] | None:
    """What is wrong, and what to do, where a host is none of kubeadm's; None where its two manifests are there."""
    lines = text.splitlines()
    if "pod etcd" in lines:
        return None
    kinds = named(text)
    managed = [kind for kind in kinds if kind in MANAGED]
    if managed:
        saw = f"this is a host of {listed(managed)}: its control plane and its etcd belong to the provider"
        return (
            saw,
            "restore there by the provider's means (its support, or a backup of the objects); not with etcd snapshots",
        )
    if kinds:
        saw = f"this is a host of {listed(kinds)}, which keeps its etcd its own way, not in kubeadm's static pods"
        return saw, f"restore it with its own command: {listed(OWN_WAY[kind] for kind in kinds)}"
    if "service etcd" in lines:
        saw = "etcd runs here as a service of systemd, not as a static pod"
        return saw, "restore it by hand, or with the tools that made it: runbook knows kubeadm's static pods only"
    if "pod kube-apiserver" in lines and "own etcd" not in lines:
        saw = "there is an API server and no etcd.yaml: its etcd is an external one"
        return saw, "restore an external etcd on its own hosts, with its own tools"
    return None  # a lost manifest is another check's to tell


class Distribution(Check):
    """The hosts are kubeadm's: an etcd of their own, in a static pod."""

    order = 3

    def asks(self, n: Target) -> Sequence[Command]:
        """Before all else is asked for that would make no sense there."""
        return [ask(n.node.paths.manifests)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Other kinds are named, with their own way."""
        for node, (result,) in heard(answers, plan.nodes):
            wrong = refusal(result.out)
            if wrong:
                yield self.blocks(node.name, *wrong)
            elif not result.ok:
                yield self.blocks(node.name, f"could not be looked at: {result.tail()}", on(node, "ls", "/etc"))
            else:
                yield self.ok(node.name, "static pods, as kubeadm makes them")

"""The two clients that talk to a cluster from its own hosts: each host asks its own API server and its own member.

A load balancer in front of the API servers is down when they are, so nothing here goes through one.
"""

from __future__ import annotations

from runbook.step import Command, Target

API = "https://127.0.0.1:6443"
API_SERVER_NAME = "kubernetes"
"""kubeadm's API server certificate holds this DNS name, but not 127.0.0.1."""


def kubectl(n: Target, *args: str, timeout: float = 10.0) -> Command:
    """A read-only kubectl command, asked of the host's own API server; ``timeout`` in seconds ends it on the host.

    Without a cache: kubectl would keep one in root's home on the host.
    """
    argv = (
        *("kubectl", "--kubeconfig", n.node.paths.kubeconfig, "--cache-dir", "/dev/null"),
        *("--server", API, "--tls-server-name", API_SERVER_NAME),
        *("--request-timeout", _go(max(1.0, timeout - 2)), *args),
    )
    return Command(argv, timeout, changes=False)


ANY_ETCDCTL = r"""
set -u
command -v -- "$1" > /dev/null 2>&1 && exec "$@"
shift
id=$(timeout 3 crictl ps -q --state Running --label io.kubernetes.pod.namespace=kube-system \
  --label io.kubernetes.container.name=etcd 2> /dev/null | head -n 1)
[ -n "$id" ] || { echo "there is no etcdctl here, and no etcd container that has one" >&2; exit 127; }
exec crictl exec "$id" etcdctl "$@"
"""
"""Etcdctl's words, for the host's own or else the one in etcd's container: kubeadm installs none on the host."""


def etcdctl(n: Target, *args: str, timeout: float = 10.0, early: bool = False, everyone: bool = False) -> Command:
    """A read-only etcdctl command, asked of the host's own member; ``timeout`` in seconds ends it on the host.

    ``everyone``: of each member that takes part. That is ``--cluster``, which finds them itself; where nodes are absent
    they are named, for it would also ask a member that had once been there.

    Then etcdctl asks for the members and then each in turn, each with its own time limit: the limit is
    cut so that one dead member does not use up the time of the others. ``early``: it is asked before the tools are
    staged, so where they are brought along, by any etcdctl that can be found there.
    """
    paths = n.node.paths
    calls = len(n.plan.nodes) + 1 if everyone or "--cluster" in args else 1
    by_name = everyone and bool(n.bound.absent or n.bound.joining)
    asked = n.present if by_name else (n.node,)
    endpoints = ",".join(url for node in asked for url in node.client_urls)
    if everyone and not by_name:
        args = (*args, "--cluster")
    each = max(1.0, (timeout - 1) / calls)
    argv = (
        *(*(_early(n) if early else (staged(n, "etcdctl"),)), f"--endpoints={endpoints}"),
        *(f"--cacert={paths.etcd_ca}", f"--cert={paths.etcd_cert}", f"--key={paths.etcd_key}"),
        *(f"--dial-timeout={_go(min(2.0, each))}", f"--command-timeout={_go(each)}", *args),
    )
    return Command(argv, timeout, changes=False)


def _early(n: Target) -> tuple[str, ...]:
    own = n.plan.tools.etcdctl
    return ("sh", "-c", ANY_ETCDCTL, "runbook", own) if n.plan.tools.upload else (own,)


def staged(n: Target, tool: str) -> str:
    """Which ``etcdctl`` or ``etcdutl`` serves this run: the host's own, or the one that the run brought along."""
    if n.plan.tools.upload:
        return f"{n.run_dir}/tools/{tool}"
    return {"etcdctl": n.plan.tools.etcdctl, "etcdutl": n.plan.tools.etcdutl}[tool]


def _go(seconds: float) -> str:
    return f"{int(seconds * 1000)}ms" if seconds != int(seconds) else f"{int(seconds)}s"

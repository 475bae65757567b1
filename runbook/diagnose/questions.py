"""What is asked of each host, as pure data: the guide's "when to escalate" list, and what one asks for next.

The order matters: what a half dead host still answers at once comes first, and what may hang comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runbook.diagnose import scripts
from runbook.kube import kubectl, staged
from runbook.plan import Node
from runbook.step import Command, Target
from runbook.transport import LOCK

LOG = 2_000_000
"""Bytes of the newest container's log, and of the kubelet's."""
EARLIER = 250_000
"""Bytes of the log of each container before it."""
OTHER = 200_000
"""Bytes of what any other command prints."""
ANSWER = 3.0
"""Seconds for each command; a healthy host needs a fraction of one, and one that hangs shall not cost the rest."""
LONG = 6.0
"""The same for reading a log."""


@dataclass(frozen=True)
class Topic:
    """One file of the archive: its name, what it is about, the commands in words, and the question itself."""

    name: str
    about: str
    shown: str
    command: Command


def topics(n: Target) -> tuple[Topic, ...]:
    """All of one host; the first tells whether it answers at all."""
    return (
        *_host(n),
        *(_node(n) if isinstance(n.place, Node) else ()),
        *_runtime(),
        *(_cluster(n) if _is_node(n) else ()),
    )


def _is_node(n: Target) -> bool:
    return isinstance(n.place, Node)


def _topic(
    name: str, about: str, shown: str, text: str, *words: str, each: float = ANSWER, cap: int = OTHER, commands: int = 2
) -> Topic:
    """``commands``: so many of them may use up their whole time before the host ends all of it."""
    argv = ("sh", "-c", scripts.SAY + text + scripts.END, "runbook", f"{each:g}", str(cap), *words)
    return Topic(name, about, shown, Command(argv, each * commands + 2, changes=False))


def _run(n: Target) -> str:
    """The run's id; "" where none is known on this machine."""
    return "" if n.bound.run.startswith("$") else n.bound.run


def _host(n: Target) -> Sequence[Topic]:
    restore = (n.place.paths.workspace, LOCK, _run(n))
    dirs = (n.node.paths.data_dir, n.node.paths.wal_dir) if _is_node(n) else ()
    tools = ("kubelet", "kubeadm", "kubectl", "crictl", "containerd", "crio")
    mine = (staged(n, "etcdctl"), staged(n, "etcdutl")) if _is_node(n) else ()
    about = "what this run's, or the newest runs', commands printed on this host, the restore's own among them"
    programs = "etcdctl version; etcdutl version; kubelet --version; …"
    return (
        _topic("host", "the host", "uname -a; id; os-release; uptime; free", scripts.HOST),
        _topic("time", "its clock", "date; timedatectl; chronyc tracking; ntpq -pn", scripts.TIME),
        _topic("restore", about, "ls WORKSPACE; cat LOCK; cat WORKSPACE/RUN/commands/*", scripts.RESTORE, *restore),
        _topic("disk", "space, inodes, and etcd's files by name and size", "ls -la; df -h; df -i", scripts.DISK, *dirs),
        _topic("listeners", "who listens, and the peers' connections", "ss -lntp; ss -tn", scripts.LISTENERS),
        _topic("versions", "versions of the programs", programs, scripts.VERSIONS, *mine, *tools),
        _topic("kubelet", "the kubelet's state and settings", "systemctl status kubelet; cat …", scripts.KUBELET),
        _topic("kubelet-log", "the kubelet's log", "journalctl -u kubelet", scripts.KUBELET_LOG, each=LONG, cap=LOG),
        _topic("processes", "the flags that are really used", "ps -o pid,lstart,args", scripts.PROCESSES),
    )


def _node(n: Target) -> Sequence[Topic]:
    paths, pki = n.node.paths, "/etc/kubernetes/pki"
    copies = f"{n.run_dir}/manifests" if _run(n) else ""
    certificates = (paths.etcd_ca, paths.etcd_cert, f"{pki}/ca.crt", f"{pki}/apiserver.crt")
    directories = (paths.manifests, *([copies] if copies else []))
    providers = (paths.manifests, copies, scripts.NAMES)
    about = "the kinds and names of the encryption's providers, never their keys"
    return (
        _topic("manifests", "the static pods: their flags", "ls -la; cat …", scripts.MANIFESTS, *directories),
        _topic("encryption", about, "grep -o … ENCRYPTION-PROVIDER-CONFIG", scripts.ENCRYPTION, *providers),
        _topic("certificates", "names and dates", "openssl x509 -noout -dates …", scripts.CERTIFICATES, *certificates),
    )


def _runtime() -> Sequence[Topic]:
    return (
        _topic("containers", "the containers, exited ones too", "crictl ps -a", scripts.ONE, "crictl", "ps", "-a"),
        _topic("pods", "the pods", "crictl pods", scripts.ONE, "crictl", "pods"),
    )


def _cluster(n: Target) -> Sequence[Topic]:
    own, all_ = n.node.client_urls, [url for node in n.plan.nodes for url in node.client_urls]
    who = "who is in the cluster, as this host's member says"
    return (
        _log("etcd-log", "etcd"),
        _log("apiserver-log", "kube-apiserver"),
        _etcd(n, "etcd-status", "all members, asked from here", all_, "endpoint", "status", "-w", "table"),
        _etcd(n, "etcd-health", "all members, asked from here", all_, "endpoint", "health", "-w", "table"),
        _etcd(n, "etcd-members", who, own, "member", "list", "-w", "table"),
        _etcd(n, "etcd-alarms", "its alarms", own, "alarm", "list"),
        _topic(
            "kubernetes",
            "the API as this host's own API server serves it",
            "kubectl get --raw /version; /readyz; nodes; pods",
            scripts.KUBERNETES,
            *kubectl(n, timeout=ANSWER + 1).words(),
            each=ANSWER + 1,
        ),
    )


def _log(name: str, of: str) -> Topic:
    shown, words = f"crictl logs, of each {of}", (of, f"{ANSWER:g}", str(EARLIER))
    return _topic(name, f"the logs of {of}", shown, scripts.LOG, *words, each=LONG, cap=LOG)


def _etcd(n: Target, name: str, about: str, urls: Sequence[str], *args: str) -> Topic:
    """By the planned URLs, not by ``--cluster``: that asks the members for each other, which wants a quorum."""
    paths, limit = n.node.paths, max(1000, min(3000, int((ANSWER + 2) * 1000 / max(1, len(urls)))))
    flags = (
        *(f"--endpoints={','.join(urls)}", f"--cacert={paths.etcd_ca}", f"--cert={paths.etcd_cert}"),
        *(f"--key={paths.etcd_key}", f"--dial-timeout={min(2000, limit)}ms", f"--command-timeout={limit}ms"),
    )
    words = (staged(n, "etcdctl"), n.plan.tools.etcdctl, *flags, *args)
    text, commands = scripts.ETCDCTL, 1
    if args[:2] == ("member", "list"):
        text, commands = scripts.MEMBERS, 2
        words = (n.node.peer_urls[0], paths.etcd_ca, paths.etcd_cert, paths.etcd_key, *words)
    return _topic(name, about, f"etcdctl {' '.join(args)}", text, *words, each=ANSWER + 3, commands=commands)

"""Words for what serves: etcd before it is stopped and after it was started, the API servers, the kubelets."""

from __future__ import annotations

from collections.abc import Sequence

from runbook import parse
from runbook.kube import etcdctl, kubectl
from runbook.procedures import scripts
from runbook.procedures.pods import API_PORT, client_port, peer_port
from runbook.procedures.words import in_run, script, yes
from runbook.step import Command, Probe, Result, Target, probe


def leader_last(n: Target, *, note: bool) -> Command:
    """Where this member leads, wait until the others have stopped; ``note`` that it served, for the way back."""
    status = etcdctl(n, "endpoint", "status", "-w", "json", timeout=5).words()
    words = (n.run_dir if note else "", str(client_port(n)), str(peer_port(n)), "5", *status)
    return script(scripts.LEADER_LAST, *words, timeout=20, optional=True)


def note_api(n: Target) -> Command:
    """Note that this API server is ready, for who starts it again."""
    ask = kubectl(n, "get", "--raw", "/readyz", timeout=5).words()
    words = (in_run(n, "api-answered"), str(API_PORT), *ask)
    return script(scripts.ANSWERED, *words, timeout=n.plan.timeouts.command, optional=True)


def await_api(n: Target) -> Command:
    """Wait until this API server is ready, where it was before this run stopped it."""
    wait = n.plan.timeouts.api_server
    ask = kubectl(n, "get", "--raw", "/readyz", timeout=5).words()
    words = (in_run(n, "api-answered"), str(int(wait)), *ask)
    return script(scripts.AWAIT, *words, timeout=wait + 15, optional=True)


def await_etcd(n: Target) -> Command:
    """Wait until this member serves, where it did before this run stopped it."""
    wait = n.plan.timeouts.quorum
    ask = etcdctl(n, "endpoint", "health", timeout=5).words()
    words = (in_run(n, "etcd-answered"), str(int(wait)), *ask)
    return script(scripts.AWAIT, *words, timeout=wait + 15, optional=True)


def note_serving(n: Target) -> Sequence[Command]:
    """On the first node: note that its member answers, and holds writes which are about to be discarded."""
    ask = etcdctl(n, "endpoint", "status", timeout=5).words()
    words, wait = (in_run(n, "to-discard"), str(client_port(n)), *ask), n.plan.timeouts.command
    noted = script(scripts.ANSWERED, *words, timeout=wait, optional=True)
    return [noted] if n.name == n.present[0].name else []


def keep_discarded(n: Target) -> Sequence[Command]:
    """On the first node: save what is about to be discarded as a snapshot, where that was noted; best effort."""
    wait = n.plan.timeouts.restore
    save = etcdctl(n, "snapshot", "save", timeout=max(5.0, wait - 15)).words()
    words = (in_run(n, "to-discard"), in_run(n, "discarded.db"), *save)
    kept = script(scripts.KEEP_DISCARDED, *words, timeout=wait, optional=True)
    return [kept] if n.name == n.present[0].name else []


def api_ready(n: Target) -> Probe:
    """This host's own API server says that it is ready."""

    def judge(result: Result) -> str:
        if result.ok:
            return ""
        try:
            failing = parse.readyz(result.out + "\n" + result.err)
        except parse.ParseError:  # no list of checks: refused, timed out, unauthorized, or a proxy's words
            return f"does not answer: {result.tail(1)}"
        return f"not ready: {', '.join(failing) or result.tail(1)}"

    ask = kubectl(n, "get", "--raw", "/readyz?verbose", timeout=10)
    return probe("the API server is ready", ask, judge, slow=True)


def secrets_readable(n: Target) -> Probe:
    """The Secrets that the plan names can be read through this host's API server; no value is fetched off the host."""
    found = Probe()
    for name in n.plan.verify.secrets:
        namespace, secret = name.split("/", 1)
        ask = kubectl(n, "get", "--raw", f"/api/v1/namespaces/{namespace}/secrets/{secret}", timeout=10)
        found &= probe(f"Secret {name} can be read", quiet(ask), yes)
    return found


def quiet(ask: Command) -> Command:
    """The same command with its standard output thrown away on the host: for what may hold a Secret."""
    return Command(("sh", "-c", '"$@" > /dev/null', "runbook", *ask.argv), ask.timeout, changes=False)


def restart_kubelet(n: Target) -> Command:
    """Restart the kubelet, and note it in the run's directory so that it is done once."""
    return script(scripts.RESTART_KUBELET, in_run(n, "kubelet-restarted"), timeout=n.plan.timeouts.command)


def kubelet_restarted(n: Target) -> Probe:
    """The kubelet was restarted by this run and is active."""
    marker = Command(("test", "-e", in_run(n, "kubelet-restarted")), n.plan.timeouts.command)
    active = Command(("systemctl", "is-active", "kubelet"), n.plan.timeouts.command)
    return probe("this run restarted the kubelet", marker, lambda r: "" if r.ok else "not yet restarted") & probe(
        "the kubelet is active", active, lambda r: "" if r.ok else f"the kubelet is {r.out.strip() or 'not active'}"
    )

"""The small words that the steps are written in: each makes one action or one probe, and is defined once, here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runbook import parse
from runbook.kube import etcdctl, kubectl
from runbook.procedures import scripts
from runbook.step import Command, Probe, Result, Target, Upload, probe
from runbook.transport import LOCK

ETCD_PORTS = (2379, 2380)
API_PORT = 6443
ALONE = 10.0
"""Seconds for the kubelet of a host that joins later to stop a container, before it is stopped by crictl."""
METRICS_PORT = 2381
"""Where kubeadm's etcd serves its metrics: opened last, so it tells that the member serves its peers."""
STATIC_PODS = ("etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")


def script(text: str, *words: str, timeout: float, changes: bool = True, optional: bool = False) -> Command:
    """A constant shell text with its positional arguments."""
    return Command(("sh", "-c", text, "runbook", *words), timeout, changes=changes, optional=optional)


def yes(result: Result) -> str:
    """Judges by the exit code alone."""
    return "" if result.ok else (result.tail() or f"exit code {result.code}")


def look(says: str, text: str, *words: str, timeout: float, judge: Callable[[Result], str] = yes) -> Probe:
    """A probe by a constant read-only shell text."""
    return probe(says, script(text, *words, timeout=timeout, changes=False), judge)


def silent(result: Result) -> str:
    """Judges by what it prints: nothing means yes."""
    return " / ".join(result.out.splitlines()) or ("" if result.ok else result.tail())


# Where things are.


def in_run(n: Target, name: str) -> str:
    """A file of the run's directory on the host."""
    return f"{n.run_dir}/{name}"


def data_words(n: Target) -> tuple[str, str, str]:
    """Data directory, WAL directory or "", and the run: what names the hidden children."""
    return n.node.paths.data_dir, n.node.paths.wal_dir, n.bound.run


def restore_words(n: Target) -> tuple[str, ...]:
    """Run directory, data, WAL or "", run."""
    return n.run_dir, *data_words(n)


def swap_words(n: Target) -> tuple[str, ...]:
    """Data, WAL or "", run, run directory."""
    return *data_words(n), n.run_dir


def etcdutl(n: Target) -> str:
    """The etcdutl that serves this run on the host."""
    return in_run(n, "tools/etcdutl") if n.plan.tools.upload else n.plan.tools.etcdutl


# The lock and the run's directory.


def make_run_dir(n: Target) -> Command:
    """The run's directory, of root alone; bare, because the wrapper lives in it."""
    workspace = n.place.paths.workspace
    return Command(
        ("mkdir", "-p", "-m", "0700", "--", workspace, n.run_dir, in_run(n, "commands")),
        n.plan.timeouts.command,
        bare=True,
    )


def lock(n: Target) -> Command:
    """Take the host's one lock for this run, or fail where another run has it."""
    return script(scripts.LOCK, LOCK, n.bound.run, n.bound.holder, timeout=n.plan.timeouts.command)


def unlock(n: Target) -> Command:
    """Release the lock, where it is this run's."""
    return script(scripts.UNLOCK, LOCK, n.bound.run, timeout=n.plan.timeouts.command)


def locked(n: Target) -> Probe:
    """The lock names this run."""

    def judge(result: Result) -> str:
        if f'"run": "{n.bound.run}"' in result.out:
            return ""
        found = result.out.strip()
        return f"{LOCK} names another run: {found}" if found else f"{LOCK} is not there"

    return probe("this run holds the lock", Command(("cat", "--", LOCK), n.plan.timeouts.command), judge)


def unlocked(n: Target) -> Probe:
    """The lock is free, or another run's."""

    def judge(result: Result) -> str:
        return f"{LOCK} still names this run" if f'"run": "{n.bound.run}"' in result.out else ""

    return probe("this run holds no lock", Command(("cat", "--", LOCK), n.plan.timeouts.command), judge)


# Manifests.


def _manifest(n: Target, name: str) -> tuple[str, str, str]:
    return n.node.paths.manifests, in_run(n, "manifests"), name


def save(n: Target, name: str) -> Command:
    """Keep a durable copy of a manifest in the run's directory."""
    return script(scripts.SAVE, *_manifest(n, name), timeout=n.plan.timeouts.command)


def unsave(n: Target, name: str) -> Command:
    """Remove that copy, where the manifest itself is in its place."""
    return script(scripts.UNSAVE, *_manifest(n, name), timeout=n.plan.timeouts.command)


def park(n: Target, name: str) -> Command:
    """Take a manifest out of the kubelet's sight; its saved copy is compared first."""
    return script(scripts.PARK, *_manifest(n, name), timeout=n.plan.timeouts.command)


def unpark(n: Target, name: str) -> Command:
    """Give a manifest back, whole at once."""
    return script(scripts.UNPARK, *_manifest(n, name), n.bound.run, timeout=n.plan.timeouts.command)


def parked(n: Target, *names: str) -> Probe:
    """The manifests are out of the manifests directory, and safe in the run's."""
    return _manifests_are(n, f"{', '.join(names)} parked", scripts.PARKED, *names)


def in_place(n: Target, *names: str) -> Probe:
    """The manifests are where the kubelet reads them, the same to the byte as the saved ones."""
    return _manifests_are(n, f"{', '.join(names)} in place", scripts.IN_PLACE, *names)


def unchanged(n: Target, *names: str) -> Probe:
    """What is in place of the manifests is what this run saved; absent ones are no matter."""
    paths = (n.node.paths.manifests, in_run(n, "manifests"))
    wait = n.plan.timeouts.command
    return look("the manifests are as they were saved", scripts.UNCHANGED, *paths, *names, timeout=wait, judge=silent)


def _manifests_are(n: Target, says: str, text: str, *names: str) -> Probe:
    paths = (n.node.paths.manifests, in_run(n, "manifests"))
    return look(says, text, *paths, *names, timeout=n.plan.timeouts.command)


# Containers and ports.


def stop_etcd(n: Target) -> Sequence[Command]:
    """Park etcd's manifest, the leader's last, and wait until the container is gone."""
    status = etcdctl(n, "endpoint", "status", "-w", "json", timeout=5).words()
    last = script(scripts.LEADER_LAST, "5", *status, timeout=20, optional=True)
    return [last, park(n, "etcd.yaml"), gone(n, "etcd")]


def note_serving(n: Target) -> Sequence[Command]:
    """On the first node: note that its member answers, and holds writes which are about to be discarded."""
    ask = own_member(n, "endpoint", "status", timeout=5).words()
    mark, wait = in_run(n, "to-discard"), n.plan.timeouts.command
    noted = script(scripts.ETCD_ANSWERED, mark, *ask, timeout=wait, optional=True)
    return [noted] if n.name == n.present[0].name else []


def keep_discarded(n: Target) -> Sequence[Command]:
    """On the first node: save what is about to be discarded as a snapshot, where that was noted; best effort."""
    wait = n.plan.timeouts.restore
    save = own_member(n, "snapshot", "save", timeout=max(5.0, wait - 15)).words()
    words = (in_run(n, "to-discard"), in_run(n, "discarded.db"), *save)
    kept = script(scripts.KEEP_DISCARDED, *words, timeout=wait, optional=True)
    return [kept] if n.name == n.present[0].name else []


def gone(n: Target, container: str) -> Command:
    """Wait until the kubelet has stopped the container; past the deadline, stop it by crictl."""
    # The kubelet of a host that comes back alone has seen no API server yet, and stops nothing before it has.
    stop = min(n.plan.timeouts.stop, ALONE) if n.bound.joining else n.plan.timeouts.stop
    return script(scripts.GONE, container, str(max(1, int(stop))), timeout=stop + 60)


def _containers(n: Target, container: str) -> Command:
    argv = ("crictl", "ps", "-a", "-o", "json", "--label", f"io.kubernetes.container.name={container}")
    return Command(argv, n.plan.timeouts.command)


def _alive(result: Result, container: str) -> list[str]:
    """Ids of the kube-system containers of that name which may still run; raises ParseError."""
    return [
        c.id[:13]
        for c in parse.containers(result.out)
        if c.name == container and c.namespace == "kube-system" and c.state != "CONTAINER_EXITED"
    ]


def _judge_containers(container: str, want: bool) -> Callable[[Result], str]:
    def judge(result: Result) -> str:
        if not result.ok:
            return f"crictl could not say: {result.tail()}"
        try:
            alive = _alive(result, container)
        except parse.ParseError as error:
            return str(error)
        if want:
            return "" if alive else f"no container {container} runs"
        return f"{container} still runs: {', '.join(alive)}" if alive else ""

    return judge


def no_container(n: Target, container: str) -> Probe:
    """No container of that name runs."""
    return probe(f"no container {container}", _containers(n, container), _judge_containers(container, want=False))


def runs(n: Target, container: str) -> Probe:
    """A container of that name runs."""
    return probe(f"{container} runs", _containers(n, container), _judge_containers(container, want=True))


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


# Kubernetes.


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

    return probe("the API server is ready", kubectl(n, "get", "--raw", "/readyz?verbose", timeout=10), judge)


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


def restart_kubelet(n: Target) -> Sequence[Command]:
    """Restart the kubelet, and note it in the run's directory so that it is done once."""
    return [
        make_run_dir(n),
        Command(("systemctl", "restart", "kubelet"), n.plan.timeouts.command),
        Command(("touch", "--", in_run(n, "kubelet-restarted")), n.plan.timeouts.command),
    ]


def kubelet_restarted(n: Target) -> Probe:
    """The kubelet was restarted by this run and is active."""
    marker = Command(("test", "-e", in_run(n, "kubelet-restarted")), n.plan.timeouts.command)
    active = Command(("systemctl", "is-active", "kubelet"), n.plan.timeouts.command)
    return probe("this run restarted the kubelet", marker, lambda r: "" if r.ok else "not yet restarted") & probe(
        "the kubelet is active", active, lambda r: "" if r.ok else f"the kubelet is {r.out.strip() or 'not active'}"
    )


# Files of the run.


def same_file(n: Target, name: str, sha256: str) -> Probe:
    """The run's file has this SHA-256."""

    def judge(result: Result) -> str:
        if not result.ok:
            return result.tail()
        seen = result.out.split()[0] if result.out.split() else ""
        return "" if seen == sha256 else f"{in_run(n, name)} has the sha256 {seen}, not {sha256}"

    return look(
        f"{name} has the planned sha256", scripts.DIGEST, in_run(n, name), timeout=n.plan.timeouts.restore, judge=judge
    )


def absent(n: Target, *names: str) -> Probe:
    """None of these files is in the run's directory."""
    paths = [in_run(n, name) for name in names]
    return look(f"{', '.join(names)} removed", scripts.ABSENT, *paths, timeout=n.plan.timeouts.command)


def remove(n: Target, *names: str) -> Command:
    """Remove files of the run's directory."""
    return Command(("rm", "-rf", "--", *(in_run(n, name) for name in names)), n.plan.timeouts.command)


def keep_figures(n: Target) -> Command:
    """Write the snapshot's revision and size, as etcdutl reads them, beside it."""
    words = (etcdutl(n), in_run(n, "snapshot.db"), in_run(n, "snapshot.json"))
    return script(scripts.STATUS, *words, timeout=n.plan.timeouts.restore)


def figures(n: Target) -> Probe:
    """The snapshot's figures are there, and it is not empty."""

    def judge(result: Result) -> str:
        if not result.ok:
            return result.tail()
        try:
            status = parse.snapshot_status(result.out)
        except parse.ParseError as error:
            return str(error)
        return "" if status.total_key > 0 else "etcdutl finds no key in the snapshot"

    ask = Command(("cat", "--", in_run(n, "snapshot.json")), n.plan.timeouts.command)
    return probe("the snapshot holds keys", ask, judge)


def bring(n: Target, name: str, source: str, sha256: str) -> Upload:
    """A tool for the run's directory, executable by root."""
    return Upload(in_run(n, f"tools/{name}"), sha256, source=source, mode=0o700)


def own_member(n: Target, *words: str, timeout: float = 10.0) -> Command:
    """etcdctl, asking this host's own member."""
    return etcdctl(n, *words, timeout=timeout)

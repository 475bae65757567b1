"""Restore etcd on a kubeadm control plane: the whole runbook, top to bottom, in its order.

Everything slow or fallible comes first, while the old cluster still serves. Then stop all, swap all, start all: no step
begins on any host until the one before is done on every host, and undoing them in reverse order is right by
construction. One node is the same procedure. The words are defined in ``words.py``, the cross-member proof in
``proof.py``, the shell texts in ``scripts.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from runbook.plan import Node
from runbook.procedures import scripts
from runbook.procedures.proof import bump_enough, same_data_everywhere
from runbook.procedures.words import (
    API_PORT,
    ETCD_PORTS,
    METRICS_PORT,
    STATIC_PODS,
    absent,
    api_ready,
    bring,
    closed,
    data_words,
    etcdutl,
    figures,
    gone,
    in_place,
    in_run,
    keep_discarded,
    keep_figures,
    kubelet_restarted,
    listens,
    lock,
    locked,
    look,
    make_run_dir,
    no_container,
    note_serving,
    own_member,
    park,
    parked,
    remove,
    restart_kubelet,
    restore_words,
    runs,
    same_file,
    save,
    script,
    secrets_readable,
    silent,
    stop_etcd,
    swap_words,
    unchanged,
    unlock,
    unlocked,
    unpark,
    unsave,
)
from runbook.step import NOTHING, Action, Command, Phase, Probe, Scope, Step, Target, Upload

CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
CONTROLLER_FILES = ("kube-controller-manager.yaml", "kube-scheduler.yaml")


# --- Prepare: the old cluster still serves, and nothing of it is touched. ---


class CheckEverything(Step):
    """Check everything, on all hosts, before anything is touched.

    Read-only. All hosts are asked at once and all findings are told at once; one that blocks ends the run with no
    host changed.
    """

    phase, checks = Phase.PREPARE, "preflight"

    def do(self, n: Target) -> Sequence[Action]:
        return []

    def done(self, n: Target) -> Probe:
        return NOTHING


class LockHosts(Step):
    """Lock the hosts, so that no other run touches them, and make the run's directory.

    One lock a host, at a fixed path, naming the run and who holds it; taken on all hosts or on none.
    """

    phase = Phase.PREPARE

    def do(self, n: Target) -> Sequence[Action]:
        return [make_run_dir(n), lock(n)]

    def done(self, n: Target) -> Probe:
        return locked(n)

    def undo(self, n: Target) -> Sequence[Action]:
        return [unlock(n)]

    def undone(self, n: Target) -> Probe:
        return unlocked(n)


class SaveManifests(Step):
    """Save the four static pod manifests, and stage the plan, on every host.

    The copies are durable before anything is stopped, and outlive a reboot: a manifest later leaves the kubelet's
    directory only where its copy is the same to the byte.
    """

    phase = Phase.PREPARE

    def do(self, n: Target) -> Sequence[Action]:
        plan = Upload(in_run(n, "plan.yaml"), n.plan.text_sha256, content=n.plan.text)
        return [plan, *(save(n, name) for name in STATIC_PODS)]

    def done(self, n: Target) -> Probe:
        return in_place(n, *STATIC_PODS) & same_file(n, "plan.yaml", n.plan.text_sha256)

    def undo(self, n: Target) -> Sequence[Action]:
        return [*(unsave(n, name) for name in STATIC_PODS), remove(n, "plan.yaml")]

    def undone(self, n: Target) -> Probe:
        return absent(n, "plan.yaml", *(f"manifests/{name}" for name in STATIC_PODS))


class StageSnapshot(Step):
    """Stage the snapshot on every host, the same SHA-256 everywhere, and the tools where they are brought along."""

    phase = Phase.PREPARE

    def do(self, n: Target) -> Sequence[Action]:
        snapshot = n.plan.snapshot
        tools: list[Action] = []
        if n.plan.tools.upload:
            tools = [
                Command(("install", "-d", "-m", "0700", "--", in_run(n, "tools")), n.plan.timeouts.command),
                bring(n, "etcdctl", f"{n.plan.tools.upload}/etcdctl", n.bound.etcdctl_sha256),
                bring(n, "etcdutl", f"{n.plan.tools.upload}/etcdutl", n.bound.etcdutl_sha256),
            ]
        upload = Upload(
            in_run(n, "snapshot.db"),
            n.bound.sha256,
            source=str(snapshot.path),
            source_node=snapshot.node,
            timeout=n.plan.timeouts.restore,
        )
        return [*tools, upload, keep_figures(n)]

    def done(self, n: Target) -> Probe:
        return same_file(n, "snapshot.db", n.bound.sha256) & figures(n)

    def undo(self, n: Target) -> Sequence[Action]:
        return [remove(n, "snapshot.db", "snapshot.json", "tools")]

    def undone(self, n: Target) -> Probe:
        return absent(n, "snapshot.db", "snapshot.json", "tools")


class RestoreAside(Step):
    """Restore the snapshot into a hidden child of the data directory, beside the living data, gently.

    Owner, mode and label are the old directory's. The marker is written last, after a sync: a restore that was cut off
    has none, and is never put in place.
    """

    phase = Phase.PREPARE

    def ready(self, n: Target) -> Probe:
        return same_file(n, "snapshot.db", n.bound.sha256)

    def do(self, n: Target) -> Sequence[Action]:
        data, wal, run = data_words(n)
        cluster, wait = n.plan.cluster, n.plan.timeouts.restore
        places = [place for place in (data, wal) if place]
        words = [
            *("nice", "-n", "10", "ionice", "-c", "2", "-n", "7"),
            *(etcdutl(n), "snapshot", "restore", in_run(n, "snapshot.db")),
            *("--name", n.node.name, "--data-dir", f"{data}/.{run}.restoring"),
            *("--initial-cluster", n.plan.initial_cluster, "--initial-cluster-token", n.token),
            *("--initial-advertise-peer-urls", ",".join(n.node.peer_urls)),
        ]
        if wal:
            words += ["--wal-dir", f"{wal}/.{run}.restoring"]
        if cluster.bump_revision:
            words += ["--bump-revision", str(cluster.bump_revision), "--mark-compacted"]
        if n.plan.snapshot.allow_missing_trailer:
            words += ["--skip-hash-check"]
        fit = [script(scripts.FIT, place, f"{place}/.{run}.restored", n.plan.owner, timeout=wait) for place in places]
        return [
            script(scripts.CLEAR, *restore_words(n), timeout=wait),
            Command(tuple(words), wait),
            script(scripts.MOVE, *restore_words(n), timeout=wait),
            *fit,
            script(scripts.SEAL, *restore_words(n), n.bound.sha256, timeout=wait),
        ]

    def done(self, n: Target) -> Probe:
        words = (*restore_words(n), n.bound.sha256)
        return look("restored beside, whole and sealed", scripts.RESTORED, *words, timeout=n.plan.timeouts.command)

    def undo(self, n: Target) -> Sequence[Action]:
        return [script(scripts.UNRESTORE, *restore_words(n), timeout=n.plan.timeouts.restore)]

    def undone(self, n: Target) -> Probe:
        data, wal, run = data_words(n)
        hidden = [f"{place}/.{run}.{name}" for place in (data, wal) if place for name in ("restored", "restoring")]
        says = "nothing restored is left beside the data"
        return look(says, scripts.ABSENT, f"{n.run_dir}/restored", *hidden, timeout=n.plan.timeouts.command)


# --- Outage: stop all, swap all, start all. ---


class StopControllers(Step):
    """Stop the scheduler and the controller-manager on every host: nothing shall act on what is about to go."""

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        words = (*restore_words(n), n.bound.sha256)
        whole = look("restored beside, whole and sealed", scripts.RESTORED, *words, timeout=n.plan.timeouts.command)
        return whole & locked(n) & in_place(n, *STATIC_PODS)

    def do(self, n: Target) -> Sequence[Action]:
        return [*(park(n, name) for name in CONTROLLER_FILES), *(gone(n, name) for name in CONTROLLERS)]

    def done(self, n: Target) -> Probe:
        stopped = no_container(n, CONTROLLERS[0]) & no_container(n, CONTROLLERS[1])
        return (parked(n, *CONTROLLER_FILES) & stopped).within(5)

    def undo(self, n: Target) -> Sequence[Action]:
        return [unpark(n, name) for name in CONTROLLER_FILES]

    def undone(self, n: Target) -> Probe:
        return in_place(n, *CONTROLLER_FILES)


class StopApiServers(Step):
    """Stop the API server on every host, until its container is gone and its port is closed."""

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return no_container(n, CONTROLLERS[0]) & no_container(n, CONTROLLERS[1])

    def do(self, n: Target) -> Sequence[Action]:
        return [park(n, "kube-apiserver.yaml"), gone(n, "kube-apiserver")]

    def done(self, n: Target) -> Probe:
        stopped = no_container(n, "kube-apiserver") & closed(n, API_PORT)
        return (parked(n, "kube-apiserver.yaml") & stopped).within(10)

    def undo(self, n: Target) -> Sequence[Action]:
        return [unpark(n, "kube-apiserver.yaml")]

    def undone(self, n: Target) -> Probe:
        return in_place(n, "kube-apiserver.yaml")


class StopEtcd(Step):
    """Stop etcd on every host, until its container is gone and its ports are closed.

    First, with every API server down and nobody left to write, the last living revision is read: the restored one must
    be above it.
    """

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return no_container(n, "kube-apiserver") & bump_enough(n)

    def do(self, n: Target) -> Sequence[Action]:
        ask = own_member(n, "endpoint", "health", timeout=5).words()
        noted = script(
            scripts.ETCD_ANSWERED, in_run(n, "etcd-answered"), *ask, timeout=n.plan.timeouts.command, optional=True
        )
        return [noted, *stop_etcd(n)]

    def done(self, n: Target) -> Probe:
        return (parked(n, "etcd.yaml") & no_container(n, "etcd") & closed(n, *ETCD_PORTS)).within(10)

    def undo(self, n: Target) -> Sequence[Action]:
        wait = n.plan.timeouts.quorum
        ask = own_member(n, "endpoint", "health", timeout=5).words()
        words = (in_run(n, "etcd-answered"), str(int(wait)), *ask)
        return [unpark(n, "etcd.yaml"), script(scripts.AWAIT_ETCD, *words, timeout=wait + 15, optional=True)]

    def undone(self, n: Target) -> Probe:
        return in_place(n, "etcd.yaml")


class SwapData(Step):
    """Swap the data on every host: the old aside, the restored in its place, by renames, then a sync.

    One script with three states that it recognises: old in place, between, new in place. The old data stays beside,
    complete, until `finish`. Undone, what was in place is renamed to `discarded`, never removed. Whoever put etcd's
    manifest back in the meantime, by hand or by a tool: it is parked again first, for data never moves under etcd.
    """

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return parked(n, "etcd.yaml", "kube-apiserver.yaml") & no_container(n, "etcd") & closed(n, *ETCD_PORTS)

    def do(self, n: Target) -> Sequence[Action]:
        swap = script(scripts.SWAP, *swap_words(n), timeout=n.plan.timeouts.command)
        return [park(n, "etcd.yaml"), gone(n, "etcd"), swap]

    def done(self, n: Target) -> Probe:
        return look("the restored data is in place", scripts.SWAPPED, *swap_words(n), timeout=n.plan.timeouts.command)

    def undo(self, n: Target) -> Sequence[Action]:
        swap_back = script(scripts.SWAP_BACK, *swap_words(n), timeout=n.plan.timeouts.command)
        return [park(n, "etcd.yaml"), gone(n, "etcd"), swap_back]

    def undone(self, n: Target) -> Probe:
        says = "the old data is in place"
        return look(says, scripts.UNSWAPPED, *swap_words(n), timeout=n.plan.timeouts.command)


class StartEtcd(Step):
    """Start etcd on every host, until all members prove that they hold the same, restored data.

    One shortly after the other: kubeadm's etcd compares its data with its peers' before it serves, and members that
    start in the same moment wait seven seconds for each other's answer.
    """

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return look("the restored data is in place", scripts.SWAPPED, *swap_words(n), timeout=n.plan.timeouts.command)

    def do(self, n: Target) -> Sequence[Action]:
        return [unpark(n, "etcd.yaml")]

    def turn(self, n: Target) -> Probe:
        return listens(n, METRICS_PORT).within(5)

    def done(self, n: Target) -> Probe:
        up = in_place(n, "etcd.yaml") & runs(n, "etcd") & listens(n, ETCD_PORTS[0])
        return (up & same_data_everywhere(n)).within(n.plan.timeouts.quorum)

    def undo(self, n: Target) -> Sequence[Action]:
        return [*keep_discarded(n), *stop_etcd(n)]

    def undone(self, n: Target) -> Probe:
        return (parked(n, "etcd.yaml") & no_container(n, "etcd") & closed(n, *ETCD_PORTS)).within(10)


class StartApiServers(Step):
    """Start the API server on every host, until each says that it is ready.

    From here on the restored cluster takes writes, so going back throws them away and needs consent. It saves them
    first: once every API server is gone, and before etcd is stopped, the first node keeps a snapshot, `discarded.db`.
    """

    phase, consent = Phase.OUTAGE, True

    def ready(self, n: Target) -> Probe:
        return same_data_everywhere(n, brief=True).within(n.plan.timeouts.quorum)

    def do(self, n: Target) -> Sequence[Action]:
        return [unpark(n, "kube-apiserver.yaml")]

    def done(self, n: Target) -> Probe:
        up = in_place(n, "kube-apiserver.yaml") & runs(n, "kube-apiserver") & listens(n, API_PORT) & api_ready(n)
        return up.within(n.plan.timeouts.api_server)

    def undo(self, n: Target) -> Sequence[Action]:
        return [park(n, "kube-apiserver.yaml"), gone(n, "kube-apiserver"), *note_serving(n)]

    def undone(self, n: Target) -> Probe:
        return (parked(n, "kube-apiserver.yaml") & no_container(n, "kube-apiserver") & closed(n, API_PORT)).within(10)


class StartControllers(Step):
    """Start the scheduler and the controller-manager, once the named Secrets can be read."""

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return (api_ready(n) & secrets_readable(n)).within(30)

    def do(self, n: Target) -> Sequence[Action]:
        return [unpark(n, name) for name in CONTROLLER_FILES]

    def done(self, n: Target) -> Probe:
        up = runs(n, CONTROLLERS[0]) & runs(n, CONTROLLERS[1])
        return (in_place(n, *CONTROLLER_FILES) & up).within(n.plan.timeouts.stop)

    def undo(self, n: Target) -> Sequence[Action]:
        return [*(park(n, name) for name in CONTROLLER_FILES), *(gone(n, name) for name in CONTROLLERS)]

    def undone(self, n: Target) -> Probe:
        stopped = no_container(n, CONTROLLERS[0]) & no_container(n, CONTROLLERS[1])
        return (parked(n, *CONTROLLER_FILES) & stopped).within(5)


# --- Verify: the restored cluster serves; is it well? ---


class RestartKubelets(Step):
    """Restart the kubelets of the control plane: their view of the pods is older than the restored one."""

    phase = Phase.VERIFY

    def do(self, n: Target) -> Sequence[Action]:
        return restart_kubelet(n)

    def done(self, n: Target) -> Probe:
        return kubelet_restarted(n).within(n.plan.timeouts.command)


class RestartWorkerKubelets(Step):
    """Restart the workers' kubelets, which may run pods that the restored cluster does not know."""

    phase, on = Phase.VERIFY, Scope.WORKERS

    def do(self, n: Target) -> Sequence[Action]:
        return restart_kubelet(n)

    def done(self, n: Target) -> Probe:
        return kubelet_restarted(n).within(n.plan.timeouts.command)


class VerifyCluster(Step):
    """Verify nodes, pods, Secrets, RBAC, and the plan's own checks."""

    phase, checks = Phase.VERIFY, "verify"

    def do(self, n: Target) -> Sequence[Action]:
        return []

    def done(self, n: Target) -> Probe:
        return NOTHING


STEPS: tuple[Step, ...] = (
    CheckEverything(),
    LockHosts(),
    SaveManifests(),
    StageSnapshot(),
    RestoreAside(),
    StopControllers(),
    StopApiServers(),
    StopEtcd(),
    SwapData(),
    StartEtcd(),
    StartApiServers(),
    StartControllers(),
    RestartKubelets(),
    RestartWorkerKubelets(),
    VerifyCluster(),
)


LOCK_STEP = STEPS[1]


def may_roll_back(n: Target) -> Probe:
    """Nobody has put other data in place, removed the old, or changed a manifest, since this run did its part.

    Going back would throw a later run's data away, or get stuck half-way: at a manifest that is not the saved one, or
    at one host without its old data when the others have theirs in place.
    """
    data, _, run = data_words(n)
    wait = n.plan.timeouts.command
    mine = look("the data in place is this run's", scripts.LATER, data, run, n.run_dir, timeout=wait, judge=silent)
    there = look("the old data is kept", scripts.KEPT, data, run, n.run_dir, timeout=wait, judge=silent)
    return mine & there & unchanged(n, *STATIC_PODS)


def sweep(n: Target) -> Sequence[Command]:
    """What `finish` removes from a host: the run's directory and its hidden children, and nothing else."""
    words = swap_words(n) if isinstance(n.place, Node) else ("", "", n.bound.run, n.run_dir)
    return [Command(("sh", "-c", scripts.SWEEP, "runbook", *words), n.plan.timeouts.restore, bare=True)]

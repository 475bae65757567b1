"""Restore etcd on a kubeadm control plane: the whole runbook, top to bottom, in its order.

Everything slow or fallible comes first, while the old cluster still serves. Then stop all, swap all, start all: no step
begins on any host until the one before is done on every host, and undoing them in reverse order is right by
construction. One node is the same procedure. Each word is defined in the module that it names (``pods.stop`` in
``pods.py``), the cross-member proof in ``proof.py``, the shell texts in ``scripts/``.
"""

from __future__ import annotations

from collections.abc import Sequence

from runbook.procedures import cluster, data, host, pods
from runbook.procedures.proof import bump_enough, same_data_everywhere
from runbook.procedures.words import COMPONENTS, STATIC_PODS, in_run
from runbook.step import NOTHING, Action, Phase, Probe, Scope, Step, Target, Upload

STAGED = ("snapshot.db", "snapshot.db.proven", "snapshot.json", "living.json", "tools")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


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
        return [host.make_run_dir(n), host.lock(n)]

    def done(self, n: Target) -> Probe:
        return host.locked(n)

    def undo(self, n: Target) -> Sequence[Action]:
        return [host.unlock(n)]

    def undone(self, n: Target) -> Probe:
        return host.unlocked(n)


class SaveManifests(Step):
    """Save the four static pod manifests, and stage the plan, on every host.

    The copies are durable before anything is stopped, and outlive a reboot: a manifest later leaves the kubelet's
    directory only where its copy is the same to the byte. The plan stays there until `finish`, beside the journal:
    whoever takes the run over in the last moment of a rollback needs it.
    """

    phase = Phase.PREPARE

    def do(self, n: Target) -> Sequence[Action]:
        return [Upload(in_run(n, "plan.yaml"), n.plan.text_sha256, content=n.plan.text), pods.save(n)]

    def done(self, n: Target) -> Probe:
        return pods.in_place(n, *COMPONENTS) & host.same_file(n, "plan.yaml", n.plan.text_sha256)

    def undo(self, n: Target) -> Sequence[Action]:
        return [pods.unsave(n)]

    def undone(self, n: Target) -> Probe:
        return host.absent(n, *(f"manifests/{name}" for name in STATIC_PODS))


class StageSnapshot(Step):
    """Stage the snapshot on every host, the same SHA-256 everywhere, and the tools where they are brought along.

    What the living etcd says of itself now is noted beside it, for the bump.
    """

    phase, supplied = Phase.PREPARE, True

    def do(self, n: Target) -> Sequence[Action]:
        tools: list[Action] = []
        if n.plan.tools.upload:
            tools = [
                host.make_dir(n, "tools"),
                host.bring(n, "etcdctl", f"{n.plan.tools.upload}/etcdctl", n.bound.etcdctl_sha256),
                host.bring(n, "etcdutl", f"{n.plan.tools.upload}/etcdutl", n.bound.etcdutl_sha256),
            ]
        return [*tools, host.bring_snapshot(n), data.keep_figures(n)]

    def done(self, n: Target) -> Probe:
        return host.proven_file(n, "snapshot.db", n.bound.sha256) & data.figures(n)

    def undo(self, n: Target) -> Sequence[Action]:
        return [host.remove(n, *STAGED)]

    def undone(self, n: Target) -> Probe:
        return host.absent(n, *STAGED)


class RestoreAside(Step):
    """Restore the snapshot into a hidden child of the data directory, beside the living data, gently.

    Owner, mode and label are the old directory's. The marker is written last, after a sync: a restore that was cut off
    has none, and is never put in place.
    """

    phase = Phase.PREPARE

    def ready(self, n: Target) -> Probe:
        return host.proven_file(n, "snapshot.db", n.bound.sha256)

    def do(self, n: Target) -> Sequence[Action]:
        return [data.restore(n)]

    def done(self, n: Target) -> Probe:
        return data.restored(n)

    def undo(self, n: Target) -> Sequence[Action]:
        return [data.unrestore(n)]

    def undone(self, n: Target) -> Probe:
        return data.unrestored(n)


# --- Outage: stop all, swap all, start all. ---


class StopControllers(Step):
    """Stop the scheduler and the controller-manager on every host: nothing shall act on what is about to go."""

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return data.restored(n) & host.locked(n) & pods.in_place(n, *COMPONENTS)

    def do(self, n: Target) -> Sequence[Action]:
        return [pods.stop(n, *CONTROLLERS)]

    def done(self, n: Target) -> Probe:
        return pods.stopped(n, *CONTROLLERS).within(5)

    def undo(self, n: Target) -> Sequence[Action]:
        return [pods.start(n, *CONTROLLERS)]

    def undone(self, n: Target) -> Probe:
        return pods.in_place(n, *CONTROLLERS)


class StopApiServers(Step):
    """Stop the API server on every host, until its container is gone and its port is closed.

    Undone, it is started once etcd serves, and waited for where it had been ready: then the old cluster serves again.
    """

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return pods.stopped(n, *CONTROLLERS)

    def do(self, n: Target) -> Sequence[Action]:
        return [cluster.note_api(n), pods.stop(n, "kube-apiserver")]

    def done(self, n: Target) -> Probe:
        return (pods.stopped(n, "kube-apiserver") & pods.closed(n, pods.API_PORT)).within(10)

    def undo(self, n: Target) -> Sequence[Action]:
        return [cluster.await_etcd(n), pods.start(n, "kube-apiserver"), cluster.await_api(n)]

    def undone(self, n: Target) -> Probe:
        return pods.in_place(n, "kube-apiserver")


class StopEtcd(Step):
    """Stop etcd on every host, until its container is gone and its ports are closed.

    First, with every API server down and nobody left to write, the last living revision is read: the restored one must
    be above it. Undone, the members start one shortly after the other, as in their own step, and are waited for by
    the API servers.
    """

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return pods.stopped(n, "kube-apiserver") & pods.closed(n, pods.API_PORT) & bump_enough(n)

    def do(self, n: Target) -> Sequence[Action]:
        return [cluster.leader_last(n, note=True), pods.stop(n, "etcd")]

    def done(self, n: Target) -> Probe:
        return (pods.stopped(n, "etcd") & pods.closed(n, *pods.etcd_ports(n))).within(10)

    def undo(self, n: Target) -> Sequence[Action]:
        return [pods.start(n, "etcd")]

    def turn_back(self, n: Target) -> Probe:
        return pods.listens(n, pods.METRICS_PORT).within(5)

    def undone(self, n: Target) -> Probe:
        return pods.in_place(n, "etcd")


class SwapData(Step):
    """Swap the data on every host: the old aside, the restored in its place, by renames, then a sync.

    One script with three states that it recognises: old in place, between, new in place. The old data stays beside,
    complete, until `finish`. Undone, what was in place is renamed to `discarded`, never removed. Whoever put etcd's or
    the API server's manifest back in the meantime, by hand or by a tool: it is parked again first, for data never moves
    under either.
    """

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return pods.stopped(n, "etcd", "kube-apiserver") & pods.closed(n, *pods.etcd_ports(n), pods.API_PORT)

    def do(self, n: Target) -> Sequence[Action]:
        return [pods.stop(n, "etcd", "kube-apiserver"), data.swap(n)]

    def done(self, n: Target) -> Probe:
        return data.swapped(n)

    def undo(self, n: Target) -> Sequence[Action]:
        return [pods.stop(n, "etcd", "kube-apiserver"), data.swap_back(n)]

    def undone(self, n: Target) -> Probe:
        return data.unswapped(n)


class StartEtcd(Step):
    """Start etcd on every host, until all members prove that they hold the same, restored data.

    One shortly after the other: kubeadm's etcd compares its data with its peers' before it serves, and members that
    start in the same moment wait seven seconds for each other's answer. No API server may be there yet: it would write
    before the proof.
    """

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return data.swapped(n) & pods.stopped(n, "kube-apiserver") & pods.closed(n, pods.API_PORT)

    def do(self, n: Target) -> Sequence[Action]:
        return [pods.start(n, "etcd", unless="kube-apiserver")]

    def turn(self, n: Target) -> Probe:
        return pods.listens(n, pods.METRICS_PORT).within(5)

    def done(self, n: Target) -> Probe:
        up = pods.in_place(n, "etcd") & pods.runs(n, "etcd") & pods.listens(n, pods.client_port(n))
        return (up & same_data_everywhere(n)).within(n.plan.timeouts.quorum)

    def clue(self, n: Target) -> Probe:
        return pods.last_words(n, "etcd")

    def undo(self, n: Target) -> Sequence[Action]:
        return [*cluster.keep_discarded(n), cluster.leader_last(n, note=False), pods.stop(n, "etcd")]

    def undone(self, n: Target) -> Probe:
        return (pods.stopped(n, "etcd") & pods.closed(n, *pods.etcd_ports(n))).within(10)


class StartApiServers(Step):
    """Start the API server on every host, until each says that it is ready.

    From here on the restored cluster takes writes, so going back throws them away and needs consent. It saves them
    first: once every API server is gone, and before etcd is stopped, the first node keeps a snapshot, `discarded.db`.
    """

    phase, consent = Phase.OUTAGE, True

    def ready(self, n: Target) -> Probe:
        return same_data_everywhere(n, brief=True).within(n.plan.timeouts.quorum)

    def do(self, n: Target) -> Sequence[Action]:
        return [pods.start(n, "kube-apiserver")]

    def done(self, n: Target) -> Probe:
        up = (
            pods.in_place(n, "kube-apiserver")
            & pods.runs(n, "kube-apiserver")
            & pods.listens(n, pods.API_PORT)
            & cluster.api_ready(n)
        )
        return up.within(n.plan.timeouts.api_server)

    def clue(self, n: Target) -> Probe:
        return pods.last_words(n, "kube-apiserver")

    def undo(self, n: Target) -> Sequence[Action]:
        return [pods.stop(n, "kube-apiserver"), *cluster.note_serving(n)]

    def undone(self, n: Target) -> Probe:
        return (pods.stopped(n, "kube-apiserver") & pods.closed(n, pods.API_PORT)).within(10)


class StartControllers(Step):
    """Start the scheduler and the controller-manager, once the named Secrets can be read."""

    phase = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return (cluster.api_ready(n) & cluster.secrets_readable(n)).within(30)

    def do(self, n: Target) -> Sequence[Action]:
        return [pods.start(n, *CONTROLLERS)]

    def done(self, n: Target) -> Probe:
        return (pods.in_place(n, *CONTROLLERS) & pods.runs(n, *CONTROLLERS)).within(n.plan.timeouts.stop)

    def undo(self, n: Target) -> Sequence[Action]:
        return [pods.stop(n, *CONTROLLERS)]

    def undone(self, n: Target) -> Probe:
        return pods.stopped(n, *CONTROLLERS).within(5)


# --- Verify: the restored cluster serves; is it well? ---


class RestartKubelets(Step):
    """Restart the kubelets of the control plane: their view of the pods is older than the restored one."""

    phase = Phase.VERIFY

    def do(self, n: Target) -> Sequence[Action]:
        return [cluster.restart_kubelet(n)]

    def done(self, n: Target) -> Probe:
        return cluster.kubelet_restarted(n).within(n.plan.timeouts.command)


class RestartWorkerKubelets(Step):
    """Restart the workers' kubelets, which may run pods that the restored cluster does not know."""

    phase, on = Phase.VERIFY, Scope.WORKERS

    def do(self, n: Target) -> Sequence[Action]:
        return [host.make_run_dir(n), cluster.restart_kubelet(n)]

    def done(self, n: Target) -> Probe:
        return cluster.kubelet_restarted(n).within(n.plan.timeouts.command)


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
    return data.mine(n) & data.kept(n) & pods.unchanged(n)

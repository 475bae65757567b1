"""Words for the data: the snapshot's figures, the restored data, and the swap."""

from __future__ import annotations

from collections.abc import Sequence

from runbook import parse
from runbook.kube import etcdctl
from runbook.plan import Node
from runbook.procedures import scripts
from runbook.procedures.words import data_words, in_run, look, restore_words, script, silent, swap_words
from runbook.step import Command, Probe, Result, Target, probe


def etcdutl(n: Target) -> str:
    """The etcdutl that serves this run on the host."""
    return in_run(n, "tools/etcdutl") if n.plan.tools.upload else n.plan.tools.etcdutl


def keep_figures(n: Target) -> Command:
    """Write the snapshot's revision and size, as etcdutl reads them, beside it; and the living etcd's status."""
    status = etcdctl(n, "endpoint", "status", "-w", "json", timeout=5).words()
    return script(scripts.FIGURES, etcdutl(n), n.run_dir, *status, timeout=n.plan.timeouts.restore)


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


def restore(n: Target) -> Command:
    """Restore the staged snapshot beside the living data, gently, as a new cluster of the plan's members."""
    data, wal, run = data_words(n)
    cluster = n.plan.cluster
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
    before = (*restore_words(n), n.bound.sha256, n.plan.owner)
    return script(scripts.RESTORE, *before, *words, timeout=n.plan.timeouts.restore)


def restored(n: Target) -> Probe:
    """The restored data is there, whole: its marker says so."""
    words = (*restore_words(n), n.bound.sha256)
    return look("restored beside, whole and sealed", scripts.RESTORED, *words, timeout=n.plan.timeouts.command)


def swapped(n: Target) -> Probe:
    """The restored data is where etcd looks for it."""
    return look("the restored data is in place", scripts.SWAPPED, *swap_words(n), timeout=n.plan.timeouts.command)


def unrestore(n: Target) -> Command:
    """Remove what was restored beside, and what is half restored."""
    return script(scripts.UNRESTORE, *restore_words(n), timeout=n.plan.timeouts.restore)


def unrestored(n: Target) -> Probe:
    """Nothing restored is left beside the data."""
    data, wal, run = data_words(n)
    names = ("restored", "restoring", "restoring.tmp")
    hidden = [f"{place}/.{run}.{name}" for place in (data, wal) if place for name in names]
    says = "nothing restored is left beside the data"
    return look(says, scripts.ABSENT, f"{n.run_dir}/restored", *hidden, timeout=n.plan.timeouts.command)


def swap(n: Target) -> Command:
    """Put the living data aside, and the restored in its place."""
    return script(scripts.SWAP, *swap_words(n), timeout=n.plan.timeouts.command)


def swap_back(n: Target) -> Command:
    """Put what is in place aside, to be kept, and the old data back."""
    return script(scripts.SWAP_BACK, *swap_words(n), timeout=n.plan.timeouts.command)


def unswapped(n: Target) -> Probe:
    """The old data is where etcd looks for it."""
    return look("the old data is in place", scripts.UNSWAPPED, *swap_words(n), timeout=n.plan.timeouts.command)


def mine(n: Target) -> Probe:
    """The data in place is not another, later run's."""
    data, _, run = data_words(n)
    wait = n.plan.timeouts.command
    return look("the data in place is this run's", scripts.LATER, data, run, n.run_dir, timeout=wait, judge=silent)


def kept(n: Target) -> Probe:
    """The old data is still where this run put it aside."""
    return look("the old data is kept", scripts.KEPT, *swap_words(n), timeout=n.plan.timeouts.command, judge=silent)


def swept(n: Target) -> Probe:
    """Nothing of the run is left on the host: no directory, no hidden child."""
    data, wal, run = data_words(n)
    names = ("restored", "restoring", "restoring.tmp", "old", "discarded")
    hidden = [f"{place}/.{run}.{name}" for place in (data, wal) if place for name in names]
    wait = n.plan.timeouts.command
    return look("nothing of the run is left", scripts.ABSENT, n.run_dir, *hidden, timeout=wait)


def sweep(n: Target) -> Sequence[Command]:
    """What `finish` removes from a host: the run's directory and its hidden children, and nothing else."""
    words = swap_words(n) if isinstance(n.place, Node) else ("", "", n.bound.run, n.run_dir)
    return [Command(("sh", "-c", scripts.SWEEP, "runbook", *words), n.plan.timeouts.restore, bare=True)]

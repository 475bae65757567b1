"""Words for the run's own place on a host: the lock, the run's directory, files of it."""

from __future__ import annotations

from dataclasses import replace

from runbook.procedures import scripts
from runbook.procedures.words import in_run, look, script
from runbook.step import Command, Probe, Result, Target, Upload, probe
from runbook.transport import LOCK


def make_run_dir(n: Target) -> Command:
    """The run's directory, of root alone; bare, because the wrapper lives in it."""
    words = (n.place.paths.workspace, n.run_dir, in_run(n, "commands"))
    return replace(script(scripts.MAKE_DIR, *words, timeout=n.plan.timeouts.command), bare=True)


def make_dir(n: Target, name: str) -> Command:
    """A directory in the run's."""
    return script(scripts.MAKE_DIR, in_run(n, name), timeout=n.plan.timeouts.command)


def lock(n: Target) -> Command:
    """Take the host's one lock for this run, or fail where another run has it."""
    return script(scripts.LOCK, LOCK, n.bound.run, n.bound.holder, n.run_dir, timeout=n.plan.timeouts.command)


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


def same_file(n: Target, name: str, sha256: str) -> Probe:
    """The run's file has this SHA-256; for a small file."""
    return _of_sha256(n, name, sha256, scripts.DIGEST, in_run(n, name))


def proven_file(n: Target, name: str, sha256: str) -> Probe:
    """The same for a large one: it is read only where somebody touched it, or the host was down, since the upload.

    And where the file itself has no checksum that the restore would look at.
    """
    if n.plan.snapshot.allow_missing_trailer:
        return _of_sha256(n, name, sha256, scripts.DIGEST, in_run(n, name), slow=True)
    return _of_sha256(n, name, sha256, scripts.PROVEN, in_run(n, name), sha256, slow=True)


def _of_sha256(n: Target, name: str, sha256: str, text: str, *words: str, slow: bool = False) -> Probe:
    def judge(result: Result) -> str:
        if not result.ok:
            return result.tail()
        seen = result.out.split()[0] if result.out.split() else ""
        return "" if seen == sha256 else f"{in_run(n, name)} has the sha256 {seen}, not {sha256}"

    says, wait = f"{name} has the planned sha256", n.plan.timeouts.restore
    return look(says, text, *words, timeout=wait, judge=judge, slow=slow)


def absent(n: Target, *names: str) -> Probe:
    """None of these files is in the run's directory."""
    paths = [in_run(n, name) for name in names]
    return look(f"{', '.join(names)} removed", scripts.ABSENT, *paths, timeout=n.plan.timeouts.command)


def remove(n: Target, *names: str) -> Command:
    """Remove files of the run's directory."""
    return Command(("rm", "-rf", "--", *(in_run(n, name) for name in names)), n.plan.timeouts.command)


def bring(n: Target, name: str, source: str, sha256: str) -> Upload:
    """A tool for the run's directory, executable by root."""
    return Upload(in_run(n, f"tools/{name}"), sha256, source=source, mode=0o700)


def bring_snapshot(n: Target) -> Upload:
    """The snapshot for the run's directory: from this machine, or from the node whose disk holds it."""
    source = n.plan.snapshot
    return Upload(
        in_run(n, "snapshot.db"),
        n.bound.sha256,
        source=str(source.path) if source.node else source.sent,
        source_node=source.node,
        timeout=n.plan.timeouts.restore,
        named=source.shown if source.store else "",
    )

"""The small words that all others are made of: a shell text as a command or a probe, and where things are."""

from __future__ import annotations

from collections.abc import Callable

from runbook.step import Command, Probe, Result, Target, probe

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
STATIC_PODS = tuple(f"{name}.yaml" for name in COMPONENTS)
"""kubeadm's static pods: each component's manifest has its name, and so has the container in it."""


def script(text: str, *words: str, timeout: float, changes: bool = True, optional: bool = False) -> Command:
    """A constant shell text with its positional arguments."""
    return Command(("sh", "-c", text, "runbook", *words), timeout, changes=changes, optional=optional)


def yes(result: Result) -> str:
    """Judges by the exit code alone."""
    return "" if result.ok else (result.tail() or f"exit code {result.code}")


def look(
    says: str, text: str, *words: str, timeout: float, judge: Callable[[Result], str] = yes, slow: bool = False
) -> Probe:
    """A probe by a constant read-only shell text."""
    return probe(says, script(text, *words, timeout=timeout, changes=False), judge, slow=slow)


def silent(result: Result) -> str:
    """Judges by what it prints: nothing means yes."""
    return " / ".join(result.out.splitlines()) or ("" if result.ok else result.tail())


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

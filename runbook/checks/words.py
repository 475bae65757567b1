"""The small words that the checks are written in."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from runbook.plan import Node, Worker
from runbook.step import Command, Target

ASK = 20.0
"""Seconds for a question that a healthy host answers at once."""


def script(text: str, *words: str, timeout: float = ASK) -> Command:
    """A constant read-only shell text with its positional arguments."""
    return Command(("sh", "-c", text, "runbook", *words), timeout, changes=False)


def ask(*argv: str, timeout: float = ASK) -> Command:
    """A read-only program."""
    return Command(argv, timeout, changes=False)


def is_node(n: Target) -> bool:
    """A control-plane host, not a worker."""
    return isinstance(n.place, Node)


def on(place: Node | Worker, *words: str) -> str:
    """A command to type: the words, run on that host."""
    ssh = place.ssh
    port = f" -p {ssh.port}" if ssh.port != 22 else ""
    jump = f" -J {shlex.quote(ssh.jump)}" if ssh.jump else ""
    sudo = "" if ssh.user == "root" else "sudo "
    return f"ssh{port}{jump} {shlex.quote(f'{ssh.user}@{place.host}')} {sudo}{shlex.join(words)}"


def listed(things: Iterable[object]) -> str:
    """Things in a row, for a message."""
    return ", ".join(str(t) for t in things)


def size(octets: int) -> str:
    """Bytes, as a person reads them."""
    value = float(octets)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"

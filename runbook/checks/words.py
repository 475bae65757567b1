"""The small words that the checks are written in."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from runbook.plan import Node, Ssh, Worker
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
    """A command to type here: the words, run as root on that host, which is reached as the plan reaches it."""
    ssh, usual = place.ssh, Ssh()
    options = {
        "-p": str(ssh.port) if ssh.port != usual.port else "",
        "-i": str(ssh.identity_file or ""),
        "-o": f"UserKnownHostsFile={ssh.known_hosts_file}" if ssh.known_hosts_file != usual.known_hosts_file else "",
        "-J": ssh.jump or "",
    }
    sudo = () if ssh.user == "root" or ssh.sudo == "never" else ("sudo",)
    plain = " ".join((*sudo, *words))
    there = shlex.join((*sudo, *words))
    # ssh gives the far shell its words with blanks between: what must be quoted there is quoted here once more.
    command = there if there == plain else shlex.quote(there)
    given = [word for flag, value in options.items() if value for word in (flag, value)]
    return f"{shlex.join(['ssh', *given, f'{ssh.user}@{place.host}'])} {command}"


def listed(things: Iterable[object]) -> str:
    """Things in a row, for a message."""
    return ", ".join(str(t) for t in things)


def size(octets: int) -> str:
    """Bytes, as a person reads them."""
    value = float(octets)
    for unit in ("B", "KiB", "MiB"):
        if abs(round(value)) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def so_far(came: int, whole: int) -> str:
    """How many bytes of how many, in the one unit in which they can be seen to grow."""
    unit, octets = ("MiB", 2**20) if whole >= 2**20 else ("KiB", 2**10) if whole >= 2**10 else ("B", 1)
    end = f"{whole / octets:.0f} {unit}"
    return f"all {end}" if came >= whole else f"{came / octets:.0f} of {end}"

"""Names, addresses and paths of a lab. Pure, and light to import."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/run/runbook-lab")
GUEST = "/opt/runbook-lab"  # on every host: bin, lib, tools
NETWORK = "10.0.1"
OPERATOR_IP = f"{NETWORK}.2"
DEFAULT_NAME = "default"
MAX_NODES = 9
MAX_WORKERS = 9


@dataclass(frozen=True)
class Host:
    """One machine of the lab."""

    name: str  # m1: the node's name, the etcd member's name, the host name
    alias: str  # cp1
    ip: str
    worker: bool = False


def make_hosts(nodes: int, workers: int) -> tuple[Host, ...]:
    """The control-plane nodes m1, m2 …, then the workers w1, w2 … (none by default)."""
    control = [Host(f"m{i + 1}", f"cp{i + 1}", f"{NETWORK}.{10 + i}") for i in range(nodes)]
    return (*control, *(Host(f"w{i + 1}", f"worker{i + 1}", f"{NETWORK}.{50 + i}", True) for i in range(workers)))


def chosen_name(name: str | None) -> str:
    """The lab that is meant: by option, else by RUNBOOK_LAB, else the default one. Raises ValueError."""
    chosen = name or os.environ.get("RUNBOOK_LAB") or DEFAULT_NAME
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", chosen):
        raise ValueError(f"lab name {chosen!r}: allowed are up to 32 lower-case letters, digits and hyphens inside")
    return chosen


@dataclass(frozen=True)
class Layout:
    """Where a lab of this name keeps things on this machine."""

    name: str

    @property
    def dir(self) -> Path:
        """Everything the lab has on this machine's file systems; mode 0700."""
        return ROOT / self.name

    @property
    def lock(self) -> Path:
        """Held while a lab of this name is built or taken away."""
        return ROOT / f".{self.name}.lock"

    @property
    def holder(self) -> Path:
        """Pid and start time of the holder."""
        return self.dir / "holder.pid"

    @property
    def spec(self) -> Path:
        """What was asked for, as JSON."""
        return self.dir / "spec.json"

    @property
    def identity(self) -> Path:
        """The client's private key; its public half has `.pub`."""
        return self.dir / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """All hosts' keys."""
        return self.dir / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: identity, known hosts, strict checking."""
        return self.dir / "ssh_config"

    @property
    def pki(self) -> Path:
        """The cluster's keys, as they were made."""
        return self.dir / "pki"

    def host_pid(self, host: str) -> Path:
        """Pid and start time of a running host's first process."""
        return self.dir / "hosts" / f"{host}.pid"

    def unplugged(self, host: str) -> Path:
        """Exists while the host's cable is out."""
        return self.dir / "hosts" / f"{host}.unplugged"

    def disk(self, host: str) -> str:
        """The host's disk, in the holder's mount namespace."""
        return str(self.dir / "disks" / host)

    @property
    def base(self) -> str:
        """The read-only layer all hosts share, in the holder's mount namespace."""
        return str(self.dir / "base")

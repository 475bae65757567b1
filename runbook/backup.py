"""What a backup plan (``kind: EtcdBackup``) says, as frozen data: no I/O here, and nothing that is not in the file.

``runbook.planfile`` reads the file and builds these objects. Its hosts are described as a restore plan's are, so that
everything that asks hosts takes them: :attr:`Backup.hosts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runbook.plan import Place as Place  # where a restore plan has its snapshot, too
from runbook.plan import Plan
from runbook.plan import ServerSide as ServerSide
from runbook.snapshots.keep import Keep

Pace = Literal["busy", "production", "staging"]
INTERVALS = {"busy": "0 * * * *", "production": "0 */6 * * *", "staging": "0 2 * * *"}
"""How often, by what kind of cluster it is, in cron's words: every hour, every six hours, every day."""

KEEP = Keep(last=28, daily=14, weekly=8, monthly=6)
"""A week of six-hourly snapshots, and then ever fewer, for half a year."""


@dataclass(frozen=True)
class Schedule:
    """What ``runbook snapshot schedule`` renders. ``cron`` in cron's words; "" as ``pace`` says.

    ``deadline`` in seconds: how long a job may take. ``image`` is one that has runbook in it; ``etcd_image`` the
    cluster's own etcd's, "" where it is asked of the hosts.
    """

    pace: Pace = "production"
    cron: str = ""
    deadline: float = 1800.0
    namespace: str = "kube-system"
    image: str = ""
    etcd_image: str = ""
    secret: str = ""

    @property
    def when(self) -> str:
        """Five fields, as cron takes them."""
        return self.cron or INTERVALS[self.pace]


@dataclass(frozen=True)
class Backup:
    """A valid backup plan. ``name`` is the cluster's, in every snapshot's name; ``recipients`` are age's public keys.

    ``metrics`` is a directory of this machine for Prometheus' textfile collector.
    """

    name: str
    store: Place
    hosts: Plan
    compress: bool = True
    recipients: tuple[str, ...] = ()
    keep: Keep = KEEP
    schedule: Schedule = Schedule()
    metrics: Path | None = None
    ticket: str = ""
    file: Path = field(default=Path("backup.yaml"), compare=False)
    text: bytes = field(default=b"", compare=False, repr=False)

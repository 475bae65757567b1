"""Running the real engine on the fake: one session for each life of the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runbook.engine import Engine
from runbook.errors import RunbookError
from runbook.journal import ZEROS, Journal, Line, now
from runbook.plan import Node, Paths, Plan, Snapshot, default_client_urls
from runbook.procedure import Procedure
from runbook.procedures import kubeadm
from runbook.procedures.words import STATIC_PODS
from runbook.replay import replay
from runbook.step import Binding, Target
from runbook.transport import LOCK
from tests.fake.hosts import EngineKilled, FakeHosts, Fuse
from tests.fake.world import OWNER, World

RUN = "fake-20260409t140000z-0001"
PROCEDURE = Procedure(kubeadm.STEPS, kubeadm.STEPS[1], kubeadm.may_roll_back, kubeadm.sweep)


def plan(nodes: int = 3, *, wal: bool = False) -> Plan:
    """A plan for the fake's hosts."""
    paths = Paths(wal_dir="/var/lib/etcd-wal" if wal else "")
    members = []
    for index in range(nodes):
        urls = (f"https://10.0.1.{10 + index}:2380",)
        members.append(Node(f"m{index + 1}", f"10.0.1.{10 + index}", urls, default_client_urls(urls), paths=paths))
    return Plan("fake", Snapshot("file:///s.db", Path("/s.db")), tuple(members), text=b"the plan")


class MemoryJournal(Journal):
    """A journal that survives its engine, in memory; each line is a moment at which the engine may be killed."""

    def __init__(self, fuse: Fuse, lines: list[Line]) -> None:
        self.lines = lines
        self.fuse = fuse
        self.path = Path("memory")
        self.epoch = max((int(line["epoch"]) for line in lines), default=0)

    def append(self, event: str, fields: Mapping[str, object] | None = None, *, step: str = "", host: str = "") -> Line:
        line: dict[str, Any] = {"seq": len(self.lines) + 1, "at": now(), "epoch": self.epoch, "event": event}
        line |= {"step": step} if step else {}
        line |= {"host": host} if host else {}
        line |= {**(fields or {}), "prev": ZEROS}
        self.lines.append(line)
        self.fuse.burn()
        return line


@dataclass
class Life:
    """One run in one world, over the lives of its engines."""

    plan: Plan
    world: World = field(init=False)
    lines: list[Line] = field(default_factory=list)
    moments: int = 0

    def __post_init__(self) -> None:
        self.world = World(self.plan)

    def session(self, what: str, fuse: Fuse | None = None) -> str:
        """One engine: ``forward`` or ``backward``; how it ended: complete, rolled-back, killed, or the error's name."""
        fuse = fuse or Fuse()
        bound = Binding(RUN, hashlib.sha256(b"s").hexdigest(), "nobody@nowhere")
        targets = [Target(self.plan, bound, node) for node in self.plan.nodes]
        for host in self.world.hosts.values():
            host.reachable = True
        try:
            journal = MemoryJournal(fuse, self.lines)
            journal.epoch += 1
            journal.append("engine")
            hosts = FakeHosts(self.world, targets, journal.epoch, fuse)
            engine = Engine(self.plan, bound, PROCEDURE, hosts, journal, self.world)
            if what == "forward":
                engine.forward()
            else:
                engine.backward("asked")
            return engine.run.state
        except EngineKilled:
            return "killed"
        except RunbookError as error:
            return f"{type(error).__name__}: {error.message}"
        finally:
            self.moments = fuse.count

    @property
    def state(self) -> str:
        """The run's state, as the journal has it."""
        return replay(self.lines).state

    def faults(self, *, restored: bool) -> list[str]:
        """What is not as it should be at the end."""
        found = list(self.world.violations)
        for host in self.world.hosts.values():
            host.stop_unwanted()
            host.reconcile()
            want = f"restored {RUN}" if restored else f"old {host.name}"
            if host.lineage() != want:
                found.append(f"{host.name} holds {host.lineage()}, not {want}")
            if host.containers != {name.removesuffix(".yaml") for name in STATIC_PODS}:
                found.append(f"{host.name} runs {host.containers}")
            if host.exists(LOCK):
                found.append(f"{host.name} is still locked")
            found += [f"{host.name}: left {path}" for path in self._left(host.files, restored=restored)]
            if restored:
                old = host.read(f"{host.node.paths.data_dir}/.{RUN}.old/member/snap/db")
                found += [] if old == f"old {host.name}" else [f"{host.name}: old data is {old}"]
        return found

    @staticmethod
    def _left(files: Mapping[str, Any], *, restored: bool) -> list[str]:
        marks = [f".yaml.{RUN}", ".restoring", ".part"]
        if not restored:
            marks += [f"{RUN}.restored", f"{RUN}.old", "snapshot.db", f"{RUN}/manifests"]
        return [path for path in files if any(mark in path for mark in marks)]


__all__ = ["OWNER", "Life", "plan"]

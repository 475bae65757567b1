"""Running the real engine on the fake: one session for each life of the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runbook.debts import declare
from runbook.engine import Engine
from runbook.errors import RunbookError
from runbook.journal import ZEROS, Journal, Line, now
from runbook.plan import Node, Paths, Plan, Snapshot, default_client_urls
from runbook.procedure import Procedure
from runbook.procedures import kubeadm
from runbook.procedures.byhand import by_hand, put_back
from runbook.procedures.data import kept, sweep, swept
from runbook.procedures.words import COMPONENTS, STATIC_PODS
from runbook.replay import replay
from runbook.step import Binding, Target
from runbook.transport import LOCK
from tests.fake.hosts import EngineKilled, FakeHosts, Fuse
from tests.fake.world import OWNER, World

RUN = "fake-20260409t140000z-0001"
SHA256 = hashlib.sha256(b"s").hexdigest()
BOUND = Binding(RUN, SHA256, "nobody@nowhere")
LEARNED = {"snapshot_sha256": SHA256, "preview_digest": "d"}
PROCEDURE = Procedure(kubeadm.STEPS, kubeadm.STEPS[1], kubeadm.may_roll_back, sweep, by_hand, kept, put_back, swept)
STAMP = now()


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
        line: dict[str, Any] = {"seq": len(self.lines) + 1, "at": STAMP, "epoch": self.epoch, "event": event}
        line |= {"step": step} if step else {}
        line |= {"host": host} if host else {}
        line |= {**(fields or {}), "prev": ZEROS}
        self.lines.append(line)
        self.fuse.burn()
        return line

    @property
    def size(self) -> int:
        return len(self.raw())

    def tail(self, offset: int) -> bytes:
        return self.raw()[offset:]

    def raw(self) -> bytes:
        """The file that it would be."""
        return b"".join(json.dumps(line).encode() + b"\n" for line in self.lines)


@dataclass
class Life:
    """One run in one world, over the lives of its engines."""

    plan: Plan
    lines: list[Line] = field(default_factory=list)
    broken: bool = False
    """The cluster is dead: etcd and the API servers are in a crash loop."""
    world: World = field(init=False)
    error: RunbookError | None = None
    moments: int = 0

    def __post_init__(self) -> None:
        self.world = World(self.plan)
        if self.broken:
            self.world.fall_apart()

    def session(
        self, what: str, fuse: Fuse | None = None, *, silent: Collection[str] = (), without: Sequence[str] = ()
    ) -> str:
        """One engine, as the commands start it: ``forward`` (run, resume), ``backward`` (rollback) or ``finish``.

        ``silent`` hosts do not answer; all others do at first; ``without``: as the option. Returns the run's state,
        ``killed``, or the error.
        """
        fuse = fuse or Fuse()
        for host in self.world.hosts.values():
            host.reachable = host.name not in silent
        self.error = None
        try:
            engine = self.engine(fuse, without)
            if what == "finish":
                self.world.finishing = True
                engine.sweep()
            elif what == "backward" or engine.run.state in ("rolling-back", "stuck"):
                engine.backward("asked")
            else:
                engine.forward()
            return engine.run.state
        except EngineKilled:
            return "killed"
        except RunbookError as error:
            self.error = error
            return f"{type(error).__name__}: {error.message}"
        finally:
            self.moments = fuse.count

    def engine(self, fuse: Fuse | None = None, without: Sequence[str] = ()) -> Engine:
        """An engine of the next epoch."""
        fuse = fuse or Fuse()
        known = replay(self.lines).header.get("snapshot_sha256")  # learned after the first checks, and journalled
        bound = BOUND if known else replace(BOUND, sha256=Binding.sha256)
        targets = [Target(self.plan, bound, node) for node in self.plan.nodes]
        journal = MemoryJournal(fuse, self.lines)
        journal.epoch += 1
        journal.append("engine")
        declare(self.plan, journal, without)
        self.world.absent = set(replay(self.lines).absent)
        hosts = FakeHosts(self.world, targets, journal.epoch, fuse)
        return Engine(self.plan, bound, PROCEDURE, hosts, journal, self.world, dict, without, lambda *_: LEARNED)

    def adopt(self) -> bool:
        """The responder's machine is lost: go on with the best copy of the journal; False where no host has one."""
        best: tuple[int, int, list[Line]] = (0, 0, [])
        epoch = 0
        for host in self.world.hosts.values():
            run_dir = f"{host.node.paths.workspace}/{RUN}"
            lines = [json.loads(line) for line in (host.read(f"{run_dir}/journal.jsonl") or "").splitlines()]
            newest = max((line["epoch"] for line in lines), default=0)
            epoch = max(epoch, newest, int(host.read(f"{run_dir}/epoch") or 0))
            best = max(best, (newest, len(lines), lines), key=lambda seen: seen[:2])
        self.lines[:] = best[2]
        if self.lines:
            self.lines.append({**self.lines[-1], "event": "adopted", "epoch": epoch + 1})
        return bool(self.lines)

    @property
    def state(self) -> str:
        """The run's state, as the journal has it."""
        return replay(self.lines).state

    def tree(self) -> dict[str, dict[str, tuple[str | None, str]]]:
        """All files and directories of all hosts."""
        return {host.name: host.tree() for host in self.world.hosts.values()}

    def faults(self, *, restored: bool, tidy: bool = True) -> list[str]:
        """What is not as it should be at the end.

        Not ``tidy``: a power cut may have brought back what the rollback had removed; then only ``finish`` is judged.
        """
        found = list(self.world.violations)
        for host in self.world.hosts.values():
            host.stop_unwanted()
            host.reconcile()
            want = f"restored {RUN}" if restored else f"old {host.name}"
            if host.lineage() != want:
                found.append(f"{host.name} holds {host.lineage()}, not {want}")
            wanted = set(COMPONENTS)
            if host.pods != wanted or host.containers != {c for c in wanted if not self.world.crashes(host, c)}:
                found.append(f"{host.name} runs {host.containers}, and wants {host.pods}")
            if host.exists(LOCK) or (tidy and host.exists(f"{LOCK}.{RUN}")):
                found.append(f"{host.name} is still locked")
            manifests = {p.rpartition("/")[2] for p in host.children(host.node.paths.manifests)}
            if manifests != set(STATIC_PODS):
                found.append(f"{host.name}: in the kubelet's directory are {sorted(manifests)}")
            if tidy:
                found += [f"{host.name}: left {path}" for path in self._left(host.nodes, restored=restored)]
            if restored:
                old = host.read(f"{host.node.paths.data_dir}/.{RUN}.old/member/snap/db")
                found += [] if old == f"old {host.name}" else [f"{host.name}: old data is {old}"]
        return found + [v for v in self.world.violations if v not in found]

    def after_finish(self) -> list[str]:
        """What ``finish`` leaves, which must be nothing."""
        ended = self.session("finish")
        found = [] if ended in ("complete", "rolled-back") else [f"finish: {ended}"]
        for host in self.world.hosts.values():
            found += [f"{host.name}: finish left {path}" for path in host.nodes if f"{RUN}/" in path + "/"]
        return found

    @staticmethod
    def _left(paths: Collection[str], *, restored: bool) -> list[str]:
        marks = [".restoring", ".part"]
        if not restored:
            marks += [f"{RUN}.restored", f"{RUN}.old", "snapshot.db", f"{RUN}/manifests/", f"{RUN}/old-aside"]
        return [path for path in paths if any(mark in path for mark in marks)]


__all__ = ["OWNER", "Life", "plan"]

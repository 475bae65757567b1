"""Will the restored revision be above the last one that anybody has seen?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from runbook import parse
from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.content import fetched
from runbook.checks.members import own_status, statuses
from runbook.checks.words import ask, is_node, listed
from runbook.plan import Plan
from runbook.snapshots.bolt import Database, NotBolt
from runbook.step import Binding, Command, Result, Target

UNREAD = "the snapshot's revision could not be read, so the bump is not proven"
MARGIN = 1_000_000_000
"""Etcd's own advice: a week at under 1,500 writes a second."""


def enough(living: int, snapshot: int) -> int:
    """A bump that puts the snapshot above the living revision, with a margin for what is written until the outage."""
    exact = living - snapshot + MARGIN
    return -(-exact // 1_000_000) * 1_000_000


def local_revision(path: Path) -> Result:
    """The last revision of a snapshot on the responder's machine, as a result."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return Result(1, err=f"{path}: {error.strerror}")
    try:
        octets = os.fstat(fd).st_size
        return Result(0, str(Database(fd, octets - octets % 512).last_revision()))
    except (NotBolt, OSError) as error:
        return Result(1, err=f"{path}: it {error}")
    finally:
        os.close(fd)


class Bump(Check):
    """The snapshot's revision plus the bump is above the last living revision."""

    at_first = True
    order, slow, fetches = 45, True, True

    def asks(self, n: Target) -> Sequence[Command]:
        """The member's revision; where the snapshot lies on this host, the snapshot's."""
        if not is_node(n):
            return ()
        there = n.plan.snapshot.node == n.name
        status = ask(n.plan.tools.etcdutl, "snapshot", "status", str(n.plan.snapshot.path), "-w", "json", timeout=60)
        return [own_status(n), *([status] if there else [])]

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        """The snapshot's revision; where it lies on a node, that of the copy that came over."""
        if not plan.snapshot.node:
            return [local_revision(plan.snapshot.path)]
        try:
            return [Result(0, str(fetched(plan).result().revision))]
        except (ValueError, OSError) as error:
            return [Result(1, err=str(error))]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Watches would otherwise go on at revisions that mean something else now."""
        snapshot = _snapshot_revision(plan, answers)
        if snapshot is None:
            if any(True for _ in heard(answers, plan.nodes)):
                do = "it is compared again in the outage, before etcd is stopped"
                yield self.warns("", UNREAD, do)
            return
        revisions = {
            node.name: max(s.revision for s in seen)
            for node, results in heard(answers, plan.nodes)
            if (seen := statuses(results[0]))
        }
        bump = plan.cluster.bump_revision
        restored = snapshot + bump
        if bump == 0:
            do = "set spec.cluster.bumpRevision, unless nothing watches this cluster"
            yield self.warns("", "no bump: watches and informers of before the restore are not ended", do)
        elif not revisions:
            saw = f"no revision can be read anywhere; the restored one will be {restored}"
            yield self.warns(
                "", saw, "make sure that the cluster was never above it, or raise spec.cluster.bumpRevision"
            )
        elif restored > max(revisions.values()):
            yield self.ok("", f"{snapshot} + {bump} = {restored}, above the living {max(revisions.values())}")
        else:
            living = max(revisions.values())
            where = listed(f"{host} {revision}" for host, revision in revisions.items())
            saw = f"{snapshot} + {bump} = {restored} is not above the living revision {living} ({where})"
            yield self.blocks("", saw, f"set spec.cluster.bumpRevision: {enough(living, snapshot)}")


def _snapshot_revision(plan: Plan, answers: Answers) -> int | None:
    result = answers[""][0]
    if result.ok:
        return int(result.out)
    for node, results in heard(answers, plan.nodes):
        if node.name == plan.snapshot.node and len(results) > 1 and results[1].ok:
            try:
                return parse.snapshot_status(results[1].out).revision
            except parse.ParseError:
                return None
    return None

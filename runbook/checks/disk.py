"""Is there room for the snapshot, the restored data and its WAL, while the old data stays?"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import ask, listed, on, script, size
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Result, Target

MIB = 1 << 20
WAL = 128 * MIB
"""etcd preallocates 64 MB, and a second file soon."""
INODES = 100
"""A run's files and a restored member's are a few dozen."""

ROOM = r"""
set -u
for p in "$@"; do
  q=$p
  while [ ! -e "$q" ]; do q=${q%/*}; [ -n "$q" ] || q=/; done
  echo "$(stat -L -c %d -- "$q") $(stat -f -c '%S %b %a %c %d' -- "$q")"
done
"""
"""For each path, of its nearest existing parent: device, block size, blocks, those free to users, inodes, free ones.

Not ``df``: its columns hold names with spaces.
"""


@dataclass
class _FileSystem:
    total: int
    free: int
    inodes: int
    free_inodes: int


def reserve(total: int) -> int:
    """What is left free beyond the need: the old cluster still serves and writes while the restore is prepared."""
    return min(max(total // 20, 64 * MIB), 1024 * MIB)


class DiskSpace(Check):
    """There is room for the snapshot and the restored data, beside the old data."""

    order = 50

    def asks(self, n: Target) -> Sequence[Command]:
        """The file systems; where the snapshot lies on this host, its size."""
        if not isinstance(n.place, Node):
            return ()
        source = n.plan.snapshot
        there = [ask("stat", "-L", "-c", "%s", "--", str(source.path))] if source.node == n.name else []
        return [script(ROOM, *(path for path, _ in _needs(n.node, 0))), *there]

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        """The snapshot's size, where it is on this machine."""
        if plan.snapshot.node:
            return ()
        try:
            return [Result(0, str(os.stat(plan.snapshot.path).st_size))]
        except OSError as error:
            return [Result(1, err=str(error))]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Needs that share a file system are added up."""
        octets = snapshot_size(plan, answers)
        if octets is None:
            return  # the snapshot's own check says what is wrong with it
        for node, (room, *_) in heard(answers, plan.nodes):
            lines = [line.split() for line in room.out.splitlines()]
            needs = _needs(node, octets)
            if not room.ok or len(lines) != len(needs) or not all(len(w) == 6 and _whole(w) for w in lines):
                saw = f"the free space could not be read: {room.tail()}"
                yield self.blocks(node.name, saw, f"look at it: {on(node, 'df', '-h')}")
                continue
            yield from self._node(node, needs, [[int(w) for w in words] for words in lines])

    def _node(self, node: Node, needs: list[tuple[str, int]], rows: list[list[int]]) -> Iterator[Finding]:
        wanted: dict[int, int] = defaultdict(int)
        paths: dict[int, list[str]] = defaultdict(list)
        systems: dict[int, _FileSystem] = {}
        for (path, need), (device, block, blocks, free, inodes, free_inodes) in zip(needs, rows, strict=True):
            wanted[device] += need
            paths[device].append(path)
            systems[device] = _FileSystem(block * blocks, block * free, inodes, free_inodes)
        short = False
        for device, fs in systems.items():
            where, need, keep = listed(paths[device]), wanted[device], reserve(fs.total)
            do = f"make room there, without touching the data: {on(node, 'df', '-h', *paths[device])}"
            if fs.free < need + keep:
                short = True
                saw = f"{where}: {size(fs.free)} free, needed are {size(need)}, and {size(keep)} must stay free"
                yield self.blocks(node.name, saw, do)
            if fs.inodes and fs.free_inodes < INODES:  # btrfs and others count none
                short = True
                yield self.blocks(node.name, f"{where}: {fs.free_inodes} inodes free, {INODES} are needed", do)
        if not short:
            told = (f"{listed(paths[d])}: {size(fs.free)} free, {size(wanted[d])} needed" for d, fs in systems.items())
            yield self.ok(node.name, "; ".join(told))


def _needs(node: Node, octets: int) -> list[tuple[str, int]]:
    """Path and bytes: the staged copy, the restored data with its WAL, or the WAL elsewhere."""
    paths = node.paths
    needs = [(paths.workspace, octets), (paths.data_dir, octets + (0 if paths.wal_dir else WAL))]
    return [*needs, (paths.wal_dir, WAL)] if paths.wal_dir else needs


def snapshot_size(plan: Plan, answers: Answers) -> int | None:
    """Bytes of the snapshot, as :class:`DiskSpace` has asked for them; None where nobody could say."""
    if plan.snapshot.node is None:
        result = answers[""][0]
    else:
        mine = answers.get(plan.snapshot.node, ())
        result = mine[1] if len(mine) > 1 else Result(None)
    text = result.out.strip()
    return int(text) if result.ok and _whole([text]) else None


def _whole(words: Sequence[str]) -> bool:
    return all(w.isascii() and w.isdigit() and len(w) < 25 for w in words)

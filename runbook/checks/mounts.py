"""The data directory: is it where a swap by rename works, and has an earlier run left something in it?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import is_node, listed, on, script
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Target

LOOK = r"""
set -u
n=0
for d in "$@"; do
  [ -n "$d" ] || continue
  echo "path $d"
  if [ -L "$d" ]; then echo "link $(readlink -f -- "$d")"; fi
  if [ ! -d "$d" ]; then
    if [ -e "$d" ] || [ -L "$d" ]; then echo other; fi
    continue
  fi
  echo "directory $(stat -L -c %d -- "$d")"
  if mountpoint -q "$d"; then echo mounted; fi
  if [ -L "$d/member" ]; then echo member-link; fi
  if [ -e "$d/member" ]; then
    echo "member $(stat -c %d -- "$d/member")"
    if mountpoint -q "$d/member"; then echo member-mounted; fi
  fi
  inside=$(readlink -f -- "$d")/
  if [ "$n" = 0 ]; then inside=${inside}member/; fi
  n=1
  INSIDE=$inside awk 'index($5, ENVIRON["INSIDE"]) == 1 { print "inside " $5 }' /proc/self/mountinfo
  for h in "$d"/.*; do
    if [ -e "$h" ]; then echo "hidden ${h##*/}"; fi
  done
done
:
"""

_LEFT = re.compile(r"\.(?P<run>.+-\d{8}t\d{6}z-[0-9a-f]{4})\.(?:restoring|restored|old|discarded)")


@dataclass
class _Directory:
    """What one directory is; ``facts`` are the script's words, each with what follows it."""

    path: str
    facts: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)


def _directories(text: str) -> list[_Directory]:
    found: list[_Directory] = []
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "path":
            found.append(_Directory(rest))
        elif found and word == "hidden":
            found[-1].hidden.append(rest)
        elif found:
            found[-1].facts[word] = rest
    return found


class DataDirectory(Check):
    """The old data can be put aside by rename, and no earlier run's leftovers are in the way."""

    order = 60

    def asks(self, n: Target) -> Sequence[Command]:
        """Data and WAL directory."""
        return [script(LOOK, n.node.paths.data_dir, n.node.paths.wal_dir)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A mount point itself is fine: what is renamed are its children."""
        for node, (result,) in heard(answers, plan.nodes):
            seen = _directories(result.out)
            if not result.ok or len(seen) != (2 if node.paths.wal_dir else 1):
                saw = f"{node.paths.data_dir} could not be looked at: {result.tail()}"
                yield self.blocks(node.name, saw, f"look at the host: {on(node, 'ls', '-la', node.paths.data_dir)}")
                continue
            bad = [text for d in seen for text in self._bad(node, d)]
            if bad:
                do = f"make member a plain directory there: {on(node, 'ls', '-la', node.paths.data_dir)}"
                yield self.blocks(node.name, "; ".join(bad), do)
            else:
                yield from self._told(node, bound, seen)

    def _bad(self, node: Node, d: _Directory) -> Iterator[str]:
        if "other" in d.facts:
            yield f"{d.path} is no directory, or a link to nowhere"
        if "member-link" in d.facts:
            yield f"{d.path}/member is a symbolic link: a rename would swap the link, not the data"
        if "member-mounted" in d.facts:
            yield f"{d.path}/member is a mount point: it cannot be renamed"
        elif "member" in d.facts and d.facts["member"] != d.facts.get("directory"):
            yield f"{d.path}/member is on another file system than {d.path}"
        if "inside" in d.facts:
            yield f"{d.facts['inside']} is a mount point: a rename takes it along, and the next boot puts it back"
        if d.path == node.paths.wal_dir and f"{d.path}/".startswith(f"{node.paths.data_dir.rstrip('/')}/member/"):
            yield f"the WAL directory {d.path} lies inside {node.paths.data_dir}/member, which is what is swapped"

    def _told(self, node: Node, bound: Binding, seen: Sequence[_Directory]) -> Iterator[Finding]:
        missing = [d.path for d in seen if "directory" not in d.facts]
        if missing:
            do = "nothing to do if the disk was lost; else correct spec.paths"
            yield self.warns(node.name, f"{listed(missing)} is missing: there is no old data to keep", do)
        elif "member" not in seen[0].facts:
            do = "nothing to do if the data was lost; else correct spec.paths.dataDir"
            yield self.warns(node.name, f"{seen[0].path} has no member: there is no old data to keep", do)
        found = (m["run"] for d in seen for h in d.hidden if (m := _LEFT.fullmatch(h)))
        left = [run for run in dict.fromkeys(found) if run != bound.run]
        if left:
            do = "; ".join(f"runbook finish {run}" for run in left)
            saw = f"{node.paths.data_dir} holds data of earlier runs: {listed(left)}"
            yield self.warns(node.name, saw, f"when you need it no more: {do}")
        if not left and not missing and "member" in seen[0].facts:
            yield self.ok(node.name, "; ".join(map(_kind, seen)))


def _kind(d: _Directory) -> str:
    link = f", really {d.facts['link']}" if "link" in d.facts else ""
    return f"{d.path} is a {'mount point' if 'mounted' in d.facts else 'directory'}{link}: its children are swapped"

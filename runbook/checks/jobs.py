"""Is somebody else at work on the data just now: a backup, or a restore by hand?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import is_node, listed, on, script
from runbook.plan import Plan
from runbook.step import Binding, Command, Target

LOOK = r"""
set -f
for p in $(ls /proc); do
  case $p in *[!0-9]*) continue ;; esac
  p=/proc/$p
  { words=$(tr '\0' ' ' < "$p/cmdline"); } 2> /dev/null || continue
  set -- $words
  case ${1##*/} in etcdctl | etcdutl) ;; *) continue ;; esac
  case " $words" in
    *" snapshot restore "* | *" snapshot save "* | *" backup "* | *" defrag"*)
      case " $words" in
        *" --help "*) ;;
        *" restore "*) echo "restore ${p#/proc/}" ;;
        *" defrag"*) echo "defrag ${p#/proc/}" ;;
        *) echo "save ${p#/proc/}" ;;
      esac ;;
  esac
done
:
"""
"""Programs of etcd that work on its data, by what they do and their process id; never with their words, which may be
secret. Those in containers are seen too: the host's /proc has them."""


class OtherJobs(Check):
    """No backup and no restore by hand is under way."""

    order = 6

    def asks(self, n: Target) -> Sequence[Command]:
        """What runs now."""
        return [script(LOOK)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Two who restore at once destroy each other's work; a backup is cut off, and leaves a file that looks new."""
        for node, (result,) in heard(answers, plan.nodes):
            if not result.ok:
                do = f"look yourself: {on(node, 'ps', '-ef')}"
                yield self.warns(
                    node.name, f"what runs there could not be looked at: {result.tail() or 'no answer'}", do
                )
                continue
            found: dict[str, list[str]] = {}
            for line in result.out.splitlines():
                kind, _, pid = line.partition(" ")
                found.setdefault(kind, []).append(pid)
            for kind, pids in found.items():
                look = on(node, "ps", "-fp", ",".join(pids))
                if kind == "restore":
                    saw = f"somebody restores a snapshot there just now (process {listed(pids)})"
                    yield self.blocks(node.name, saw, f"find out who, and wait for it or end it: {look}")
                else:
                    what = "a backup is taken" if kind == "save" else "the database is defragmented"
                    saw = f"{what} there just now (process {listed(pids)}): the outage cuts it off"
                    yield self.warns(node.name, saw, f"wait for its end, or mind what it leaves: {look}")
            if not found:
                yield self.ok(node.name, "nobody else is at work on etcd's data")

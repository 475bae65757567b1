"""Does another run hold a host?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from runbook.checks import Answers, Check, Finding, Severity, heard
from runbook.checks.words import is_node, on, script
from runbook.held import adoption
from runbook.plan import Node, Plan
from runbook.shape import ParseError, Shape, from_json
from runbook.step import Binding, Command, Target
from runbook.tables import duration
from runbook.transport import LOCK

READ = r"""
set -u
[ -e "$1" ] || exit 0
echo "now $(date +%s)"
run=$(sed -n 's/.*"run": *"\([A-Za-z0-9.-]*\)".*/\1/p' "$1" | head -n 1)
dir=$(sed -n 's|.*"dir": *"\([A-Za-z0-9/._+@:=,%-]*\)".*|\1|p' "$1" | head -n 1)
case $dir in
  /*/"$run") ;;
  *) dir=$2/$run ;;
esac
if [ -n "$run" ] && [ -d "$dir" ]; then
  echo "life $(find "$dir" -printf '%T@\n' | sort -n | tail -n 1)"
fi
printf 'lock '
head -c 4096 -- "$1"
"""
"""The lock, the time there, and when anything of the holder's directory last changed."""


@dataclass(frozen=True)
class Holder:
    """Who holds a host. ``run`` is "" where the lock cannot be read; times are RFC 3339, ``ago`` in seconds.

    ``workspace`` is where the run's directory lies on that host, "" where the lock does not say it.
    """

    run: str
    holder: str
    since: str
    life: str
    ago: float | None
    workspace: str = ""


def holder(text: str) -> Holder | None:
    """What :data:`READ` printed; None where nobody holds the host."""
    if not text.strip():
        return None
    head, _, lock = text.partition("\nlock ")
    times = {}
    for line in head.splitlines():
        word, _, rest = line.partition(" ")
        try:
            times[word] = float(rest)
        except ValueError:
            continue
    life = times.get("life")
    try:
        shown = datetime.fromtimestamp(life, UTC).strftime("%FT%TZ") if life is not None else ""
    except (ValueError, OverflowError, OSError):
        shown = ""
    ago = times["now"] - life if life is not None and "now" in times else None
    try:
        told = Shape(from_json(lock, "lock"), "lock")
        run, place = told.text("run"), told.text("dir", "")
        workspace = place.removesuffix(f"/{run}") if place.endswith(f"/{run}") else ""
        return Holder(run, told.text("holder", ""), told.text("since", ""), shown, ago, workspace)
    except ParseError:
        return Holder("", " ".join(lock.split())[:200], "", shown, ago)


class Locks(Check):
    """No other run holds a host."""

    severity = Severity.HELD
    order, round = 5, 1

    def asks(self, n: Target) -> Sequence[Command]:
        """The one lock at its fixed path, whatever workspace the other run uses."""
        return [script(READ, LOCK, n.place.paths.workspace)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Two restores at once would each undo the other."""
        one: dict[str, str] = {}  # by run: adopt takes over all its hosts, from any one of them
        for node, (result,) in heard(answers, plan.nodes):
            found = holder(result.out)
            if not result.ok:
                yield self.blocks(node.name, f"{LOCK} could not be read: {result.tail()}", "look at the host")
            elif found is None:
                yield self.ok(node.name, "free")
            elif found.run == bound.run:
                yield self.ok(node.name, "held by this run")
            else:
                adopt = one.setdefault(found.run, adoption(node, found.run, found.workspace))
                yield self._held(node, found, adopt)

    def _held(self, node: Node, found: Holder, adopt: str) -> Finding:
        if not found.run:
            saw = f"{LOCK} is there, and does not say whose it is: {found.holder or 'it is empty'}"
            return self.held(node.name, saw, f"find out who made it; then: {on(node, 'rm', LOCK)}")
        life = f"last sign of life {found.life}" if found.life else "no sign of life in its directory"
        if found.life and found.ago is not None:
            life += f" ({duration(round(max(0.0, found.ago)))} ago)"
        saw = f"held by the run {found.run} of {found.holder or 'nobody named'} since {found.since or '?'}; {life}"
        do = (
            f"ask them; on their machine: runbook status {found.run}, then resume, rollback or finish; "
            f"only where that machine is lost: {adopt}"
        )
        return self.held(node.name, saw, do)

"""Ways to break the program, one safeguard each: the sweep must notice every one of them.

Each is called in the sweep's workers only (``play(…, before=…)``), so nothing leaks into other tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transitions import EventData

from runbook import parse
from runbook.lifecycle import StepRun, Verdict
from runbook.procedures import data, scripts
from runbook.procedures.kubeadm import StartEtcd, SwapData
from runbook.step import Result
from tests.fake.hosts import FakeHosts


def no_settling() -> None:
    """A resumed engine does not wait for what an earlier one left running."""
    FakeHosts.settle = lambda self, hosts, wait: {h: Result(0) for h in hosts}  # type: ignore[method-assign]


def no_marker() -> None:
    """A restore that was cut off is taken for a whole one."""
    _cut("RESTORED", 'grep -qxF -- "$5" "$1/restored"', lines=1)


def no_aside_marker() -> None:
    """The swap does not note that the old data has been put aside."""
    _cut("SWAP", 'touch -- "$4/old-aside"', lines=2)


def no_swapped_marker_in_probe() -> None:
    """The swap counts as done without its marker."""
    _cut("SWAPPED", '[ -e "$4/swapped" ]', lines=1)


def no_barrier() -> None:
    """A step begins although the one before is done on some hosts only."""
    StepRun.done_everywhere = lambda self, _: (  # type: ignore[method-assign]
        not self.views or any(v.verdict is Verdict.YES for v in self.views.values())
    )


def undo_unproven() -> None:
    """A step counts as undone without being asked for."""
    StepRun.undone_everywhere = lambda self, _: True  # type: ignore[method-assign]


def journal_after_acting() -> None:
    """The journal line is written after the action that it announces."""
    late: dict[int, Sequence[Any]] = {}

    def record(self: StepRun, event: EventData) -> None:
        assert event.transition is not None
        assert event.transition.dest is not None
        words = (self.step, event.transition.source, event.transition.dest, event.event.name, self.views)
        if event.transition.dest in ("ACTING", "UNDOING"):
            late[id(self)] = words
        else:
            self.crew.record_step(*words)

    def acting(self: StepRun, _: EventData) -> None:
        self.crew.act(self.step)
        self.crew.record_step(*late.pop(id(self)))

    def undoing(self: StepRun, _: EventData) -> None:
        self.crew.undo(self.step)
        self.crew.record_step(*late.pop(id(self)))

    StepRun.record = record  # type: ignore[method-assign]
    StepRun.on_enter_ACTING = acting  # type: ignore[method-assign]
    StepRun.on_enter_UNDOING = undoing  # type: ignore[method-assign]


def no_ready() -> None:
    """A step begins without asking whether it may, and the swap does not stop what somebody started again.

    Either of the two is enough where one host is concerned.
    """
    StepRun.every_host_ready_or_done = lambda self, _: True  # type: ignore[method-assign]
    SwapData.do = lambda self, n: [data.swap(n)]  # type: ignore[method-assign]


def no_compare() -> None:
    """A manifest is parked without comparing it with its saved copy."""
    _cut("STOP", "cmp --", lines=4)


def containers_only() -> None:
    """A pod counts as gone when no container of it runs, although the kubelet may start another."""
    at = next(i for i, line in enumerate(scripts.STOP.split("\n")) if "left=$(crictl pods" in line)
    lines = scripts.STOP.split("\n")
    lines[at : at + 2] = ["    left="]
    scripts.STOP = "\n".join(lines)
    vars(parse)["sandboxes"] = lambda _: ()


def no_guard_at_the_start() -> None:
    """Etcd is started although an API server's manifest is there again."""
    _cut("START", 'if [ -e "$from/$unless.yaml" ]', lines=4)
    StartEtcd.ready = SwapData.done  # type: ignore[method-assign,assignment]


def no_syncs() -> None:
    """Nothing is made durable before it is recorded."""
    for name, text in vars(scripts).items():
        if name.isupper() and isinstance(text, str):
            setattr(scripts, name, "\n".join(line for line in text.split("\n") if not line.strip().startswith("sync")))


def _cut(name: str, begins: str, *, lines: int) -> None:
    """Take lines out of a script, from the one that begins so."""
    text: list[str] = getattr(scripts, name).split("\n")
    at = next(i for i, line in enumerate(text) if line.strip().startswith(begins))
    del text[at : at + lines]
    setattr(scripts, name, "\n".join(text))

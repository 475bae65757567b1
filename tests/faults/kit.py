"""What the rows have in common: a responder at a lab, a second one, and the two ways in which a row may end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runbook.journal import Line
from tests.lab.kit import BUMP, Desk


def begins(step: str, host: str = "") -> Callable[[Line], bool]:
    """The journal line that announces an action of a step."""
    return lambda line: line["event"] == "begin" and line["step"] == step and line["host"].startswith(host)


def ends(step: str, host: str = "") -> Callable[[Line], bool]:
    """The journal line of an action's end."""
    return lambda line: line["event"] == "end" and line["step"] == step and line["host"].startswith(host)


def reaches(step: str, state: str) -> Callable[[Line], bool]:
    """The journal line of a step's state."""
    return lambda line: line["event"] == "step" and line["step"] == step and line["to"] == state


@dataclass
class Row(Desk):
    """One row: a snapshot was taken, data written since, and a plan lies ready."""

    snapshot_revision: int = 0
    least: int = 0
    outcome: str = ""
    _undo: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.snapshot_revision = self.take_snapshot()
        self.least = self.revision(self.lab.nodes[0].name)
        self.write_plan()

    def sh(self, host: str, text: str, *, check: bool = True) -> str:
        """A shell line on a host, as root."""
        return self.lab.exec(host, ["sh", "-c", text], check=check).stdout

    def later(self, undo: Callable[[], object]) -> None:
        """To be done when the row has ended, however it did."""
        self._undo.append(undo)

    def another_machine(self) -> Row:
        """A second responder, who has nothing but the lab's keys."""
        home = self.home / "elsewhere"
        home.mkdir()
        second = object.__new__(Row)
        second.__dict__.update(self.__dict__)
        second.home, second._undo = home, []
        return second

    def lose_laptop(self) -> Row:
        """The responder's disk is gone; what a second one has."""
        shutil.rmtree(self.home / "state")
        return self.another_machine()

    def adopt(self, *hosts: str, code: int = 0) -> str:
        """``runbook adopt`` of these hosts (all by default), with the lab's keys."""
        named = hosts or tuple(h.name for h in self.lab.nodes)
        words = [word for name in named for word in ("--host", f"root@{self.lab.host(name).ip}")]
        keys = ["--identity-file", str(self.lab.identity), "--known-hosts-file", str(self.lab.known_hosts)]
        done = self.runbook("adopt", *words, *keys, code=code)
        return done.stdout + done.stderr

    # The two ways to end.

    def restored(self) -> None:
        """All members hold the restored data, and nothing of the run is left after `finish`."""
        self.lab.wait_healthy(120)
        self.assert_restored(self.snapshot_revision + BUMP)
        self.outcome = self.outcome or "restored"
        self.runbook("finish", "--yes")

    def rolled_back(self) -> None:
        """The old data serves on every host, at the old revision."""
        self.lab.wait_healthy(120)
        self.assert_old(self.least)
        self.outcome = self.outcome or "rolled back"
        if not self.status()["closed"]:
            self.runbook("finish", "--yes")

    def untouched(self) -> None:
        """Nothing was changed at all."""
        self.assert_old(self.least)
        self.outcome = self.outcome or "refused, nothing changed"

    def clean(self) -> None:
        """Take back what the row broke."""
        for undo in reversed(self._undo):
            undo()


__all__ = ["Path", "Row", "begins", "ends", "reaches"]

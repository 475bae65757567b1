"""What the rows have in common: a responder at a lab, a second one, and the two ways in which a row may end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from runbook.journal import Line
from runbook.lab.health import answers
from tests.lab.conftest import eventually
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

    def during(
        self, command: tuple[str | Path, ...], when: Callable[[Line], bool], do: Callable[[], object], *, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Type a command; at the first new journal line for which ``when`` holds, hold it still, do that, let it go on.

        Returns how it ended; fails where the line never comes, or the exit code is another one.
        """
        known = self.lines()

        def line_is_there() -> bool:
            lines = self.lines()
            return any(when(line) for line in (lines[len(known) :] if lines[:1] == known[:1] else lines))

        return self.held_once(command, line_is_there, do, code=code, pause=0.003)

    def held_once(
        self,
        command: tuple[str | Path, ...],
        holds: Callable[[], bool],
        do: Callable[[], object],
        *,
        code: int = 0,
        pause: float = 0.001,
    ) -> subprocess.CompletedProcess[str]:
        """As :meth:`during`, once that holds."""
        came = False
        process = self.popen(*command)
        limit = time.monotonic() + 300
        try:
            while not came and process.poll() is None and time.monotonic() < limit:
                came = holds()
                time.sleep(0 if came else pause)
            if came:
                process.send_signal(signal.SIGSTOP)
                do()
                process.send_signal(signal.SIGCONT)
                out, err = process.communicate(timeout=600)
        finally:
            if process.poll() is None:
                process.kill()
            if not came:
                out, err = process.communicate(timeout=30)
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        assert came, f"{command} ended with {done.returncode} before it came to that\n{out}\n{err}"
        assert done.returncode == code, f"{command}: exit {done.returncode}\n{out}\n{err}"
        return done

    def kill_when(self, command: tuple[str | Path, ...], when: Callable[[Line], bool]) -> None:
        """SIGKILL a command at the first new journal line for which ``when`` holds."""
        self.kill_at(command, when, after=len(self.lines()))

    def cut(self, host: str) -> None:
        """End all SSH sessions of a host from its side."""
        self.sh(host, "for p in $(pgrep -P $(cat /run/sshd.pid)); do kill -9 $p $(pgrep -P $p); done", check=False)

    def slow_restore(self, host: str, seconds: int) -> None:
        """The plan's etcdutl takes so long to restore on that host."""
        slow = f"case $*,$(hostname) in *restore*,{host}) sleep {seconds} ;; esac"
        for node in self.lab.nodes:
            self.later(partial(self.sh, node.name, "rm -f /root/etcdutl"))
            text = f'#!/bin/sh\n{slow}\nexec etcdutl "$@"\n'
            self.lab.exec(node.name, ["sh", "-c", "cat > /root/etcdutl; chmod 755 /root/etcdutl"], text, check=True)
        self.write_plan(tools={"etcdutl": "/root/etcdutl"})

    def restoring(self, host: str) -> bool:
        """Whether that etcdutl is restoring there now."""
        return bool(self.sh(host, "pgrep -f 'sh /root/etcdut[l] snapshot restore'", check=False))

    def boot(self, *hosts: str) -> None:
        """Give hosts power again, and wait until one can log in."""
        for host in hosts:
            if self.lab.host_pid(host) is None:
                self.lab.boot(host)
        for host in hosts:
            ip = self.lab.host(host).ip
            eventually(f"{host} takes logins", partial(self.lab.in_operator, partial(answers, ip, 22)), within=120)

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
        """Take back what the row broke, on hosts that have power."""
        for host in self.lab.hosts:
            if self.lab.host_pid(host.name) is None:
                self.lab.boot(host.name)
        for undo in reversed(self._undo):
            undo()


__all__ = ["Path", "Row", "begins", "ends", "reaches"]

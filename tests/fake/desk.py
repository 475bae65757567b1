"""The command line on the fake hosts: what a responder types, sees, and gets as an exit code."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runbook import planfile
from runbook.checks import Finding
from runbook.cli import cli
from runbook.plan import Plan
from runbook.runs import Run, all_runs
from runbook.step import Binding, Target
from runbook.transport import Claim, RunHosts
from tests.fake.hosts import FakeHosts, Fuse
from tests.fake.sessions import SHA256
from tests.fake.world import World

PLAN = """\
apiVersion: runbook/v1
kind: EtcdRestore
metadata: {name: fake}
spec:
  snapshot: {from: "file:///s.db"}
  nodes:
    - {name: m1, host: 10.0.1.10, peerURLs: ["https://10.0.1.10:2380"]}
    - {name: m2, host: 10.0.1.11, peerURLs: ["https://10.0.1.11:2380"]}
    - {name: m3, host: 10.0.1.12, peerURLs: ["https://10.0.1.12:2380"]}
  ssh: {identityFile: key, knownHostsFile: known}
"""


@dataclass
class Typed:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def next(self) -> list[str]:
        """The commands that it says to type next, with their notes."""
        text = (self.err or self.out).partition("Type next:")[2]
        return [re.sub(r" +# ", "   # ", line.strip()) for line in text.splitlines() if line.strip()]


@dataclass
class Desk:
    """A responder with a plan. ``findings`` is what the checks find, by their group; nothing at first."""

    home: Path
    patch: pytest.MonkeyPatch
    fuse: Fuse = field(default_factory=Fuse)
    findings: dict[str, list[Finding]] = field(default_factory=lambda: {"preflight": [], "verify": []})
    silent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.plan_path.write_text(PLAN)
        for name in ("key", "known"):
            (self.home / name).write_text("")
        self.world = World(self.plan)
        self.patch.setenv("RUNBOOK_STATE_DIR", str(self.home / "state"))
        self.patch.setenv("NO_COLOR", "1")
        for module in ("commands", "precheck"):
            self.patch.setattr(f"runbook.{module}.hosts_of", self._hosts_of)
        self.patch.setattr("runbook.meanwhile.dial_ahead", lambda _: None)
        for module in ("runbook.hands", "runbook.checks.survey"):
            self.patch.setattr(f"{module}.inspect", lambda group, *_, **__: list(self.findings[group]))
        self.patch.setattr("runbook.asking.RealClock", lambda: self.world)
        self.patch.setattr("runbook.progress.PATIENCE", 0.0)
        known = (Binding(sha256=SHA256), "a small snapshot")
        for name in ("commands.preview_binding", "meanwhile.preview_binding", "commands.binding_for_checks"):
            self.patch.setattr(f"runbook.{name}", lambda _: known)

    @property
    def plan_path(self) -> Path:
        """The plan's file: its name wants quoting."""
        return self.home / "my plan.yaml"

    @property
    def plan(self) -> Plan:
        return planfile.load(self.plan_path)

    @property
    def quoted(self) -> str:
        """The plan's file as a word to type."""
        return shlex.quote(str(self.plan_path))

    def _hosts_of(self, plan: Plan, claim: Claim) -> Callable[[Binding], RunHosts]:
        for host in self.world.hosts.values():
            host.reachable = host.name not in self.silent

        def connect(bound: Binding) -> RunHosts:
            return FakeHosts(self.world, [Target(plan, bound, n) for n in plan.nodes], claim.epoch, self.fuse)

        return connect

    def type(self, *words: str, code: int | None = 0) -> Typed:
        """Type a command; fails where its exit code is another one."""
        self.patch.setattr("sys.argv", ["runbook", *words])
        done = CliRunner().invoke(cli, list(words), prog_name="runbook")
        typed = Typed(done.exit_code, done.stdout, done.stderr)
        assert code is None or typed.code == code, f"{words}: exit {typed.code}\n{typed.out}\n{typed.err}"
        return typed

    def restore(self, *options: str, code: int = 0) -> Run:
        """A run of the plan; the run."""
        self.type("run", str(self.plan_path), "--yes", *options, code=code)
        return all_runs()[0]

    def results(self, typed: Typed) -> list[dict[str, Any]]:
        """The result lines of a command that printed JSON."""
        lines = [json.loads(line) for line in typed.out.splitlines()]
        return [line for line in lines if line.get("event") == "result"]

"""Saved into each kind of store, listed, restored from there by ``?latest=verified``: on the lab, with real servers.

The servers of the object stores run in the operator's network, as the program does: there the hosts and the store both
are, and no traffic leaves the lab.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook.lab import Lab
from tests.lab.test_snapshot_save import Keeper
from tests.stores.servers import KINDS

pytestmark = pytest.mark.lab
NODE_DIRECTORY = "/var/lib/backups"


class Shipper(Keeper):
    """A responder in the lab's operator network, with what gives access to a store."""

    env: dict[str, str]

    def popen(self, *args: str | Path) -> subprocess.Popen[str]:
        own = {"RUNBOOK_STATE_DIR": str(self.home / "state"), "NO_COLOR": "1", "TMPDIR": str(self.home)}
        bare = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "AZURE_", "GOOGLE_"))}
        argv = [sys.executable, "-m", "runbook.cli", *map(str, args)]
        options: dict[str, Any] = {"text": True, "stdin": subprocess.DEVNULL}
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.lab.popen_operator(argv, env={**bare, **own, **self.env}, **options)  # type: ignore[return-value]


@contextmanager
def place(kind: str, desk: Shipper) -> Iterator[dict[str, str]]:
    """A store of that kind, as a backup plan says it."""
    desk.env = {}
    if kind == "file":
        desk.store.mkdir(mode=0o700)
        yield {"url": f"file://{desk.store}"}
    elif kind == "host":
        desk.lab.exec("m3", ["mkdir", "-m", "700", NODE_DIRECTORY], check=True)
        yield {"url": f"host://m3{NODE_DIRECTORY}"}
        desk.lab.exec("m3", ["rm", "-rf", NODE_DIRECTORY], check=True)
    else:
        yield from served(kind, desk)


def served(kind: str, desk: Shipper) -> Iterator[dict[str, str]]:
    """One in a bucket of a real server."""
    KINDS[kind](desk.home)  # here, and not there: what cannot be had is a reason to skip
    argv = [sys.executable, "-m", "tests.stores.servers", kind, str(desk.home / "server")]
    server = desk.lab.popen_operator(argv, stdout=subprocess.PIPE)
    try:
        assert server.stdout
        for line in iter(server.stdout.readline, b""):
            word, _, rest = line.decode().strip().partition(" ")
            if word == "export":
                name, _, value = rest.partition("=")
                desk.env[name] = value.strip("'")
            else:
                found: dict[str, dict[str, str]] = yaml.safe_load(rest)
                break
        yield found["store"]
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.fixture
def shipper(lab: Lab, tmp_path: Path) -> Shipper:
    return Shipper(lab, tmp_path)


@pytest.fixture
def having(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Skips where the server of that kind cannot be had here, and says what is missing."""

    def look(kind: str) -> None:
        from runbook.lab.errors import Missing

        if kind in KINDS:
            try:
                KINDS[kind](Path("/nonexistent"))
            except Missing as missing:
                pytest.skip(str(missing))

    return look


@pytest.mark.parametrize("kind", ["file", "host", "s3", "az", "gs"])
def test_saved_listed_and_restored(shipper: Shipper, having: Callable[[str], None], kind: str) -> None:
    having(kind)
    desk = shipper
    with place(kind, desk) as store:
        desk.write_backup(store=store)
        desk.etcdctl("m1", "del", "after")
        desk.put("era", "kept")
        told = desk.saved()
        desk.put("era", "lost")
        desk.put("after", "the snapshot")
        listed = desk.listed()
        assert [s["name"] for s in listed["snapshots"]] == [told["name"]]
        assert listed["newest"] == told["name"]
        options = {k: v for k, v in store.items() if k == "endpoint"}
        source = {"from": f"{store['url']}?latest=verified", "identityFile": str(desk.identity)}
        desk.write_plan(snapshot=source | ({"store": options} if options else {}))
        desk.runbook("validate", desk.plan)
        desk.runbook("run", desk.plan, "--yes")
        desk.assert_restored(told["revision"] + 1_000_000_000)
        report = desk.runbook("report", desk.lines()[0]["run"]).stdout
        assert told["name"] in report
        desk.runbook("finish", desk.lines()[0]["run"], "--yes")
        url = f"{store['url']}/{told['name']}"
        options_ = ("--plan", desk.backup, "--identity-file", desk.identity, "--output", "json")
        proof = json.loads(desk.runbook("snapshot", "verify", url, *options_).stdout)
        assert proof["sha256"] == told["sha256"]
        assert not [n for n in os.listdir(desk.home) if "fetched" in n or n.endswith(".part")]
    desk.nothing_left()

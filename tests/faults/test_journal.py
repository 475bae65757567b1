"""The journal on the responder's machine: torn, forged, without room; and the plan beside it, edited."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.kit import Row, begins, reaches

pytestmark = pytest.mark.timeout(1200)


def typed(row: Row) -> tuple[str | Path, ...]:
    return "run", row.plan, "--yes"


def journal(row: Row) -> Path:
    (path,) = (row.home / "state/runs").glob("*/journal.jsonl")
    return path


@pytest.mark.third
def test_the_last_line_is_torn(row: Row) -> None:
    """The last line of the journal is torn | after a crash in the outage."""
    row.kill_when(typed(row), begins("StopEtcd"))
    with journal(row).open("ab") as file:
        file.write(b'{"seq": 99, "at": "2026-04-09T1')
    assert row.status()["state"] == "outage"
    row.runbook("resume")
    row.restored()


def test_a_line_in_the_middle_is_forged(row: Row) -> None:
    """A line in the middle of the journal is changed by hand | in the outage; rebuilt from the hosts' copies."""
    row.kill_when(typed(row), reaches("StopEtcd", "ACTING"))
    path = journal(row)
    lines = path.read_bytes().splitlines(keepends=True)
    middle = next(i for i, line in enumerate(lines) if b'"event":"begin"' in line and b"RestoreAside" in line)
    lines[middle] = lines[middle].replace(b"RestoreAside", b"RestoreElse")
    path.write_bytes(b"".join(lines))
    for command in ("resume", "rollback"):
        refused = row.runbook(command, code=4)
        assert f"journal.jsonl:{middle + 2}: the journal is damaged" in refused.stderr
        assert "runbook adopt --host" in refused.stderr
    said = row.adopt()
    assert "taken over, from the copy of m" in said
    assert list(path.parent.glob("journal.jsonl.before-*"))
    row.runbook("resume")
    row.restored()


def test_the_disk_is_full(row: Row) -> None:
    """The responder's disk is full, then enlarged | in the outage."""
    state = row.home / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "faults", str(state)], check=True)
    row.later(lambda: subprocess.run(["umount", "-l", str(state)], check=True))

    def fill() -> None:
        with open(state / "ballast", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        assert os.statvfs(state).f_bavail == 0

    done = row.during(typed(row), reaches("StopApiServers", "DONE"), fill, code=4)
    assert "the journal cannot be written: No space left on device" in done.stderr
    announced = {line["key"] for line in row.lines() if line["event"] == "begin"}
    for node in row.lab.nodes:
        names = row.sh(node.name, "cd /var/lib/etcd-runbook/*/commands && ls *.intent").split()
        assert {name.removesuffix(".intent") for name in names} <= announced
    again = row.runbook("resume", code=4)
    assert "No space left on device" in again.stderr
    subprocess.run(["mount", "-o", "remount,size=16m", str(state)], check=True)
    row.runbook("resume")
    row.restored()


@pytest.mark.third
def test_the_plan_is_edited(row: Row) -> None:
    """The run's copy of the plan is edited | between run and resume."""
    row.kill_when(typed(row), reaches("SwapData", "ACTING"))
    copy = journal(row).with_name("plan.yaml")
    text = copy.read_text()
    copy.write_text(text.replace(row.lab.host("m2").ip, row.lab.host("m3").ip, 1))
    for command in ("resume", "rollback"):
        refused = row.runbook(command, code=2)
        assert "it was edited" in refused.stderr
        assert str(row.plan) in refused.stderr
    assert json.loads(row.runbook("status", "--output", "json").stdout)["state"] == "outage"
    copy.write_text(text)
    row.runbook("resume")
    row.restored()

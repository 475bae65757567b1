"""A node that comes back to a run which went on without it: asked before its first step and after its last."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook.lab import Lab
from tests.lab.kit import BUMP, Desk
from tests.lab.proofkit import sh

pytestmark = pytest.mark.lab

CERT = "/etc/kubernetes/pki/etcd/server.crt"


def test_a_node_that_is_back_is_checked_before_its_first_step(lab: Lab, tmp_path: Path) -> None:
    """What is wrong with it alone is told before anything of it is touched; mended, it joins and is verified."""
    desk = Desk(lab, tmp_path)
    desk.write_plan()
    revision = desk.take_snapshot()
    lab.crash("m3")
    desk.runbook("run", desk.plan, "--yes", "--without", "m3")
    lab.boot("m3")
    sh(lab, "m3", 'mv "$1" /root', CERT)
    before = desk.tree()
    told = desk.runbook("resume", code=4).stderr
    after = desk.tree()
    sh(lab, "m3", 'mv /root/server.crt "$1"', CERT)
    assert "m3 is not given its steps, and nothing was changed on it: the checks say no:" in told
    assert f"m3: {CERT}" in told
    assert after == before
    assert desk.status()["absent"] == ["m3"]
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    assert desk.status()["absent"] == []
    desk.runbook("finish", "--yes")

"""``init`` on the lab, as a responder types it: what it writes restores the lab with no file edited by hand."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from runbook import planfile
from runbook.lab import Lab
from tests.lab.kit import BUMP, Desk

pytestmark = pytest.mark.lab


@pytest.fixture
def desk(lab: Lab, tmp_path: Path) -> Desk:
    """The shared lab, and no plan."""
    return Desk(lab, tmp_path)


def arguments(desk: Desk, user: str = "root") -> list[str | Path]:
    """What a responder knows: the hosts, a key, the known hosts, a snapshot."""
    hosts: list[str | Path] = [word for h in desk.lab.nodes for word in ("--host", f"{user}@{h.ip}")]
    login: list[str | Path] = ["--identity-file", desk.lab.identity, "--known-hosts-file", desk.lab.known_hosts]
    return [*hosts, *login, "--snapshot", desk.snapshot, "-o", desk.plan]


def test_what_it_writes_restores_the_lab(desk: Desk) -> None:
    revision = desk.take_snapshot()
    done = desk.runbook("init", *arguments(desk, user="ops"))
    assert done.stderr == "", "nothing is to be minded on a healthy lab"
    before = desk.plan.read_bytes()
    plan, warnings = planfile.load_with_warnings(desk.plan)
    assert not warnings
    assert [(n.name, n.host, n.peer_urls) for n in plan.nodes] == [
        (h.name, h.ip, (f"https://{h.ip}:2380",)) for h in desk.lab.nodes
    ]
    assert plan.snapshot.sha256 == hashlib.sha256(desk.snapshot.read_bytes()).hexdigest()
    assert plan.verify.secrets == ("default/known",)
    desk.runbook("preview", "--check", desk.plan)
    desk.runbook("run", desk.plan, "--yes")
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")
    assert desk.plan.read_bytes() == before


def test_a_dead_lab_with_a_host_that_is_off(desk: Desk) -> None:
    desk.take_snapshot()
    m1, m2, m3 = desk.lab.nodes
    for host in (m1, m2):
        stop = "systemctl stop kubelet && crictl stop $(crictl ps -q)"
        desk.lab.exec(host.name, ["sh", "-c", stop], check=True)
    desk.lab.crash(m3.name)
    done = desk.runbook("init", *arguments(desk))
    plan = planfile.load(desk.plan)
    assert [(n.name, n.host) for n in plan.nodes] == [(h.name, h.ip) for h in (m1, m2, m3)]
    assert plan.workers == ()
    assert f"warning: {m3.name} ({m3.ip}) did not answer" in done.stderr
    assert f"runbook preview --check {desk.plan} --without {m3.name}" in done.stdout
    assert f"runbook run {desk.plan} --without {m3.name}" in done.stdout
    text = desk.plan.read_text()
    assert "etcd does not answer (connection refused)" in text
    assert "no API server answered" in text
    assert "the dead members' data shows at least revision" in text
    refused = desk.runbook("init", *arguments(desk), code=2)
    assert "is not written over" in refused.stderr


def test_a_snapshot_that_is_not_on_the_host(desk: Desk) -> None:
    words = arguments(desk)
    words[words.index("--snapshot") + 1] = "host://m1/nosuch/x.db"
    refused = desk.runbook("init", *words, code=2)
    assert f"m1 ({desk.lab.nodes[0].ip}) has no such file" in refused.stderr
    assert "ls -l /nosuch" in refused.stderr
    assert not desk.plan.exists()


def test_a_key_that_is_not_this_clusters(desk: Desk, tmp_path: Path) -> None:
    desk.take_snapshot()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    words = arguments(desk)
    words[words.index("--identity-file") + 1] = tmp_path / "k"
    refused = desk.runbook("init", *words, code=3)
    for host in desk.lab.nodes:
        assert f"check with: ssh -i {tmp_path / 'k'} root@{host.ip} true" in refused.stderr

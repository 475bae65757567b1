"""What is found before anything is stopped: exit 3, or 2, or 6, and no host is changed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.lab import Lab
from tests.lab.kit import BUMP, Desk

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def good(shared_lab: Lab) -> bytes:
    """One whole snapshot, to be damaged."""
    path = Path(f"/run/runbook-lab/{shared_lab.name}/good.db")
    shared_lab.wait_healthy()
    shared_lab.snapshot(path)
    return path.read_bytes()


@pytest.fixture
def desk(lab: Lab, tmp_path: Path) -> Desk:
    """The shared lab and a plan."""
    made = Desk(lab, tmp_path)
    made.write_plan()
    return made


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def reached(desk: Desk, step: str, state: str) -> bool:
    """Whether the journal has it."""
    return any(x["event"] == "step" and x["step"] == step and x["to"] == state for x in desk.lines())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped byte": flipped,
    "missing trailer": lambda data: data[:-32],
    "truncated": lambda data: data[: len(data) // 2 + 1],
    "one byte short": lambda data: data[:-1],
    "empty": lambda data: b"",
    "text": lambda data: b"this is no snapshot\n" * 400,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_never_reaches_a_host(desk: Desk, good: bytes, damage: str) -> None:
    before = desk.tree()
    desk.snapshot.write_bytes(DAMAGES[damage](good))
    done = desk.runbook("run", desk.plan, "--yes", code=3)
    assert "no host is changed" in done.stderr
    assert str(desk.snapshot) in done.stderr
    assert desk.tree() == before


def test_a_snapshot_still_being_written(desk: Desk, good: bytes) -> None:
    part = desk.home / "etcd.db.part"
    part.write_bytes(good)
    desk.write_plan(snapshot={"from": f"file://{part}"})
    done = desk.runbook("run", desk.plan, "--yes", code=None)
    assert done.returncode in (2, 3)
    assert ".part" in done.stderr


def test_a_damaged_snapshot_on_a_host(desk: Desk, good: bytes) -> None:
    desk.lab.exec_bytes("m2", ["sh", "-c", "mkdir -p /opt/backup; cat > /opt/backup/bad.db"], input=flipped(good))
    desk.write_plan(snapshot={"from": "host://m2/opt/backup/bad.db"})
    before = desk.tree()
    done = desk.runbook("run", desk.plan, "--yes", code=3)
    assert "m2" in done.stderr
    assert desk.tree() == before


def test_all_hosts_are_reported_at_once(desk: Desk, good: bytes) -> None:
    """Three different faults on three hosts: all are told, and nothing is left of the run."""
    desk.snapshot.write_bytes(good)
    lab = desk.lab
    lab.exec("m1", ["cp", "/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/manifests/etcd.yaml.bak"], check=True)
    lab.exec("m2", ["systemctl", "stop", "kubelet"], check=True)
    lab.unplug("m3")
    try:
        done = desk.runbook("run", desk.plan, "--yes", code=3)
        check = desk.runbook("preview", desk.plan, "--check", code=3)
    finally:
        lab.exec("m1", ["rm", "-f", "/etc/kubernetes/manifests/etcd.yaml.bak"], check=True)
        lab.exec("m2", ["systemctl", "start", "kubelet"], check=True)
        lab.plug("m3")
    verdict = check.stdout.partition("CHECKED JUST NOW")[2]
    for said in (done.stderr, verdict):
        assert "etcd.yaml.bak" in said
        assert "m2" in said
        assert "m3" in said
    assert verdict.splitlines()[-1].startswith("digest: ")
    assert "Type next:     runbook preview --check" in verdict
    assert "m1, m2, m3" in check.stderr
    for host in ("m1", "m2", "m3"):
        assert lab.exec(host, ["test", "-e", "/var/lib/etcd-runbook.lock"]).returncode == 1
        assert lab.exec(host, ["test", "-e", "/var/lib/etcd-runbook"]).returncode == 1
    assert desk.status()["closed"]


def test_another_run_holds_a_host(desk: Desk, good: bytes) -> None:
    desk.snapshot.write_bytes(good)
    lock = '{"run": "other-20260101t000000z-beef", "holder": "ada@bastion", "since": "2026-01-01T00:00:00Z"}'
    desk.lab.exec("m3", ["sh", "-c", 'echo "$1" > /var/lib/etcd-runbook.lock', "sh", lock], check=True)
    try:
        before = desk.tree()
        done = desk.runbook("run", desk.plan, "--yes", code=6)
        assert desk.tree() == before
    finally:
        desk.lab.exec("m3", ["rm", "-f", "/var/lib/etcd-runbook.lock"], check=True)
    who = "other-20260101t000000z-beef, by ada@bastion, since 2026-01-01 00:00:00 UTC"
    assert f"another run holds m3: {who}" in done.stderr
    assert "ask ada@bastion; on that machine: runbook status other-20260101t000000z-beef" in done.stderr
    assert "the cluster may be in the outage of that run" in done.stderr
    assert "as it was" not in done.stderr


def test_a_bump_too_small_is_refused_with_one_that_would_do(desk: Desk) -> None:
    desk.take_snapshot()
    for number in range(20):
        desk.put("more", str(number))
    desk.write_plan(cluster={"bumpRevision": 1})
    done = desk.runbook("run", desk.plan, "--yes", code=3)
    assert "bump" in done.stderr.lower()
    assert any(word.strip(".,;:()").isdigit() and int(word.strip(".,;:()")) >= 20 for word in done.stderr.split())


def test_a_bump_found_too_small_in_the_outage_halts(desk: Desk) -> None:
    """Nothing speaks against it before; what is written until the API servers are down does. Then: back."""
    desk.take_snapshot()
    least = desk.revision("m1")
    desk.write_plan(cluster={"bumpRevision": 100})
    process = desk.popen("run", desk.plan, "--yes")
    while process.poll() is None and not reached(desk, "CheckEverything", "DONE"):
        pass
    process.send_signal(signal.SIGSTOP)
    desk.lab.fill(objects=300)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 4, out + err
    assert "bumpRevision" in err
    assert "runbook rollback" in err
    desk.runbook("rollback")
    desk.assert_old(least)
    desk.runbook("finish", "--yes")


def test_nobody_to_confirm(desk: Desk, good: bytes) -> None:
    desk.snapshot.write_bytes(good)
    done = desk.runbook("run", desk.plan, code=2)
    assert "--yes" in done.stderr
    assert not desk.lines()


def test_a_terminal_is_asked(desk: Desk, good: bytes) -> None:
    desk.snapshot.write_bytes(good)
    leader, follower = pty.openpty()
    env = {**os.environ, "RUNBOOK_STATE_DIR": str(desk.home / "state")}
    argv = [sys.executable, "-m", "runbook.cli", "run", str(desk.plan)]
    with subprocess.Popen(argv, env=env, stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(leader, b"no\n")
        _, err = process.communicate(timeout=60)
    os.close(leader)
    os.close(follower)
    assert process.returncode == 2
    assert b"not confirmed" in err
    assert not desk.lines()


def test_an_approval_of_something_else(desk: Desk, good: bytes) -> None:
    desk.snapshot.write_bytes(good)
    digest = desk.runbook("preview", desk.plan).stdout.splitlines()[-1].removeprefix("digest: ")
    desk.write_plan(cluster={"bumpRevision": BUMP + 1})
    done = desk.runbook("run", desk.plan, "--approve", digest, code=2)
    assert digest in done.stderr
    assert not desk.lines()


def test_a_changed_host_key(desk: Desk, good: bytes) -> None:
    desk.snapshot.write_bytes(good)
    known = desk.lab.known_hosts
    text = known.read_text()
    lines = text.splitlines()
    keys = [line.split(" ", 1)[1] for line in lines]
    swapped = zip(lines, keys[1:] + keys[:1], strict=True)
    known.write_text("\n".join(line.split(" ", 1)[0] + " " + key for line, key in swapped))
    try:
        done = desk.runbook("run", desk.plan, "--yes", code=3)
    finally:
        known.write_text(text)
    assert "host key" in done.stderr.lower()
    assert str(known) in done.stderr


def test_sudo_that_asks_for_a_password(desk: Desk, good: bytes) -> None:
    desk.snapshot.write_bytes(good)
    ssh = {"user": "ops", "identityFile": str(desk.lab.identity), "knownHostsFile": str(desk.lab.known_hosts)}
    desk.write_plan(ssh=ssh)
    desk.lab.exec("m2", ["sh", "-c", "mkdir -p /root/s && mv /etc/sudoers.d/* /root/s/"], check=True)
    try:
        done = desk.runbook("run", desk.plan, "--yes", code=3)
    finally:
        desk.lab.exec("m2", ["sh", "-c", "mv /root/s/* /etc/sudoers.d/"], check=True)
    assert "sudo" in done.stderr
    assert "m2" in done.stderr


def test_two_engines_on_one_run(desk: Desk) -> None:
    revision = desk.take_snapshot()
    process = desk.popen("run", desk.plan, "--yes")
    while process.poll() is None and not any(line["event"] == "begin" for line in desk.lines()):
        pass
    second = desk.runbook("resume", code=6)
    assert "process" in second.stderr
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")


def test_an_edited_plan_is_not_resumed(desk: Desk) -> None:
    revision = desk.take_snapshot()
    desk.kill_at(("run", desk.plan, "--yes"), lambda line: line["event"] == "begin" and line["step"] == "StopEtcd")
    copy = next((desk.home / "state/runs").glob("*/plan.yaml"))
    text = copy.read_text()
    copy.write_text(text.replace("secrets:", "secrets: []\n    rbac: []\n    #"))
    assert "edited" in desk.runbook("resume", code=2).stderr
    copy.write_text(text)
    other = desk.home / "other.yaml"
    other.write_text(text.replace("name: m2", "name: mx"))
    assert "nodes" in desk.runbook("resume", "--plan", other, code=2).stderr
    other.write_text(text.replace("spec:", "spec:\n  timeouts: {quorum: 90s}"))
    desk.runbook("resume", "--plan", other)
    desk.assert_restored(revision + BUMP)
    desk.runbook("finish", "--yes")

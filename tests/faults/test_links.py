"""The way to the hosts: cables, routes, sshd, sessions, host keys, sudo, floods of words."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from runbook.journal import Line
from tests.faults.kit import Row, begins, ends, reaches
from tests.lab.conftest import eventually

pytestmark = pytest.mark.timeout(1200)
RUNS = "/var/lib/etcd-runbook"
SSHD = "main=$(cat /run/sshd.pid); kill -{0} $main $(pgrep -P $main)"


def typed(row: Row) -> tuple[str | Path, ...]:
    return "run", row.plan, "--yes"


def intents(row: Row, host: str, step: str) -> int:
    """How many commands of a step were started on a host, by the host's own files."""
    return int(row.sh(host, f"ls {RUNS}/*/commands | grep -c '^{step}[.].*[.]intent$' || true"))


def begun(row: Row, host: str, step: str) -> int:
    """How many were announced in the journal."""
    return sum(begins(step, host)(line) for line in row.lines())


def halts(row: Row, said: str, *names: str) -> None:
    for name in (*names, "runbook resume", "runbook rollback"):
        assert name in said
    assert row.status()["state"] == "halted"


@pytest.mark.third
def test_a_link_is_down_between_two_steps(row: Row) -> None:
    """The cable of one host is pulled | between two steps of the outage."""
    done = row.during(typed(row), reaches("StopApiServers", "DONE"), lambda: row.lab.unplug("m2"), code=4)
    halts(row, done.stderr, "m2")
    row.lab.plug("m2")
    row.runbook("resume")
    row.restored()


def test_a_link_is_down_while_a_detached_restore_runs(row: Row) -> None:
    """The cable of one host is pulled until its restore has ended by itself | restoring beside the living data."""
    row.slow_restore("m2", 15)

    def come_back() -> None:
        ended = f"ls {RUNS}/*/commands/RestoreAside.*.rc"
        try:
            eventually("the restore ended without us", lambda: row.sh("m2", ended, check=False), within=120)
        finally:
            row.lab.plug("m2")

    def away() -> None:
        row.lab.unplug("m2")
        back.start()

    back = threading.Thread(target=come_back)
    row.during(typed(row), lambda line: begins("RestoreAside", "m2")(line) and row.restoring("m2"), away)
    back.join()
    assert intents(row, "m2", "RestoreAside") == begun(row, "m2", "RestoreAside") == 1
    row.restored()


def test_a_link_is_down_for_five_seconds(row: Row) -> None:
    """The cable of one host is pulled for five seconds | while etcd is being stopped."""
    back = threading.Timer(5, lambda: row.lab.plug("m2"))

    def away() -> None:
        row.lab.unplug("m2")
        back.start()

    row.during(typed(row), begins("StopEtcd", "m2"), away)
    back.join()
    assert intents(row, "m2", "StopEtcd") == begun(row, "m2", "StopEtcd")
    row.restored()


def test_a_black_hole(row: Row) -> None:
    """One host's answers to the responder vanish, while its etcd reaches the others | in the outage."""
    hole = "ip route {} blackhole 10.0.1.2/32"
    row.later(lambda: row.sh("m3", hole.format("del"), check=False))
    done = row.during(typed(row), reaches("StopApiServers", "DONE"), lambda: row.sh("m3", hole.format("add")), code=4)
    halts(row, done.stderr, "m3")
    row.sh("m3", hole.format("del"))
    row.runbook("resume")
    row.restored()


def test_sshd_hangs(row: Row) -> None:
    """Every sshd process of one host is stopped: connections stand, and nobody answers | in the outage."""
    row.later(lambda: row.sh("m2", SSHD.format("CONT"), check=False))
    hang = SSHD.format("STOP")
    done = row.during(typed(row), reaches("StopEtcd", "DONE"), lambda: row.sh("m2", hang), code=4)
    halts(row, done.stderr, "m2")
    row.sh("m2", SSHD.format("CONT"))
    row.runbook("resume")
    row.restored()


@pytest.mark.third
def test_a_session_is_killed_on_the_host(row: Row) -> None:
    """The SSH session is killed on the host | while it waits for etcd's end."""

    def last(line: Line) -> bool:
        return begins("StopEtcd", "m2")(line) and line["key"].endswith(".1")

    row.during(typed(row), last, lambda: row.cut("m2"))
    assert intents(row, "m2", "StopEtcd") == begun(row, "m2", "StopEtcd") == 2
    row.restored()


@pytest.mark.third
def test_the_host_key_changed(row: Row) -> None:
    """A host has another key | between run and resume."""
    key = "/etc/ssh/ssh_host_ed25519_key"
    back = f"[ ! -e {key}.kept ] || mv {key}.kept {key}; systemctl restart ssh"
    row.later(lambda: row.sh("m2", back))
    row.kill_when(typed(row), begins("StopEtcd"))
    row.sh("m2", f"mv {key} {key}.kept; ssh-keygen -q -t ed25519 -N '' -f {key}.new; mv {key}.new {key}")
    row.sh("m2", f"rm -f {key}.new.pub; systemctl restart ssh")
    row.boot("m2")
    halted = row.runbook("resume", code=4)
    halts(row, halted.stderr, "m2", "THE HOST KEY HAS CHANGED", str(row.lab.known_hosts))
    row.sh("m2", back)
    row.boot("m2")
    row.runbook("resume")
    row.restored()


def test_sshd_takes_one_login_at_a_time(row: Row) -> None:
    """MaxStartups is 1 on all hosts, and all sessions are killed once | in the outage."""
    config = "/etc/ssh/sshd_config"
    names = [h.name for h in row.lab.nodes]

    def busy() -> None:
        for name in names:
            row.cut(name)

    for name in names:
        row.later(partial(row.sh, name, f"sed -i '/^MaxStartups/d' {config}; systemctl restart ssh"))
        row.sh(name, f"sed -i '1iMaxStartups 1' {config}; systemctl restart ssh")
    row.boot(*names)
    row.during(typed(row), begins("StopEtcd", "m2"), busy)
    row.restored()


@pytest.mark.third
def test_sudo_asks_for_a_password_half_way(row: Row) -> None:
    """Sudo wants a password all at once, on one host, whose connection breaks | in the outage."""
    back = "[ ! -e /root/sudoers.lab ] || mv /root/sudoers.lab /etc/sudoers.d/lab"
    ssh = {"user": "ops", "identityFile": str(row.lab.identity), "knownHostsFile": str(row.lab.known_hosts)}
    row.write_plan(ssh=ssh)
    row.later(lambda: row.sh("m2", back))

    def lose() -> None:  # as long as the connection stands, the shell that is root there already goes on
        row.sh("m2", "mv /etc/sudoers.d/lab /root/sudoers.lab")
        row.cut("m2")

    done = row.during(typed(row), reaches("StopApiServers", "DONE"), lose, code=4)
    halts(row, done.stderr, "m2", "sudo refused")
    row.sh("m2", back)
    row.runbook("resume")
    row.restored()


def test_a_check_prints_fifty_megabytes(row: Row) -> None:
    """A check of the plan's own writes 50 MB without a line break to standard error, and says no | at the end."""
    flood = "[ -e /root/quiet ] || { head -c 50000000 /dev/zero | tr '\\0' e >&2; exit 3; }"
    own = {"name": "talks a lot", "on": "all", "run": flood, "within": "60s"}
    row.write_plan(verify={"secrets": ["default/known"], "checks": [own]}, timeouts={"nodesReady": "2m"})
    for node in row.lab.nodes:
        row.later(partial(row.sh, node.name, "rm -f /root/quiet"))
    done = row.runbook(*typed(row), code=7)
    assert "talks a lot" in done.stderr
    assert "eeee" in done.stderr
    assert len(done.stderr) < 30_000
    assert all(len(str(line)) < 30_000 for line in row.lines())
    for node in row.lab.nodes:
        row.sh(node.name, "touch /root/quiet")
    row.runbook("resume")
    row.restored()


def test_an_upload_is_cut_half_way(row: Row) -> None:
    """The sessions of one host are killed when a part of a large snapshot has come | staging the snapshot."""
    row.lab.fill(objects=0, mb=48)
    row.later(lambda: slim(row))
    row.snapshot_revision = row.take_snapshot()
    row.least = row.revision("m1")
    runs = Path(f"/proc/{row.lab.host_pid('m2')}/root{RUNS}")

    def half() -> bool:
        return any(part.stat().st_size > 1_000_000 for part in runs.glob("*/snapshot.db.*.part"))

    def cut() -> None:
        row.cut("m2")
        assert not list(runs.glob("*/snapshot.db"))

    row.held_once(typed(row), half, cut)  # held, it sends nothing more
    assert row.sh("m2", f"ls {RUNS}/*/*.part", check=False) == ""
    assert any(ends("StageSnapshot", "m2")(line) and line["code"] == 0 for line in row.lines())
    row.restored()


def slim(row: Row) -> None:
    """Take the ballast away, so that the next rows are quick."""
    row.lab.wait_healthy(120)
    row.etcdctl("m1", "del", "--prefix", "/registry/lab.runbook/ballast/")
    row.etcdctl("m1", "compact", str(row.revision("m1")))
    for node in row.lab.nodes:
        row.etcdctl(node.name, "--command-timeout=60s", "defrag")

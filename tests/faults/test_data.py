"""The data itself: snapshots, restored copies, disks and old directories that are not what they should be."""

from __future__ import annotations

import shlex
import time

import pytest

from runbook.hands import FRESH
from runbook.lab.fill import etcd_of
from tests.faults.conftest import Fresh
from tests.faults.kit import Row, reaches
from tests.lab.conftest import eventually
from tests.lab.kit import BUMP

DATA = "/var/lib/etcd"
MANIFESTS = "/etc/kubernetes/manifests"
CUT_OFF = """#!/bin/sh
case "$*" in *--data-dir*) ;; *) exec REAL "$@" ;; esac
REAL "$@" &
pid=$!
while [ "$1" != --data-dir ]; do shift; done
while [ ! -e "$2/member/snap/db" ]; do :; done
kill -9 $pid
wait $pid
"""
"""etcdutl, killed as soon as it has made a database: then there is no WAL yet."""
STOPPED = """
mv {m}/etcd.yaml /root/etcd.yaml
while [ -n "$(crictl ps -q --name '^etcd$')" ]; do crictl stop $(crictl ps -q --name '^etcd$'); sleep 0.1; done
"""
BREAK = {
    "missing": "rm -rf {d}",
    "garbage": "for f in $(find {d} -type f); do head -c 100000 /dev/urandom > $f; done",
}


def run_of(row: Row) -> str:
    """The newest run's id."""
    return str(row.lines()[0]["run"])


def begun(row: Row, step: str) -> bool:
    """Whether a step has begun in the newest run."""
    return any(line["event"] == "step" and line["step"] == step for line in row.lines())


def other_copy(row: Row, host: str, *, token: str = "", snapshot: str = "snapshot.db") -> None:
    """Restore something else where a host keeps its restored copy, as somebody might by hand."""
    run, node = run_of(row), row.lab.host(host)
    cluster = ",".join(f"{h.name}=https://{h.ip}:2380" for h in row.lab.nodes)
    place = f"{DATA}/.{run}.restored"
    source = snapshot if snapshot.startswith("/") else f"/var/lib/etcd-runbook/{run}/{snapshot}"
    words = ["etcdutl", "snapshot", "restore", source, "--data-dir", "/root/copy", "--name", host]
    words += ["--initial-cluster", cluster, "--initial-cluster-token", token or run]
    words += ["--initial-advertise-peer-urls", f"https://{node.ip}:2380"]
    words += ["--bump-revision", str(BUMP), "--mark-compacted"]
    row.sh(host, f"rm -rf /root/copy && {shlex.join(words)} && rm -r {place}/member && mv /root/copy/member {place}/")


# --- while preparing ---


@pytest.mark.third
def test_a_staged_snapshot_is_replaced(row: Row) -> None:
    """The staged snapshot is replaced by another whole one | on one host, after staging."""

    def replace() -> None:
        place = f"/var/lib/etcd-runbook/{run_of(row)}/snapshot.db"
        done = row.lab.exec_bytes("m2", ["sh", "-c", f"cat > {place}"], other.read_bytes())
        assert done.returncode == 0
        time.sleep(FRESH + 1)  # what was seen a moment ago is not asked again

    other = row.lab.snapshot(row.home / "other.db")
    said = row.during(("run", row.plan, "--yes"), reaches("StageSnapshot", "DONE"), replace, code=3)
    assert "m2" in said.stderr
    assert "sha256" in said.stderr
    assert not begun(row, "StopControllers")
    for host in ("m1", "m2", "m3"):
        assert not row.sh(host, f"ls -d {DATA}/.*.rest* /var/lib/etcd-runbook* 2>/dev/null || :")
    row.untouched()


REPLACED = """#!/bin/sh
# somebody copies another snapshot over the staged one, in the moment before etcdutl reads it
case "$*" in *"snapshot restore --help"*) exec REAL "$@" ;; esac
if [ "$1 $2" = "snapshot restore" ]; then cp /root/other.db "$3"; fi
exec REAL "$@"
"""


@pytest.mark.third
def test_a_snapshot_is_replaced_as_it_is_restored(row: Row) -> None:
    """The staged snapshot is replaced by another whole one | on one host, just before etcdutl reads it."""
    other, place = row.lab.snapshot(row.home / "other.db"), "/usr/local/sbin/etcdutl"
    row.lab.exec_bytes("m2", ["sh", "-c", "umask 077; cat > /root/other.db"], other.read_bytes())
    real = row.sh("m2", "command -v etcdutl").strip()
    row.later(lambda: row.sh("m2", f"rm -f {place} /root/other.db"))
    row.lab.exec("m2", ["sh", "-c", f"cat > {place} && chmod 755 {place}"], REPLACED.replace("REAL", real), check=True)
    said = row.runbook("run", row.plan, "--yes", code=3)
    assert "m2" in said.stderr
    assert "the snapshot was replaced before it was restored" in said.stderr
    assert not begun(row, "StopControllers")
    for host in ("m1", "m2", "m3"):
        assert not row.sh(host, f"ls -d {DATA}/.*.rest* /var/lib/etcd-runbook* 2>/dev/null || :")
    row.untouched()


FULL = """#!/bin/sh
case "$*" in *--data-dir*) fallocate -l $(( $(stat -f -c '%a * %S' /var/lib) - 16777216 )) /var/lib/filler ;; esac
exec REAL "$@"
"""
"""etcdutl, on a disk that somebody fills in the moment before it restores."""


def test_the_data_disk_fills_up(fresh: Fresh) -> None:
    """The data disk is full | on one host, while restoring beside the data."""
    row, place = fresh(disk="900m"), "/usr/local/sbin/etcdutl"
    real = row.sh("m2", "command -v etcdutl").strip()
    row.lab.exec("m2", ["sh", "-c", f"cat > {place} && chmod 755 {place}"], FULL.replace("REAL", real), check=True)
    said = row.runbook("run", row.plan, "--yes", code=3)
    assert "m2" in said.stderr
    assert "no space left" in said.stderr.lower()
    assert not row.sh("m2", f"ls -d {DATA}/.*.rest* 2>/dev/null || :")
    row.untouched()
    row.sh("m2", f"rm /var/lib/filler {place}")
    row.runbook("run", row.plan, "--yes")
    row.outcome = "refused, nothing changed; with room: restored"
    row.restored()


@pytest.mark.third
def test_etcdutl_is_killed(row: Row) -> None:
    """Etcdutl is killed | on one host, half-way through its restore."""
    place = "/usr/local/sbin/etcdutl"
    real = row.sh("m2", "command -v etcdutl").strip()
    row.later(lambda: row.sh("m2", f"rm -f {place}"))
    row.lab.exec("m2", ["sh", "-c", f"cat > {place} && chmod 755 {place}"], CUT_OFF.replace("REAL", real), check=True)
    said = row.runbook("run", row.plan, "--yes", code=3)
    assert "m2" in said.stderr
    row.untouched()
    assert not row.sh("m2", f"ls -d {DATA}/.*.rest* 2>/dev/null || :")
    row.sh("m2", f"rm {place}")
    row.runbook("run", row.plan, "--yes")
    row.outcome = "refused, nothing changed; again: restored"
    row.restored()


# --- what was restored is not what was planned ---


def test_the_wal_is_missing(row: Row) -> None:
    """The restored WAL is missing | on one host, when the outage begins."""
    row.kill_at(("run", row.plan, "--yes"), reaches("StopControllers", "ACTING"))
    row.sh("m2", f"rm -r {DATA}/.{run_of(row)}.restored/member/wal")
    said = row.runbook("resume", code=4)
    assert "m2" in said.stderr
    assert "WAL" in said.stderr
    assert not begun(row, "StartEtcd")
    row.runbook("rollback")
    row.outcome = "halted before etcd is started; rolled back"
    row.rolled_back()


def test_one_member_has_other_data(row: Row) -> None:
    """Another snapshot's data, same token, same names | restored on one host."""
    row.write_plan(timeouts={"quorum": "40s"})
    row.lab.snapshot(row.home / "other.db")
    row.kill_at(("run", row.plan, "--yes"), reaches("StopControllers", "ACTING"))
    row.later(lambda: row.sh("m3", "rm -rf /root/other.db /root/copy"))
    row.lab.exec_bytes("m3", ["sh", "-c", "cat > /root/other.db"], (row.home / "other.db").read_bytes())
    other_copy(row, "m3", snapshot="/root/other.db")
    said = row.runbook("resume", code=4)
    assert "hashes" in said.stderr
    assert not begun(row, "StartApiServers")
    row.runbook("rollback")
    row.outcome = "halted by the hashes, no API server was started; rolled back"
    row.rolled_back()


def test_another_token(row: Row) -> None:
    """Another cluster token | in the restored copy of one host."""
    row.write_plan(timeouts={"quorum": "40s"})
    row.kill_at(("run", row.plan, "--yes"), reaches("StopControllers", "ACTING"))
    other_copy(row, "m3", token="etcd-cluster")
    said = row.runbook("resume", code=4)
    assert "m3" in said.stderr
    assert not begun(row, "StartApiServers")
    row.runbook("rollback")
    row.outcome = "halted, no API server was started; rolled back"
    row.rolled_back()


# --- what comes back with a snapshot ---


def test_an_alarm_in_the_snapshot(row: Row) -> None:
    """A NOSPACE alarm | in the snapshot."""

    def alarm(action: str) -> None:
        def call() -> None:
            etcd = etcd_of(row.lab, row.lab.nodes[0])
            own = etcd.call("/v3/maintenance/status", {})["header"]["member_id"]
            etcd.call("/v3/maintenance/alarm", {"action": action, "memberID": own, "alarm": "NOSPACE"})
            etcd.close()

        row.lab.in_operator(call)

    row.put("era", "kept")
    row.etcdctl("m1", "del", "after")
    row.later(lambda: alarm("DEACTIVATE"))
    alarm("ACTIVATE")
    row.snapshot_revision = row.revision("m1")
    row.lab.snapshot(row.snapshot)
    alarm("DEACTIVATE")
    row.put("era", "lost")
    row.write_plan(timeouts={"quorum": "40s"})
    said = row.runbook("run", row.plan, "--yes", code=4)
    assert "holds an alarm" in said.stdout + said.stderr, "told before anything is touched"
    assert "NOSPACE" in said.stderr
    assert "etcdctl alarm disarm" in said.stderr
    assert not begun(row, "StartApiServers")
    row.etcdctl("m1", "alarm", "disarm")
    row.runbook("resume")
    row.outcome = "halted before the API servers; disarmed and resumed: restored"
    row.restored()


@pytest.mark.third
def test_authentication_in_the_snapshot(row: Row) -> None:
    """Authentication is enabled | in the snapshot."""
    root = ("--user", "root:pw")

    def disable() -> None:
        row.etcdctl("m1", "auth", "disable", *root)

    row.put("era", "kept")
    row.etcdctl("m1", "del", "after")
    for words in (("user", "add", "root:pw"), ("role", "add", "root"), ("user", "grant-role", "root", "root")):
        row.etcdctl("m1", *words)
    row.snapshot_revision = row.revision("m1")
    row.etcdctl("m1", "auth", "enable")
    try:
        row.etcdctl("m1", "snapshot", "save", "/root/auth.db", *root)
    finally:
        disable()
    row.snapshot.write_bytes(row.lab.exec_bytes("m1", ["cat", "/root/auth.db"]).stdout)
    row.put("era", "lost")
    row.later(lambda: row.sh("m1", "rm -f /root/auth.db"))
    row.lab.wait_healthy(120)
    row.write_plan(timeouts={"quorum": "40s"})
    said = row.runbook("run", row.plan, "--yes", code=4)
    assert "authentication enabled" in said.stdout + said.stderr, "told before anything is touched"
    assert "auth disable" in said.stderr, said.stderr
    assert not begun(row, "StartApiServers")
    disable()
    row.runbook("resume")
    row.outcome = "halted before the API servers; disabled and resumed: restored"
    row.restored()
    row.etcdctl("m1", "user", "delete", "root")
    row.etcdctl("m1", "role", "delete", "root")


def test_the_same_snapshot_twice(row: Row) -> None:
    """The same snapshot is restored again | under a living revision that is higher by now."""
    row.runbook("run", row.plan, "--yes")
    first = run_of(row)
    for number in range(5):
        row.put("between", str(number))
    said = row.runbook("run", row.plan, "--yes", code=3)
    _, found, rest = said.stderr.partition("spec.cluster.bumpRevision: ")
    assert found, said.stderr
    bump = int("".join(c for c in rest.split()[0] if c.isdigit()))
    row.write_plan(cluster={"bumpRevision": bump})
    row.runbook("run", row.plan, "--yes")
    row.runbook("finish", first, "--yes")
    row.assert_restored(row.snapshot_revision + bump)
    assert row.get("m1", "between") == ""
    row.outcome = "refused, with the number that would do; with it: restored"
    row.restored()


# --- the old data ---


@pytest.mark.parametrize("what", BREAK)
def test_the_old_data_is_lost(row: Row, what: str) -> None:
    """The data directory is missing, or full of garbage | on all hosts."""
    for host in row.lab.nodes:
        row.sh(host.name, STOPPED.format(m=MANIFESTS))
    for host in row.lab.nodes:
        row.sh(host.name, BREAK[what].format(d=DATA))
    for host in row.lab.nodes:
        row.sh(
            host.name, f"cp /root/etcd.yaml {MANIFESTS}/.etcd.yaml && mv {MANIFESTS}/.etcd.yaml {MANIFESTS}/etcd.yaml"
        )
    seen = "crictl ps -a -q --name '^etcd$'"
    eventually("the kubelets have tried", lambda: all(row.sh(h.name, seen) for h in row.lab.nodes), within=120)
    row.runbook("run", row.plan, "--yes")
    row.restored()


@pytest.mark.third
def test_the_old_directory_was_removed(row: Row) -> None:
    """The kept old data was removed by hand | on one host, before a rollback."""

    def seen() -> list[str]:
        return [row.sh(h.name, f"ls -A {DATA} {DATA}/.*.old {MANIFESTS}") for h in row.lab.nodes]

    row.kill_at(("run", row.plan, "--yes"), reaches("StartEtcd", "DONE"))
    place = f"{DATA}/.{run_of(row)}.old/member"
    row.sh("m2", f"mv {place} /root/old-member")
    before = seen()
    said = row.runbook("rollback", code=4)
    assert f"m2: the old data that was at {place} is gone: put it back there" in said.stderr
    assert "By hand:       as root on m2:\n" in said.stderr
    assert f"mv -T /WHERE/IT/IS/member {place}" in said.stderr
    assert seen() == before
    row.sh("m2", f"mv /root/old-member {place}")
    row.runbook("rollback")
    row.outcome = "halted, nothing changed, prints the manual card; put back: rolled back"
    row.rolled_back()

"""The hosts: manifests, members, containers, ports, kubelets, mounts and WAL directories that are in the way."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.conftest import Fresh
from tests.faults.kit import Row, reaches
from tests.lab.conftest import eventually
from tests.lab.kit import BUMP

DATA = "/var/lib/etcd"
WAL = "/var/lib/etcd-wal/wal"
MANIFESTS = "/etc/kubernetes/manifests"
LISTENER = """
import socket, time
while True:
    try:
        held = socket.create_server(("0.0.0.0", 6443))
    except OSError:
        time.sleep(0.005)
    else:
        time.sleep(3600)
"""
"""Takes the port as soon as it is free."""
STUCK = """#!/bin/sh
case "$*" in MATCH) touch /root/between; sleep 600 ;; esac
exec /bin/mv "$@"
"""
"""mv, which hangs before a rename whose words match."""
MOUNT = f"""
set -eu
mv {MANIFESTS}/etcd.yaml /root/etcd.yaml
while [ -n "$(crictl ps -q --name '^etcd$')" ]; do sleep 0.1; done
mv {DATA}/member /root/member
mount -t tmpfs -o size=1g,mode=0700 tmpfs {DATA}
mkdir {DATA}/lost+found
cp -a /root/member {DATA}/member
cp /root/etcd.yaml {MANIFESTS}/.etcd.yaml
mv {MANIFESTS}/.etcd.yaml {MANIFESTS}/etcd.yaml
"""


def run_of(row: Row) -> str:
    """The newest run's id."""
    return str(row.lines()[0]["run"])


# --- what the first checks find ---


@pytest.mark.third
def test_the_host_path_points_elsewhere(row: Row) -> None:
    """The hostPath of etcd.yaml points elsewhere | on one host."""

    def put(script: str) -> None:
        text = f"sed '{script}' {MANIFESTS}/etcd.yaml > {MANIFESTS}/.etcd.yaml"
        row.sh("m2", f"{text} && mv {MANIFESTS}/.etcd.yaml {MANIFESTS}/etcd.yaml")

    def mend() -> None:
        put("s|path: /var/lib/etcd-typo$|path: /var/lib/etcd|")
        row.lab.wait_healthy(120)
        row.sh("m2", "rm -rf /var/lib/etcd-typo")

    row.later(mend)
    put("s|path: /var/lib/etcd$|path: /var/lib/etcd-typo|")
    said = row.runbook("run", row.plan, "--yes", code=3)
    assert "m2" in said.stderr
    assert "/var/lib/etcd-typo" in said.stderr
    mend()
    row.untouched()


def test_a_member_is_not_in_the_plan(row: Row) -> None:
    """A living member is not in the plan | two of three nodes are planned."""
    nodes = [{"name": h.name, "host": h.ip, "peerURLs": [f"https://{h.ip}:2380"]} for h in row.lab.nodes[:2]]
    row.write_plan(nodes=nodes)
    said = row.runbook("run", row.plan, "--yes", code=3)
    assert "member m3 at https://10.0.1.12:2380 lives and is not in the plan" in said.stderr
    row.untouched()


# --- in the outage ---


def test_a_container_outlives_its_manifest(row: Row) -> None:
    """A kubelet is restarted while every API server is down, and deletes no pod | on one host."""
    row.write_plan(timeouts={"stop": "15s"})
    stopping = reaches("StopEtcd", "ACTING")
    row.during(("run", row.plan, "--yes"), stopping, lambda: row.sh("m2", "systemctl restart kubelet"))
    said = f"cat /var/lib/etcd-runbook/{run_of(row)}/commands/StopEtcd*.err"
    assert "the kubelet did not stop etcd within 15 s; crictl stop" in row.sh("m2", said)
    assert "crictl stop" not in row.sh("m1", said)
    row.outcome = "stopped by crictl; restored"
    row.restored()


@pytest.mark.third
def test_a_listener_is_left_on_6443(row: Row) -> None:
    """Something else listens on 6443 | on one host, once its API server is gone."""
    process = row.lab.popen("m2", ["/usr/bin/python3", "-c", LISTENER])

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    row.later(end)
    said = row.runbook("run", row.plan, "--yes", code=4)
    assert "m2: something still listens on 6443" in said.stderr
    assert "runbook resume" in said.stderr
    end()
    row.runbook("resume")
    row.outcome = "halted, names the port; ended and resumed: restored"
    row.restored()


def test_a_static_pod_does_not_come_back(row: Row) -> None:
    """The kubelet is stopped | on one host, when the API servers are started."""
    row.write_plan(timeouts={"apiServer": "30s"})
    row.later(lambda: row.sh("m2", "systemctl start kubelet"))
    starting = reaches("StartApiServers", "ACTING")
    said = row.during(("run", row.plan, "--yes"), starting, lambda: row.sh("m2", "systemctl stop kubelet"), code=4)
    assert "m2: no container kube-apiserver runs" in said.stderr
    assert f"runbook rollback {run_of(row)} --discard-writes" in said.stderr
    row.sh("m2", "systemctl start kubelet")
    row.runbook("rollback", "--discard-writes")
    row.outcome = "halted; rolled back with --discard-writes"
    row.rolled_back()


# --- going back ---


@pytest.mark.third
def test_what_is_discarded_is_saved(row: Row) -> None:
    """Writes of the restored cluster are discarded | by a rollback after the end."""
    row.runbook("run", row.plan, "--yes")
    row.put("born", "after-the-restore")
    last = row.revision("m1")
    row.runbook("rollback", "--discard-writes")
    kept = f"/var/lib/etcd-runbook/{run_of(row)}/discarded.db"
    assert row.sh("m1", f"stat -c '%a %U' {kept}").split() == ["600", "root"]
    assert row.lab.exec("m2", ["test", "-e", kept]).returncode == 1
    row.later(lambda: row.sh("m1", "rm -rf /root/discarded"))
    # etcdutl compares the file with the hash at its end before it restores anything.
    row.sh("m1", f"etcdutl snapshot restore {kept} --data-dir /root/discarded")
    assert "after-the-restore" in row.sh("m1", f"grep -ao after-the-restore {kept}")
    status = row.sh("m1", f"etcdutl snapshot status {kept} -w simple")
    assert int(status.split(",")[1]) >= last > BUMP
    row.outcome = "rolled back; the writes are in discarded.db"
    row.rolled_back()
    assert row.lab.exec("m1", ["test", "-e", kept]).returncode == 1


@pytest.mark.third
def test_the_card_for_going_back_by_hand(row: Row) -> None:
    """The kept old data cannot be moved | on one host, in a rollback."""
    row.kill_at(("run", row.plan, "--yes"), reaches("StartEtcd", "ACTING"))
    old = f"{DATA}/.{run_of(row)}.old/member"
    unmount = f"while mountpoint -q {old}; do umount {old}; done"
    row.later(lambda: row.sh("m2", unmount))
    row.sh("m2", f"mount --bind {old} {old}")
    said = row.runbook("rollback", code=4)
    assert "stuck while rolling back" in said.stderr
    card = [line.strip() for line in said.stderr.partition("By hand:")[2].splitlines()]
    assert card[0] == "as root on m2:"
    assert not [line for line in card[1:] if line.startswith("as root")], "the others are back"
    row.sh("m2", unmount)
    row.sh("m2", "\n".join(card[1:]))
    assert row.lab.exec("m2", ["test", "-e", old]).returncode == 1
    row.runbook("rollback")
    row.outcome = "stuck, prints what to type by hand; typed: rolled back"
    row.rolled_back()


# --- directories ---


def test_the_data_directory_is_a_mount_point(fresh: Fresh) -> None:
    """The data directory is a mount point with lost+found | on all hosts."""
    row = fresh()
    for host in row.lab.nodes:
        row.sh(host.name, MOUNT)
        row.lab.wait_healthy(120)
    row.runbook("run", row.plan, "--yes")
    for host in row.lab.nodes:
        row.sh(host.name, f"mountpoint -q {DATA} && test -d {DATA}/lost+found")
    row.restored()
    assert row.sh("m2", f"ls -A {DATA}").split() == ["lost+found", "member"]


CUTS = {
    "the old data is aside, its WAL is not": (r"*-t\ *.old*", "resume"),
    "all the old is aside, nothing new is in place": ("*.restored/member*", "resume"),
    "the new data is in place, its WAL is not": (r"*-t\ *.restored/*", "rollback"),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_host_crashes_between_the_renames(fresh: Fresh, cut: str) -> None:
    """The power fails between the renames of the swap, the WAL directory being apart | on one host."""
    match, command = CUTS[cut]
    row = fresh(wal_dir=WAL)
    row.write_plan(paths={"walDir": WAL})
    place, text = "/usr/local/sbin/mv", STUCK.replace("MATCH", match)
    process = row.popen("run", row.plan, "--yes")
    try:
        eventually("the outage begins", lambda: any(map(reaches("StopEtcd", "ACTING"), row.lines())), within=300)
        row.lab.exec("m2", ["sh", "-c", f"cat > {place} && chmod 755 {place}"], text, check=True)
        reached = ["test", "-e", "/root/between"]
        eventually("the swap is between", lambda: row.lab.exec("m2", reached).returncode == 0, within=120)
    finally:
        process.kill()
        process.communicate(timeout=60)
    row.lab.crash("m2")
    row.boot("m2")
    row.sh("m2", f"rm {place}")
    row.runbook(command)
    row.outcome = "resumed: restored" if command == "resume" else "rolled back"
    if command == "resume":
        row.restored()
    else:
        row.rolled_back()

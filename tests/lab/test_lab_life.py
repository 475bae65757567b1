"""Up, down, crash, cables: and that nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runbook.lab import Lab
from runbook.lab.cli import lab as cli
from runbook.lab.errors import LabUsageError
from runbook.lab.layout import ROOT

from .conftest import NAME, eventually

pytestmark = pytest.mark.lab


def members(lab: Lab, through: str = "m1") -> list[dict[str, Any]]:
    pki = "/etc/kubernetes/pki/etcd"
    tls = [f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key"]
    argv = ["etcdctl", "--endpoints=https://127.0.0.1:2379", *tls, "endpoint", "status", "--cluster", "-w", "json"]
    found: list[dict[str, Any]] = json.loads(lab.exec(through, argv, check=True).stdout)
    return found


def get(lab: Lab, host: str, path: str) -> subprocess.CompletedProcess[str]:
    return lab.exec(host, ["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "--raw", path])


def traces(name: str) -> dict[str, object]:
    """All that a lab of this name could leave on this machine."""
    marks = str(ROOT / name)
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if marks in line or "runbook-lab" in line]
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                root = (entry / "mountinfo").read_text()
            except OSError:
                continue
            if marks.encode() in line or f"{marks}/" in root:
                processes.append(entry.name)
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    names = sorted(re.findall(r"^\d+: (\S+?)[@:]", links, re.M))
    return {"mounts": mounts, "processes": processes, "links": names, "directory": (ROOT / name).exists()}


def in_use(namespace: str) -> bool:
    """Whether any process is in this network namespace."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns/net") == namespace:
                    return True
            except OSError:
                continue
    return False


def test_up_makes_a_healthy_tls_cluster(lab: Lab) -> None:
    status = members(lab)
    assert len(status) == 3
    clusters = {s["Status"]["header"]["cluster_id"] for s in status}
    assert len(clusters) == 1
    for host in lab.nodes:
        assert get(lab, host.name, "/readyz").stdout == "ok"
    plain = lab.exec("m1", ["etcdctl", "--endpoints=http://127.0.0.1:2379", "--command-timeout=2s", "get", "x"])
    assert plain.returncode != 0, "etcd answers without TLS"


def test_a_crashed_host_is_silent_and_keeps_its_disk(lab: Lab) -> None:
    lab.exec(
        "m2",
        ["sh", "-c", "echo kept > /root/on-disk; echo lost > /run/in-memory; echo lost > /tmp/in-memory"],
        check=True,
    )
    key = lab.exec("m2", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"], check=True).stdout
    card = lab.exec("m2", ["cat", "/sys/class/net/eth0/address"], check=True).stdout
    moved = "mkdir -p /root/a && mv -T /root/a /root/b && stat -c '%i %W' /root/b /var/lib/etcd/member"
    numbers = lab.exec("m2", ["sh", "-c", moved], check=True).stdout
    lab.crash("m2")
    with pytest.raises(LabUsageError, match=r"m2 .* is down"):
        lab.exec("m2", ["true"])
    ping = lab.exec("operator", ["timeout", "2", "sh", "-c", "exec 3<>/dev/tcp/10.0.1.11/22"])
    assert ping.returncode != 0
    eventually("two of three are a quorum", lambda: get(lab, "m1", "/readyz").stdout == "ok")
    lab.boot("m2")
    assert lab.exec("m2", ["cat", "/root/on-disk"], check=True).stdout == "kept\n"
    assert lab.exec("m2", ["sh", "-c", "cat /run/in-memory /tmp/in-memory"]).returncode != 0
    assert lab.exec("m2", ["cat", "/etc/ssh/ssh_host_ed25519_key.pub"], check=True).stdout == key
    # with another card its neighbours would not find it before half a minute was over
    assert lab.exec("m2", ["cat", "/sys/class/net/eth0/address"], check=True).stdout == card
    # by its inode and its birth time a rollback knows the data that its run put in place
    assert lab.exec("m2", ["stat", "-c", "%i %W", "/root/b", "/var/lib/etcd/member"], check=True).stdout == numbers
    lab.wait_healthy(60)
    with pytest.raises(LabUsageError, match="runs already"):
        lab.boot("m2")


def test_a_crash_closes_no_connection(lab: Lab) -> None:
    """A real power cut sends neither FIN nor RST: who was connected only hears nothing more."""
    ssh = ["ssh", "-F", str(lab.ssh_config), "m3", "echo up; sleep 60"]
    with lab.popen_operator(ssh, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            lab.crash("m3")
            time.sleep(1.5)
            assert process.poll() is None, "the connection was closed"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_an_unplugged_host_runs_on_and_stays_unplugged_over_a_boot(lab: Lab) -> None:
    def reachable() -> bool:
        host = lab.status()["hosts"][1]
        return bool(host["ssh"])

    argv = ["timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/10.0.1.11/22"]
    assert lab.exec("operator", argv).returncode == 0
    lab.unplug("m2")
    assert lab.exec("operator", argv).returncode != 0
    assert lab.exec("m2", ["crictl", "ps", "-q"], check=True).stdout.count("\n") == 4
    lab.crash("m2")
    lab.boot("m2")
    assert lab.exec("operator", argv).returncode != 0
    lab.plug("m2")
    eventually("m2 answers again", reachable)


def test_hosts_see_nothing_of_this_machine_or_of_each_other(lab: Lab) -> None:
    lab.exec("m1", ["touch", "/root/of-m1"], check=True)
    seen = lab.exec("m2", ["ls", "-A", "/", "/root", "/home", "/run", "/opt"], check=True).stdout
    assert "of-m1" not in seen
    assert str(lab.dir) not in lab.exec("m2", ["sh", "-c", "cat /proc/[0-9]*/cmdline; ls /run/runbook-lab"]).stdout
    assert not lab.exec("m2", ["sh", "-c", "ls /root/.ssh /root/.cache /work"]).stdout
    assert lab.exec("m2", ["hostname"], check=True).stdout == "m2\n"
    assert set(re.findall(r"^\d+: (\w+)", lab.exec("m2", ["ip", "-o", "link"], check=True).stdout, re.M)) == {
        "lo",
        "eth0",
    }
    lab.exec("m1", ["rm", "/root/of-m1"], check=True)


def test_down_leaves_nothing_also_after_a_crashed_host(fresh_lab: Callable[..., Lab]) -> None:
    lab = fresh_lab(nodes=3)
    before = {**traces(lab.name), "mounts": [], "processes": [], "directory": False}
    assert traces(lab.name)["processes"], "the search for traces finds nothing even of a lab that is up"
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    pids = [lab.holder(), *(pid for h in lab.hosts if (pid := lab.host_pid(h.name)))]
    networks = [os.readlink(f"/proc/{pid}/ns/net") for pid in pids]
    assert len(set(networks)) == 4
    assert all(in_use(n) for n in networks)
    lab.crash("m1")
    assert lab.down() is True
    assert traces(lab.name) == before
    assert not any(in_use(n) for n in networks)
    assert subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout == listed
    assert lab.down() is False
    assert not lab.is_up
    assert not lab.layout.lock.exists()


@pytest.mark.parametrize("after", [0.02, 0.15, 0.3, 0.45, 0.6, 0.8, 1.2])
def test_down_leaves_nothing_after_up_was_killed(after: float) -> None:
    name = f"{NAME}-kill"
    before = traces(name)
    code = f"from runbook.lab import Lab; Lab.up({name!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 20
    while not (ROOT / name).exists() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.005)
    time.sleep(after)
    process.kill()
    process.wait()
    Lab(name).down()
    eventually("nothing is left", lambda: traces(name) == before, within=5)


def test_a_lab_killed_half_way_up_can_be_brought_up_again(fresh_lab: Callable[..., Lab]) -> None:
    name = f"{NAME}-1"
    code = f"from runbook.lab import Lab; Lab.up({name!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    eventually("the holder is there", (ROOT / name / "holder.pid").exists, within=20, every=0.01)
    process.kill()
    process.wait()
    Lab(name).down()
    assert fresh_lab(nodes=1).name == name


def test_only_one_of_a_name_and_only_what_makes_sense(lab: Lab) -> None:
    with pytest.raises(LabUsageError, match="up already"):
        Lab.up(lab.name)
    with pytest.raises(LabUsageError, match="it has m1, m2, m3"):
        lab.crash("m9")
    with pytest.raises(LabUsageError, match="allowed are 1 to 9"):
        Lab.up(f"{NAME}-x", nodes=0)
    with pytest.raises(LabUsageError, match="lab name"):
        Lab("../etc")
    assert not (ROOT / f"{NAME}-x").exists()


def test_a_known_hosts_file_names_its_lab(lab: Lab, tmp_path: Path) -> None:
    found = Lab.of_known_hosts(lab.known_hosts)
    assert found is not None
    assert found.name == lab.name
    (tmp_path / "known_hosts").write_bytes(lab.known_hosts.read_bytes())
    assert Lab.of_known_hosts(tmp_path / "known_hosts") is None
    assert Lab.of_known_hosts(ROOT / "no-such-lab" / "known_hosts") is None


def test_the_operators_network_is_only_the_callers(lab: Lab) -> None:
    here = os.readlink("/proc/thread-self/ns/net")
    inside = lab.in_operator(lambda: os.readlink("/proc/thread-self/ns/net"))
    assert inside != here
    assert os.readlink("/proc/thread-self/ns/net") == here


def test_workers_and_a_wal_directory(fresh_lab: Callable[..., Lab]) -> None:
    lab = fresh_lab(nodes=1, workers=1, wal_dir="/var/lib/etcd-wal/wal")
    assert lab.exec("m1", ["sh", "-c", "ls /var/lib/etcd-wal/wal/*.wal"], check=True).stdout
    assert lab.exec("m1", ["ls", "/var/lib/etcd/member"], check=True).stdout == "snap\n"
    assert lab.exec("w1", ["systemctl", "is-active", "kubelet"], check=True).stdout == "active\n"
    assert lab.exec("w1", ["crictl", "ps", "-q"], check=True).stdout == ""
    nodes = json.loads(get(lab, "m1", "/api/v1/nodes").stdout)["items"]
    assert [n["metadata"]["name"] for n in nodes] == ["m1", "w1"]


def test_the_command_line(lab: Lab, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["--name", lab.name, *words])
        return result.exit_code, result.output

    code, output = run("status", "--output", "json")
    assert (code, json.loads(output)["known_hosts"]) == (0, str(lab.known_hosts))
    assert run("crash", "m7")[0] == 2
    file = tmp_path / "s.db"
    assert run("snapshot", str(file))[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size % 512 == 32
    code, output = run("fill", "--objects", "30", "--output", "json")
    assert (code, json.loads(output)["objects"] >= 30) == (0, True)
    assert CliRunner().invoke(cli, ["--name", "no-such-lab", "status"]).exit_code == 2
    assert CliRunner().invoke(cli, ["--name", "no-such-lab", "exec", "m1", "true"]).exit_code == 2


def test_exec_is_binary_clean_and_passes_the_exit_code(lab: Lab) -> None:
    data = bytes(range(256)) * 1000
    words = ["--name", lab.name, "exec", "cp1", "--", "sh", "-c", "cat; exit 7"]
    code = f"from runbook.lab.cli import lab; lab({words!r})"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (7, data)
    with pytest.raises(subprocess.TimeoutExpired):
        lab.exec("m1", ["sleep", "61"], timeout=0.5)
    eventually("the timed-out command is gone", lambda: lab.exec("m1", ["pgrep", "-f", "sleep 61"]).returncode == 1)

"""How a lab comes up."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runbook.lab import toolchain
from runbook.lab.disk import HostDisk, hosts_file, known_hosts_file, write_base
from runbook.lab.errors import LabError, LabUsageError, Missing
from runbook.lab.lab import Lab
from runbook.lab.layout import GUEST, MAX_NODES, MAX_WORKERS, OPERATOR_IP, Host, make_hosts
from runbook.lab.pki import ClusterPki, ssh_key
from runbook.lab.process import script

BRIDGE = f"link set lo up\nlink add br0 type bridge\naddr add {OPERATOR_IP}/24 dev br0\nlink set br0 up"


def build(lab: Lab, *, nodes: int, workers: int, wal_dir: str, user: str, disk: str, wait: float, etcd: str) -> None:
    """All of `Lab.up`; on failure, nothing is left."""
    check(nodes, workers, wal_dir, user, disk)
    try:
        tools = toolchain.ensure(etcd)
    except Missing as missing:
        raise LabError(str(missing)) from missing
    with lab.locked() as lock:
        if lab.is_up:
            raise LabUsageError(f"lab {lab.name} is up already: `runbook lab --name {lab.name} down` takes it away")
        lab.remove()  # what a killed one left
        try:
            lab.dir.mkdir(mode=0o700)
            for folder in (lab.dir / "hosts", lab.layout.pki):
                folder.mkdir()
            hosts = make_hosts(nodes, workers)
            hold(lab, lock, disk, hosts)
            spec: dict[str, object] = {
                "name": lab.name,
                "nodes": nodes,
                "workers": workers,
                "wal_dir": wal_dir,
                "user": user,
                "disk": disk,
                "etcd": tools.etcd_version(),
            }
            spec |= {"ip_program": str(tools.programs["ip"]), "extra_env": tools.extra_env()}
            furnish(lab, tools, hosts, spec)
            lab._net(BRIDGE)
            lab.boot_all(hosts)
        except BaseException:
            lab.remove()
            raise
        if wait:
            settle(lab, wait)


def check(nodes: int, workers: int, wal_dir: str, user: str, disk: str) -> None:
    """Refuse what could not work."""
    if not 1 <= nodes <= MAX_NODES or not 0 <= workers <= MAX_WORKERS:
        raise LabUsageError(
            f"{nodes} nodes and {workers} workers: allowed are 1 to {MAX_NODES}, and 0 to {MAX_WORKERS}"
        )
    if wal_dir and not re.fullmatch(r"(/[\w.-]+){2,}", wal_dir):
        raise LabUsageError(f"WAL directory {wal_dir!r}: it must be an absolute path below a directory for its volume")
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", user) or user == "root":
        raise LabUsageError(f"user {user!r}: it must be a plain user name other than root")
    if not re.fullmatch(r"[0-9]+[kmgKMG]?", disk):
        raise LabUsageError(f"disk {disk!r}: it must be a size such as 512m or 6g")


def hold(lab: Lab, lock: int, disk: str, hosts: Sequence[Host]) -> None:
    """Start the holder, which keeps the lock until its pid file is written: a killed `up` leaves nothing unfindable."""
    process = script(
        "holder", str(lab.dir), str(lock), disk, *(h.name for h in hosts), stderr=subprocess.PIPE, pass_fds=[lock]
    )
    _, error = process.communicate()
    if process.returncode != 0:
        raise LabError(f"lab {lab.name} cannot make its namespaces: {error.decode(errors='replace').strip()[-500:]}")


def furnish(lab: Lab, tools: toolchain.Toolchain, hosts: Sequence[Host], spec: dict[str, object]) -> None:
    """Write keys, certificates and disks."""
    inside = Path(f"/proc/{lab.holder()}/root")  # the disks are mounted in the holder's mount namespace alone
    private, public = ssh_key("runbook-lab")
    with ThreadPoolExecutor(2) as pool:
        base = pool.submit(write_base, Path(f"{inside}{lab.layout.base}"), tools)
        pki = ClusterPki()
        keys = {host: ssh_key(f"root@{host.name}") for host in hosts}
        for host in hosts:
            disk = HostDisk(f"{inside}{lab.layout.disk(host.name)}", host, hosts)
            disk.system(str(spec["user"]), keys[host], public)
            disk.kubernetes(pki, str(spec["wal_dir"]), str(spec["etcd"]))
            if not host.worker:
                disk.bootstrap()
        spec["binds"] = base.result()
    write_private(lab.identity, private)
    write_private(lab.dir / "id_ed25519.pub", public)
    write_private(lab.known_hosts, known_hosts_file({h: k[1] for h, k in keys.items()}))
    write_private(lab.dir / "hosts" / "names", hosts_file(hosts).encode())
    (lab.dir / "hosts" / "names").chmod(0o644)
    write_private(lab.ssh_config, ssh_config(lab, hosts).encode())
    operator_pki(lab, pki)
    write_private(lab.layout.spec, json.dumps(spec, indent=2).encode())


def operator_pki(lab: Lab, pki: ClusterPki) -> None:
    """What the operator needs to talk to etcd and the API servers himself."""
    crt, key = pki.etcd_ca.issue("lab-operator", pki.client_usage)
    servers = [f"https://{h.ip}:6443" for h in make_hosts(1, 0)]
    files = {
        "etcd-ca.crt": pki.etcd_ca.crt,
        "etcd-client.crt": crt,
        "etcd-client.key": key,
        "ca.crt": pki.ca.crt,
        "admin.conf": pki.kubeconfig(servers, "kubernetes-admin", "kubeadm:cluster-admins"),
    }
    admin_crt, admin_key = pki.ca.issue("kubernetes-admin", pki.client_usage, group="kubeadm:cluster-admins")
    files |= {"admin.crt": admin_crt, "admin.key": admin_key}
    for name, content in files.items():
        write_private(lab.layout.pki / name, content)


def write_private(path: Path, content: bytes) -> None:
    """Mode 0600 from the first byte."""
    path.touch(0o600)
    path.write_bytes(content)


def ssh_config(lab: Lab, hosts: Sequence[Host]) -> str:
    """For `ssh -F`: all names work."""
    text = "".join(f"Host {h.name} {h.alias}\n  HostName {h.ip}\n  HostKeyAlias {h.name}\n" for h in hosts)
    return text + (
        f"Host *\n  User root\n  IdentityFile {lab.identity}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {lab.known_hosts}\n"
        "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
    )


def settle(lab: Lab, wait: float) -> None:
    """Wait until it is healthy and write what every cluster has; where it fails, it stays, to be looked at."""
    from runbook.lab.fill import first_objects

    lab.wait_healthy(wait)
    for host in lab.nodes:
        lab.exec(host.name, ["rm", "-f", f"{GUEST}/etc/bootstrap-etcd"], check=True)
    first_objects(lab)

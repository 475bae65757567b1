"""Looking at a lab from the operator's place."""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runbook.lab.errors import LabError
from runbook.lab.jsonhttp import Client, client_context
from runbook.lab.kubeobjects import ready_condition
from runbook.lab.lab import Lab
from runbook.lab.layout import Host

POLL = 0.05  # seconds


def etcd_context(lab: Lab) -> ssl.SSLContext:
    """As a client of etcd."""
    pki = lab.layout.pki
    return client_context(str(pki / "etcd-ca.crt"), str(pki / "etcd-client.crt"), str(pki / "etcd-client.key"))


def api_context(lab: Lab) -> ssl.SSLContext:
    """As the cluster's administrator."""
    pki = lab.layout.pki
    return client_context(str(pki / "ca.crt"), str(pki / "admin.crt"), str(pki / "admin.key"))


def api_client(lab: Lab, host: Host, timeout: float = 5.0) -> Client:
    """To one node's API server."""
    return Client(f"https://{host.ip}:6443", api_context(lab), timeout)


def wait_healthy(lab: Lab, timeout: float) -> None:
    """See `Lab.wait_healthy`."""
    limit = time.monotonic() + timeout

    def wait() -> None:
        clients = {host: api_client(lab, host, 2.0) for host in lab.nodes}
        try:
            until_ready(clients)
        finally:
            for client in clients.values():
                client.close()

    def until_ready(clients: dict[Host, Client]) -> None:
        while missing := not_ready(lab, clients):
            if time.monotonic() > limit:
                raise LabError(
                    f"lab {lab.name} is not healthy after {timeout:g} s: {'; '.join(missing)}. Look with "
                    f"`runbook lab --name {lab.name} exec m1 -- crictl ps -a`; "
                    f"`runbook lab --name {lab.name} down` takes it away"
                )
            time.sleep(POLL)

    lab.in_operator(wait)


def not_ready(lab: Lab, clients: dict[Host, Client]) -> list[str]:
    """What is still missing, in words; empty when all is well."""
    found = []
    nodes: dict[str, str] = {}
    for host, client in clients.items():
        try:
            status, _ = client.request("GET", "/readyz")
            if status != 200:
                found.append(f"{host.name}: API server is not ready")
            elif not nodes:
                _, listed = client.request("GET", "/api/v1/nodes")
                nodes = {item["metadata"]["name"]: ready_condition(item) for item in listed.get("items", [])}
        except OSError as error:
            found.append(f"{host.name}: API server does not answer ({error})")
    return found or [f"node {h.name} is not Ready" for h in lab.hosts if nodes.get(h.name) != "True"]


def status(lab: Lab) -> dict[str, Any]:
    """See `Lab.status`."""
    if not lab.is_up:
        return {"name": lab.name, "up": False, "hosts": []}
    spec = lab.spec

    def look() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(12) as pool:
            return list(pool.map(lambda host: host_status(lab, host), lab.hosts))

    about = {key: spec[key] for key in ("nodes", "workers", "wal_dir", "user")}
    paths = {
        "directory": lab.dir,
        "identity": lab.identity,
        "known_hosts": lab.known_hosts,
        "ssh_config": lab.ssh_config,
    }
    paths |= {"kubeconfig": lab.kubeconfig}
    return {
        "name": lab.name,
        "up": True,
        **about,
        **{k: str(v) for k, v in paths.items()},
        "hosts": lab.in_operator(look),
    }


def host_status(lab: Lab, host: Host) -> dict[str, Any]:
    """One host: power, cable, and which ports answer."""
    entry: dict[str, Any] = {"name": host.name, "alias": host.alias, "ip": host.ip, "worker": host.worker}
    entry["running"] = lab.host_pid(host.name) is not None
    entry["plugged"] = not lab.layout.unplugged(host.name).exists()
    reachable = entry["running"] and entry["plugged"]
    ports = {"ssh": 22} if host.worker else {"ssh": 22, "etcd": 2379, "api": 6443}
    for name, port in ports.items():
        entry[name] = reachable and answers(host.ip, port)
    return entry


def answers(ip: str, port: int) -> bool:
    """Whether the port takes a connection within a second."""
    try:
        socket.create_connection((ip, port), 1.0).close()
    except OSError:
        return False
    return True

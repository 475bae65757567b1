"""Stand-ins for kube-scheduler and kube-controller-manager: each holds its leader's lease, or waits for it.

Both end when they cannot keep the lease, as the real ones do, and the kubelet starts them again. The controller
manager's one controller is that of nodes: a node whose lease is older than 40 s becomes Unknown. (The real one also
binds, deletes and creates.)
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from typing import Any

from runbook.lab import kernel
from runbook.lab.apiserver import parse_flags
from runbook.lab.kubeapi import Api, rfc3339
from runbook.lab.kubeobjects import ready_condition

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
NODE_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
DURATION, DEADLINE, RETRY = 15.0, 10.0, 2.0  # seconds; the real ones' --leader-elect-… defaults
GRACE = 40.0  # --node-monitor-grace-period
LOOK_EVERY = 5.0  # --node-monitor-period
Json = dict[str, Any]


class Leader:
    """One candidate for a lease."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.name = api, name
        self.identity = f"{os.uname().nodename}_{secrets.token_hex(8)}"
        self.seen: tuple[str, float] = ("", 0.0)  # the holder's last renewal, and when we saw it first

    def try_once(self) -> bool:
        """Take or renew the lease; whether it is ours. Raises OSError where the API server does not answer."""
        path = f"{LEASES}/{self.name}"
        status, lease = self.api.request("GET", path)
        if status not in (200, 404):
            raise OSError(f"lease: {lease.get('message', status)}")
        spec = lease.get("spec", {}) if status == 200 else {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        if renewed != self.seen[0]:
            self.seen = (renewed, time.monotonic())
        # By our own clock since we saw it change, never by the holder's clock: as client-go does it.
        if holder not in ("", self.identity) and time.monotonic() - self.seen[1] < DURATION:
            return False
        body: Json = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name}}
        if status == 200:
            body["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        body["spec"] = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": rfc3339(micro=True),
        }
        return self.api.put(path, body)


class NodeMonitor:
    """Ready becomes Unknown where a kubelet's lease has not changed for 40 s by our own clock, as with the real one."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.seen: dict[str, tuple[str, float]] = {}  # node → its last renewal, and when we saw it first
        self.looked = 0.0

    def look(self) -> None:
        """Every five seconds, one look at all nodes."""
        if time.monotonic() - self.looked < LOOK_EVERY:
            return
        self.looked = time.monotonic()
        _, leases = self.api.request("GET", NODE_LEASES)
        renewed = {i["metadata"]["name"]: i["spec"].get("renewTime", "") for i in leases.get("items", [])}
        _, nodes = self.api.request("GET", "/api/v1/nodes")
        for node in nodes.get("items", []):
            name = node["metadata"]["name"]
            if self.seen.get(name, ("?", 0.0))[0] != renewed.get(name, ""):
                self.seen[name] = (renewed.get(name, ""), time.monotonic())
            if time.monotonic() - self.seen[name][1] > GRACE and ready_condition(node) != "Unknown":
                self.mark(node)

    def mark(self, node: Json) -> None:
        """Say that the node is not heard of."""
        for condition in node.get("status", {}).get("conditions", []):
            if condition.get("type") == "Ready":
                text = "Kubelet stopped posting node status."
                condition.update(
                    status="Unknown", reason="NodeStatusUnknown", message=text, lastTransitionTime=rfc3339()
                )
        self.api.request("PUT", f"/api/v1/nodes/{node['metadata']['name']}/status", node)


def run(name: str, kubeconfig: str) -> int:
    """Hold the lease and work, until that fails; exit 1 then."""
    kernel.set_process_name(name)
    leader = Leader(Api(kubeconfig, timeout=5), name)
    monitor = NodeMonitor(leader.api)
    last_good, led = time.monotonic(), False
    while True:
        try:
            ours = leader.try_once()
            last_good = time.monotonic()
            if led and not ours:
                print("leaderelection lost", flush=True)
                return 1
            if ours and not led:
                print("became the leader", flush=True)
            led = ours
            if led and name == "kube-controller-manager":
                monitor.look()
        except OSError as error:
            print(f"error retrieving resource lock: {error}", flush=True)
            if time.monotonic() - last_good > DEADLINE:
                print("leaderelection lost", flush=True)
                return 1
        time.sleep(RETRY)


def scheduler(argv: list[str]) -> int:
    """kube-scheduler."""
    return run("kube-scheduler", parse_flags(argv)["kubeconfig"])


def controller_manager(argv: list[str]) -> int:
    """kube-controller-manager."""
    return run("kube-controller-manager", parse_flags(argv)["kubeconfig"])


if __name__ == "__main__":
    sys.exit((scheduler if "scheduler" in sys.argv[0] else controller_manager)(sys.argv[1:]))

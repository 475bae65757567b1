"""The kubelet stand-in's talk with the API server: the node, its heartbeat, and the mirror pods of its static pods."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from runbook.lab.kubeapi import Api, rfc3339
from runbook.lab.wire import RUNNING

KUBECONFIG = "/etc/kubernetes/kubelet.conf"
HEARTBEAT = 10.0  # seconds
RETRY = 0.5
Json = dict[str, Any]
Describe = Callable[[], list[tuple[Json, list[Json]]]]


class NodeStatus(threading.Thread):
    """Posts the node's status and its pods every ten seconds, sooner after a change, and again until it succeeds."""

    def __init__(self, node: str, describe: Describe) -> None:
        super().__init__(daemon=True, name="node-status")
        self.node, self.describe = node, describe
        self.api_seen = False
        self.started = rfc3339()
        self.posted: dict[str, str] = {}
        self._changed = threading.Event()

    def poke(self) -> None:
        """Containers may have changed."""
        self._changed.set()

    def run(self) -> None:
        """For ever."""
        api: Api | None = None
        wait = RETRY
        while True:
            self._changed.wait(wait)
            if self._changed.is_set():
                self._changed.clear()
                time.sleep(RETRY)
            try:
                api = api or Api(KUBECONFIG, timeout=10)
                self.post(api)
                wait = HEARTBEAT
            except (OSError, ValueError, KeyError, IndexError):
                wait = RETRY

    def post(self, api: Api) -> None:
        """One heartbeat. Raises OSError where no API server takes it."""
        if not api.put(f"/api/v1/nodes/{self.node}/status", self.node_object()):
            raise OSError("the API server refused the node's status")
        lease = {"holderIdentity": self.node, "leaseDurationSeconds": 40, "renewTime": rfc3339(micro=True)}
        meta = {"name": self.node, "namespace": "kube-node-lease"}
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.node}"
        api.put(path, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": lease})
        self.api_seen = True
        current = {}
        for pod, containers in self.describe():
            mirror = mirror_pod(pod, containers, self.node)
            name = mirror["metadata"]["name"]
            current[name] = mirror["metadata"]["namespace"]
            api.put(f"/api/v1/namespaces/{current[name]}/pods/{name}", mirror)
        for name in set(self.posted) - set(current):
            api.request("DELETE", f"/api/v1/namespaces/{self.posted[name]}/pods/{name}")
        self.posted = current

    def node_object(self) -> Json:
        """The node as the API has it; the server keeps creation time and uid."""
        now = rfc3339()
        condition = {"lastHeartbeatTime": now, "lastTransitionTime": self.started}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }
        control = os.path.exists("/etc/kubernetes/admin.conf")
        labels = {"kubernetes.io/hostname": self.node, "kubernetes.io/os": "linux"}
        if control:
            labels["node-role.kubernetes.io/control-plane"] = ""
        system = {"kubeletVersion": "v0.0.0-runbook-lab", "operatingSystem": "linux", "osImage": "runbook lab"}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node, "labels": labels},
            "spec": {},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": own_address()},
                    {"type": "Hostname", "address": self.node},
                ],
                "conditions": [{**ready, **condition}],
                "nodeInfo": system,
            },
        }


def own_address() -> str:
    """This host's address, from /etc/hosts."""
    with open("/etc/hosts") as file:
        for line in file:
            words = line.split()
            if os.uname().nodename in words[1:] and not line.startswith("127."):
                return words[0]
    return ""


def mirror_pod(pod: Json, containers: list[Json], node: str) -> Json:
    """How the API shows a static pod."""
    meta = pod["metadata"]
    annotations = {**(meta.get("annotations") or {}), "kubernetes.io/config.mirror": meta["uid"]}
    annotations["kubernetes.io/config.source"] = "file"
    statuses = []
    for container in pod["spec"]["containers"]:
        mine = [c for c in containers if c["metadata"]["name"] == container["name"]]
        runs = bool(mine) and mine[0]["state"] == RUNNING
        restarts = mine[0]["metadata"]["attempt"] if mine else 0
        statuses.append(
            {"name": container["name"], "ready": runs, "restartCount": restarts, "image": container.get("image", "")}
        )
    ready = bool(statuses) and all(s["ready"] for s in statuses)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {k: meta[k] for k in ("name", "namespace", "labels") if k in meta} | {"annotations": annotations},
        "spec": {**pod["spec"], "nodeName": node},
        "status": {
            "phase": "Running" if ready else "Pending",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": statuses,
        },
    }

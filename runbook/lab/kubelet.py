"""A stand-in for the kubelet: static pods, and the node's heartbeat. It is not the real one.

It does what the real one does with a manifests directory: every file that does not begin with a dot is a manifest;
changes are noticed by inotify and every 20 s; a changed or renamed file is another pod; containers are restarted with
a back-off, stopped with SIGTERM and after the grace period SIGKILL; a pod's sandbox is ready as long as the pod is
wanted, also while nothing runs in it, and is stopped after its containers; `DirectoryOrCreate` creates; containers
outlive the kubelet, and a new one takes them over; a pod whose manifest is gone is kept running until the API server
was seen once. It runs no probes, and no pods but static ones. Sources: pkg/kubelet/config/file*.go, kubelet_pods.go
(HandlePodCleanups), kuberuntime_manager.go (computePodActions, killPodWithSyncResult), kuberuntime_sandbox.go.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import sys
import threading
import time
from typing import Any

import yaml

from runbook.lab import kernel
from runbook.lab.node import NodeStatus
from runbook.lab.wire import READY, RUNNING, STATE, ask

MANIFESTS = "/etc/kubernetes/manifests"
RELIST = 20.0  # seconds; --file-check-frequency
BACK_OFF_FIRST, BACK_OFF_MOST = 10.0, 300.0
BACK_OFF_RESET = 600.0  # a container that ran so long starts anew
DEAD_KEPT = 60.0  # seconds until the dead containers of a pod that is gone are collected
MOUNT_RETRY = 2.0
Json = dict[str, Any]


def say(text: str) -> None:
    """One line of the kubelet's log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Volumes(Exception):
    """A volume is not what the manifest says it is."""


def prepare_volumes(pod: Json) -> None:
    """What the real kubelet does with each hostPath, by its type."""
    for volume in pod["spec"].get("volumes") or []:
        host = volume.get("hostPath")
        if not host:
            continue
        path, kind = host["path"], host.get("type") or ""
        if kind == "DirectoryOrCreate":
            os.makedirs(path, mode=0o755, exist_ok=True)
        elif kind == "FileOrCreate":
            open(path, "a").close()
        elif kind == "Directory" and not os.path.isdir(path):
            raise Volumes(f"hostPath type check failed: {path} is not a directory")
        elif kind == "File" and not os.path.isfile(path):
            raise Volumes(f"hostPath type check failed: {path} is not a file")
        elif not os.path.exists(path):
            raise Volumes(f"hostPath {path} does not exist")


def read_manifests(node: str) -> dict[str, Json]:
    """The pods of all manifests, by uid; what is no pod is logged and left out."""
    pods: dict[str, Json] = {}
    for name in sorted(os.listdir(MANIFESTS)) if os.path.isdir(MANIFESTS) else []:
        path = os.path.join(MANIFESTS, name)
        if name.startswith(".") or not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as file:
                data = file.read()
            pod = yaml.load(data, Loader=yaml.SafeLoader)
            meta = pod["metadata"]
            # As the real one: the uid is made from the host, the file's path and the content.
            uid = hashlib.md5(f"host:{node}file:{path}".encode() + data, usedforsecurity=False).hexdigest()
            meta.update(uid=uid, namespace=meta.get("namespace") or "default", name=f"{meta['name']}-{node}")
            if not pod["spec"]["containers"]:
                raise ValueError("no containers")
            pods[uid] = pod
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            say(f"could not process manifest file {path}: {error}")
    return pods


class Kubelet:
    """Brings the host's containers to what the manifests say."""

    def __init__(self) -> None:
        self.node = os.uname().nodename
        self.back_off: dict[tuple[str, str], float] = {}  # (pod uid, container) → seconds
        self.retry_at: dict[str, float] = {}  # pod uid → monotonic, after a failed mount
        self.pods: dict[str, Json] = {}
        self.due = RELIST
        self.status = NodeStatus(self.node, self.describe)

    def look(self) -> tuple[list[Json], list[Json]]:
        """What the runtime has: containers and sandboxes, the newest first."""
        with open(f"{STATE}/all.json") as file:
            found: Json = json.load(file)
        return found["containers"], found["sandboxes"]

    def describe(self) -> list[tuple[Json, list[Json]]]:
        """Each pod with its containers, for the mirror pods."""
        containers, _ = self.look()
        return [(pod, [c for c in containers if uid_of(c) == uid]) for uid, pod in self.pods.items()]

    def sync(self) -> None:
        """One round."""
        self.due = RELIST
        self.pods = read_manifests(self.node)
        containers, sandboxes = self.look()
        self.stop_others(containers, sandboxes)
        # Of several pods with the same full name one runs; the others wait until it is gone.
        there = [*(c for c in containers if c["state"] == RUNNING), *(s for s in sandboxes if s["state"] == READY)]
        held = {full_name(c["labels"]): uid_of(c) for c in there if uid_of(c) not in self.pods}
        for c in there:
            held.setdefault(full_name(c["labels"]), uid_of(c))
        for uid, pod in self.pods.items():
            name = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            if held.setdefault(name, uid) == uid:
                mine = [s for s in sandboxes if uid_of(s) == uid]
                self.run_pod(uid, pod, [c for c in containers if uid_of(c) == uid], mine)
            else:
                say(f"pod {name[1]} waits: another of the same name is there")

    def stop_others(self, containers: list[Json], sandboxes: list[Json]) -> None:
        """Of the pods that no manifest names: stop containers, then the sandbox; then remove both.

        The dead containers stay for a while: a pod of the same manifest, which has the same uid, goes on with their
        back-off.
        """
        busy = {uid_of(c) for c in containers if c["state"] == RUNNING}
        kept: set[str] = set()
        for c in containers:
            if uid_of(c) in self.pods:
                continue
            if not self.status.api_seen:
                say(f"skipping delete of {c['labels']['io.kubernetes.pod.name']} because sources aren't ready yet")
                self.due = min(self.due, 2.0)
            elif c["state"] == RUNNING:
                grace = float(c["annotations"]["io.kubernetes.pod.terminationGracePeriod"])
                ask({"op": "stop", "id": c["id"], "grace": grace})
            elif uid_of(c) not in busy:
                left = int(c["finishedAt"]) / 1e9 + DEAD_KEPT - time.time()
                if left <= 0:
                    ask({"op": "remove", "id": c["id"]})
                else:
                    self.due = min(self.due, left)
                    kept.add(uid_of(c))
        for s in sandboxes:
            if uid_of(s) in self.pods or uid_of(s) in busy or not self.status.api_seen:
                continue
            if s["state"] != READY and uid_of(s) in kept:
                continue
            if s["state"] == READY:
                ask({"op": "stopp", "id": s["id"]})
            else:
                ask({"op": "rmp", "id": s["id"]})

    def run_pod(self, uid: str, pod: Json, containers: list[Json], sandboxes: list[Json]) -> None:
        """Start what does not run and should, in a sandbox that is ready."""
        if time.monotonic() < self.retry_at.get(uid, 0.0):
            self.due = min(self.due, MOUNT_RETRY)
            return
        for container in pod["spec"]["containers"]:
            mine = [c for c in containers if c["metadata"]["name"] == container["name"]]  # newest first
            # One dead container is kept for its log (MaxPerPodContainer), beside the one that runs.
            for old in mine[2 if mine and mine[0]["state"] == RUNNING else 1 :]:
                if old["state"] != RUNNING:
                    ask({"op": "remove", "id": old["id"]})
            if mine and (mine[0]["state"] == RUNNING or not self.may_restart(uid, pod, mine[0])):
                continue
            attempt = mine[0]["metadata"]["attempt"] + 1 if mine else 0
            try:
                prepare_volumes(pod)
            except (Volumes, OSError) as error:
                say(f"FailedMount: MountVolume.SetUp failed for pod {pod['metadata']['name']}: {error}")
                self.retry_at[uid] = time.monotonic() + MOUNT_RETRY
                self.due = min(self.due, MOUNT_RETRY)
                return
            ready = next((s["id"] for s in sandboxes if s["state"] == READY), "")
            if not ready:
                again = sandboxes[0]["metadata"]["attempt"] + 1 if sandboxes else 0
                ready = ask({"op": "sandbox", "pod": pod, "attempt": again})["id"]
                sandboxes = [{"id": ready, "state": READY}, *sandboxes]
            wanted = {"pod": pod, "container": container, "attempt": attempt, "sandbox": ready}
            answer = ask({"op": "start", **wanted})
            say(f"started {container['name']} of {pod['metadata']['name']}, attempt {attempt}: {answer}")

    def may_restart(self, uid: str, pod: Json, last: Json) -> bool:
        """Restart policy and back-off: at once, then after 10 s, doubling to 5 minutes."""
        policy = pod["spec"].get("restartPolicy", "Always")
        if policy == "Never" or (policy == "OnFailure" and last["exitCode"] == 0):
            return False
        key = (uid, last["metadata"]["name"])
        finished = int(last["finishedAt"]) / 1e9
        wait = self.back_off.get(key, 0.0)
        if finished - int(last["createdAt"]) / 1e9 > BACK_OFF_RESET:
            wait = 0.0
        left = finished + wait - time.time()
        if left > 0:
            self.due = min(self.due, left + 0.05)
            return False
        self.back_off[key] = min(max(wait * 2, BACK_OFF_FIRST), BACK_OFF_MOST)
        return True

    def run(self) -> None:
        """For ever."""
        self.status.start()
        state, manifests = kernel.Watch(STATE), None
        while True:
            if manifests is None and os.path.isdir(MANIFESTS):
                manifests = kernel.Watch(MANIFESTS)
            try:
                self.sync()
            except (OSError, ValueError) as error:
                say(f"sync failed: {error}")
                self.due = 1.0
            self.status.poke()
            due = self.due if manifests else min(self.due, 1.0)
            select.select([w.fd for w in (state, manifests) if w], [], [], due)
            time.sleep(0.01)  # several changes at once are one
            state.drain()
            if manifests and manifests.drain():
                manifests.close()
                manifests = None


def uid_of(container: Json) -> str:
    """The uid of the pod a container belongs to."""
    return str(container["labels"]["io.kubernetes.pod.uid"])


def full_name(labels: Json) -> tuple[str, str]:
    """The pod's namespace and name."""
    return labels["io.kubernetes.pod.namespace"], labels["io.kubernetes.pod.name"]


def main(argv: list[str]) -> int:
    """Run the kubelet."""
    kernel.set_process_name("kubelet")
    threading.current_thread().name = "kubelet"
    Kubelet().run()
    return len(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

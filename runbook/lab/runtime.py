"""A stand-in for containerd: starts, stops and remembers containers and sandboxes. Part of a host's first process.

A container here is one process in its own mount namespace, on a root file system of its own that has the host's
programs and nothing of the host's data but what the manifest's volumes bring. Its state is written where `crictl`
reads it. Container images do not exist: the first word of the command is looked up among the lab's programs (real
etcd, stand-ins for the rest), then among the host's. A pod's sandbox is a record alone: nothing here needs the process
that holds a real one's namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from runbook.lab import kernel
from runbook.lab.wire import EXITED, NOTREADY, READY, RUNNING, STATE

PATH = "/opt/runbook-lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Json = dict[str, Any]


class Runtime:
    """All containers and sandboxes of this host, by id."""

    def __init__(self) -> None:
        self.containers: dict[str, Json] = {}
        self.sandboxes: dict[str, Json] = {}
        self.kill_at: dict[str, float] = {}  # id → monotonic time of the SIGKILL
        os.makedirs(STATE, mode=0o700, exist_ok=True)  # as containerd's socket: for root alone
        self.publish()

    def run_sandbox(self, pod: Json, attempt: int) -> str:
        """Make a sandbox for a pod, with the labels that the kubelet gives it: the pod's own, and its names."""
        meta = pod["metadata"]
        ident = os.urandom(32).hex()
        self.sandboxes[ident] = {
            "id": ident,
            "metadata": {"name": meta["name"], "uid": meta["uid"], "namespace": meta["namespace"], "attempt": attempt},
            "state": READY,
            "createdAt": str(time.time_ns()),
            "labels": {**(meta.get("labels") or {}), **names_of(meta)},
            "annotations": {**(meta.get("annotations") or {}), "kubernetes.io/config.source": "file"},
            "runtimeHandler": "",
        }
        self.publish()
        return ident

    def kill_inside(self, sandbox: str) -> None:
        """End what runs in a sandbox, without any grace, as containerd does before it stops one."""
        for ident, container in self.containers.items():
            if container["podSandboxId"] == sandbox:
                self.stop(ident, 0.0)

    def stop_sandbox(self, ident: str) -> bool:
        """No longer ready, once nothing runs in it; false until then."""
        if any(c["podSandboxId"] == ident and c["state"] == RUNNING for c in self.containers.values()):
            return False
        if self.sandboxes[ident]["state"] == READY:
            self.sandboxes[ident]["state"] = NOTREADY
            self.publish()
        return True

    def remove_sandbox(self, ident: str) -> None:
        """Forget a sandbox that was stopped, and has no containers any more."""
        if self.sandboxes[ident]["state"] == READY or any(c["podSandboxId"] == ident for c in self.containers.values()):
            raise ValueError(f"sandbox {ident} is in use: stop it first")
        del self.sandboxes[ident]
        self.publish()

    def start(self, pod: Json, container: Json, attempt: int, sandbox: str) -> str:
        """Start one container of a pod (as its manifest has it, with metadata.uid); returns its id."""
        if self.sandboxes[sandbox]["state"] != READY:
            raise ValueError(f"sandbox {sandbox} is not ready")
        meta = pod["metadata"]
        ident = os.urandom(32).hex()
        folder = f"/var/log/pods/{meta['namespace']}_{meta['name']}_{meta['uid']}/{container['name']}"
        os.makedirs(folder, exist_ok=True)
        log = f"{folder}/{attempt}.log"
        pid = os.fork()
        if pid == 0:
            become_container(pod, container, ident, log)
        now = time.time_ns()
        self.containers[ident] = {
            "id": ident,
            "podSandboxId": sandbox,
            "metadata": {"name": container["name"], "attempt": attempt},
            "image": {"image": container.get("image", ""), "annotations": {}, "userSpecifiedImage": ""},
            "imageRef": container.get("image", ""),
            "state": RUNNING,
            "createdAt": str(now),
            "labels": {"io.kubernetes.container.name": container["name"], **names_of(meta)},
            "annotations": {
                "io.kubernetes.container.restartCount": str(attempt),
                "io.kubernetes.pod.terminationGracePeriod": str(grace_of(pod)),
            },
            "pid": pid,
            "logPath": log,
            "finishedAt": "0",
            "exitCode": 0,
        }
        self.publish()
        return ident

    def stop(self, ident: str, grace: float) -> None:
        """Ask it to end, and make it end after `grace` seconds; a second call may only shorten the wait.

        Without any grace it is not asked (containerd, `container_stop.go`).
        """
        container = self.containers[ident]
        if container["state"] != RUNNING:
            return
        deadline = time.monotonic() + grace
        if ident not in self.kill_at or grace <= 0:
            self._signal(container, signal.SIGTERM if grace > 0 else signal.SIGKILL)
        self.kill_at[ident] = min(deadline, self.kill_at.get(ident, deadline))

    def kill_overdue(self) -> float | None:
        """Kill what has had its grace; seconds until the next is due, None where none waits."""
        now = time.monotonic()
        for ident, due in list(self.kill_at.items()):
            if due <= now:
                self._signal(self.containers[ident], signal.SIGKILL)
                self.kill_at[ident] = now + 5
        return max(0.0, min(self.kill_at.values()) - now) if self.kill_at else None

    def _signal(self, container: Json, number: int) -> None:
        for send in (os.killpg, os.kill):  # it may not be a session of its own yet: then only the process itself
            with contextlib.suppress(ProcessLookupError):
                send(container["pid"], number)

    def ended(self, pid: int, status: int) -> Json | None:
        """Take note that process `pid` is no more; the container it was, if any."""
        for ident, container in self.containers.items():
            if container["pid"] == pid and container["state"] == RUNNING:
                code = os.waitstatus_to_exitcode(status)
                container.update(
                    state=EXITED, finishedAt=str(time.time_ns()), exitCode=code if code >= 0 else 128 - code
                )
                self.kill_at.pop(ident, None)
                self.publish()
                return container
        return None

    def remove(self, ident: str) -> None:
        """Forget a container that has ended."""
        if self.containers[ident]["state"] == RUNNING:
            raise ValueError(f"container {ident} is running: stop it first")
        del self.containers[ident]
        self.publish()

    def publish(self) -> None:
        """Write the state whole, by rename: `all.json` for everything, and what `crictl` prints without thinking.

        `ps.txt` and `pods.txt` have a line for each container or sandbox: id, state, labels, a tab, and its JSON.
        """
        everything = sorted(self.containers.values(), key=lambda c: int(c["createdAt"]), reverse=True)
        sandboxes = sorted(self.sandboxes.values(), key=lambda s: int(s["createdAt"]), reverse=True)
        shown = [{k: v for k, v in c.items() if k not in HIDDEN} for c in everything]
        texts = {
            "pods.txt": "".join(map(line_of, sandboxes)),
            "ps.txt": "".join(map(line_of, shown)),
            "all.json": json.dumps({"containers": everything, "sandboxes": sandboxes}),
        }
        for name, text in texts.items():
            with open(f"{STATE}/.{name}", "w") as file:
                file.write(text)
            os.rename(f"{STATE}/.{name}", f"{STATE}/{name}")


HIDDEN = ("pid", "logPath", "finishedAt", "exitCode")
"""What the runtime knows of a container and `crictl ps` does not print."""


def names_of(meta: Json) -> dict[str, str]:
    """The labels by which the kubelet finds a pod's things again."""
    return {f"io.kubernetes.pod.{key}": meta[key] for key in ("name", "namespace", "uid")}


def line_of(item: Json) -> str:
    """One line of `ps.txt` or `pods.txt`."""
    labels = " ".join(f"{key}={value}" for key, value in item["labels"].items())
    return f"{item['id']} {item['state']} {labels}\t{json.dumps(item)}\n"


def grace_of(pod: Json) -> int:
    """The pod's termination grace period in seconds; Kubernetes' default is 30."""
    value = pod["spec"].get("terminationGracePeriodSeconds")
    return 30 if value is None else int(value)


def become_container(pod: Json, container: Json, ident: str, log: str) -> None:
    """Never returns: becomes the container's program."""
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.dup2(out, 1)
        os.dup2(out, 2)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.make_private()
        enter_root(pod, container, ident)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        signal.set_wakeup_fd(-1)
        argv = [str(word) for word in (container.get("command") or []) + (container.get("args") or [])]
        env = {"PATH": PATH, "HOSTNAME": os.uname().nodename}
        env.update({e["name"]: str(e.get("value", "")) for e in container.get("env") or []})
        argv += bootstrap_args(container["name"])
        give_up_root(pod, container)
        os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell is meant
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(128)  # what containerd reports for a container that could not be started


def enter_root(pod: Json, container: Json, ident: str) -> None:
    """A root of its own: the host's programs, an empty rest, and the volumes."""
    root = f"/run/runbook-lab/roots/{ident}"
    os.makedirs(root)
    kernel.mount("tmpfs", root, "tmpfs", 0, "mode=0755,size=1g")
    for name in ("usr", "opt/runbook-lab", "proc", "dev", "sys"):
        os.makedirs(f"{root}/{name}")
        kernel.bind(f"/{name}", f"{root}/{name}")
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"{root}/{name}")
            kernel.bind(f"/{name}", f"{root}/{name}")
    os.makedirs(f"{root}/tmp")  # noqa: S108 - the container's own
    os.chmod(f"{root}/tmp", 0o1777)  # noqa: S103, S108 - what /tmp is
    os.makedirs(f"{root}/etc")
    for name in ("passwd", "group", "hosts", "nsswitch.conf", "resolv.conf"):
        if os.path.exists(f"/etc/{name}"):
            open(f"{root}/etc/{name}", "w").close()
            kernel.bind(f"/etc/{name}", f"{root}/etc/{name}", read_only=True)
    volumes = {v["name"]: v for v in pod["spec"].get("volumes") or []}
    for place in container.get("volumeMounts") or []:
        volume = volumes[place["name"]]
        source, target = (volume.get("hostPath") or {}).get("path"), root + place["mountPath"]
        if source is None:  # emptyDir and its kind
            os.makedirs(target, exist_ok=True)
        elif os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
            kernel.bind(source, target, read_only=bool(place.get("readOnly")))
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "a").close()
            kernel.bind(source, target, read_only=bool(place.get("readOnly")))
    kernel.pivot_root(root)


def bootstrap_args(name: str) -> list[str]:
    """What the first start of etcd adds to its manifest, so that all members of a new lab start at once.

    kubeadm starts the first member alone and lets the others join one by one; its manifests say so for ever. Go's flag
    parser takes the last of equal flags. The file is gone once the lab is up.
    """
    try:
        with open("/opt/runbook-lab/etc/bootstrap-" + name) as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def give_up_root(pod: Json, container: Json) -> None:
    """securityContext.runAsUser and runAsGroup, the container's before the pod's."""
    context = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    group, user = context.get("runAsGroup"), context.get("runAsUser")
    if user is not None or group is not None:
        os.setgroups([])
        os.setgid(int(group or 0))
        os.setuid(int(user or 0))

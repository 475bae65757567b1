"""Runs the containers of a rendered pod by hand, one after the other, on a host of the lab: a kubelet in some lines.

What a container is given is what Kubernetes would give it: the volumes at their places, read-only where it says so, its
user and groups, no capability, a root file system that it cannot write, and nothing in its environment but its own.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import runbook
from runbook.lab import Lab

Json = dict[str, Any]
IMAGE = "/image"
LEND = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, source, target = sys.argv[1], *map(os.fsencode, sys.argv[2:])
tree = libc.syscall(428, -100, source, 1)  # open_tree, OPEN_TREE_CLONE
assert tree >= 0, os.strerror(ctypes.get_errno())
there = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
assert libc.setns(there, 0x20000) == 0, os.strerror(ctypes.get_errno())
os.makedirs(target, exist_ok=True)
assert libc.syscall(429, tree, b"", -100, target, 4) == 0, os.strerror(ctypes.get_errno())  # move_mount, by fd
"""


def lend(lab: Lab, host: str, source: Path, target: str) -> None:
    """Show a directory of this machine on a host, read-only; whatever is above it may be closed to others."""
    subprocess.run([sys.executable, "-c", LEND, str(lab.host_pid(host)), str(source), target], check=True)
    lab.exec(host, ["mount", "-o", "remount,bind,ro", target], check=True)


def image_with_runbook(lab: Lab, host: str) -> str:
    """What an image with runbook in it has: Python, the libraries, the program; the PATH of its containers."""
    base, python = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    moved = base != Path("/usr")
    if moved:
        lend(lab, host, base, f"{IMAGE}/python")
    lend(lab, host, Path(sysconfig.get_paths()["purelib"]), f"{IMAGE}/site")
    package = Path(runbook.__file__).parent
    lend(lab, host, package, f"{IMAGE}/own/runbook")
    lend(lab, host, package.parent / "schemas", f"{IMAGE}/own/schemas")
    home = f"LD_LIBRARY_PATH={IMAGE}/python/lib PYTHONHOME={IMAGE}/python " if moved else ""
    program = f"{IMAGE}/python/bin/{python}" if moved else f"/usr/bin/{python}"
    paths = f"PYTHONPATH={IMAGE}/own:{IMAGE}/site PYTHONDONTWRITEBYTECODE=1"
    script = f'#!/bin/sh\nexec env {home}{paths} {program} -m runbook.cli "$@"\n'
    write = f"mkdir -p {IMAGE}/bin && cat > {IMAGE}/bin/runbook && chmod 755 {IMAGE}/bin/runbook"
    lab.exec(host, ["sh", "-c", write], input=script, check=True)
    return f"{IMAGE}/bin:/usr/local/bin:/usr/bin:/bin"


@dataclass
class Pod:
    """One pod of a rendered CronJob on a host. ``secrets`` has the Secrets that its containers name, by name."""

    lab: Lab
    host: str
    config: Json
    cronjob: Json
    path: str
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    home: str = "/var/lib/kubelet/pods/by-hand"

    @property
    def spec(self) -> Json:
        spec: Json = self.cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        return spec

    @property
    def containers(self) -> dict[str, Json]:
        """By name, in the order in which they run."""
        return {c["name"]: c for c in [*self.spec["initContainers"], *self.spec["containers"]]}

    def begin(self) -> None:
        """Make the volumes that are the pod's own: a fresh emptyDir with the group of fsGroup, and the ConfigMap."""
        group = self.spec["securityContext"]["fsGroup"]
        script = (
            f"rm -rf {self.home} && mkdir -p {self.home}/work {self.home}/plan && chgrp {group} {self.home}/work && "
            f"chmod 2777 {self.home}/work && cat > {self.home}/plan/backup.yaml"
        )
        self.lab.exec(self.host, ["sh", "-c", script], input=self.config["data"]["backup.yaml"], check=True)

    def end(self) -> None:
        """As when the pod is deleted."""
        self.lab.exec(self.host, ["rm", "-rf", self.home], check=True)

    def run(self, name: str, **rights: int) -> subprocess.CompletedProcess[str]:
        """One container, to its end; ``rights`` go over its own securityContext."""
        container = self.containers[name]
        context = {**self.spec["securityContext"], **container["securityContext"], **rights}
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        env = {"PATH": self.path} | {e["name"]: self._value(e) for e in container.get("env", [])}
        for source in container.get("envFrom", []):
            env |= self.secrets[source["secretRef"]["name"]]
        argv = [*container["command"], *container.get("args", [])]
        become = [
            "setpriv",
            f"--reuid={context['runAsUser']}",
            f"--regid={context['runAsGroup']}",
            f"--groups={context['fsGroup']}",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--no-new-privs",
            "env",
            "-i",
            *(f"{key}={value}" for key, value in env.items()),
        ]
        script = "\n".join([*self._mounts(container), f"exec {shlex.join([*become, *argv])}"])
        return self.lab.exec(self.host, ["unshare", "-m", "sh", "-euc", script], timeout=120)

    def _value(self, variable: Json) -> str:
        if "valueFrom" not in variable:
            return str(variable["value"])
        assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
        return self.host

    def _mounts(self, container: Json) -> list[str]:
        """In the container's own mount namespace. A volume that is not there fails it, as with a kubelet."""
        volumes = {v["name"]: v for v in self.spec["volumes"]}
        lines = []
        for mount in container["volumeMounts"]:
            volume, place = volumes[mount["name"]], shlex.quote(mount["mountPath"])
            if "hostPath" in volume:
                source = shlex.quote(volume["hostPath"]["path"])
                lines.append(f"test {({'File': '-f', 'Directory': '-d'})[volume['hostPath']['type']]} {source}")
            else:
                source = f"{self.home}/{volume['name']}"
                lines.append(f"mkdir -p {place}")
            lines.append(f"mount --bind {source} {place}")
            if mount.get("readOnly"):
                lines.append(f"mount -o remount,bind,ro {place}")
        return [*lines, *(f"mount -o remount,bind,ro {root}" for root in ("/", "/tmp", "/run"))]

"""Content for a lab's cluster: what every cluster has, more of it, and ballast; and snapshots of it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runbook.lab import toolchain
from runbook.lab.errors import LabError, LabUsageError
from runbook.lab.etcdkv import Etcd
from runbook.lab.health import api_client, etcd_context
from runbook.lab.jsonhttp import Client
from runbook.lab.kubeapi import rfc3339
from runbook.lab.kubeobjects import RBAC
from runbook.lab.lab import Lab
from runbook.lab.layout import Host

CHUNK = 1 << 20  # bytes a value; etcd takes requests up to 1.5 MiB
WRITERS = 3
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
Json = dict[str, Any]


def first_objects(lab: Lab) -> None:
    """Namespaces, the Secret default/known, the cluster roles and bindings of every new cluster: through the API."""

    def write() -> None:
        with contextlib.closing(api_client(lab, lab.nodes[0], 10.0)) as client:
            for path, body in base_objects():
                status, answer = client.request("PUT", path, body)
                if status >= 300:
                    said = answer.get("message", status)
                    raise LabError(f"lab {lab.name}: the API server refused {path}: {said}")

    lab.in_operator(write)


def base_objects() -> Iterator[tuple[str, Json]]:
    """Path and object."""
    for name in NAMESPACES:
        yield f"/api/v1/namespaces/{name}", {"metadata": {"name": name}, "status": {"phase": "Active"}}
    yield "/api/v1/namespaces/default/secrets/known", {"type": "Opaque", "data": {"word": "a25vd24="}}
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    rules = {"cluster-admin": everything, "system:node": everything[:0], "system:kube-scheduler": everything[:0]}
    for name, rule in rules.items():
        yield f"/apis/{RBAC}/v1/clusterroles/{name}", {"rules": rule}
    for name, group in (("cluster-admin", "system:masters"), ("kubeadm:cluster-admins", "kubeadm:cluster-admins")):
        role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
        subjects = [{"apiGroup": RBAC, "kind": "Group", "name": group}]
        yield f"/apis/{RBAC}/v1/clusterrolebindings/{name}", {"roleRef": role, "subjects": subjects}
    yield (
        "/api/v1/namespaces/kube-system/configmaps/kubeadm-config",
        {"data": {"ClusterConfiguration": "kind: ClusterConfiguration\n"}},
    )


def sample_objects(count: int, hosts: list[str]) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of `count` objects as workloads leave them, in JSON (real values are mostly protobuf)."""
    namespaces = [f"team-{i:02d}" for i in range(max(1, min(20, count // 20)))]
    for name in namespaces:
        yield _entry("v1", "Namespace", "namespaces", "", name, {"status": {"phase": "Active"}})
    for i in range(count):
        namespace, kind = namespaces[i % len(namespaces)], i % 3
        if kind == 0:
            spec = {
                "nodeName": hosts[i % len(hosts)],
                "containers": [{"name": "app", "image": "images.lab.invalid/app:1"}],
            }
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            yield _entry("v1", "Pod", "pods", namespace, f"app-{i:05d}", {"spec": spec, "status": status})
        elif kind == 1:
            yield _entry(
                "v1", "Secret", "secrets", namespace, f"secret-{i:05d}", {"type": "Opaque", "data": {"n": f"{i:08d}"}}
            )
        else:
            yield _entry("v1", "ConfigMap", "configmaps", namespace, f"config-{i:05d}", {"data": {"number": str(i)}})


def _entry(version: str, kind: str, registry: str, namespace: str, name: str, rest: Json) -> tuple[bytes, bytes]:
    meta = {"name": name, "creationTimestamp": rfc3339(), "uid": f"lab-{registry}-{namespace}-{name}"}
    if namespace:
        meta["namespace"] = namespace
    key = "/".join(["/registry", registry, *([namespace] if namespace else []), name])
    return key.encode(), json.dumps({"apiVersion": version, "kind": kind, "metadata": meta, **rest}).encode()


def fill(lab: Lab, *, objects: int, mb: int) -> dict[str, int]:
    """See `Lab.fill`; returns what was written, and the database's size and revision afterwards."""
    lab.holder()

    def work() -> dict[str, int]:
        ballast = max(0, mb - (db_size(lab, lab.nodes[0]) >> 20))
        run = f"{time.time_ns():x}"
        entries = list(sample_objects(objects, [h.name for h in lab.hosts])) if objects else []
        keys = [f"/registry/lab.runbook/ballast/{run}-{number:06d}".encode() for number in range(ballast)]
        put_all(lab, entries, keys)
        with contextlib.closing(etcd_of(lab, lab.nodes[0])) as etcd:
            revision = etcd.range(b"/registry/health")[1]
        size = db_size(lab, lab.nodes[0])
        return {"objects": len(entries), "ballast_mb": ballast, "db_bytes": size, "revision": revision}

    return lab.in_operator(work)


def put_all(lab: Lab, entries: Sequence[tuple[bytes, bytes]], ballast: Sequence[bytes]) -> None:
    """Write the entries, and a mebibyte of random bytes at each key of `ballast`, through several members at once."""
    work: queue.SimpleQueue[tuple[bytes, bytes | None]] = queue.SimpleQueue()
    for entry in [*entries, *((key, None) for key in ballast)]:
        work.put(entry)
    errors: list[OSError] = []

    def writer(host: Host) -> None:
        with contextlib.closing(etcd_of(lab, host)) as etcd, contextlib.suppress(queue.Empty):
            while not errors:
                key, value = work.get_nowait()
                try:
                    etcd.put(key, os.urandom(CHUNK) if value is None else value)
                except OSError as error:
                    errors.append(error)

    nodes = [lab.nodes[i % len(lab.nodes)] for i in range(WRITERS)]
    threads = [threading.Thread(target=writer, args=(host,)) for host in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise LabError(f"lab {lab.name}: etcd did not take it: {errors[0]}")


def etcd_of(lab: Lab, host: Host, timeout: float = 30.0) -> Etcd:
    """A connection to one member; to be closed."""
    return Etcd(Client(f"https://{host.ip}:2379", etcd_context(lab), timeout))


def db_size(lab: Lab, host: Host) -> int:
    """Bytes of the member's database file; LabError where the member does not answer."""
    try:
        with contextlib.closing(etcd_of(lab, host, 5.0)) as etcd:
            return int(etcd.call("/v3/maintenance/status", {})["dbSize"])
    except OSError as error:
        raise LabError(f"{host.name}: etcd does not answer: {error}") from error


def snapshot(lab: Lab, path: Path, host: str | None) -> Path:
    """See `Lab.snapshot`."""
    path = path.absolute()
    if not path.parent.is_dir():  # before a lab is looked for: etcdctl's own word for it would be a fault of ours
        raise LabUsageError(f"{path}: there is no directory {path.parent}: make it, or name a file elsewhere")
    member = lab.host(host) if host else next((h for h in lab.nodes if lab.host_pid(h.name)), lab.nodes[0])
    tools, pki = toolchain.ensure(), lab.layout.pki
    lab.in_operator(lambda: db_size(lab, member))  # etcdctl would wait for ever for a member that is down
    argv = [str(tools.programs["etcdctl"]), f"--endpoints=https://{member.ip}:2379", f"--cacert={pki / 'etcd-ca.crt'}"]
    argv += [f"--cert={pki / 'etcd-client.crt'}", f"--key={pki / 'etcd-client.key'}", "snapshot", "save", str(path)]
    env = {**os.environ, "ETCDCTL_API": "3"}
    process = lab.popen_operator(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env
    )
    _, error = process.communicate(timeout=600)
    if process.returncode != 0:
        raise LabError(f"{member.name}: snapshot to {path} failed: {error.decode(errors='replace').strip()[-500:]}")
    path.chmod(0o600)
    return path

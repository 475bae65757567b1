"""The static pods of a control plane, field by field as `kubeadm init` and `kubeadm join` (1.30) write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from runbook.lab.layout import Host

KUBERNETES = "v1.30.14"
IMAGES = "images.lab.invalid"  # kubeadm's imageRepository; nothing is ever pulled
IMAGE_3_5 = "3.5.15-0"
"""kubeadm 1.30's tag, whichever 3.5 runs here; of another series the tag is the program's own version."""
PKI = "/etc/kubernetes/pki"
Json = dict[str, Any]


def manifests(host: Host, control_plane: Sequence[Host], wal_dir: str = "", etcd: str = "") -> dict[str, str]:
    """File name → content of /etc/kubernetes/manifests on this host; `etcd` is its version."""
    return {
        "etcd.yaml": _dump(_etcd(host, control_plane, wal_dir, etcd)),
        "kube-apiserver.yaml": _dump(_api_server(host)),
        "kube-controller-manager.yaml": _dump(_controller_manager()),
        "kube-scheduler.yaml": _dump(_scheduler()),
    }


def _dump(pod: Json) -> str:
    return yaml.safe_dump(pod, default_flow_style=False, sort_keys=True, width=4096)


def _is_old(etcd: str) -> bool:
    return not etcd or etcd.startswith(("3.4.", "3.5."))


def _newer_flags(etcd: str) -> dict[str, str]:
    """What became of two experiments in etcd 3.6, as kubeadm writes them from 1.34 on."""
    if _is_old(etcd):
        return {
            "experimental-initial-corrupt-check": "true",
            "experimental-watch-progress-notify-interval": "5s",
        }
    return {"feature-gates": "InitialCorruptCheck=true", "watch-progress-notify-interval": "5s"}


def _etcd(host: Host, control_plane: Sequence[Host], wal_dir: str, etcd: str) -> Json:
    # A member that joined lists the members at the time it joined, itself included: the file is never written again.
    known = control_plane[: control_plane.index(host) + 1]
    flags = {
        "advertise-client-urls": f"https://{host.ip}:2379",
        "cert-file": f"{PKI}/etcd/server.crt",
        "client-cert-auth": "true",
        "data-dir": "/var/lib/etcd",
        **_newer_flags(etcd),
        "initial-advertise-peer-urls": f"https://{host.ip}:2380",
        "initial-cluster": ",".join(f"{h.name}=https://{h.ip}:2380" for h in known),
        **({"initial-cluster-state": "existing"} if len(known) > 1 else {}),
        "key-file": f"{PKI}/etcd/server.key",
        "listen-client-urls": f"https://127.0.0.1:2379,https://{host.ip}:2379",
        "listen-metrics-urls": "http://127.0.0.1:2381",
        "listen-peer-urls": f"https://{host.ip}:2380",
        "name": host.name,
        "peer-cert-file": f"{PKI}/etcd/peer.crt",
        "peer-client-cert-auth": "true",
        "peer-key-file": f"{PKI}/etcd/peer.key",
        "peer-trusted-ca-file": f"{PKI}/etcd/ca.crt",
        "snapshot-count": "10000",
        "trusted-ca-file": f"{PKI}/etcd/ca.crt",
        **({"wal-dir": wal_dir} if wal_dir else {}),
    }
    volumes = {"etcd-data": ("/var/lib/etcd", "DirectoryOrCreate"), "etcd-certs": (f"{PKI}/etcd", "DirectoryOrCreate")}
    if wal_dir:
        # The volume is the parent: etcd makes a new WAL beside its place and renames it, which a mount point refuses.
        volumes["etcd-wal"] = (str(PurePosixPath(wal_dir).parent), "DirectoryOrCreate")
    return _pod(
        "etcd",
        ["etcd", *(f"--{k}={v}" for k, v in flags.items())],
        image=f"{IMAGES}/etcd:{IMAGE_3_5 if _is_old(etcd) else f'{etcd}-0'}",
        cpu="100m",
        memory="100Mi",
        volumes=volumes,
        writable=("etcd-data", "etcd-certs", "etcd-wal"),
        annotations={"kubeadm.kubernetes.io/etcd.advertise-client-urls": f"https://{host.ip}:2379"},
        liveness=_probe("/health?exclude=NOSPACE&serializable=true", "127.0.0.1", 2381, "HTTP", 8),
        startup=_probe("/health?serializable=false", "127.0.0.1", 2381, "HTTP", 24),
    )


def _api_server(host: Host) -> Json:
    flags = {
        "advertise-address": host.ip,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{PKI}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "etcd-cafile": f"{PKI}/etcd/ca.crt",
        "etcd-certfile": f"{PKI}/apiserver-etcd-client.crt",
        "etcd-keyfile": f"{PKI}/apiserver-etcd-client.key",
        "etcd-servers": "https://127.0.0.1:2379",
        "kubelet-client-certificate": f"{PKI}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{PKI}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "proxy-client-cert-file": f"{PKI}/front-proxy-client.crt",
        "proxy-client-key-file": f"{PKI}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": "6443",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": f"{PKI}/sa.pub",
        "service-account-signing-key-file": f"{PKI}/sa.key",
        "service-cluster-ip-range": "10.96.0.0/12",
        "tls-cert-file": f"{PKI}/apiserver.crt",
        "tls-private-key-file": f"{PKI}/apiserver.key",
    }
    pod = _pod(
        "kube-apiserver",
        ["kube-apiserver", *(f"--{k}={v}" for k, v in flags.items())],
        image=f"{IMAGES}/kube-apiserver:{KUBERNETES}",
        cpu="250m",
        memory="",
        volumes={"ca-certs": ("/etc/ssl/certs", "DirectoryOrCreate"), "k8s-certs": (PKI, "DirectoryOrCreate")},
        annotations={"kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint": f"{host.ip}:6443"},
        liveness=_probe("/livez", host.ip, 6443, "HTTPS", 8),
        startup=_probe("/livez", host.ip, 6443, "HTTPS", 24),
    )
    readiness = _probe("/readyz", host.ip, 6443, "HTTPS", 3)
    readiness.pop("initialDelaySeconds")
    pod["spec"]["containers"][0]["readinessProbe"] = {**readiness, "periodSeconds": 1}
    return pod


def _controller_manager() -> Json:
    conf = "/etc/kubernetes/controller-manager.conf"
    flags = {
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{PKI}/ca.crt",
        "cluster-name": "kubernetes",
        "cluster-signing-cert-file": f"{PKI}/ca.crt",
        "cluster-signing-key-file": f"{PKI}/ca.key",
        "controllers": "*,bootstrapsigner,tokencleaner",
        "kubeconfig": conf,
        "leader-elect": "true",
        "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "root-ca-file": f"{PKI}/ca.crt",
        "service-account-private-key-file": f"{PKI}/sa.key",
        "use-service-account-credentials": "true",
    }
    return _pod(
        "kube-controller-manager",
        ["kube-controller-manager", *(f"--{k}={v}" for k, v in flags.items())],
        image=f"{IMAGES}/kube-controller-manager:{KUBERNETES}",
        cpu="200m",
        memory="",
        volumes={
            "ca-certs": ("/etc/ssl/certs", "DirectoryOrCreate"),
            "k8s-certs": (PKI, "DirectoryOrCreate"),
            "kubeconfig": (conf, "FileOrCreate"),
        },
        liveness=_probe("/healthz", "127.0.0.1", 10257, "HTTPS", 8),
        startup=_probe("/healthz", "127.0.0.1", 10257, "HTTPS", 24),
    )


def _scheduler() -> Json:
    conf = "/etc/kubernetes/scheduler.conf"
    flags = {
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "kubeconfig": conf,
        "leader-elect": "true",
    }
    return _pod(
        "kube-scheduler",
        ["kube-scheduler", *(f"--{k}={v}" for k, v in flags.items())],
        image=f"{IMAGES}/kube-scheduler:{KUBERNETES}",
        cpu="100m",
        memory="",
        volumes={"kubeconfig": (conf, "FileOrCreate")},
        liveness=_probe("/healthz", "127.0.0.1", 10259, "HTTPS", 8),
        startup=_probe("/healthz", "127.0.0.1", 10259, "HTTPS", 24),
    )


def _probe(path: str, host: str, port: int, scheme: str, failures: int) -> Json:
    get = {"host": host, "path": path, "port": port, "scheme": scheme}
    probe = {"failureThreshold": failures, "httpGet": get, "initialDelaySeconds": 10, "periodSeconds": 10}
    return {**probe, "timeoutSeconds": 15}


def _pod(
    name: str,
    command: list[str],
    *,
    image: str,
    cpu: str,
    memory: str,
    volumes: Mapping[str, tuple[str, str]],
    writable: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
    liveness: Json,
    startup: Json,
) -> Json:
    mounts = [
        {"mountPath": path, "name": volume}
        if volume in writable
        else {"mountPath": path, "name": volume, "readOnly": True}
        for volume, (path, _) in volumes.items()
    ]
    container = {
        "command": command,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "livenessProbe": liveness,
        "name": name,
        "resources": {"requests": {"cpu": cpu, **({"memory": memory} if memory else {})}},
        "startupProbe": startup,
        "volumeMounts": mounts,
    }
    metadata: Json = {"creationTimestamp": None, "labels": {"component": name, "tier": "control-plane"}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "name": name, "namespace": "kube-system"},
        "spec": {
            "containers": [container],
            "hostNetwork": True,
            "priority": 2000001000,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"hostPath": {"path": p, "type": t}, "name": v} for v, (p, t) in volumes.items()],
        },
        "status": {},
    }

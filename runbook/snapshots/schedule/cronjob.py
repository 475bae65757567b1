"""The CronJob: etcd's own etcdctl saves on a control-plane node, two steps verify, the last takes it off the cluster.

Each step is a container of its own, so that ``kubectl describe`` names the one that failed. The pod asks nothing of
the API: it has no token, hence no role, and hence nothing to bind.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from runbook.backup import Backup
from runbook.planfile.durations import format_duration
from runbook.snapshots.origin import CAS
from runbook.snapshots.schedule.facts import Facts, Inside, facts, inside

Json = dict[str, Any]
PLAN = "/etc/runbook/backup.yaml"
WORK = "/work"
SNAPSHOT = f"{WORK}/snapshot.db"
USER = 65532
"""Distroless' nonroot: no account of any host has this number."""
LARGEST = "9Gi"
KEPT = 7 * 24 * 3600
PUSH = f"""\
# A snapshot that cannot be stored ends here, and nothing older is let go.
runbook snapshot push {SNAPSHOT} {PLAN} --member "$NODE" --etcd "$ETCD"%s
runbook snapshot prune {PLAN} --yes
"""
_POD = "spec.jobTemplate.spec.template.spec"
WHY: Mapping[str, str] = {
    "spec.timeZone": "Without this the schedule is the controller manager's own time zone, with a summer time perhaps.",
    "spec.concurrencyPolicy": "One at a time: a run that is slow is not joined by the next one.",
    "spec.startingDeadlineSeconds": "A run that could not begin in time, for instance because the control plane was "
    "down, is made up for as long as this; without it, after 100 missed ones the controller gives up for ever.",
    "spec.jobTemplate.spec.activeDeadlineSeconds": "The whole of a run, its second attempt included; then it is ended, "
    "and counts as failed.",
    "spec.jobTemplate.spec.backoffLimit": "A second attempt is a new pod with an empty directory, perhaps on another "
    "node, whose etcd may be in better health.",
    "spec.jobTemplate.spec.ttlSecondsAfterFinished": "Long enough to read the logs of a failure after a weekend.",
    f"{_POD}.nodeSelector": "Only there are etcd and its certificates.",
    f"{_POD}.hostNetwork": "etcd listens on the node's own loopback address.",
    f"{_POD}.dnsPolicy": "The node's own resolver: the way to the store must not depend on the cluster's DNS.",
    f"{_POD}.restartPolicy": "The job tries again, with a new pod: the logs of what failed stay.",
    f"{_POD}.automountServiceAccountToken": "Nothing here talks to the API server.",
    f"{_POD}.securityContext": "For every container that says nothing else: no root. fsGroup gives the working "
    "directory its group, and whatever is written there inherits it.",
    f"{_POD}.initContainers.save": "1. Save, with the etcdctl of the image that this cluster's etcd runs from.",
    f"{_POD}.initContainers.save.securityContext.runAsUser": "Root, because etcd's key belongs to root and has mode "
    "0600; root without any capability, which may read what is root's own, and nothing else.",
    f"{_POD}.initContainers.hand-over": "2. etcdctl writes with mode 0600: its group may read it now, so that nothing "
    "below needs to be root.",
    f"{_POD}.initContainers.status": "3. Verify: can etcd's own tool read it? What it holds is in the log.",
    f"{_POD}.initContainers.verify": "4. Verify: do all its bytes have the checksum at its end? Neither etcdctl nor "
    "etcdutl asks that before a restore.",
    f"{_POD}.containers.push": "5. Take it off the cluster: hashed, compressed and encrypted in one pass; then let old "
    "ones go, as spec.keep says. The newest verified one never goes.",
    f"{_POD}.containers.push.env": "With the CA's certificate: what the snapshot's sidecar says of where it is from.",
    f"{_POD}.volumes.work": "The snapshot lies here in plain, as it does in etcd's own data directory on the "
    "same disk, and is removed with the pod. Not in memory (medium: Memory): gigabytes of it would be the control "
    "plane's.",
    f"{_POD}.volumes.work.emptyDir.sizeLimit": "8 GiB is the largest quota that etcd advises.",
}
_TLS_WHY: Mapping[str, str] = {
    f"{_POD}.volumes.etcd-ca": "Three files, not the directory: that has the key of etcd's CA in it too.",
}


def cronjob(backup: Backup, etcd_image: str = "") -> list[Json]:
    """The ConfigMap with the plan as the pod reads it, and the CronJob.

    ``etcd_image`` takes the place of the plan's, where it was asked of the hosts. Raises UsageError, with everything
    that is missing or cannot be.
    """
    backup = with_image(backup, etcd_image)
    it, there = facts(backup), inside(backup)
    return [_config(it), _cronjob(it, there)]


def comments(backup: Backup) -> Mapping[str, str]:
    """Why, by key of the CronJob."""
    it, there = facts(backup), inside(backup)
    schedule = f"The pace of the plan: the longest time between two runs is {format_duration(it.longest)}."
    why = {"spec.schedule": schedule, **WHY, **(_TLS_WHY if there.tls else {})}
    if it.directory:
        why[f"{_POD}.volumes.store"] = (
            f"It must be a mount of something that is not on this node, at the same place on each, and writable for "
            f"the user {USER}; one that is not there is not made, or snapshots would pile up on the node's own disk."
        )
    if there.status_tool == "etcdctl":
        why[f"{_POD}.initContainers.status"] += " (Images of etcd before 3.6 come without etcdutl.)"
    return why


def with_image(backup: Backup, etcd_image: str) -> Backup:
    """The same plan, with that image for etcd's where one is given."""
    return replace(backup, schedule=replace(backup.schedule, etcd_image=etcd_image)) if etcd_image else backup


def plan_inside(backup: Backup) -> Json:
    """The plan for ``push`` and ``prune`` in the pod: without SSH, tools, paths and metrics, of no use there."""
    place = backup.store
    store = {
        "url": place.url,
        "endpoint": place.endpoint,
        "region": place.region,
        "serverSideEncryption": place.server_side,
        "kmsKey": place.kms_key,
    }
    keep = backup.keep
    spec: Json = {"store": {key: value for key, value in store.items() if value}, "compress": backup.compress}
    if backup.recipients:
        spec["encrypt"] = {"recipients": list(backup.recipients)}
    spec["keep"] = {tier: getattr(keep, tier) for tier in ("last", "hourly", "daily", "weekly", "monthly")}
    spec["schedule"] = {"cron": backup.schedule.when}
    spec["nodes"] = [{"name": n.name, "host": n.host, "peerURLs": list(n.peer_urls)} for n in backup.hosts.nodes]
    metadata = {"name": backup.name, **({"ticket": backup.ticket} if backup.ticket else {})}
    return {"apiVersion": "runbook/v1", "kind": "EtcdBackup", "metadata": metadata, "spec": spec}


def _metadata(it: Facts) -> Json:
    labels = {
        "app.kubernetes.io/name": "etcd-backup",
        "app.kubernetes.io/instance": it.backup.name,
        "app.kubernetes.io/managed-by": "runbook",
    }
    return {"name": it.name, "namespace": it.backup.schedule.namespace, "labels": labels}


def _config(it: Facts) -> Json:
    text = yaml.safe_dump(plan_inside(it.backup), sort_keys=False, width=1000)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(it), "data": {"backup.yaml": text}}


def _cronjob(it: Facts, there: Inside) -> Json:
    schedule = it.backup.schedule
    labels = _metadata(it)["labels"]
    job = {
        "activeDeadlineSeconds": it.deadline,
        "backoffLimit": 1,
        "ttlSecondsAfterFinished": max(KEPT, it.stale),
        "template": {"metadata": {"labels": labels}, "spec": _pod(it, there)},
    }
    spec = {
        "schedule": schedule.when,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": max(60, min(3600, int(it.shortest / 2))),
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels}, "spec": job},
    }
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _metadata(it), "spec": spec}


def _pod(it: Facts, there: Inside) -> Json:
    control_plane = "node-role.kubernetes.io/control-plane"
    return {
        "nodeSelector": {control_plane: ""},
        "tolerations": [{"key": control_plane, "operator": "Exists", "effect": "NoSchedule"}],
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": _verified(it, there),
        "containers": [_push(it, there)],
        "volumes": _volumes(it, there),
    }


def _verified(it: Facts, there: Inside) -> list[Json]:
    """The steps up to a snapshot that is known to be whole."""
    schedule = it.backup.schedule
    files = _certificates(there)
    tls = [f"--{flag}={path}" for _, flag, path in files]
    save = ["etcdctl", f"--endpoints={there.endpoint}", *tls, "snapshot", "save", SNAPSHOT]
    mounts = [{"name": name, "mountPath": path, "readOnly": True} for name, _, path in files]
    status = [there.status_tool, "snapshot", "status", SNAPSHOT, "--write-out=json"]
    return [
        _container("save", schedule.etcd_image, save, mounts, root=True),
        _container("hand-over", schedule.image, ["chmod", "0640", SNAPSHOT], root=True),
        _container("status", schedule.etcd_image, status),
        _container("verify", schedule.image, ["runbook", "snapshot", "verify", SNAPSHOT], env=True),
    ]


def _push(it: Facts, there: Inside) -> Json:
    """It sees the CA's certificate too, which is no secret: by it a restore knows the cluster that a snapshot is of."""
    mounts: list[Json] = [{"name": "plan", "mountPath": "/etc/runbook", "readOnly": True}]
    pki = ""
    for name, _, path in _certificates(there)[:1]:
        if path != f"{there.pki}/{CAS[0]}":
            continue  # laid out otherwise than by kubeadm: push would look for it in vain, and warn each time
        mounts.append({"name": name, "mountPath": path, "readOnly": True})
        pki = f" --pki {shlex.quote(there.pki)}"
    if it.directory:
        mounts.append({"name": "store", "mountPath": it.directory})
    push = _container("push", it.backup.schedule.image, ["sh", "-euc"], mounts, env=True)
    whole: Json = {}
    for key, value in push.items():
        whole[key] = value
        if key == "command":
            whole["args"] = [PUSH % pki]
        if key == "env":
            value += [
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "ETCD", "value": there.version},
            ]
        if key == "env" and it.backup.schedule.secret:
            whole["envFrom"] = [{"secretRef": {"name": it.backup.schedule.secret}}]
    return whole


def _container(
    name: str,
    image: str,
    command: list[str],
    mounts: list[Json] | None = None,
    *,
    root: bool = False,
    env: bool = False,
) -> Json:
    """``env`` for the program itself, which has a home directory and temporary files like any other."""
    rights: Json = {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0} if root else {}
    rights |= {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container: Json = {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
    if env:
        container["env"] = [{"name": key, "value": WORK} for key in ("HOME", "TMPDIR")]
    return container | {
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "securityContext": rights,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "work", "mountPath": WORK}, *(mounts or [])],
    }


def _certificates(there: Inside) -> list[tuple[str, str, str]]:
    """Volume, etcdctl's flag and path of each file that a client of etcd needs; none where etcd has no TLS."""
    if not there.tls:
        return []
    paths = there.paths
    return [
        ("etcd-ca", "cacert", paths.etcd_ca),
        ("etcd-cert", "cert", paths.etcd_cert),
        ("etcd-key", "key", paths.etcd_key),
    ]


def _volumes(it: Facts, there: Inside) -> list[Json]:
    files = [{"name": name, "hostPath": {"path": path, "type": "File"}} for name, _, path in _certificates(there)]
    volumes: list[Json] = [
        {"name": "work", "emptyDir": {"sizeLimit": LARGEST}},
        {"name": "plan", "configMap": {"name": it.name}},
        *files,
    ]
    if it.directory:
        volumes.append({"name": "store", "hostPath": {"path": it.directory, "type": "Directory"}})
    return volumes

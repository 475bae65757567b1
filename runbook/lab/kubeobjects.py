"""What the API server stand-in knows of Kubernetes' resources: paths, etcd keys, discovery, tables, errors. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from runbook.lab.kubeapi import parse_rfc3339

Json = dict[str, Any]
VERBS = ["create", "delete", "get", "list", "update"]


@dataclass(frozen=True)
class Resource:
    """One kind of object: its group ("" is the core), where etcd has it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    registry: str  # below /registry/
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As objects say it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def key(self, namespace: str, name: str) -> bytes:
        """The object's key in etcd; with an empty name, the prefix of the list."""
        middle = f"{namespace}/" if self.namespaced and namespace else ""
        return f"/registry/{self.registry}/{middle}{name}".encode()


RBAC = "rbac.authorization.k8s.io"
RESOURCES = (
    Resource("", "v1", "namespaces", "Namespace", False, "namespaces", ("ns",)),
    Resource("", "v1", "nodes", "Node", False, "minions", ("no",)),
    Resource("", "v1", "pods", "Pod", True, "pods", ("po",)),
    Resource("", "v1", "secrets", "Secret", True, "secrets"),
    Resource("", "v1", "configmaps", "ConfigMap", True, "configmaps", ("cm",)),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", True, "serviceaccounts", ("sa",)),
    Resource("", "v1", "services", "Service", True, "services/specs", ("svc",)),
    Resource("", "v1", "endpoints", "Endpoints", True, "services/endpoints", ("ep",)),
    Resource("apps", "v1", "deployments", "Deployment", True, "deployments", ("deploy",)),
    Resource("apps", "v1", "daemonsets", "DaemonSet", True, "daemonsets", ("ds",)),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", True, "leases"),
    Resource(RBAC, "v1", "clusterroles", "ClusterRole", False, "clusterroles"),
    Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False, "clusterrolebindings"),
    Resource(RBAC, "v1", "roles", "Role", True, "roles"),
    Resource(RBAC, "v1", "rolebindings", "RoleBinding", True, "rolebindings"),
)
BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}


@dataclass(frozen=True)
class Target:
    """What a path means."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


def parse_path(path: str) -> Target | None:
    """An object's or a list's path; None for any other."""
    parts = path.strip("/").split("/")
    if parts[:1] == ["api"]:
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and (group, version, rest[2]) in BY_PATH:
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3 or (group, version, rest[0]) not in BY_PATH:
        return None
    name, sub = [*rest[1:], "", ""][:2]
    return Target(BY_PATH[group, version, rest[0]], namespace, name, sub)


def discovery(path: str) -> Json | None:
    """Answers to /api, /apis, /api/v1, /apis/GROUP and /apis/GROUP/VERSION."""
    groups = sorted({(r.group, r.version) for r in RESOURCES if r.group})
    listed = [_group(group, version) for group, version in groups]
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    for group, version in [("", "v1"), *groups]:
        if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
            found = [_resource(r) for r in RESOURCES if (r.group, r.version) == (group, version)]
            name = f"{group}/{version}" if group else version
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": found}
        if group and path == f"/apis/{group}":
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
    return None


def _group(group: str, version: str) -> Json:
    spoken = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [spoken], "preferredVersion": spoken}


def _resource(r: Resource) -> Json:
    entry: Json = {"name": r.plural, "singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": r.kind}
    return {**entry, "verbs": VERBS, "shortNames": list(r.short)}


def status_object(code: int, reason: str, message: str, details: Json | None = None) -> Json:
    """An error as the API tells it."""
    body: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return body | {"reason": reason, "details": details or {}, "code": code}


def not_found(target: Target | None) -> Json:
    """404, as the real one says it."""
    if target is None:
        return status_object(404, "NotFound", "the server could not find the requested resource")
    r = target.resource
    what = f"{r.plural}.{r.group}" if r.group else r.plural
    details = {"name": target.name, "kind": r.plural, **({"group": r.group} if r.group else {})}
    return status_object(404, "NotFound", f'{what} "{target.name}" not found', details)


def table(resource: Resource, items: list[Json], revision: int) -> Json:
    """What kubectl asks for to print a list for people."""
    columns, row = {"Node": NODE, "Pod": POD}.get(resource.kind, PLAIN)
    definitions = [
        {"name": c, "type": "string", "format": "name" if c == "Name" else "", "priority": 0} for c in columns
    ]
    rows = []
    for item in items:
        meta = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
        rows.append({"cells": row(item), "object": meta})
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(revision)}}
    return {**head, "columnDefinitions": definitions, "rows": rows}


def _age(item: Json) -> str:
    seconds = int(time.time() - parse_rfc3339(item["metadata"].get("creationTimestamp") or ""))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def ready_condition(item: Json) -> str:
    """The status of the Ready condition: True, False or Unknown."""
    for condition in item.get("status", {}).get("conditions", []):
        if condition.get("type") == "Ready":
            return str(condition.get("status"))
    return "Unknown"


def _node_row(item: Json) -> list[str]:
    ready = {"True": "Ready"}.get(ready_condition(item), "NotReady")
    mark = "node-role.kubernetes.io/"
    roles = [label.removeprefix(mark) for label in item["metadata"].get("labels", {}) if label.startswith(mark)]
    version = item.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
    return [item["metadata"]["name"], ready, ",".join(roles) or "<none>", _age(item), version]


def _pod_row(item: Json) -> list[str]:
    statuses = item.get("status", {}).get("containerStatuses", [])
    ready = f"{sum(bool(s.get('ready')) for s in statuses)}/{len(item.get('spec', {}).get('containers', []))}"
    restarts = str(sum(int(s.get("restartCount", 0)) for s in statuses))
    return [item["metadata"]["name"], ready, item.get("status", {}).get("phase", ""), restarts, _age(item)]


NODE = (("Name", "Status", "Roles", "Age", "Version"), _node_row)
POD = (("Name", "Ready", "Status", "Restarts", "Age"), _pod_row)
PLAIN = (("Name", "Age"), lambda item: [item["metadata"]["name"], _age(item)])

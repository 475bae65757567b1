"""A plan's checked values → the frozen dataclasses. Nothing here can fail: everything was checked before."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from runbook.plan import (
    NOWHERE,
    Cluster,
    Node,
    OwnCheck,
    Paths,
    Place,
    Plan,
    Snapshot,
    Ssh,
    Timeouts,
    Tools,
    Verify,
    Worker,
    default_client_urls,
)
from runbook.planfile.durations import parse_duration
from runbook.snapshots.urls import is_reference, parse_reference

Values = dict[str, Any]

FIELDS = {
    "identityFile": "identity_file",
    "knownHostsFile": "known_hosts_file",
    "connectTimeout": "connect_timeout",
    "dataDir": "data_dir",
    "walDir": "wal_dir",
    "etcdCA": "etcd_ca",
    "etcdCert": "etcd_cert",
    "etcdKey": "etcd_key",
    "apiServer": "api_server",
    "nodesReady": "nodes_ready",
    "bumpRevision": "bump_revision",
    "markCompacted": "mark_compacted",
    "peerURLs": "peer_urls",
    "clientURLs": "client_urls",
    "from": "source",
    "allowMissingTrailer": "allow_missing_trailer",
}
"""The plan's keys whose fields have another name than the key."""


def build(data: Values, file: Path, text: bytes, base: Path) -> Plan:
    """The plan. ``base`` is the directory that relative paths of the responder's machine start from."""
    spec = data["spec"]
    ssh, paths = spec.get("ssh", {}), spec.get("paths", {})
    return Plan(
        name=data["metadata"]["name"],
        ticket=data["metadata"].get("ticket", ""),
        snapshot=_snapshot(spec["snapshot"], base),
        cluster=Cluster(**_fields(spec.get("cluster", {}))),
        nodes=tuple(built_node(node, ssh, paths, base) for node in spec["nodes"]),
        workers=tuple(_worker(worker, ssh, paths, base) for worker in spec.get("workers", [])),
        tools=built_tools(spec.get("tools", {}), base),
        owner=spec.get("restore", {}).get("owner", "keep"),
        timeouts=Timeouts(**{k: parse_duration(v) for k, v in _fields(spec.get("timeouts", {})).items()}),
        verify=_verify(spec.get("verify", {})),
        file=file,
        text=text,
    )


def _fields(values: Values) -> Values:
    return {FIELDS.get(key, key): value for key, value in values.items()}


def local(path: str, base: Path) -> Path:
    """A path of the responder's machine, absolute; ``~/`` is the home directory. Links are left as they are."""
    return base / os.path.expanduser(path)


def _snapshot(values: Values, base: Path) -> Snapshot:
    fields = _fields(values)
    source: str = fields["source"]
    sha256: str = fields.pop("sha256", "")
    node = None
    if at := re.fullmatch(r"host://([^/]+)(/.*)", source):
        node, path = at[1], Path(at[2])
    elif source.startswith("file://"):
        path = Path(unquote(source.removeprefix("file://")))
    else:
        path = local(source, base)
    store, identity = fields.pop("store", {}), fields.pop("identity_file", "")
    place = None
    if is_reference(source):
        node, path = None, NOWHERE
        place = Place(parse_reference(source).place_url, store.get("endpoint", ""), store.get("region", ""))
    return Snapshot(
        path=path,
        node=node,
        sha256=sha256.lower() or None,
        store=place,
        identity_file=local(identity, base) if identity else None,
        **fields,
    )


def _ssh(values: Values, base: Path) -> Ssh:
    fields = _fields(values)
    fields["known_hosts_file"] = local(fields.get("known_hosts_file") or "~/.ssh/known_hosts", base)
    identity = fields.get("identity_file")
    fields["identity_file"] = local(identity, base) if identity else None
    fields["jump"] = fields.get("jump") or None
    if "connect_timeout" in fields:
        fields["connect_timeout"] = parse_duration(fields["connect_timeout"])
    return Ssh(**fields)


def built_node(values: Values, ssh: Values, paths: Values, base: Path) -> Node:
    """One node, with what the plan says for all of them."""
    peers = tuple(values["peerURLs"])
    return Node(
        name=values["name"],
        host=values["host"],
        peer_urls=peers,
        client_urls=tuple(values["clientURLs"]) if "clientURLs" in values else default_client_urls(peers),
        ssh=_ssh({**ssh, **values.get("ssh", {})}, base),
        paths=Paths(**_fields({**paths, **values.get("paths", {})})),
    )


def _worker(values: str | Values, ssh: Values, paths: Values, base: Path) -> Worker:
    own: Values = {"host": values} if isinstance(values, str) else values
    return Worker(host=own["host"], ssh=_ssh({**ssh, **own.get("ssh", {})}, base), paths=Paths(**_fields(paths)))


def built_tools(values: Values, base: Path) -> Tools:
    """Etcd's programs, as ``spec.tools`` says."""
    upload = values.get("upload")
    return Tools(**{**values, "upload": local(upload, base) if upload else None})


def _verify(values: Values) -> Verify:
    fields = _fields(values)
    fields["secrets"] = tuple(fields.get("secrets", ()))
    fields["rbac"] = tuple(_kind_lowered(item) for item in fields.get("rbac", ()))
    fields["checks"] = tuple(_check(check) for check in fields.get("checks", ()))
    return Verify(**fields)


def _kind_lowered(item: str) -> str:
    kind, slash, rest = item.partition("/")
    return kind.lower() + slash + rest


def _check(values: Values) -> OwnCheck:
    own = {"on": "local", **values}
    if "within" in own:
        own["within"] = parse_duration(own["within"])
    return OwnCheck(**own)

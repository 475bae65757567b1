"""Backup plans (``kind: EtcdBackup``): what their schema cannot say, and the frozen dataclasses.

Their hosts are a restore plan's, and are checked and built as those are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runbook.backup import KEEP, Backup, Place, Schedule
from runbook.plan import Plan, Snapshot, Timeouts
from runbook.planfile.build import Values, built_node, built_tools, local
from runbook.planfile.durations import parse_duration
from runbook.planfile.problems import shown
from runbook.planfile.sense import SPEC, Complaint, View, choice, host_errors, node_names, warn_sudo
from runbook.snapshots.keep import Keep

STORE = (*SPEC, "store")
_SCHEDULE = {"etcdImage": "etcd_image"}


def errors(view: View) -> Iterator[Complaint]:
    """Everything that makes a backup plan wrong, beyond its shape."""
    yield from host_errors(view)
    url = view.get((*STORE, "url"))
    if isinstance(url, str) and url.startswith("host://"):
        node, names = url.removeprefix("host://").partition("/")[0], node_names(view)
        if names and node not in names:
            yield (*STORE, "url"), f"found the node {shown(node)}, which the plan does not have; {choice(node, names)}"
    if isinstance(url, str):
        yield from _options(view, url.partition(":")[0])
    tiers = [view.get((*SPEC, "keep", tier), getattr(KEEP, tier)) for tier in Keep.__dataclass_fields__]
    if not any(tiers) and None not in tiers:
        yield (
            (*SPEC, "keep"),
            "found 0 everywhere, which would keep the newest verified snapshot alone; last: 1 does that",
        )


def _options(view: View, scheme: str) -> Iterator[Complaint]:
    """Keys that mean nothing for this kind of store, or without another."""
    for key in ("endpoint", "region"):
        if scheme in ("file", "host") and view.get((*STORE, key), ""):
            yield (*STORE, key), f"{key} is for object stores, and the store is {scheme}://; leave it out"
    server_side = view.get((*STORE, "serverSideEncryption"), "")
    if server_side and scheme != "s3":
        yield (*STORE, "serverSideEncryption"), f"this is for s3://, and the store is {scheme}://; leave it out"
    if view.get((*STORE, "kmsKey"), "") and server_side != "aws:kms":
        yield (*STORE, "kmsKey"), "a key is given without serverSideEncryption: aws:kms"


def warnings(view: View) -> Iterator[Complaint]:
    """What is allowed, and yet seldom meant."""
    yield from warn_sudo(view)
    url = view.get((*STORE, "url"))
    if isinstance(url, str) and url.startswith("host://"):
        yield (*STORE, "url"), "on a node of the cluster itself, so that it is lost with it; keep them elsewhere too"
    if view.get((*SPEC, "encrypt", "recipients"), []) == []:
        yield (
            (*SPEC, "encrypt", "recipients"),
            "none: whoever may read the store has every Secret of the cluster; age-keygen makes a key, its public half "
            "stands here",
        )


def build(data: Values, file: Path, text: bytes, base: Path) -> Backup:
    """The plan; nothing here can fail. ``base`` is where relative paths of this machine start from."""
    spec = data["spec"]
    store = spec["store"]
    place = Place(
        url=store["url"],
        endpoint=store.get("endpoint", ""),
        region=store.get("region", ""),
        server_side=store.get("serverSideEncryption", ""),
        kms_key=store.get("kmsKey", ""),
    )
    metrics = spec.get("metrics", "")
    return Backup(
        name=data["metadata"]["name"],
        ticket=data["metadata"].get("ticket", ""),
        store=place,
        hosts=_hosts(data, file, text, base),
        compress=spec.get("compress", True),
        recipients=tuple(spec.get("encrypt", {}).get("recipients", ())),
        keep=Keep(**{f: spec.get("keep", {}).get(f, getattr(KEEP, f)) for f in Keep.__dataclass_fields__}),
        schedule=_schedule(spec.get("schedule", {})),
        metrics=local(metrics, base) if metrics else None,
        file=file,
        text=text,
    )


def _hosts(data: Values, file: Path, text: bytes, base: Path) -> Plan:
    """Its hosts as a plan that restores nothing: what asks hosts takes one."""
    spec = data["spec"]
    waits = spec.get("timeouts", {})
    timeouts = Timeouts(
        command=parse_duration(waits.get("command", "60s")), restore=parse_duration(waits.get("save", "30m"))
    )
    return Plan(
        name=data["metadata"]["name"],
        snapshot=Snapshot(source=spec["store"]["url"], path=Path()),
        nodes=tuple(built_node(node, spec.get("ssh", {}), spec.get("paths", {}), base) for node in spec["nodes"]),
        tools=built_tools(spec.get("tools", {}), base),
        timeouts=timeouts,
        file=file,
        text=text,
    )


def _schedule(values: Values) -> Schedule:
    fields: dict[str, Any] = {_SCHEDULE.get(key, key): value for key, value in values.items()}
    if "deadline" in fields:
        fields["deadline"] = parse_duration(fields["deadline"])
    return Schedule(**fields)

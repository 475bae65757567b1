"""Backup plans for the tests of rendered schedules, and Kubernetes' own schemas to hold what is rendered against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from runbook.backup import Backup
from runbook.planfile import load_backup

SCHEMAS = Path(__file__).parent / "samples/kubernetes"
VERSIONS = ("1.27.0", "1.37.0")
NODES = [{"name": f"m{n}", "host": f"cp{n}.internal", "peerURLs": [f"https://10.0.1.{9 + n}:2380"]} for n in (1, 2, 3)]
IMAGES = {"image": "registry.internal/runbook:0.1.0", "etcdImage": "registry.k8s.io/etcd:3.6.5-0"}
S3 = {
    "url": "s3://backups/prod-eu1",
    "region": "eu-central-1",
    "serverSideEncryption": "aws:kms",
    "kmsKey": "alias/etcd",
}
AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
Json = dict[str, Any]


def backup(directory: Path, *, name: str = "prod-eu1", schedule: Json | None = None, **spec: Any) -> Backup:
    """A plan with both images, in an object store; ``schedule`` and ``spec`` go over that. Read as a user's is."""
    whole: Json = {
        "store": S3,
        "encrypt": {"recipients": [AGE]},
        "schedule": {**IMAGES, **(schedule or {})},
        "nodes": NODES,
        **spec,
    }
    file = directory / "backup.yaml"
    document = {"apiVersion": "runbook/v1", "kind": "EtcdBackup", "metadata": {"name": name}, "spec": whole}
    file.write_text(yaml.safe_dump(document))
    return load_backup(file)[0]


def faults(document: Json, version: str) -> list[str]:
    """What that version of Kubernetes, or the Prometheus operator, has against it: unknown keys, wrong types."""
    definitions = json.loads((SCHEMAS / f"kubernetes-{version}.json").read_text())["$defs"]
    name = {
        "CronJob": "io.k8s.api.batch.v1.CronJob",
        "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
        "PrometheusRule": "PrometheusRule",
    }[document["kind"]]
    definitions["PrometheusRule"] = json.loads((SCHEMAS / "prometheusrule-0.85.0.json").read_text())
    definitions["PrometheusRule"]["properties"]["metadata"] = {
        "$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": f"#/$defs/{name}",
        "$defs": definitions,
    }
    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def containers(cronjob: Json) -> list[Json]:
    """In the order in which they run."""
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]

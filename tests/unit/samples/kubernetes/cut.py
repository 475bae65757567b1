"""Cuts the schemas beside this file out of their sources, so that they can be renewed; the README has the commands.

Only what a CronJob, a ConfigMap and a PrometheusRule need is kept, without the descriptions. An object takes no key
that its schema does not name: kubernetes-validate's schemas are so ("strict"), the operator's is made so here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOTS = {"CronJob": "io.k8s.api.batch.v1.CronJob", "ConfigMap": "io.k8s.api.core.v1.ConfigMap"}


def bare(schema: Any, *, named: bool = False) -> Any:
    """Without descriptions and Kubernetes' own extensions; below ``properties`` keys are names, and all stay."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = schema if named else {k: v for k, v in schema.items() if k != "description" and k[:13] != "x-kubernetes-"}
    return {key: bare(value, named=not named and key in ("properties", "$defs")) for key, value in kept.items()}


def references(schema: Any) -> set[str]:
    """The names of all definitions that it refers to."""
    if isinstance(schema, list):
        return set().union(*map(references, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*map(references, schema.values()))


def kubernetes(definitions: Path) -> str:
    """The definitions that the roots need, one a line."""
    every = json.loads(definitions.read_text())["$defs"]
    kept: dict[str, Any] = {}
    wanted = set(ROOTS.values())
    while wanted:
        name = wanted.pop()
        kept[name] = bare(every[name])
        wanted |= references(kept[name]) - set(kept)
    lines = [f"{json.dumps(name)}:{json.dumps(kept[name], separators=(',', ':'))}" for name in sorted(kept)]
    return '{"$defs":{\n' + ",\n".join(lines) + "\n}}\n"


def closed(schema: Any) -> Any:
    """The same, with every object closed whose keys are known."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    open_one = inner.get("type") == "object" and "properties" in inner and "additionalProperties" not in inner
    return inner | ({"additionalProperties": False} if open_one else {})


def prometheus_rule(crd: Path) -> str:
    """The custom resource's schema; ``metadata`` is an object's own, whose schema Kubernetes has."""
    whole = bare(yaml.safe_load(crd.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    return json.dumps(closed(whole), indent=1) + "\n"


if __name__ == "__main__":
    for version in ("1.27.0", "1.37.0"):
        source = Path(sys.argv[1]) / f"kubernetes-json-schema/v{version}-local-strict/_definitions.json"
        (HERE / f"kubernetes-{version}.json").write_text(kubernetes(source))
    (HERE / "prometheusrule-0.85.0.json").write_text(prometheus_rule(Path(sys.argv[2])))

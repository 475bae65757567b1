"""The alerts: what the operator's schema and a parser of PromQL say of them, and that what they ask for is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from runbook.errors import UsageError
from runbook.snapshots.schedule import render, rules
from tests.unit.schedule_kit import VERSIONS, Json, backup, faults

WRITTEN = {
    "runbook_snapshot_last_success_timestamp_seconds",
    "runbook_snapshot_last_run_success",
    "runbook_snapshot_size_bytes",
    "runbook_snapshot_verified_timestamp_seconds",
}
OF_KUBE_STATE_METRICS = {
    "kube_cronjob_status_last_successful_time",
    "kube_job_failed",
    "kube_job_status_start_time",
}
"""As github.com/kubernetes/kube-state-metrics has them in docs/metrics/workload, with the labels asked for here."""


def alerts(rule: Json) -> dict[str, Json]:
    return {r["alert"]: r for group in rule["spec"]["groups"] for r in group["rules"]}


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if (inner := getattr(node, name, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_operator_takes_it(tmp_path: Path, version: str) -> None:
    assert faults(rules(backup(tmp_path)), version) == []


def test_the_operators_schema_is_strict(tmp_path: Path) -> None:
    rule = rules(backup(tmp_path))
    rule["spec"]["groups"][0]["rules"][0]["For"] = "5m"
    rule["spec"]["groups"][1]["rules"][0]["for"] = "five minutes"
    rule["metadata"]["label"] = {}
    assert len(faults(rule, VERSIONS[0])) == 3


def test_every_expression_is_promql(tmp_path: Path) -> None:
    """Each asks for series that somebody writes, and of this cluster alone."""
    plan = backup(tmp_path)
    seen = set()
    for rule in alerts(rules(plan)).values():
        for selector in selectors(promql_parser.parse(rule["expr"])):
            seen.add(selector.name)
            asked = {m.name: m.value for m in selector.matchers.matchers}
            if selector.name in WRITTEN:
                assert asked == {"cluster": "prod-eu1"}
            else:
                assert asked["namespace"] == "kube-system"
                named = asked.get("cronjob") or asked["job_name"]
                assert named in ("etcd-backup-prod-eu1", "etcd-backup-prod-eu1-[0-9]+")
    assert seen == WRITTEN | OF_KUBE_STATE_METRICS


def test_a_parser_that_says_no() -> None:
    """Or the test above says nothing."""
    with pytest.raises(ValueError, match="invalid promql"):
        promql_parser.parse('time() - max by (cluster) (x{cluster="y"}) >')


@pytest.mark.parametrize(
    ("schedule", "seconds", "window", "unknown"),
    [
        ({"pace": "busy"}, 2 * 3600, "24h", "1h30m"),
        ({"pace": "production"}, 12 * 3600, "24h", "6h30m"),
        ({"pace": "staging"}, 48 * 3600, "72h", "24h30m"),
        ({"cron": "0 8-18 * * mon-fri"}, 2 * 62 * 3600, "186h", "24h30m"),
        ({"cron": "0 */5 * * *", "deadline": "90m"}, 10 * 3600, "24h", "6h30m"),
    ],
)
def test_two_intervals_of_the_schedule(tmp_path: Path, schedule: Json, seconds: int, window: str, unknown: str) -> None:
    """The interval is the longest time between two firings: a weekend without any is no alarm."""
    by_name = alerts(rules(backup(tmp_path, schedule=schedule)))
    for name in ("EtcdSnapshotStale", "EtcdSnapshotJobStale"):
        assert set(re.findall(r"> (\d+)", by_name[name]["expr"])) == {str(seconds)}
    assert f"[{window}]" in by_name["EtcdSnapshotShrunk"]["expr"]
    assert by_name["EtcdSnapshotUnknown"]["for"] == unknown


def test_each_says_how_grave_it_is_and_what_to_type(tmp_path: Path) -> None:
    for name, rule in alerts(rules(backup(tmp_path))).items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["labels"]["cluster"] == "prod-eu1"
        assert "prod-eu1" in rule["annotations"]["summary"]
        means, told = rule["annotations"]["description"].split("Type next:\n")
        assert means.rstrip("\n").endswith(".")
        assert all(re.match(r"  (runbook|kubectl|systemctl|journalctl) ", line) for line in told.splitlines()), name


def test_what_is_rendered_is_what_was_built(tmp_path: Path) -> None:
    plan = backup(tmp_path)
    text = render(plan, "rules")
    assert yaml.safe_load(text) == rules(plan)
    assert text.count("# What ") == 2  # each source is explained
    whole = list(yaml.safe_load_all(render(plan, "kubernetes")))
    assert [d["kind"] for d in whole] == ["ConfigMap", "CronJob", "PrometheusRule"]


def test_rules_need_no_image(tmp_path: Path) -> None:
    """They are for whoever uses the timer alone, too."""
    assert alerts(rules(backup(tmp_path, schedule={"image": "", "etcdImage": ""})))


def test_a_path_is_no_template_of_prometheus(tmp_path: Path) -> None:
    odd = tmp_path / "a {{ b"
    odd.mkdir()
    described = alerts(rules(backup(odd)))["EtcdSnapshotFailed"]["annotations"]["description"]
    assert "'" + str(tmp_path) + '/a {{ "{{" }} b/backup.yaml' + "'" in described


def test_a_schedule_that_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"spec\.schedule\.deadline"):
        rules(backup(tmp_path, schedule={"cron": "*/10 * * * *"}))

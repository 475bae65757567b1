"""The rendered alerts, judged by Prometheus' own promtool over days of made-up series: when each speaks, and when not.

promtool comes from PATH, or from Debian's package prometheus, unpacked below the project's cache directory.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook.lab.programs import cache_dir, locked, on_path
from runbook.lab.toolchain import Apt
from runbook.snapshots.schedule import rules
from tests.unit.schedule_kit import backup

pytestmark = pytest.mark.lab
H = 60  # in minutes, as every time and every step below
TIMER = '{cluster="prod-eu1", instance="ops1:9100"}'
CRONJOB = '{namespace="kube-system", cronjob="etcd-backup-prod-eu1", instance="ksm:8080"}'
SUCCESS = f"runbook_snapshot_last_success_timestamp_seconds{TIMER}"
VERIFIED = f"runbook_snapshot_verified_timestamp_seconds{TIMER}"
JOB_SUCCESS = f"kube_cronjob_status_last_successful_time{CRONJOB}"
JOB = '{namespace="kube-system", job_name="etcd-backup-prod-eu1-29000000", instance="ksm:8080"'


@pytest.fixture(scope="session")
def promtool() -> Path:
    if found := on_path("promtool"):
        return found
    home = cache_dir() / "promtool"
    with locked(cache_dir()), tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".fetch-") as work:
        if not home.is_dir():
            (deb,) = Apt(Path(work, "apt"), None, "promtool").download(["prometheus"], alone=True)
            subprocess.run(["dpkg-deb", "-x", str(deb), f"{work}/tree"], check=True)
            Path(work, "tree/usr/bin").rename(home)
    return home / "promtool"


def series(*parts: tuple[int, int]) -> str:
    """A value for so many minutes, and then another."""
    return " ".join(f"{value}x{minutes - 1}" for value, minutes in parts)


@dataclass(frozen=True)
class Case:
    """Series by name; and at what minute which alerts speak, each with how it puts its value."""

    says: str
    given: dict[str, str]
    speaks: dict[int, dict[str, str]] = field(default_factory=dict)


CASES = [
    Case(
        "a timer that is punctual, and then is not",
        {SUCCESS: series((0, 6 * H), (6 * 3600, 20 * H)), VERIFIED: series((0, 6 * H), (6 * 3600, 20 * H))},
        {12 * H: {}, 18 * H + 1: {}, 18 * H + 10: {"EtcdSnapshotStale": "12h 10m 0s"}},
    ),
    Case(
        "stored, and not verified",
        {SUCCESS: series(*((n * 6 * 3600, 6 * H) for n in range(4))), VERIFIED: series((0, 24 * H))},
        {12 * H: {}, 13 * H: {"EtcdSnapshotStale": "13h 0m 0s"}},
    ),
    Case(
        "a run that failed, and the next one",
        {SUCCESS: series((0, 24 * H)), f"runbook_snapshot_last_run_success{TIMER}": series((1, 60), (0, 60), (1, 60))},
        {59: {}, 61: {"EtcdSnapshotFailed": ""}, 121: {}},
    ),
    Case(
        "half as large, for a day",
        {SUCCESS: series((0, 24 * H)), f"runbook_snapshot_size_bytes{TIMER}": series((2**30, 60), (2**29, 26 * H))},
        {59: {}, 61: {"EtcdSnapshotShrunk": "512Mi"}, 11 * H: {"EtcdSnapshotShrunk": "512Mi"}},
    ),
    Case(
        "a little smaller",
        {SUCCESS: series((0, 24 * H)), f"runbook_snapshot_size_bytes{TIMER}": series((2**30, 60), (2**29 + 1, 60))},
        {61: {}},
    ),
    Case(
        "a CronJob that is punctual, and then is not",
        {JOB_SUCCESS: series((0, 6 * H), (6 * 3600, 20 * H))},
        {12 * H: {}, 18 * H + 1: {}, 18 * H + 10: {"EtcdSnapshotJobStale": "12h 10m 0s"}},
    ),
    Case(
        "a job that gave up, and a later success",
        {
            JOB_SUCCESS: series((0, 180), (179 * 60, 60)),
            f"kube_job_status_start_time{JOB}}}": series((60 * 60, 240)),
            f'kube_job_failed{JOB}, condition="true"}}': series((0, 120), (1, 120)),
        },
        {119: {}, 121: {"EtcdSnapshotJobFailed": ""}, 181: {}},
    ),
    Case(
        "the first job of all gave up",
        {
            f"kube_job_status_start_time{JOB}}}": series((60 * 60, 240)),
            f'kube_job_failed{JOB}, condition="true"}}': series((1, 240)),
        },
        {60: {"EtcdSnapshotJobFailed": ""}},
    ),
    Case(
        "a job of another cluster gave up",
        {
            JOB_SUCCESS: series((0, 240)),
            f"kube_job_status_start_time{JOB}}}".replace("-eu1-", "-eu1-b-"): series((60, 240)),
            f'kube_job_failed{JOB}, condition="true"}}'.replace("-eu1-", "-eu1-b-"): series((1, 240)),
        },
        {60: {}},
    ),
    Case("nobody says anything", {}, {6 * H: {}, 7 * H: {"EtcdSnapshotUnknown": ""}}),
    Case(
        "another cluster's snapshots say nothing of this one's",
        {SUCCESS.replace("prod-eu1", "prod-eu2"): series((0, 24 * H))},
        {7 * H: {"EtcdSnapshotUnknown": ""}},
    ),
]


def filled(annotations: dict[str, str], value: str) -> dict[str, str]:
    """As Prometheus puts the value in."""
    for template in ("{{ $value | humanizeDuration }}", "{{ $value | humanize1024 }}"):
        annotations = {key: text.replace(template, value) for key, text in annotations.items()}
    return annotations


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.says))
def test_when_an_alert_speaks(case: Case, promtool: Path, tmp_path: Path) -> None:
    """And every other one is silent then."""
    groups = rules(backup(tmp_path))["spec"]["groups"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    every = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    wanted: list[dict[str, Any]] = []
    for minute, speaking in case.speaks.items():
        for name, rule in every.items():
            labels = rule["labels"]
            if name in ("EtcdSnapshotFailed", "EtcdSnapshotShrunk"):
                labels = labels | {"instance": "ops1:9100"}
            told = {"exp_labels": labels, "exp_annotations": filled(rule["annotations"], speaking.get(name, ""))}
            expected = [told] if name in speaking else []
            wanted.append({"eval_time": f"{minute}m", "alertname": name, "exp_alerts": expected})
    given = [{"series": name, "values": values} for name, values in case.given.items()]
    test = {"interval": "1m", "input_series": given, "alert_rule_test": wanted}
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    done = subprocess.run([promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

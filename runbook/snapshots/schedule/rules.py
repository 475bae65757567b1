"""The PrometheusRule: no fresh verified snapshot for two intervals, a run that failed, a size that fell by half.

Two sources tell of snapshots, and either may be used alone: what ``runbook snapshot save`` writes for node_exporter on
the machine of the timer, and what kube-state-metrics says of the CronJob. So a rule that finds no series of its own
source is quiet, and one more rule speaks up where neither source says anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from runbook.backup import Backup
from runbook.planfile.durations import format_duration
from runbook.snapshots.schedule.facts import Facts, facts
from runbook.snapshots.schedule.systemd import unit

Json = dict[str, Any]
Told = tuple[str, ...]
"""What an alert means, and then commands to type."""
DAY = 24 * 3600
WHY: Mapping[str, str] = {
    "metadata.labels": "Prometheus may take only rules with a label of its own (its chart: release: NAME):\n"
    "  kubectl get prometheus -A -o jsonpath='{.items[*].spec.ruleSelector}'",
    "spec.groups.etcd-backup-timer": "What runbook snapshot save writes for node_exporter's textfile collector, on the "
    "machine whose timer starts it (spec.metrics). Quiet where nothing is written.",
    "spec.groups.etcd-backup-cronjob": "What kube-state-metrics says of the CronJob, which has no textfile collector. "
    "Quiet where there is no such CronJob.",
    "spec.groups.etcd-backup-any": "Neither source says anything: the rules above have nothing to judge.",
}


def rules(backup: Backup) -> Json:
    """The PrometheusRule of the plan. Raises UsageError for a schedule that cannot be kept."""
    it = facts(backup)
    schedule = backup.schedule
    labels = {
        "app.kubernetes.io/name": "etcd-backup",
        "app.kubernetes.io/instance": backup.name,
        "app.kubernetes.io/managed-by": "runbook",
    }
    groups = [
        {"name": "etcd-backup-timer", "rules": [_stale(it), _failed(it), _shrunk(it)]},
        {"name": "etcd-backup-cronjob", "rules": [_job_stale(it), _job_failed(it)]},
        {"name": "etcd-backup-any", "rules": [_unknown(it)]},
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": it.name, "namespace": schedule.namespace, "labels": labels},
        "spec": {"groups": groups},
    }


def _rule(it: Facts, alert: str, severity: str, expr: str, summary: str, told: Told, wait: float = 0.0) -> Json:
    """One alert; ``wait`` in seconds is how long it must hold."""
    rule: Json = {"alert": alert, "expr": f"{expr}\n"}
    if wait:
        rule["for"] = format_duration(wait)
    means, *commands = told
    description = "\n".join([means, "Type next:", *(f"  {command}" for command in commands), ""])
    return rule | {
        "labels": {"severity": severity, "cluster": it.backup.name},
        "annotations": {"summary": summary, "description": description},
    }


def _metric(it: Facts, name: str) -> str:
    return f'runbook_snapshot_{name}{{cluster="{it.backup.name}"}}'


def _of_cronjob(it: Facts, name: str) -> str:
    return f'{name}{{namespace="{it.backup.schedule.namespace}", cronjob="{it.name}"}}'


def _of_jobs(it: Facts, name: str, more: str = "") -> str:
    """The CronJob's own jobs: the controller calls each by the minute it was due."""
    return f'{name}{{namespace="{it.backup.schedule.namespace}", job_name=~"{it.name}-[0-9]+"{more}}}'


def _typed(it: Facts, command: str) -> str:
    """``{{`` would begin a template of Prometheus' own."""
    return f"runbook snapshot {command} {shlex.quote(str(it.backup.file))}".replace("{{", '{{ "{{" }}')


def _kubectl(it: Facts, command: str) -> str:
    return f"kubectl -n {it.backup.schedule.namespace} {command}"


def _selector(it: Facts) -> str:
    return f"-l app.kubernetes.io/name=etcd-backup,app.kubernetes.io/instance={it.backup.name}"


def _two(it: Facts) -> str:
    return f"two intervals ({format_duration(it.stale)})"


def _stale(it: Facts) -> Json:
    """Two ages, of which either may be too large: what was stored, and what was found whole."""
    ages = [
        f"time() - max by (cluster) ({_metric(it, name)}) > {it.stale}"
        for name in ("last_success_timestamp_seconds", "verified_timestamp_seconds")
    ]
    return _rule(
        it,
        "EtcdSnapshotStale",
        "critical",
        "\nor\n".join(ages),
        f"No fresh verified etcd snapshot of {it.backup.name} for {_two(it)}",
        (
            "The newest is {{ $value | humanizeDuration }} old: what was written since is in no snapshot.",
            f"systemctl status {unit(it.backup)}.timer {unit(it.backup)}.service",
            f"journalctl -u {unit(it.backup)}.service",
            _typed(it, "list"),
            _typed(it, "save"),
        ),
        wait=300,
    )


def _failed(it: Facts) -> Json:
    return _rule(
        it,
        "EtcdSnapshotFailed",
        "warning",
        f"{_metric(it, 'last_run_success')} == 0",
        f"The last etcd snapshot of {it.backup.name} failed",
        (
            "Older ones are there still. Why it failed, and what to do, stands at the end of the log.",
            f"journalctl -u {unit(it.backup)}.service",
            _typed(it, "save"),
        ),
    )


def _shrunk(it: Facts) -> Json:
    """Against the largest of three intervals, so that the snapshot before it is surely among them."""
    size = _metric(it, "size_bytes")
    window = format_duration(max(DAY, 3 * it.longest))
    return _rule(
        it,
        "EtcdSnapshotShrunk",
        "warning",
        f"{size}\n<= 0.5 * max_over_time({size}[{window}])",
        f"The etcd snapshot of {it.backup.name} is half as large as it was, or less",
        (
            "{{ $value | humanize1024 }}B now. Somebody has defragmented etcd, or much has been deleted, or another "
            "cluster's etcd is saved. Compare revisions and sizes, and until it is clear do not prune.",
            _typed(it, "list"),
        ),
    )


def _job_stale(it: Facts) -> Json:
    return _rule(
        it,
        "EtcdSnapshotJobStale",
        "critical",
        f"time() - max({_of_cronjob(it, 'kube_cronjob_status_last_successful_time')}) > {it.stale}",
        f"The CronJob that saves etcd of {it.backup.name} has not succeeded for {_two(it)}",
        (
            "The last success is {{ $value | humanizeDuration }} old, and so is the newest snapshot known to be whole.",
            _kubectl(it, f"describe cronjob {it.name}"),
            _kubectl(it, f"get jobs,pods {_selector(it)}"),
            _kubectl(it, f"create job --from=cronjob/{it.name} {it.name}-now"),
        ),
        wait=300,
    )


def _job_failed(it: Facts) -> Json:
    """Only a job that gave up, after its second attempt, and that is newer than the last success."""
    gave_up = _of_jobs(it, "kube_job_failed", ', condition="true"')
    started = _of_jobs(it, "kube_job_status_start_time")
    success = _of_cronjob(it, "kube_cronjob_status_last_successful_time")
    return _rule(
        it,
        "EtcdSnapshotJobFailed",
        "warning",
        f"max(\n  {started}\n  and on (namespace, job_name)\n  {gave_up} == 1\n)\n> (max({success}) or vector(0))",
        f"A job that saves etcd of {it.backup.name} has failed",
        (
            "The container that failed names the step: save, hand-over, status, verify or push.",
            _kubectl(it, f"get pods {_selector(it)}"),
            _kubectl(it, "describe pod POD"),
            _kubectl(it, "logs POD -c STEP"),
        ),
    )


def _unknown(it: Facts) -> Json:
    """After one interval, so that a schedule that was set up just now has had its first turn."""
    timer = _metric(it, "last_success_timestamp_seconds")
    job = _of_cronjob(it, "kube_cronjob_status_last_successful_time")
    return _rule(
        it,
        "EtcdSnapshotUnknown",
        "critical",
        f"absent({timer})\nand on ()\nabsent({job})",
        f"Nothing is known of any etcd snapshot of {it.backup.name}",
        (
            "Neither node_exporter nor kube-state-metrics tells of one: the schedule was never set up, never "
            "succeeded, or is not scraped (spec.metrics must be node_exporter's --collector.textfile.directory).",
            _typed(it, "list"),
            f"systemctl list-timers {unit(it.backup)}.timer",
            _kubectl(it, f"get cronjob {it.name}"),
        ),
        wait=min(it.longest, DAY) + it.deadline,
    )

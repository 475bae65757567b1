"""``runbook snapshot schedule``: what takes snapshots by itself, rendered from a backup plan; nothing is connected to.

For a cluster a ConfigMap, a CronJob and a PrometheusRule; for a machine beside it a timer and a service of systemd.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from runbook import __version__
from runbook.backup import Backup
from runbook.snapshots.schedule.cronjob import comments, cronjob, with_image
from runbook.snapshots.schedule.facts import facts
from runbook.snapshots.schedule.rules import WHY, rules
from runbook.snapshots.schedule.systemd import systemd, unit
from runbook.snapshots.schedule.yamltext import comment, document

__all__ = ["KINDS", "Kind", "cronjob", "render", "rules", "systemd"]

Kind = Literal["kubernetes", "cronjob", "rules", "systemd"]
KINDS: Sequence[Kind] = get_args(Kind)
"""``kubernetes`` is all that goes into a cluster: ``cronjob`` and ``rules``."""


def render(backup: Backup, kind: Kind, etcd_image: str = "", program: Path = Path("/usr/local/bin/runbook")) -> str:
    """The text to apply or to install, with comments that say why.

    ``etcd_image`` takes the place of the plan's, where it was asked of the hosts; ``program`` is what the service of
    systemd starts. Raises UsageError, with everything that is missing or cannot be.
    """
    backup = with_image(backup, etcd_image)
    if kind == "systemd":
        return _units(backup, program)
    documents = []
    if kind in ("kubernetes", "cronjob"):
        config, job = cronjob(backup)
        documents += [document(config, {}, _head(backup)), document(job, comments(backup))]
    if kind in ("kubernetes", "rules"):
        alone = _rendered(backup) if kind == "rules" else ""
        documents.append(document(rules(backup), WHY, alone + "Alerts, for a cluster with the Prometheus operator."))
    return "---\n".join(documents)


def _rendered(backup: Backup) -> str:
    return (
        f"etcd snapshots of {backup.name}: rendered by runbook {__version__} from {backup.file.name}; change the plan "
        "and render again.\n"
    )


def _head(backup: Backup) -> str:
    """How it is applied, tried and given its credentials."""
    it, schedule = facts(backup), backup.schedule
    namespace = f"-n {schedule.namespace}"
    lines = [
        f"  runbook snapshot schedule {shlex.quote(backup.file.name)} | kubectl apply -f -",
        f"  kubectl {namespace} create job --from=cronjob/{it.name} {it.name}-now    # and try it at once",
        f"Its pods must be allowed the host's network and files: where the namespace {schedule.namespace} has the "
        "label pod-security.kubernetes.io/enforce, it must say privileged (kube-system has none by itself).",
    ]
    if schedule.secret:
        lines.append("The store's credentials, as environment variables, AWS_ACCESS_KEY_ID=… and so on:")
        lines.append(f"  kubectl {namespace} create secret generic {schedule.secret} --from-env-file=FILE")
    elif not it.directory:
        lines.append(
            "No credentials for the store (spec.schedule.secret): the nodes themselves must have the right to write."
        )
    return _rendered(backup) + "\n".join(lines)


def _units(backup: Backup, program: Path) -> str:
    """Both units, each below the command that would install it."""
    timer = f"{unit(backup)}.timer"
    head = _rendered(backup) + (
        f"Two files for /etc/systemd/system, as root; then: systemctl daemon-reload && systemctl enable --now {timer}\n"
        f"At once, to try it: systemctl start {unit(backup)}.service; when it runs next: systemctl list-timers {timer}"
    )
    parts = [f"# ---- /etc/systemd/system/{name}\n{text}" for name, text in systemd(backup, program).items()]
    return comment(head) + "\n" + "\n".join(parts)

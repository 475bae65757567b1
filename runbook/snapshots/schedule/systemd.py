"""The same schedule for a machine that is not in the cluster: a timer and a service for systemd.

The service is ``runbook snapshot save PLAN``, over SSH, in a sandbox that leaves it little more than the network and
the directories that the plan names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from runbook.backup import Backup
from runbook.planfile.cron import WEEKDAYS, Cron, parse_cron
from runbook.planfile.durations import format_duration
from runbook.snapshots.schedule.facts import Facts, facts

USER = "runbook"


def unit(backup: Backup) -> str:
    """The name of both units, without the ending."""
    return f"runbook-snapshot-{backup.name}"


def systemd(backup: Backup, program: Path = Path("/usr/local/bin/runbook")) -> dict[str, str]:
    """The units' text by file name. Raises UsageError for a schedule that cannot be kept.

    ``program`` is what the service starts, an absolute path on the machine that it is for.
    """
    it = facts(backup)
    return {f"{unit(backup)}.service": _service(it, program), f"{unit(backup)}.timer": _timer(it)}


def calendar(cron: Cron) -> list[str]:
    """What systemd calls the same moments, a line each: two where either a day or a weekday is enough.

    systemd wants both where a line names both, cron is content with one of them; a timer takes all its lines together.
    """
    time = f"{_listed(cron.hours, 24)}:{_listed(cron.minutes, 60)}:00 UTC"
    months, days = _listed(cron.months, 12), _listed(cron.days, 31)
    names = ",".join(WEEKDAYS[number].capitalize() for number in cron.weekdays)
    weekdays = "" if len(cron.weekdays) == 7 else f"{names} "
    if cron.either:
        return list(dict.fromkeys([f"*-{months}-{days} {time}", f"{weekdays}*-{months}-* {time}"]))
    return [f"{weekdays}*-{months}-{days} {time}"]


def _listed(numbers: Sequence[int], all_: int) -> str:
    return "*" if len(numbers) == all_ else ",".join(f"{n:02}" for n in numbers)


def word(text: str, *, command: bool = False) -> str:
    """A text as one word of a unit file: in quotes, and with nothing in it that systemd would put something else for.

    In a command line a ``$`` is the beginning of a variable too.
    """
    if re.fullmatch(r"[A-Za-z0-9/._+:@=,-]+", text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text.replace("$", "$$") if command else text}"'


_SANDBOX = """\
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""


def _service(it: Facts, program: Path) -> str:
    backup = it.backup
    start = [word(str(program), command=True), "snapshot", "save", word(str(backup.file.absolute()), command=True)]
    written = [it.directory, str(backup.metrics) if backup.metrics else ""]
    writable = " ".join(word(path) for path in written if path)
    needed = f"# What the plan lets it write to; both must be there, and belong to {USER}.\nReadWritePaths={writable}\n"
    return f"""\
# etcd snapshots of {backup.name}: rendered by runbook; change the plan and render again.
[Unit]
Description=etcd snapshot of {backup.name}: saved, verified, stored, pruned
Documentation=man:systemd.exec(5)
Wants=network-online.target
After=network-online.target

[Service]
# While it runs the timer does not start it again: there is never more than one.
Type=oneshot
ExecStart={" ".join(start)}
TimeoutStartSec={it.deadline}s
# Reads the plan, the SSH key and the known hosts that the plan names, and owns no more than its state:
#   useradd --system --home-dir /var/lib/runbook --shell /usr/sbin/nologin {USER}
User={USER}
StateDirectory=runbook
StateDirectoryMode=0700
Environment=RUNBOOK_STATE_DIR=%S/runbook
# The store's credentials, as AWS_ACCESS_KEY_ID=…; owner root, mode 0600: systemd reads it, the service's user cannot.
# The minus: there need not be one, with file:// or where the machine itself has the right.
EnvironmentFile=-/etc/runbook/{backup.name}.env
# Whatever is secret is written with mode 0600 whatever this says; the metrics are for node_exporter's eyes.
UMask=0022
Nice=10

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
# Everything is read-only but the state directory and what is named here.
ProtectSystem=strict
{needed if writable else ""}{_SANDBOX}"""


def _timer(it: Facts) -> str:
    backup = it.backup
    lines = "\n".join(f"OnCalendar={line}" for line in calendar(parse_cron(backup.schedule.when)))
    return f"""\
# etcd snapshots of {backup.name}: rendered by runbook; change the plan and render again.
[Unit]
Description=etcd snapshots of {backup.name}, at least every {format_duration(it.longest)}

[Timer]
# In cron's words: {backup.schedule.when}
{lines}
Unit={unit(backup)}.service
# A run that was due while this machine was off is made up for when it is back.
Persistent=true
# Several clusters do not begin in the same second; each has the same delay every time, so that no gap grows.
RandomizedDelaySec={min(300, int(it.shortest / 10))}s
FixedRandomDelay=true
AccuracySec=1s

[Install]
WantedBy=timers.target
"""

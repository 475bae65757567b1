"""What Prometheus is told of the snapshots of one cluster, through node_exporter's textfile collector.

The file is read back before it is written: what the last success was must outlive a run that fails.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

PREFIX = "runbook_snapshot_"
_SUCCESS, _AGE = "last_success_timestamp_seconds", "age_seconds"
KNOWN = {
    "last_run_timestamp_seconds": "When a snapshot was last tried.",
    "last_run_success": "Whether that one was stored and verified: 1, or 0.",
    _SUCCESS: "When the newest stored snapshot was taken.",
    _AGE: "How old the newest verified snapshot was when this file was written. It stands still between two runs: an "
    f"alert uses time() - {PREFIX}{_SUCCESS}.",
    "verified_timestamp_seconds": "When a snapshot was last read to its end and found whole.",
    "size_bytes": "The size of the newest snapshot, plain.",
    "stored_size_bytes": "Its size in the store, compressed and encrypted.",
    "revision": "The revision of etcd that it holds.",
    "duration_seconds": "How long it took to take and to store it.",
}
"""Each metric's help. All are gauges, with the label ``cluster``."""
_LINE = re.compile(rf'{PREFIX}(\w+){{cluster="[a-z0-9-]+"}} (\S+)')


def file(directory: Path, cluster: str) -> Path:
    """The cluster's own file: node_exporter reads every ``*.prom``."""
    return directory / f"runbook_snapshot_{cluster}.prom"


def read(path: Path) -> dict[str, float]:
    """What was written last; nothing where nothing was, or where it cannot be read."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for line in text.splitlines():
        if matched := _LINE.fullmatch(line):
            try:
                found[matched[1]] = float(matched[2])
            except ValueError:
                continue
    return {name: value for name, value in found.items() if name in KNOWN}


def write(directory: Path, cluster: str, values: Mapping[str, float], now: float) -> None:
    """Write these, and what was known before of the others; whole at once. Raises OSError.

    ``now`` is in seconds since 1970: by it the newest snapshot has grown older, also where none was added.

    Readable for all: node_exporter runs as a user of its own, and what stands there is no secret.
    """
    path = file(directory, cluster)
    known = read(path) | dict(values)
    known.pop(_AGE, None)
    if _SUCCESS in known:
        known[_AGE] = round(now - known[_SUCCESS], 3)
    lines = []
    for name, help_ in KNOWN.items():
        if name in known:
            lines += [f"# HELP {PREFIX}{name} {help_}", f"# TYPE {PREFIX}{name} gauge"]
            lines.append(f'{PREFIX}{name}{{cluster="{cluster}"}} {known[name]:.17g}')
    part = directory / f".{path.name}.{secrets.token_hex(4)}"
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        os.fchmod(fd, 0o644)  # whatever the umask says
        with os.fdopen(fd, "w", encoding="utf-8") as out:
            out.write("\n".join([*lines, ""]))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

"""The lab's own processes: started bare, remembered by pid and start time, killed by exactly that."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from runbook.lab import kernel
from runbook.lab.errors import LabError


def alive(path: Path) -> int | None:
    """The pid in a pid file, where that very process lives."""
    try:
        pid, start = path.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if kernel.started_at(int(pid)) == start else None


def kill_file(path: Path, wait: float = 20.0) -> None:
    """Kill the process of a pid file, and with it its pid namespace; return when all of that is gone."""
    pid = alive(path)
    if pid is None:
        return
    start = path.read_text().split()[1]
    kernel.kill_exactly(pid, start)
    limit = time.monotonic() + wait
    while kernel.started_at(pid) == start:
        if time.monotonic() > limit:
            raise LabError(f"process {pid} ({path}) was killed and does not end after {wait:g} s")
        time.sleep(0.002)


def script(
    module: str, *argv: str, stderr: int | IO[bytes] | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Run one of the package's scripts in a bare interpreter, whose memory is not this one's."""
    import runbook

    home = str(Path(runbook.__file__).parent.parent)
    code = (
        f"import sys; sys.path.insert(0, {home!r}); from runbook.lab.{module} import main; sys.exit(main(sys.argv[1:]))"
    )
    null = subprocess.DEVNULL
    command = [sys.executable, "-I", "-S", "-c", code, *argv]
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=stderr, pass_fds=pass_fds)

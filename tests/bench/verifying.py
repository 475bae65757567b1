"""`runbook snapshot verify` of a file of 1 GiB, measured against `sha256sum` of the same file.

Run: `python -m tests.bench.verifying [MB]`. Both find the file in the page cache; they are run in turn, and the medians
of five are compared. The goal is at most 1.1 times `sha256sum`, with less than 150 MB in any process of it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runbook.lab import toolchain
from tests.bench.reading import etcd, filled

GOAL, GOAL_RSS, ROUNDS = 1.1, 150, 5


def timed(argv: list[str]) -> tuple[float, float]:
    """Seconds, and the peak memory of the largest process, its children's included, in MB."""
    begun = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv}: exit {process.returncode}")
    return time.monotonic() - begun, usage.ru_maxrss / 1024


def main() -> None:
    """Prints both medians and their ratio; exit code 1 where it misses its goals."""
    mb = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="runbook-verifying-") as name:
        room = Path(name)
        path = room / "snapshot.db"
        with etcd(room / "etcd", room / "log") as one:
            filled(one, mb, False)
            save = [str(toolchain.ensure().programs["etcdctl"]), f"--endpoints=127.0.0.1:{one.port}"]
            subprocess.run([*save, "snapshot", "save", str(path)], check=True, capture_output=True)
            one.process.terminate()
            one.process.wait()
        verify = [sys.executable, "-m", "runbook.cli", "snapshot", "verify", str(path)]
        pairs = [(timed(["sha256sum", str(path)])[0], *timed(verify)) for _ in range(ROUNDS + 1)][1:]
        plain, ours = statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
        memory = max(p[2] for p in pairs)
        print(f"{path.stat().st_size / 2**20:.0f} MiB: sha256sum {plain:.2f} s, verify {ours:.2f} s")
        print(f"that is {ours / plain:.2f} of it (goal {GOAL}); largest process {memory:.0f} MB (goal {GOAL_RSS})")
    sys.exit(1 if ours > GOAL * plain or memory > GOAL_RSS else 0)


if __name__ == "__main__":
    main()

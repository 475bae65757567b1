"""The CPU that a short command costs: `runbook --help`, `runbook validate`, and bare Python to compare with.

Run: `python tests/bench/startup.py [ROUNDS]`. CPU seconds are the child's user and system time, as the kernel counts
them: other work on the machine hardly changes them. The commands take turns, so that a slow moment hits all of them.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 11
GOAL = 0.4
"""CPU seconds."""
SHOWN = 5

PYTHON = (sys.executable, "-c", "pass")
PROGRAM = (sys.executable, "-m", "runbook.cli")
SCRIPT = Path(sys.executable).with_name("runbook")
"""What a user types, where it is installed beside this Python."""

IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def command(*words: str) -> tuple[str, ...]:
    """`runbook` with these words."""
    return (str(SCRIPT), *words) if SCRIPT.exists() else (*PROGRAM, *words)


HELP, VALIDATE = ("--help",), ("validate", "plans/ha.yaml")


def cpu(argv: Sequence[str]) -> float:
    """User and system seconds of one run; SystemExit where it fails."""
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} exited with {process.returncode}: {said.decode(errors='replace')[-300:]}")
    return usage.ru_utime + usage.ru_stime


def imports(words: Sequence[str]) -> list[tuple[str, float]]:
    """The most expensive packages that the command imports, with the seconds of all their modules."""
    argv = [PROGRAM[0], "-X", "importtime", *PROGRAM[1:], *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    total: Counter[str] = Counter()
    for micros, module in IMPORT.findall(done.stderr):
        total[module.split(".")[0]] += int(micros)
    return [(name, micros / 1e6) for name, micros in total.most_common(SHOWN)]


def main() -> None:
    """Measure and print; exit 1 where the goal is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    asked = {
        "python -c pass": PYTHON,
        "runbook --help": command(*HELP),
        "runbook validate plans/ha.yaml": command(*VALIDATE),
    }
    for argv in asked.values():  # the first run writes the .pyc files
        cpu(argv)
    seen: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name, argv in asked.items():
            seen[name].append(cpu(argv))
    medians = {name: statistics.median(values) for name, values in seen.items()}
    for name, median in medians.items():
        goal = "" if name.startswith("python") else f"  (goal {GOAL})"
        print(f"{name:32} {median:.3f} s of CPU, {min(seen[name]):.3f} to {max(seen[name]):.3f}{goal}")
    for words in (HELP, VALIDATE):
        listed = ", ".join(f"{name} {seconds:.3f}" for name, seconds in imports(words))
        print(f"imports of {words[0]}, in seconds of wall time: {listed}")
    print(f"medians of {rounds}; load average {os.getloadavg()[0]:.1f}")
    if max(medians.values()) > GOAL:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Runs the rows of the faults, and prints them as a table: what was broken, where, how it ended, how long it took.

``python -m tests.faults.table`` runs all of them; ``--third`` those that CI runs; ``--readme`` puts the table into the
README, between its two markers; ``--results DIRECTORY`` leaves pytest's result files there. More words are pytest's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
SESSIONS = 3
"""A row mostly waits, for etcd, for a deadline, for a host that boots: two cores carry so many labs, and other tests
beside; alone they carry one more."""
COLUMNS = ("row", "where", "outcome", "seconds")


def run(third: bool, count: int, table: Path, results: Path, more: list[str]) -> int:
    """Run them, in so many sessions side by side, each on a lab of its own; the worst exit code of pytest."""
    chosen = ["-m", "third"] if third else []
    argv = [sys.executable, "-m", "pytest", "-q", "--timeout", "600", *chosen, *more, "tests/faults"]
    sessions = []
    claims = table.with_name("claims")
    claims.mkdir()
    for number in range(count):
        env = {**os.environ, "RUNBOOK_FAULTS_TABLE": str(table), "RUNBOOK_FAULTS_CLAIMS": str(claims)}
        output = table.with_name(f"session-{number}.txt").open("w+")
        # in a directory of its own: pytest tidies up the usual one, and trips over another session that does so too
        mine = ["--basetemp", str(table.with_name(f"tmp-{number}"))]
        own = [*argv, *mine, "--junitxml", str(results / f"rows-{number}.xml")]
        sessions.append((subprocess.Popen(own, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT), output))
    try:
        codes = [process.wait() for process, _ in sessions]
    except BaseException:
        for process, _ in sessions:
            process.send_signal(signal.SIGINT)  # so that each takes its lab away
        for process, _ in sessions:
            process.wait()
        raise
    for _, output in sessions:
        output.seek(0)
        print(output.read(), flush=True)
        output.close()
    return max(codes)


def lines(table: Path) -> list[dict[str, str]]:
    """One for each row; rows of several cases are one line, with the cases' seconds together."""
    found: dict[str, dict[str, str]] = {}
    told = [json.loads(text) for text in table.read_text().splitlines()]
    for seen in sorted(told, key=lambda line: line["at"]):
        name = seen["test"].partition("[")[0]
        if name in found:
            before = found[name]
            outcomes = dict.fromkeys([*before["outcome"].split("; "), seen["outcome"] or "FAILED"])
            found[name] = {
                **before,
                "outcome": "; ".join(outcomes),
                "seconds": f"{float(before['seconds']) + seen['seconds']:.1f}",
            }
        else:
            row = seen["row"] or name.rpartition("::")[2].removeprefix("test_").replace("_", " ")
            found[name] = {
                "row": row,
                "where": seen["where"],
                "outcome": seen["outcome"] or "FAILED",
                "seconds": f"{seen['seconds']:.1f}",
            }
    return list(found.values())


def markdown(rows: list[dict[str, str]]) -> str:
    """The README's table; without the seconds, which differ from run to run."""
    head = "| what is broken | where | how it ends |\n|---|---|---|\n"
    return head + "".join(f"| {r['row']} | {r['where']} | {r['outcome']} |\n" for r in rows)


def into_readme(rows: list[dict[str, str]]) -> None:
    """Replace what is between the markers."""
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{markdown(rows)}{rest[rest.index(END) :]}")


def main() -> None:
    """Run, print; the exit code is pytest's."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser()
    parser.add_argument("--third", action="store_true")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--results", type=Path)
    asked, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "table.jsonl"
        table.touch()
        began = time.monotonic()
        code = run(asked.third, asked.sessions, table, asked.results or Path(scratch), more)
        rows = lines(table)
    shown = Table(*COLUMNS)
    for row in rows:
        shown.add_row(*(row[column] for column in COLUMNS))
    Console(width=160).print(shown)
    print(f"{len(rows)} rows in {time.monotonic() - began:.0f} s")
    if asked.readme and code == 0:
        into_readme(rows)
    sys.exit(code)


if __name__ == "__main__":
    main()

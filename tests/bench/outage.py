"""The outage, measured: `runbook run` against a script that types the guide's commands, on one lab, in one run.

Run as root: `python tests/bench/outage.py [--quick] [--rounds N] [--output json]`. Three hosts are restored again and
again, from a snapshot of 1 MB and one of 500 MB, by the script (``baseline.sh``) and by runbook in turns, so that a
slow moment of the machine hits both; medians are shown. Runbook restores from a plan that says the snapshot's sha256,
as `init` writes it, and from one that does not: then the hash is taken anew before the first transfer. Only ratios
mean anything elsewhere: here all three hosts and the responder share the cores of one machine. After each restore the
lab must be whole, and a key written after the snapshot gone. ``shares.py`` says how the engine's own share is computed.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # as a script it knows only its own directory

from runbook.asking import POLL  # noqa: E402
from runbook.journal import read as read_journal  # noqa: E402
from runbook.lab import Lab  # noqa: E402
from runbook.replay import replay  # noqa: E402
from tests.bench import shares, traced  # noqa: E402

NAME = "bench-outage"
SMALL, LARGE = 1, 500
"""MB of the two snapshots."""
ROUNDS = 2
GOAL_RATIO, GOAL_OWN = 0.4, 2.0
BUMP = 1_000_000_000
SETTLE = 3.0
"""Seconds between two restores: the kubelets, restarted at the end of one, have seen their API servers by then."""

ETCDCTL = (
    "etcdctl",
    "--endpoints=https://127.0.0.1:2379",
    "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
    "--cert=/etc/kubernetes/pki/etcd/server.crt",
    "--key=/etc/kubernetes/pki/etcd/server.key",
)
LOST = "/registry/bench/written-after-the-snapshot"

PLAN = """\
apiVersion: runbook/v1
kind: EtcdRestore
metadata:
  name: bench
spec:
  snapshot:
    from: file://{snapshot}
{told}
  cluster:
    bumpRevision: {bump}
  nodes:
{nodes}
  ssh:
    user: root
    identityFile: {lab.identity}
    knownHostsFile: {lab.known_hosts}
  verify:
    secrets: [default/known]
    rbac: [clusterrole/cluster-admin]
"""


@dataclass
class Seen:
    """One restore: seconds of outage and in all; of runbook's also its CPU here, and whose time it was."""

    outage: float
    total: float
    cpu: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    steps: dict[str, shares.Share] = field(default_factory=dict)


def children_cpu() -> float:
    """CPU seconds of the processes waited for so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Bench:
    """A lab, a directory for snapshots, plans and journals, and the number of restores so far."""

    def __init__(self, lab: Lab, scratch: Path) -> None:
        self.lab, self.scratch = lab, scratch
        self.number = 0

    def snapshot(self, mb: int) -> Path:
        """The file of a snapshot of about so many MB."""
        return self.scratch / f"snapshot-{mb}.db"

    def save(self, mb: int) -> None:
        """Fill the cluster up to so many MB, and save a snapshot of it."""
        self.lab.fill(objects=200 if mb == SMALL else 0, mb=mb * 3 // 4)
        self.lab.fill(objects=0, mb=int(mb * 1e6) >> 20)  # in two parts: a database grows by more than it is given
        self.lab.snapshot(self.snapshot(mb))
        with self.snapshot(mb).open("rb") as file:
            os.fsync(file.fileno())  # or the first round would pay for it

    def between(self) -> int:
        """Write what the restore must make undone; returns the bump, larger each time: a snapshot is used again."""
        self.lab.wait_healthy(90)
        time.sleep(SETTLE)
        self.lab.exec("m1", [*ETCDCTL, "put", LOST, "x"], check=True)
        self.number += 1
        return self.number * BUMP

    def proven(self, bump: int) -> None:
        """The lab is whole, the data is the snapshot's, and the same on all members. SystemExit where it is not."""
        self.lab.wait_healthy(90)
        found = json.loads(self.lab.exec("m1", [*ETCDCTL, "endpoint", "hashkv", "--cluster", "-w", "json"]).stdout)
        status = json.loads(
            self.lab.exec("m1", [*ETCDCTL, "endpoint", "status", "--cluster", "-w", "json"], check=True).stdout
        )
        lost = self.lab.exec("m1", [*ETCDCTL, "get", LOST, "--keys-only"], check=True).stdout.strip()
        known = self.lab.exec("m1", [*ETCDCTL, "get", "/registry/secrets/default/known", "--keys-only"], check=True)
        revisions = {s["Status"]["header"]["revision"] for s in status}
        if len(found) != 3 or len(status) != 3 or min(revisions) <= bump or lost or not known.stdout.strip():
            raise SystemExit(f"not restored: {len(found)} members, revisions {revisions}, lost {lost!r}")

    # The two ways.

    def by_script(self, mb: int, options: str = "") -> Seen:
        """Restore with the baseline script; ``options`` are more options for its ssh."""
        for host in self.lab.nodes:
            self.lab.exec(host.name, ["mkdir", "-p", "/opt/backup"], check=True)
        first = ["scp", "-q", "-F", str(self.lab.ssh_config), str(self.snapshot(mb)), "m1:/opt/backup/etcd.db"]
        if self.lab.popen_operator(first).wait():
            raise SystemExit("the snapshot cannot be put on the first node")
        bump = self.between()
        script = ["sh", str(Path(__file__).with_name("baseline.sh"))]
        argv = [*script, str(self.lab.ssh_config), str(self.snapshot(mb)), str(bump), str(POLL)]
        out, err = self.scratch / "script.out", self.scratch / "script.err"
        with out.open("w") as stdout, err.open("w") as stderr:  # files: a control master would keep a pipe open
            env = {**os.environ, "SSH_OPTIONS": options}
            code = self.lab.popen_operator(argv, stdout=stdout, stderr=stderr, env=env).wait()
        if code:
            raise SystemExit(f"the script exited with {code}: {err.read_text()[-500:]}")
        at = {name: float(when) for name, when in (line.split() for line in out.read_text().splitlines())}
        self.proven(bump)
        for host in self.lab.nodes:
            self.lab.exec(host.name, ["rm", "-rf", "/var/lib/etcd.bak", "/opt/backup"], check=True)
        marks = list(at)[1:]
        parts = {name: at[after] - at[name] for name, after in pairwise(marks)}
        return Seen(at["outage_ends"] - at["outage_begins"], at["ends"] - at["begins"], parts=parts)

    def by_script_with_master(self, mb: int) -> Seen:
        """The script with one connection for each host, kept open; the guide has none."""
        sockets = self.scratch / "cm"
        sockets.mkdir(exist_ok=True)
        options = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={sockets}/%h"
        try:
            return self.by_script(mb, options)
        finally:
            for path in sockets.iterdir():
                stop = ["ssh", "-F", str(self.lab.ssh_config), "-o", f"ControlPath={path}", "-O", "exit", "m1"]
                self.lab.popen_operator(stop, stderr=subprocess.DEVNULL).wait()

    def by_runbook(self, mb: int, told: str = "") -> Seen:
        """Restore with `runbook run`, and take away what it left; ``told`` is a line of the plan about the snapshot."""
        bump = self.between()
        plan, trace, state = (self.scratch / name for name in ("plan.yaml", "trace.jsonl", f"state-{self.number}"))
        nodes = "\n".join(
            f'    - {{name: {h.name}, host: {h.ip}, peerURLs: ["https://{h.ip}:2380"]}}' for h in self.lab.nodes
        )
        plan.write_text(PLAN.format(snapshot=self.snapshot(mb), told=told, bump=bump, nodes=nodes, lab=self.lab))
        since, cpu = time.time(), children_cpu()
        self.runbook(state, "tests.bench.traced", str(trace), "run", str(plan), "--yes")
        until, cpu = time.time(), children_cpu() - cpu
        (run,) = (state / "runs").iterdir()
        lines, _ = read_journal(run / "journal.jsonl")
        records = shares.Records(lines, traced.read(trace), self.ran(run.name), since, until)
        steps = shares.by_step(records)
        self.proven(bump)
        self.runbook(state, "runbook.cli", "finish", "--yes")
        return Seen(replay(lines).outage_seconds(), until - since, cpu, steps=steps)

    def by_runbook_told_sha256(self, mb: int) -> Seen:
        """The same, from a plan that says the snapshot's hash."""
        with self.snapshot(mb).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return self.by_runbook(mb, f"    sha256: {sha256}")

    def runbook(self, state: Path, module: str, *words: str) -> None:
        """One command; SystemExit with its last words where it fails."""
        env = self.lab.operator_env({**os.environ, "RUNBOOK_STATE_DIR": str(state)})
        argv = [sys.executable, "-m", module, *words]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"runbook {' '.join(words)} exited with {done.returncode}: {done.stderr[-1500:]}")

    def ran(self, run: str) -> dict[tuple[str, str], float]:
        """By host and key, the seconds for which each command of the run ran there, as its two files' times say."""
        found: dict[tuple[str, str], float] = {}
        listing = f"cd /var/lib/etcd-runbook/{run}/commands && stat -c '%n %.9Y' -- *.intent *.rc"
        for host in self.lab.nodes:
            at: dict[str, float] = {}
            for line in self.lab.exec(host.name, ["sh", "-c", listing], check=True).stdout.splitlines():
                name, stamp = line.rsplit(" ", 1)
                at[name] = float(stamp)
            for name, when in at.items():
                if name.endswith(".rc"):
                    key = name.removesuffix(".rc")
                    found[host.name, key] = when - at.get(f"{key}.intent", when)
        return found


@dataclass
class Figures:
    """All that was seen, by size: the script's restores, runbook's (and told the hash), and over kept links."""

    script: dict[int, list[Seen]] = field(default_factory=dict)
    runbook: dict[int, list[Seen]] = field(default_factory=dict)
    told: dict[int, list[Seen]] = field(default_factory=dict)
    master: dict[int, Seen] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)

    def outage(self, seen: Sequence[Seen]) -> float:
        """The median."""
        return median(s.outage for s in seen)

    def document(self) -> dict[str, Any]:
        """For `--output json`."""
        sizes = {}
        for mb, ours in self.runbook.items():
            theirs = self.script[mb]
            steps = shares.medians([s.steps for s in ours])
            whole = [shares.total(s.steps) for s in ours]
            sizes[str(mb)] = {
                "outage": {"runbook": [s.outage for s in ours], "script": [s.outage for s in theirs]},
                "outage_ratio": self.outage(ours) / self.outage(theirs),
                "total": {"runbook": [s.total for s in ours], "script": [s.total for s in theirs]},
                "script_parts": {name: median(s.parts[name] for s in theirs) for name in theirs[0].parts},
                "script_with_control_master": {"outage": self.master[mb].outage, "total": self.master[mb].total},
                "own": median(w.own for w in whole),
                "own_told_sha256": median(shares.total(s.steps).own for s in self.told[mb]),
                "waiting": median(w.theirs for w in whole),
                "transfer": median(w.transfer for w in whole),
                "cpu": median(s.cpu for s in ours),
                "steps": {n: {**vars(share), "own": share.own} for n, share in steps.items()},
            }
        return {"sizes": sizes, "load_averages": self.loads, "cores": os.cpu_count(), "goals": goals(sizes)}


def goals(sizes: Mapping[str, Any]) -> dict[str, bool]:
    """Which goals were reached; they are set for the large snapshot only."""
    if str(LARGE) not in sizes:
        return {}
    large = sizes[str(LARGE)]
    own = {name: large[name] <= GOAL_OWN for name in ("own", "own_told_sha256")}
    return {"outage_ratio": large["outage_ratio"] <= GOAL_RATIO, **own}


def measure(bench: Bench, sizes: Sequence[int], rounds: int) -> Figures:
    """All restores, in turns."""
    figures = Figures({mb: [] for mb in sizes}, {mb: [] for mb in sizes}, {mb: [] for mb in sizes})
    for mb in sizes:
        bench.save(mb)
    for number in range(rounds):
        for mb in sizes if number % 2 == 0 else sizes[::-1]:
            ways: list[tuple[dict[int, list[Seen]], Callable[[int], Seen]]] = [
                (figures.script, bench.by_script),
                (figures.runbook, bench.by_runbook),
                (figures.told, bench.by_runbook_told_sha256),
            ]
            for seen, way in ways if number % 2 == 0 else ways[::-1]:
                seen[mb].append(way(mb))
                figures.loads.append(round(os.getloadavg()[0], 1))
                last = seen[mb][-1]
                name = way.__name__.removeprefix("by_").replace("_", " ")
                said = f"round {number + 1}, {mb} MB: {name:19} outage {last.outage:5.1f} s, in all {last.total:5.1f} s"
                print(f"{said}, load {figures.loads[-1]}", file=sys.stderr, flush=True)
    figures.master = {mb: bench.by_script_with_master(mb) for mb in sizes}
    return figures


def text(document: Mapping[str, Any]) -> str:
    """The tables."""
    out = [f"{'':22}{'outage: runbook':>16}{'script':>8}{'ratio':>7}   {'in all: runbook':>15}{'script':>8}"]
    for mb, size in document["sizes"].items():
        outage, whole = size["outage"], size["total"]
        ours, theirs = median(outage["runbook"]), median(outage["script"])
        totals = f"   {median(whole['runbook']):13.1f} s{median(whole['script']):6.1f} s"
        out.append(f"{mb + ' MB snapshot':22}{ours:14.1f} s{theirs:6.1f} s{size['outage_ratio']:7.2f}{totals}")
        master = size["script_with_control_master"]
        out.append(f"{'  with ControlMaster':22}{'':16}{master['outage']:6.1f} s{'':27}{master['total']:6.1f} s")
    for mb, size in document["sizes"].items():
        out += ["", f"{mb} MB, runbook: {'in all':>29}{'waiting':>9}{'transfer':>10}{'own':>7}"]
        rows = [*size["steps"].items()]
        out += [
            f"  {name:42}{s['wall']:5.2f} s{s['theirs']:7.2f} s{s['transfer']:8.2f} s{s['own']:5.2f} s"
            for name, s in rows
        ]
        sums = (median(size["total"]["runbook"]), size["waiting"], size["transfer"], size["own"])
        out.append("  {:42}{:5.2f} s{:7.2f} s{:8.2f} s{:5.2f} s".format("together", *sums))
        out.append(f"  own share where the plan says the sha256: {size['own_told_sha256']:.2f} s")
        out.append(f"  CPU of runbook's own processes: {size['cpu']:.2f} s")
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in size["script_parts"].items())
        out.append(f"  the script's parts, in seconds: {parts}")
    out += ["", f"load averages {document['load_averages']} on {document['cores']} cores"]
    names = {"outage_ratio": f"outage at most {GOAL_RATIO} of the script's", "own": f"own share at most {GOAL_OWN:g} s"}
    names["own_told_sha256"] = f"{names['own']}, the sha256 in the plan"
    out += [f"{names[goal]}: {'reached' if met else 'MISSED'}" for goal, met in document["goals"].items()]
    return "\n".join(out)


def main() -> None:
    """Boot a lab, measure, print, take the lab away; exit 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description="the outage: runbook against a script of the guide's commands")
    parser.add_argument("--quick", action="store_true", help="the small snapshot only; no goal is judged")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", choices=("text", "json"), default="text")
    asked = parser.parse_args()
    sizes = (SMALL,) if asked.quick else (SMALL, LARGE)
    lab = Lab(NAME)
    if lab.is_up:
        raise SystemExit(f"a lab of this name is up: `runbook lab --name {NAME} down` takes it away")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    compileall.compile_dir(str(ROOT / "runbook"), quiet=1)  # as an installed program is
    with contextlib.ExitStack() as end:
        scratch = end.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))  # on a disk, as a snapshot is
        end.callback(lab.down)
        Lab.up(NAME, disk="6g")
        document = measure(Bench(lab, Path(scratch)), sizes, asked.rounds).document()
    print(json.dumps(document, indent=2) if asked.output == "json" else text(document))
    if not all(document["goals"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

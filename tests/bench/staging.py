"""Staging, measured: 1 GiB to three lab hosts against three parallel `scp`; and one question's and one action's cost.

Run as root: `python -m tests.bench.staging [MiB]`. The two ways take turns, and turns at being first, after a round
that does not count: the first to touch the machine's memory pays for it. The hosts run nothing but sshd.
Our time includes the SHA-256 that each host computes, the fsync and the rename; `scp` has none of them.
"""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runbook.hosts import connect
from runbook.lab import Lab
from runbook.plan import Node, Plan, Snapshot, Ssh
from runbook.step import Action, Binding, Command, Result, Target, Upload
from runbook.transport import Claim

ROUNDS = 4
GOAL = 0.8
GOAL_RSS = 150


class Nobody:
    """A witness that keeps nothing."""

    def begins(self, host: str, key: str, action: Action) -> None:
        """Nothing."""

    def lost(self, host: str, key: str, why: str) -> None:
        """It is looked for."""

    def ended(self, host: str, key: str, action: Action, result: Result) -> None:
        """Nothing."""


def targets(lab: Lab, user: str) -> list[Target]:
    """The lab's nodes, as a plan would name them."""
    ssh = Ssh(user=user, identity_file=lab.identity, known_hosts_file=lab.known_hosts)
    nodes = tuple(Node(h.name, h.ip, (f"https://{h.ip}:2380",), (), ssh=ssh) for h in lab.nodes)
    plan = Plan("bench", Snapshot("x", Path("x")), nodes)
    return [Target(plan, Binding(run=f"bench-{user}"), node) for node in nodes]


def big_file(path: Path, mib: int) -> str:
    """A file of random bytes; returns its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
        os.fsync(file.fileno())  # or the first round would pay for it
    return digest.hexdigest()


def by_us(lab: Lab, user: str, path: Path, sha256: str, number: int) -> float:
    """Stage it with runbook, connections included; returns the seconds."""
    there = targets(lab, user)
    hosts = connect(there, Claim(1))
    begun = time.monotonic()
    upload = Upload(f"{there[0].run_dir}/big.db", sha256, source=str(path))
    results = hosts.act({t.name: [upload] for t in there}, f"stage.{number}", Nobody())
    took = time.monotonic() - begun
    hosts.close()
    for name, result in results.items():
        if not result.ok or "proven" not in result.err:
            raise SystemExit(f"{name}: {result}")
    for t in there:
        lab.exec(t.name, ["rm", f"{t.run_dir}/big.db"], check=True)
    return took


def by_scp(lab: Lab, path: Path) -> float:
    """Stage it with one `scp` for each host, all at once; returns the seconds."""
    begun = time.monotonic()
    processes = [
        lab.popen_operator(["scp", "-q", "-F", str(lab.ssh_config), str(path), f"root@{host.name}:/var/lib/big.db"])
        for host in lab.nodes
    ]
    codes = [process.wait() for process in processes]
    took = time.monotonic() - begun
    if any(codes):
        raise SystemExit(f"scp ended with {codes}")
    for host in lab.nodes:
        lab.exec(host.name, ["rm", "/var/lib/big.db"], check=True)
    return took


def round_trips(lab: Lab, user: str) -> tuple[float, float, float]:
    """Milliseconds for the first question (with the connections), for a question, and for an action; on three hosts."""
    there = targets(lab, user)
    hosts = connect(there, Claim(1))
    true = Command(("true",), changes=False)
    begun = time.monotonic()
    hosts.ask({t.name: [true] for t in there})
    first = time.monotonic() - begun
    asks, acts = [], []
    for number in range(40):
        begun = time.monotonic()
        hosts.ask({there[0].name: [true]})
        asks.append(time.monotonic() - begun)
        begun = time.monotonic()
        result = hosts.act({there[0].name: [Command(("true",))]}, f"trip.{number}", Nobody())
        acts.append(time.monotonic() - begun)
        if not result[there[0].name].ok:
            raise SystemExit(str(result))
    hosts.close()
    return 1000 * first, 1000 * statistics.median(asks), 1000 * statistics.median(acts)


def main() -> None:
    """Boot a lab, measure, print, take the lab away."""
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    lab = Lab.up("bench-staging", disk="3g", wait=0)
    try:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:  # on a disk, as a snapshot is
            measure(lab, Path(scratch) / "big.db", mib)
    finally:
        lab.down()


def measure(lab: Lab, path: Path, mib: int) -> None:
    """All figures."""
    users = ("root", "ops")
    for host in lab.nodes:
        lab.exec(host.name, ["systemctl", "stop", "kubelet"], check=True)
        lab.exec(host.name, ["pkill", "-x", "etcd"])
    for user in users:
        for t in targets(lab, user):
            lab.exec(t.name, ["mkdir", "-p", "-m", "700", t.run_dir], check=True)
    sha256 = big_file(path, mib)
    lab.enter_operator()
    ours: list[float] = []
    theirs: list[float] = []
    by_us(lab, "root", path, sha256, 0)
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)  # before any scp was waited for
    rss = max(resource.getrusage(who).ru_maxrss for who in whose) // 1024
    by_scp(lab, path)
    for number in range(1, ROUNDS + 1):
        if number % 2:
            ours.append(by_us(lab, "root", path, sha256, number))
            theirs.append(by_scp(lab, path))
        else:
            theirs.append(by_scp(lab, path))
            ours.append(by_us(lab, "ops", path, sha256, number))
        print(f"round {number}: runbook {ours[-1]:.2f} s, scp {theirs[-1]:.2f} s", flush=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    rate = 3 * mib / statistics.median(ours)
    print(f"{mib} MiB to 3 hosts, sha256 proven on each: {ratio:.2f} of the time of three parallel scp (goal {GOAL})")
    print(f"  {rate:.0f} MiB/s in all; largest process {rss} MB (goal {GOAL_RSS})")
    for user in users:
        first, ask, act = round_trips(lab, user)
        print(f"as {user}: first answer of three hosts {first:.0f} ms; ask {ask:.1f} ms; act {act:.1f} ms")
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip()
    print(f"against {version}, default cipher")
    if ratio > GOAL or rss > GOAL_RSS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

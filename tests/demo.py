"""`make demo`: a disaster and its repair, on a lab of this machine, in under 90 seconds.

It types what a responder would type, and shows it: boots the lab, fills it, takes a snapshot, destroys data, previews
and runs plans/lab-ha.yaml, kills the engine in the middle of the outage, resumes, proves the result, prints the
timeline, and takes the lab away.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLAN = "plans/lab-ha.yaml"
SNAPSHOT = "/run/runbook-lab/default/snapshot.db"
ETCDCTL = (
    *("etcdctl", "--endpoints=https://127.0.0.1:2379", "--cacert=/etc/kubernetes/pki/etcd/ca.crt"),
    *("--cert=/etc/kubernetes/pki/etcd/server.crt", "--key=/etc/kubernetes/pki/etcd/server.key"),
)


class Demo:
    """One showing."""

    def __init__(self, state: str) -> None:
        self.started = time.monotonic()
        self.state = Path(state)
        own = {key: value for key, value in os.environ.items() if key != "RUNBOOK_LAB"}  # the plan's is the default one
        self.env = {**own, "RUNBOOK_STATE_DIR": state, "NO_COLOR": "1"}

    def say(self, text: str) -> None:
        print(f"\n\033[1m== {time.monotonic() - self.started:5.1f} s  {text}\033[0m", flush=True)

    def argv(self, *args: str) -> list[str]:
        print(f"$ runbook {' '.join(args)}", flush=True)
        return [sys.executable, "-m", "runbook.cli", *args]

    def type(self, *args: str, lines: int = 0) -> str:
        """Type a command and show what it says: all of it, or its first lines; it must succeed."""
        done = subprocess.run(self.argv(*args), cwd=ROOT, env=self.env, text=True, capture_output=True, check=False)
        shown = (done.stderr + done.stdout).rstrip().splitlines()
        if 0 < lines < len(shown):
            shown = [*shown[:lines], f"  … {len(shown) - lines} more lines"]
        print("\n".join(shown), flush=True)
        if done.returncode:
            raise SystemExit(f"demo: runbook {' '.join(args)} ended with {done.returncode}")
        return done.stdout

    def etcd(self, *args: str, host: str = "m1") -> str:
        """Ask the lab's etcd directly, past the product."""
        argv = [sys.executable, "-m", "runbook.cli", "lab", "exec", host, "--", *ETCDCTL, *args]
        done = subprocess.run(argv, cwd=ROOT, env=self.env, text=True, capture_output=True, check=True)
        return done.stdout.strip()

    def kill_in_the_outage(self) -> None:
        """Start the run, and SIGKILL it once the first host has the new data in place."""
        argv = self.argv("run", PLAN, "--yes")
        process = subprocess.Popen(argv, cwd=ROOT, env=self.env)
        while process.poll() is None:
            for journal in self.state.glob("runs/*/journal.jsonl"):
                if '"event":"end","step":"SwapData"' in journal.read_text():
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return
            time.sleep(0.005)
        raise SystemExit("demo: the run ended before it could be killed")

    def prove(self) -> None:
        """Ask every member itself: one cluster, one hash at one revision, the lost keys back."""
        hosts = ("m1", "m2", "m3")
        revision = int(self.status("m1")["header"]["revision"])
        seen = set()
        for host in hosts:
            cluster = self.status(host)["header"]["cluster_id"]
            found = json.loads(self.etcd("endpoint", "hashkv", "--rev", str(revision), "-w", "json", host=host))
            known = self.etcd("get", "/registry/secrets/default/known", "--keys-only", host=host)
            hashed = found[0]["HashKV"]["hash"]
            print(f"  {host}: cluster {cluster:x}, hash {hashed} at revision {revision}, holds {known or 'NOTHING'}")
            seen.add((cluster, hashed, known))
        if len(seen) != 1 or not known:
            raise SystemExit("demo: the members do not hold the same, restored data")

    def status(self, host: str) -> dict[str, Any]:
        """What one member says of itself."""
        found: dict[str, Any] = json.loads(self.etcd("endpoint", "status", "-w", "json", host=host))[0]["Status"]
        return found

    def play(self) -> None:
        self.say("fill it, and take a snapshot")
        self.type("lab", "fill")
        self.type("lab", "snapshot", SNAPSHOT)
        self.say("the disaster: everything below /registry is deleted")
        print(f"  deleted: {self.etcd('del', '--prefix', '/registry/')} keys")
        self.say("preview: every command of every step, before anything is touched")
        self.type("preview", PLAN, lines=24)
        self.say("run it — and kill the engine with SIGKILL in the middle of the outage")
        self.kill_in_the_outage()
        self.say("killed. What is true now?")
        self.type("status")
        self.say("resume")
        self.type("resume")
        self.say("proof, asked of each member directly")
        self.prove()
        self.say("the timeline")
        self.type("report")
        self.say("clean the hosts")
        self.type("finish", "--yes")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="runbook-demo-") as state:
        demo = Demo(state)
        demo.say("boot a control plane of three hosts: real sshd, real etcd with TLS")
        demo.type("lab", "up")
        try:
            demo.play()
        finally:
            demo.say("take the lab away")
            demo.type("lab", "down")
        demo.say("done")


if __name__ == "__main__":
    main()

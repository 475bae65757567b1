"""What the tests of whole runs share: a plan for a lab, the command line as a responder types it, and independent eyes.

The eyes use nothing of the product's own proofs: they ask etcd and the disks directly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runbook.journal import Line, read
from runbook.lab import Lab

BUMP = 1_000_000_000


@dataclass
class Desk:
    """A responder at a lab: a state directory, a plan, and a snapshot."""

    lab: Lab
    home: Path
    run_id: str = ""

    @property
    def plan(self) -> Path:
        return self.home / "plan.yaml"

    @property
    def snapshot(self) -> Path:
        return self.home / "snapshot.db"

    def write_plan(self, **changes: Any) -> Path:
        """The plan of this lab; ``changes`` are put into its spec."""
        nodes = [{"name": h.name, "host": h.ip, "peerURLs": [f"https://{h.ip}:2380"]} for h in self.lab.nodes]
        spec: dict[str, Any] = {
            "snapshot": {"from": f"file://{self.snapshot}"},
            "nodes": nodes,
            "ssh": {"identityFile": str(self.lab.identity), "knownHostsFile": str(self.lab.known_hosts)},
            "verify": {"secrets": ["default/known"], "rbac": ["clusterrole/cluster-admin"]},
        }
        spec |= changes
        document = {"apiVersion": "runbook/v1", "kind": "EtcdRestore", "metadata": {"name": "test"}, "spec": spec}
        self.plan.write_text(yaml.safe_dump(document, sort_keys=False))
        return self.plan

    # The command line.

    def popen(self, *args: str | Path) -> subprocess.Popen[str]:
        env = {**os.environ, "RUNBOOK_STATE_DIR": str(self.home / "state"), "NO_COLOR": "1"}
        argv = [sys.executable, "-m", "runbook.cli", *map(str, args)]
        return subprocess.Popen(
            argv, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def runbook(
        self, *args: str | Path, code: int | None = 0, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Type a command; fails where its exit code is another one."""
        process = self.popen(*args)
        out, err = process.communicate(timeout=timeout)
        done = subprocess.CompletedProcess(args, process.returncode, out, err)
        assert code is None or done.returncode == code, f"{args}: exit {done.returncode}\n{out}\n{err}"
        return done

    def lines(self) -> list[Line]:
        """The newest run's journal, as far as it is written."""
        found = sorted((self.home / "state/runs").glob("*/journal.jsonl"), key=lambda p: p.stat().st_mtime)
        return read(found[-1])[0] if found else []

    def kill_at(self, command: tuple[str | Path, ...], when: Callable[[Line], bool], *, after: int = 0) -> Line:
        """Type a command, and SIGKILL it at the first journal line, past ``after`` lines, for which ``when`` holds."""
        process = self.popen(*command)
        limit = time.monotonic() + 120
        try:
            while time.monotonic() < limit and process.poll() is None:
                for line in self.lines()[after:]:
                    if when(line):
                        process.kill()
                        return line
                time.sleep(0.002)
        finally:
            if process.poll() is None:
                process.kill()
            out, err = process.communicate(timeout=30)
        raise AssertionError(f"{command} ended with {process.returncode} before the line came\n{out}\n{err}")

    def status(self) -> dict[str, Any]:
        """``runbook status --output json`` of the newest run."""
        newest = self.lines()[0]["run"]
        document: dict[str, Any] = json.loads(self.runbook("status", newest, "--output", "json").stdout)
        return document

    # Independent eyes.

    def etcdctl(self, host: str, *args: str) -> str:
        pki = "/etc/kubernetes/pki/etcd"
        flags = [f"--cacert={pki}/ca.crt", f"--cert={pki}/server.crt", f"--key={pki}/server.key"]
        done = self.lab.exec(host, ["etcdctl", "--endpoints=https://127.0.0.1:2379", *flags, *args], check=True)
        return done.stdout

    def put(self, key: str, value: str) -> None:
        self.etcdctl(self.lab.nodes[0].name, "put", key, value)

    def get(self, host: str, key: str) -> str:
        return self.etcdctl(host, "get", key, "--print-value-only").strip()

    def revision(self, host: str) -> int:
        status = json.loads(self.etcdctl(host, "endpoint", "status", "-w", "json"))
        return int(status[0]["Status"]["header"]["revision"])

    def take_snapshot(self) -> int:
        """A snapshot with the key ``era`` at ``kept``, after which it becomes ``lost``; its revision."""
        self.etcdctl(self.lab.nodes[0].name, "del", "after")
        self.put("era", "kept")
        revision = self.revision(self.lab.nodes[0].name)
        self.lab.snapshot(self.snapshot)
        self.put("era", "lost")
        self.put("after", "the snapshot")
        return revision

    def assert_restored(self, least: int) -> None:
        """All members hold the same, restored data: N members, one cluster, equal hashes, no alarm, right content."""
        names = {h.name for h in self.lab.nodes}
        urls = {f"https://{h.ip}:2380" for h in self.lab.nodes}
        clusters, hashes = set(), set()
        at = min(self.revision(h) for h in names)  # the API servers write on: what all of them have
        for host in names:
            listed = json.loads(self.etcdctl(host, "member", "list", "-w", "json"))
            assert {m["name"] for m in listed["members"]} == names
            assert {u for m in listed["members"] for u in m["peerURLs"]} == urls
            assert not any(m.get("isLearner") for m in listed["members"])
            clusters.add(listed["header"]["cluster_id"])
            for found in json.loads(
                self.etcdctl(host, "endpoint", "hashkv", "--cluster", "--rev", str(at), "-w", "json")
            ):
                hashes.add((found["HashKV"]["hash"], found["HashKV"]["compact_revision"]))
            assert self.revision(host) >= least
            assert self.get(host, "era") == "kept"
            assert self.get(host, "after") == ""
            assert "alarm" not in self.etcdctl(host, "alarm", "list")
        assert len(clusters) == 1
        assert len(hashes) == 1, hashes

    def assert_old(self, least: int) -> None:
        """The old cluster serves on every host, with what was written after the snapshot."""
        for host in self.lab.nodes:
            assert self.get(host.name, "era") == "lost"
            assert self.get(host.name, "after") == "the snapshot"
            assert least <= self.revision(host.name) < least + BUMP // 2

    def tree(self) -> dict[str, str]:
        """By host, every file of the places that a run may touch, with type, mode, owner; contents of the manifests."""
        text = (
            "cd / && find etc/kubernetes var/lib -xdev \\( -path var/lib/etcd/member -o -path var/lib/etcd-wal "
            "-o -path var/lib/kubelet -o -path 'var/lib/runbook-lab*' \\) -prune -o -printf '%y %m %u %p\\n' | sort;"
            "sha256sum etc/kubernetes/manifests/*"
        )
        return {h.name: self.lab.exec(h.name, ["sh", "-c", text], check=True).stdout for h in self.lab.nodes}

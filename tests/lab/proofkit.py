"""What the lab tests of the procedure share: one run on a lab over real SSH, clusters restored by hand, a walk.

``Rig`` asks and acts as the engine does, through ``runbook.hosts``. ``ByHand`` restores a lab's members with etcdutl
alone, so that the cross-member proof can be shown clusters which the procedure would never make.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from runbook.asking import RealClock, ask_once, ask_until, judge
from runbook.hosts import Fleet, connect
from runbook.lab import Lab
from runbook.lifecycle import Verdict, View
from runbook.plan import Node, Paths, Plan, Snapshot, Ssh, Worker
from runbook.step import Action, Binding, Command, Probe, Result, Target
from runbook.transport import Claim

MANIFESTS = "/etc/kubernetes/manifests"
DATA = "/var/lib/etcd"
PKI = "/etc/kubernetes/pki/etcd"
ETCDCTL = ("etcdctl", f"--cacert={PKI}/ca.crt", f"--cert={PKI}/server.crt", f"--key={PKI}/server.key")
OWN = "--endpoints=https://127.0.0.1:2379"
BUMP = 1_000_000_000
T = TypeVar("T")


def plan_of(lab: Lab, snapshot: Path, **changes: Any) -> Plan:
    """What `init` would say of the lab."""
    ssh = Ssh(user="ops", identity_file=lab.identity, known_hosts_file=lab.known_hosts)
    wal = lab.spec["wal_dir"]
    nodes = tuple(
        Node(h.name, h.ip, (f"https://{h.ip}:2380",), (f"https://{h.ip}:2379",), ssh, Paths(wal_dir=wal))
        for h in lab.nodes
    )
    workers = tuple(Worker(h.ip, ssh) for h in lab.hosts if h.worker)
    text = b"# the plan of a test\n"
    return replace(Plan("test", Snapshot(f"file://{snapshot}", snapshot), nodes, workers=workers, text=text), **changes)


def sh(lab: Lab, host: str, script: str, *words: str, timeout: float = 60.0) -> str:
    """A shell text on a host, as root, beside the program; raises LabError where it fails."""
    return lab.exec(host, ["sh", "-euc", script, "test", *words], timeout=timeout, check=True).stdout


def on_all(names: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
    """The same on several hosts at once."""
    hosts = list(names)
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return dict(zip(hosts, pool.map(work, hosts), strict=True))


class Silent:
    """A witness who tells nobody."""

    def begins(self, host: str, key: str, action: Action) -> None:
        """Nothing."""

    def lost(self, host: str, key: str, why: str) -> None:
        """It is looked for."""

    def ended(self, host: str, key: str, action: Action, result: Result) -> None:
        """Nothing."""


class Rig:
    """One run on a lab: its plan, its targets, and its hosts over real SSH."""

    def __init__(self, lab: Lab, plan: Plan, run: str) -> None:
        sha256 = hashlib.sha256(plan.snapshot.path.read_bytes()).hexdigest()
        self.lab, self.plan, self.bound = lab, plan, Binding(run, sha256, "tester@here")
        self.nodes = tuple(Target(plan, self.bound, n) for n in plan.nodes)
        self.workers = tuple(Target(plan, self.bound, w) for w in plan.workers)
        self._fleet: Fleet = connect([*self.nodes, *self.workers], Claim(1))
        self._acts = 0

    def close(self) -> None:
        """Drop the connections."""
        self._fleet.close()

    def ask(self, probes: Mapping[str, Probe]) -> dict[str, View]:
        """Once, as the engine does before a step."""
        return self.lab.in_operator(lambda: ask_once(self._fleet, probes))

    def wait(self, probes: Mapping[str, Probe]) -> dict[str, View]:
        """As long as the probes say, as the engine does after a step."""
        return self.lab.in_operator(lambda: ask_until(self._fleet, probes, RealClock()))

    def answers(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        """What the hosts say to read-only commands."""
        return self.lab.in_operator(lambda: self._fleet.ask(asks))

    def objections(self, probes: Mapping[str, Probe]) -> dict[str, dict[str, str]]:
        """By host, what is objected to each claim: every question is asked, whatever the others say."""
        answers = self.answers({host: [q.ask for q in probe.questions] for host, probe in probes.items()})
        found: dict[str, dict[str, str]] = {}
        for host, probe in probes.items():
            views = {q.says: judge(q, r) for q, r in zip(probe.questions, answers[host], strict=True)}
            found[host] = {says: view.saw for says, view in views.items() if view.verdict is not Verdict.YES}
        return found

    def act(self, actions: Mapping[str, Sequence[Action]], what: str = "test") -> dict[str, Result]:
        """As the engine acts, detached and under the run's flock."""
        self._acts += 1
        key = f"{what}.{self._acts}"
        return self.lab.in_operator(lambda: self._fleet.act(actions, key, Silent()))


# --- clusters restored by hand ---


@dataclass(frozen=True)
class Restored:
    """How the members are restored; the defaults are what a plan says. ``odd`` is m3's, where it differs."""

    snapshot: str = "one"
    token: str = ""
    bump: int = BUMP
    others: str = ""
    """More members for --initial-cluster."""
    alone: bool = False
    """Each member as a cluster of its own."""
    odd: tuple[str, int] | None = None
    checked: bool = True
    """With the initial corrupt check that kubeadm's manifest asks for."""


STOP = f"""
if [ -e {MANIFESTS}/etcd.yaml ]; then
  [ -e /root/etcd.yaml ] || cp -a {MANIFESTS}/etcd.yaml /root/etcd.yaml
  rm {MANIFESTS}/etcd.yaml
fi
while [ -n "$(ss -Hltn '( sport = :2379 or sport = :2380 )')" ] || [ -n "$(crictl ps -q --name '^etcd$')" ]; do
  for id in $(crictl ps -q --name '^etcd$'); do crictl stop --timeout 0 $id > /dev/null 2>&1 || :; done
  sleep 0.1
done
for id in $(crictl ps -a -q --name '^etcd$'); do crictl rm $id > /dev/null; done  # else: back-off
"""
START = f"""
sed "$1" /root/etcd.yaml > {MANIFESTS}/.etcd.yaml
mv {MANIFESTS}/.etcd.yaml {MANIFESTS}/etcd.yaml
n=0
while [ -z "$(ss -Hltn '( sport = :2381 )')" ] && [ $n -lt 30 ]; do n=$((n + 1)); sleep 0.1; done
"""
RESTORE = f"""
rm -rf {DATA}/member {DATA}/.new
etcdutl snapshot restore "$@" --data-dir {DATA}/.new 2> /root/restore.log || {{ cat /root/restore.log >&2; exit 1; }}
mv -T {DATA}/.new/member {DATA}/member
rmdir {DATA}/.new
"""
UNCHECKED = (
    "s/initial-corrupt-check=true/initial-corrupt-check=false/; s/InitialCorruptCheck=true/InitialCorruptCheck=false/"
)
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


class ByHand:
    """A lab whose etcd members are stopped, restored and started by hand; nothing else runs on its hosts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.names = [h.name for h in lab.nodes]
        self.current: Restored | None = None
        on_all(self.names, self._park)

    def _park(self, host: str) -> None:
        for name in CONTROL_PLANE:
            sh(self.lab, host, f'mv {MANIFESTS}/"$1".yaml /root/', name)
        left = "|".join(CONTROL_PLANE)
        sh(self.lab, host, f"while [ -n \"$(crictl ps -q --name '^({left})$')\" ]; do sleep 0.1; done")

    def etcdctl(self, *words: str, host: str = "m1") -> str:
        """What etcdctl says on a host, asking its own member."""
        return sh(self.lab, host, '"$@"', *ETCDCTL, OWN, *words)

    def put(self, value: str) -> None:
        """Write the one key."""
        self.etcdctl("put", "/test/key", value)

    def healthy(self) -> dict[str, bool]:
        """What `endpoint health` says of each member by itself."""
        ends = {h.name: f"https://{h.ip}:2379" for h in self.lab.nodes}
        script = '"$@" --command-timeout=2s endpoint health -w json 2> /dev/null || :'
        said = sh(self.lab, "m1", script, *ETCDCTL, f"--endpoints={','.join(ends.values())}")
        health = {one["endpoint"]: bool(one["health"]) for one in json.loads(said)}
        return {name: health[end] for name, end in ends.items()}

    def keep(self, snapshot: Path, name: str) -> None:
        """Put a snapshot on every host, as /root/NAME.db."""
        data = snapshot.read_bytes()
        for host in self.names:
            done = self.lab.exec_bytes(host, ["sh", "-c", f"cat > /root/{shlex.quote(name)}.db"], data)
            assert done.returncode == 0

    def stop(self, *hosts: str) -> None:
        """Stop these members, all where none is named, without grace."""
        on_all(hosts or self.names, lambda host: sh(self.lab, host, STOP))

    def start(self, *hosts: str, edit: str = "") -> None:
        """Start these members one shortly after the other; ``edit`` is a sed script for the manifest."""
        for host in hosts or self.names:
            sh(self.lab, host, START, edit)

    def build(self, how: Restored, token: str) -> None:
        """Bring up this cluster, unless it is up already; ``token`` is the planned one."""
        if how == self.current:
            return
        self.current = None
        self.stop()
        on_all(self.names, lambda host: sh(self.lab, host, RESTORE, *self._words(host, how, how.token or token)))
        self.start(edit="" if how.checked else UNCHECKED)
        self.current = how

    def spoil(self) -> None:
        """The test changes this cluster: the next one gets a new one."""
        self.current = None

    def _words(self, host: str, how: Restored, token: str) -> list[str]:
        snapshot, bump = how.odd if how.odd and host == "m3" else (how.snapshot, how.bump)
        urls = {h.name: f"https://{h.ip}:2380" for h in self.lab.nodes if h.name == host or not how.alone}
        cluster = ",".join([*(f"{name}={url}" for name, url in urls.items()), *([how.others] if how.others else [])])
        words = [f"/root/{snapshot}.db", "--name", host, "--initial-cluster", cluster]
        words += ["--initial-cluster-token", token, "--initial-advertise-peer-urls", urls[host]]
        return [*words, "--bump-revision", str(bump), "--mark-compacted"] if bump else words


def said(views: Mapping[str, View]) -> None:
    """All hosts say yes."""
    objected = {host: view.saw for host, view in views.items() if view.verdict is not Verdict.YES}
    assert not objected, objected


def succeeded(results: Mapping[str, Result]) -> None:
    """All hosts did it."""
    failed = {host: (result.code, result.tail()) for host, result in results.items() if not result.ok}
    assert not failed, failed

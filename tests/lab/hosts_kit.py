"""What the tests of the SSH layer share: a quiet lab, targets in it, and a witness that remembers."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook.hosts import Fleet, connect
from runbook.lab import Lab, kernel
from runbook.plan import Node, Plan, Snapshot, Ssh
from runbook.step import Action, Binding, Command, Result, Target
from runbook.transport import Claim

RUN = "prod-1"
RUN_DIR = f"/var/lib/etcd-runbook/{RUN}"


class Witness:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.ends: list[tuple[str, str, int | None]] = []

    def begins(self, host: str, key: str, action: Action) -> None:
        self.begun.append((host, key))

    def lost(self, host: str, key: str, why: str) -> None:
        """It is looked for."""

    def ended(self, host: str, key: str, action: Action, result: Result) -> None:
        self.ends.append((host, key, result.code))


class Bench:
    """A lab and connections to it. The test's thread, and with it every connection, is in the operator's network."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fleets: list[Fleet] = []
        self.number = 0

    def target(self, name: str = "m1", host: str = "", **ssh: Any) -> Target:
        how = {"identity_file": self.lab.identity, "known_hosts_file": self.lab.known_hosts, "connect_timeout": 5.0}
        node = Node(name, host or self.lab.host(name).ip, ("https://10.0.1.10:2380",), (), ssh=Ssh(**{**how, **ssh}))
        return Target(Plan("prod", Snapshot("x", Path("x")), (node,)), Binding(run=RUN), node)

    def connect(self, *names: str, epoch: int = 1, **ssh: Any) -> Fleet:
        return self.fleet(*(self.target(name, **ssh) for name in names or ("m1",)), epoch=epoch)

    def fleet(self, *targets: Target, epoch: int = 1) -> Fleet:
        fleet = connect(targets, Claim(epoch))
        self.fleets.append(fleet)
        return fleet

    def known(self, *, without: str = "") -> dict[str, str]:
        """The line of the known hosts for each host; told by its names, as a key may spell another's by chance."""
        lines = {x.split(",")[0]: x for x in self.lab.known_hosts.read_text().splitlines() if x[0] != "["}
        return {name: line for name, line in lines.items() if name != without}

    def host_key(self, name: str = "m1") -> str:
        """A host's key, as a line of the known hosts has it after the names."""
        return self.known()[name].split(" ", 1)[1]

    def key(self) -> str:
        self.number += 1
        return f"key.{os.getpid()}.{self.number}"

    def sh(self, text: str, host: str = "m1", *, check: bool = True) -> str:
        return self.lab.exec(host, ["sh", "-c", text], check=check).stdout

    def sessions(self, host: str = "m1") -> list[int]:
        """The host's sshd processes that serve a connection; those of a second sshd are not among them."""
        return [int(p) for p in self.sh("pgrep -P $(cat /run/sshd.pid)", host, check=False).split()]

    def cut(self, host: str = "m1") -> None:
        """End all SSH connections of the host from its side."""
        for pid in self.sessions(host):
            self.sh(f"kill -9 {pid} $(pgrep -P {pid})", host, check=False)

    def sshd(self, port: int, *options: str, host: str = "m1") -> None:
        """A second sshd on the host, until the test ends."""
        lines = [*options, f"Port {port}", f"PidFile /run/sshd-{port}.pid"]
        base = self.sh("grep -v -e ^Port -e ^ListenAddress /etc/ssh/sshd_config", host)
        self.lab.exec(host, ["tee", f"/etc/ssh/sshd-{port}"], input="\n".join(lines) + "\n" + base, check=True)
        self.sh(f"/usr/sbin/sshd -f /etc/ssh/sshd-{port} -E /var/log/sshd-{port}.log", host)
        # it becomes a daemon before it listens, and writes the file after that
        self.sh(f"for i in $(seq 100); do [ -s /run/sshd-{port}.pid ] && exit; sleep 0.05; done; exit 1", host)

    def reset(self) -> None:
        """The hosts as every test finds them."""
        for fleet in self.fleets:
            fleet.close()
        self.fleets.clear()
        for node in self.lab.nodes:
            self.lab.plug(node.name)
            self.cut(node.name)
            self.sh(
                "for f in /run/sshd-*.pid; do [ ! -e $f ] || { kill $(cat $f); rm $f; }; done; "
                f"[ ! -e {RUN_DIR}/lock ] || flock -w 60 {RUN_DIR}/lock true; "
                f"rm -rf {RUN_DIR} /var/lib/etcd-runbook.lock /root/t; mkdir -p -m 700 {RUN_DIR} /root/t",
                node.name,
            )


def ask(text: str, timeout: float = 20.0) -> Command:
    return Command(("sh", "-c", text), timeout=timeout, changes=False)


def do(text: str, timeout: float = 20.0, **how: Any) -> Command:
    return Command(("sh", "-c", text), timeout=timeout, **how)


@contextlib.contextmanager
def meanwhile(seconds: float, *deeds: Callable[[], object]) -> Iterator[None]:
    """While the body runs, wait so long, then do the deeds; what they raise fails the test."""
    failures: list[BaseException] = []

    def work() -> None:
        time.sleep(seconds)
        try:
            for deed in deeds:
                deed()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(60)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def operator(lab: Lab) -> Iterator[None]:
    """Move this thread into the operator's network, and back again."""
    keep, leave = threading.Event(), threading.Event()
    stayed: list[int] = []

    def stay() -> None:
        stayed.append(threading.get_native_id())
        keep.set()
        leave.wait()

    thread = threading.Thread(target=stay, daemon=True)
    thread.start()
    keep.wait()
    lab.enter_operator()
    try:
        yield
    finally:
        kernel.setns(stayed[0], net=kernel.CLONE_NEWNET)
        leave.set()
        thread.join()


@pytest.fixture(scope="module")
def quiet_lab() -> Iterator[Lab]:
    """Three hosts that run nothing but sshd."""
    lab = Lab.up(f"hosts-{os.getpid()}", wait=0)
    try:
        for node in lab.nodes:
            lab.exec(node.name, ["systemctl", "stop", "kubelet"], check=True)
            lab.exec(node.name, ["sh", "-c", "rm -f /etc/kubernetes/manifests/*"], check=True)
        yield lab
    finally:
        lab.down()


@pytest.fixture
def bench(quiet_lab: Lab) -> Iterator[Bench]:
    """The lab, clean, with this test's thread in the operator's network."""
    made = Bench(quiet_lab)
    made.reset()
    with operator(quiet_lab):
        try:
            yield made
        finally:
            made.reset()

"""What does not come up after a restore tells why, in the message of the halt: etcd and the API server, on the lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.lab import Lab
from tests.lab.conftest import NAME
from tests.lab.kit import Desk
from tests.lab.proofkit import sh
from tests.lab.test_restore import ends

pytestmark = pytest.mark.lab

PKI = "/etc/kubernetes/pki"
FORGET = "crictl rm $(crictl ps -a -q --state exited --label io.kubernetes.container.name=etcd)"


@pytest.fixture(scope="module")
def node() -> Iterator[Lab]:
    """A lab of one node."""
    lab = Lab.up(f"{NAME}-words", nodes=1)
    try:
        lab.fill(objects=10)
        yield lab
    finally:
        lab.down()


@pytest.fixture
def desk(node: Lab, tmp_path: Path) -> Desk:
    """A snapshot, and a plan with little patience."""
    desk = Desk(node, tmp_path)
    desk.take_snapshot()
    desk.write_plan(timeouts={"quorum": "15s", "apiServer": "15s"})
    return desk


def halted(desk: Desk) -> str:
    """What a resume says, that halts; what it says of a container's end stands in the journal too."""
    run = desk.lines()[0]["run"]
    told = desk.runbook("resume", run, code=4).stderr
    assert "that ended did so" in told
    assert any("that ended did so" in str(line.get("saw")) for line in desk.lines())
    assert "that ended did so" in str(desk.status()["hosts"])
    return told


def test_an_etcd_in_a_crash_loop_and_then_an_api_server(desk: Desk) -> None:
    """A certificate of etcd's that went away after the checks, and once it is back, one of the API server's."""
    desk.kill_at(("run", desk.plan, "--yes"), ends("RestoreAside"))
    sh(desk.lab, "m1", f"mv {PKI}/etcd/peer.crt /root")
    told = halted(desk)
    assert "no container etcd runs; the last container etcd that ended did so with exit code " in told
    assert "; its last words: fatal: " in told
    assert f"open {PKI}/etcd/peer.crt: no such file or directory" in told.partition("its last words")[2]
    assert " restart" in told
    assert "stacktrace" not in told
    # The kubelet waits longer and longer after a container's end, as long as it sees the container.
    sh(desk.lab, "m1", f"mv /root/peer.crt {PKI}/etcd; mv {PKI}/apiserver.crt /root; {FORGET}")
    told = halted(desk)
    assert "no container kube-apiserver runs; the last container kube-apiserver that ended did so with" in told
    assert "apiserver.crt" in told.partition("its last words")[2]
    sh(desk.lab, "m1", f"mv /root/apiserver.crt {PKI}")
    desk.runbook("rollback", "--discard-writes")
    assert desk.get("m1", "era") == "lost"

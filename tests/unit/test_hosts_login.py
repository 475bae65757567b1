"""What is said of a host that cannot be logged in to, and what a person is told to type."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.hosts.address import Address
from runbook.hosts.login import Unreachable, open_hop
from runbook.plan import Node, Plan, Snapshot
from runbook.step import Binding, Target


def target(snapshot: str = "") -> Target:
    """A host of a plan, or of the command line where there is no snapshot."""
    node = Node("m1", "nosuchhost", (), ())
    return Target(Plan("p", Snapshot(snapshot, Path("/")), (node,)), Binding(), node)


@pytest.fixture
def nameless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No name is known here; a known_hosts file that is empty."""

    def unknown(*_: object, **__: object) -> socket.socket:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "known_hosts").touch()
    return tmp_path / "known_hosts"


@pytest.mark.parametrize(
    ("snapshot", "hop", "check"),
    [
        ("", "", "check --host, and the name service"),
        ("file:///x.db", "", "check `host` in the plan, and the name service"),
        ("", "ann@bastion", "check --jump, and the name service"),
        ("file:///x.db", "ann@bastion", "check `jump` in the plan, and the name service"),
    ],
)
def test_a_name_that_nobody_knows_is_checked_where_it_was_written(
    nameless: Path, snapshot: str, hop: str, check: str
) -> None:
    address = replace(Address.of(target(snapshot)), known_hosts_file=str(nameless), jump=hop)
    with pytest.raises(Unreachable, match="the name is not known") as caught:
        open_hop(address.hop(hop) if hop else address, None, time.monotonic() + 1, lambda _: None)
    assert check in str(caught.value)


def test_the_way_through_the_ssh_configuration_is_its_own() -> None:
    assert Address.of(target()).hop("bastion").named_by == "`ProxyJump` in ~/.ssh/config"


def test_a_sender_process_is_told_it_too() -> None:
    address = Address.of(target())
    assert Address.from_json(address.to_json()) == address

"""The parallel part, without SSH: deadlines, what follows an unknown result, and who is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.hosts import Fleet, connect, connection, errands
from runbook.hosts.address import Address
from runbook.hosts.connection import Link
from runbook.hosts.login import Again, Unreachable
from runbook.plan import Node, Plan, Snapshot
from runbook.step import Action, Binding, Command, Result, Target
from runbook.transport import Claim

SHOULD_RUN = Command(("true",))


class Quiet:
    def begins(self, host: str, key: str, action: Action) -> None:
        pass

    def lost(self, host: str, key: str, why: str) -> None:
        """It is looked for."""

    def ended(self, host: str, key: str, action: Action, result: Result) -> None:
        pass


def fleet(*names: str) -> Fleet:
    nodes = tuple(Node(name, name, (f"https://{name}:2380",), ()) for name in names)
    plan = Plan("prod", Snapshot("x", Path("x")), nodes)
    return connect([Target(plan, Binding(run="prod-1"), node) for node in nodes], Claim(7))


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What errands would have sent; every one of them ends as unknown."""
    sent: list[str] = []

    def run(self: errands.Errand, script: Callable[[str], bytes], where: str, stream: object = None) -> Result:
        sent.append(script("ab" * 16).decode())
        return Result(None, err="lost")

    monkeypatch.setattr(errands.Errand, "run", run)
    return sent


def test_a_start_nobody_heard_of_is_barred_by_whatever_comes_next(scripts: list[str]) -> None:
    hosts = fleet("m1", "m2")
    assert hosts.act({"m1": [SHOULD_RUN]}, "first", Quiet())["m1"].unknown
    assert "first.0" in scripts[0]
    hosts.settle(["m1", "m2"], 1)
    hosts.act({"m1": [SHOULD_RUN]}, "second", Quiet())
    hosts.settle(["m1"], 1)
    barred = [("first.0" in s, "second.0" in s) for s in scripts[1:]]
    assert sorted(barred[:2]) == [(False, False), (True, False)], "m1 only"
    assert barred[2:] == [(True, True), (True, True)]


def test_a_host_whose_thread_is_stuck_is_cut_off_and_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    free, cut = threading.Event(), threading.Event()

    def ask(link: Link, commands: object) -> tuple[Result, ...]:
        if link.address.name == "m1":
            link.expires = time.monotonic() + 0.5
            free.wait(20)
        return (Result(0),)

    monkeypatch.setattr(errands, "ask", ask)
    monkeypatch.setattr(Link, "drop", lambda self: cut.set())
    hosts = fleet("m1", "m2")
    begun = time.monotonic()
    answers = hosts.ask({"m1": [SHOULD_RUN], "m2": [SHOULD_RUN]})
    assert time.monotonic() - begun < 8
    assert (answers["m1"][0].unknown, answers["m2"][0].ok, cut.is_set()) == (True, True, True)
    assert "m1 (m1:22): no answer before its deadline" in answers["m1"][0].err
    free.set()


def test_nothing_to_do_needs_no_connection() -> None:
    hosts = fleet("m1")
    assert hosts.ask({"m1": []}) == {"m1": ()}
    assert hosts.act({"m1": []}, "k", Quiet()) == {"m1": Result(0)}
    hosts.close()


def test_a_key_that_names_no_file_is_the_callers_error() -> None:
    with pytest.raises(ValueError, match="cannot name"):
        fleet("m1").act({"m1": [SHOULD_RUN]}, "../k", Quiet())


@pytest.mark.parametrize("again", [Again.LATER, Again.NEVER])
def test_what_failed_ahead_some_time_ago_is_tried_once_more(monkeypatch: pytest.MonkeyPatch, again: Again) -> None:
    """A host that was starting then may be up now; a refused key stays refused."""
    dialed: list[str] = []

    def dial(self: Link) -> None:
        dialed.append(self.address.name)
        raise Unreachable(f"attempt {len(dialed)}", again)

    monkeypatch.setattr(Link, "_dial", dial)
    address = Address("m1", "m1")
    connection.dial(address)
    link = connection.link_to(address)
    assert connection.link_to(address) is not link, "it is given once"
    while not (link._begun and link._begun.done()):
        time.sleep(0.01)
    with pytest.raises(Unreachable, match="attempt 2" if again is Again.LATER else "attempt 1"):
        link.channel()


def test_a_link_that_is_cut_while_it_is_dialed_is_not_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    going, cut = threading.Event(), threading.Event()

    def dial(self: Link) -> None:
        going.set()
        cut.wait(10)
        self._sockets.append(ours)

    ours, theirs = socket.socketpair()
    monkeypatch.setattr(Link, "_dial", dial)
    link = Link(Address("m1", "m1"))
    link.dial()
    assert going.wait(5)
    link.drop()
    cut.set()
    theirs.settimeout(5)
    assert theirs.recv(1) == b""
    ours.close()
    theirs.close()


def test_a_connection_that_is_reset_while_it_is_made_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose cable was put in again does that once (seen on the lab); one that refuses is not asked again."""
    attempts: list[object] = []

    def connect(where: object, timeout: float) -> socket.socket:
        attempts.append(where)
        raise (
            ConnectionResetError(104, "Connection reset by peer")
            if len(attempts) < 3
            else ConnectionRefusedError(111, "Connection refused")
        )

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Unreachable, match="Connection refused"):
        Link(Address("m1", "127.0.0.1", known_hosts_file="/dev/null")).channel()
    assert len(attempts) == 3

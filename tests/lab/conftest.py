"""The lab for tests: each session its own, by name, so that nobody's lab is disturbed and no process survives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runbook.lab import Lab
from runbook.lab.layout import Host

NAME = f"test-{os.getpid()}"


def eventually(what: str, holds: Callable[[], object], within: float = 30.0, every: float = 0.1) -> None:
    """Wait until it holds; fail, saying what, where it does not."""
    limit = time.monotonic() + within
    while not holds():
        assert time.monotonic() < limit, f"after {within:g} s still not: {what}"
        time.sleep(every)


def make_whole(lab: Lab) -> None:
    """Bring a lab back to health: power, cables, kubelets; what a test changed beyond that, it puts back itself."""
    for host in lab.hosts:
        if lab.host_pid(host.name) is None:
            lab.boot(host.name)
        lab.plug(host.name)
        lab.exec(host.name, ["systemctl", "start", "kubelet"], check=True)
    lab.wait_healthy(60)


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """Three nodes, for the whole session. Without root or tools it fails, and says what is missing."""
    lab = Lab.up(NAME, nodes=3)
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """The session's lab, healthy before the test and made whole after it."""
    make_whole(shared_lab)
    yield shared_lab
    make_whole(shared_lab)


@pytest.fixture
def m1(lab: Lab) -> Host:
    """The first node."""
    return lab.nodes[0]


@pytest.fixture
def fresh_lab() -> Iterator[Callable[..., Lab]]:
    """A factory of labs of the test's own: `fresh_lab(nodes=1, …)`; all are taken away after the test."""
    made: list[Lab] = []

    def up(**options: Any) -> Lab:
        lab = Lab.up(f"{NAME}-{len(made) + 1}", **options)
        made.append(lab)
        return lab

    yield up
    for index in range(len(made) + 1):
        Lab(f"{NAME}-{index + 1}").down()

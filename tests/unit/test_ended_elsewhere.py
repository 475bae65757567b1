"""An old machine wakes up after another one has taken its run over, ended it, and removed all that would tell."""

from __future__ import annotations

import copy

import pytest

from runbook import judging, situation, status
from runbook.errors import Halted, Held
from runbook.replay import replay
from tests.fake.hosts import Fuse
from tests.fake.sessions import RUN, Life, plan
from tests.fake.sweep import no_checks
from tests.fake.world import FakeHost

MOMENTS = [150, 300, 450, 600]


@pytest.fixture(autouse=True)
def _no_checks() -> None:
    no_checks()


def removed(host: FakeHost) -> None:
    """The run's directory, by hand."""
    for _ in host.program(["rm", "-rf", "--", f"{host.node.paths.workspace}/{RUN}"], [], []):
        pass


def ended(life: Life) -> None:
    """What the engine left running on the hosts has come to its end."""
    for job in life.world.jobs.values():
        while not job.over:
            job.step()


def woken(at: int, how: str) -> Life:
    """A life whose journal is of that moment, and whose hosts another machine has been through to the end."""
    life = Life(plan())
    life.session("forward", Fuse(at))
    old = copy.deepcopy(life.lines)
    ended(life)
    assert life.session(how) == {"forward": "complete", "backward": "rolled-back"}[how]
    if not replay(life.lines).closed:
        life.session("finish")
    assert replay(life.lines).closed
    life.world.finishing = False
    life.lines[:] = old
    return life


@pytest.mark.parametrize("at", MOMENTS)
@pytest.mark.parametrize("how", ["forward", "backward"])
@pytest.mark.parametrize("what", ["forward", "backward"])
def test_an_old_machine_changes_nothing_any_more(at: int, how: str, what: str) -> None:
    life = woken(at, how)
    before, state = life.tree(), life.state
    life.session(what)
    assert isinstance(life.error, Held), life.error
    assert "was ended without this machine" in life.error.message
    assert life.tree() == before
    past = replay(life.lines)
    assert (past.closed, past.elsewhere, past.state) == (True, True, state)
    assert "on another machine" in situation.meaning(past)
    assert judging.resume(past, RUN)
    assert judging.rollback(past, RUN, discard=True)
    assert judging.finish(past, RUN, accept=True)
    shown = status.document(life.lines, past, None)
    assert status.shown_state(shown) == f"{state} when ended elsewhere"


def test_where_only_the_directory_is_gone_nothing_is_guessed() -> None:
    """As after a host was set up anew, or a directory removed by hand: the old data beside is somebody's way back."""
    life = Life(plan())
    life.session("forward", Fuse(600))
    ended(life)
    for host in life.world.hosts.values():
        removed(host)
    before = life.tree()
    life.session("forward")
    assert isinstance(life.error, Halted), life.error
    assert "the directory of" in life.error.message
    assert ".restored" in life.error.message or ".old" in life.error.message
    assert life.tree() == before
    assert not replay(life.lines).closed


def test_where_one_host_lost_its_directory_the_others_can_go_on_without_it() -> None:
    life = Life(plan())
    life.session("forward", Fuse(450))
    removed(life.world.hosts["m2"])
    life.session("forward")
    assert isinstance(life.error, Halted), life.error
    assert "is gone from m2" in life.error.message
    past = replay([{**life.lines[0], "event": "run", "run": RUN, "nodes": ["m1", "m2", "m3"]}, *life.lines])
    told = situation.half_gone(past, RUN, ["m2"])
    assert any(f"runbook resume {RUN} --without m2" in line for line in told["next"])

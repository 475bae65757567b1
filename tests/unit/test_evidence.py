"""A journal that lacks its end, made whole from the hosts' own records: then it can be gone on with, and gone back."""

from __future__ import annotations

from functools import cache

import pytest

from runbook import evidence
from runbook.facts import told_by
from runbook.journal import Line
from runbook.procedures import kubeadm
from runbook.replay import replay
from tests.fake.hosts import Fuse
from tests.fake.sessions import Life, plan
from tests.fake.world import FakeHost

ORDER = [s.id() for s in kubeadm.STEPS]
LOST = ("StopEtcd", "SwapData", "StartEtcd", "StartApiServers", "StartControllers")
KNOWN = ("RestoreAside", "StopControllers", "StopEtcd")
PAIRS = [(known, lost) for known in KNOWN for lost in LOST if ORDER.index(known) < ORDER.index(lost)]


@pytest.fixture(autouse=True)
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have tests of their own; the fake answers only what the steps ask."""
    monkeypatch.setattr("runbook.hands.inspect", lambda *_args, **_kwargs: [])


def keys(lines: list[Line]) -> dict[str, list[str]]:
    """What the hosts have recorded of their commands; each was announced by a line."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line["event"] == "begin":
            found.setdefault(line["host"], []).append(line["key"])
    return found


def cut(life: Life, step: str, to: str = "DONE") -> None:
    """The journal ends where that step had come so far: what came after is lost, but for what the hosts recorded."""
    recorded = keys(life.lines)
    end = next(i for i, line in enumerate(life.lines) if line.get("step") == step and line.get("to") == to)
    epoch = life.lines[-1]["epoch"]
    del life.lines[end + 1 :]
    past = replay(life.lines)
    for line in evidence.lines(evidence.gather(recorded, past, kubeadm.STEPS), past, kubeadm.STEPS):
        plain = {**life.lines[-1], "event": line.event, "epoch": epoch, **line.fields}
        life.lines.append(
            {**plain, "step": line.step} if line.step else {k: v for k, v in plain.items() if k != "step"}
        )
    for line in evidence.records(recorded, replay(life.lines)):
        plain = {**life.lines[-1], "event": line.event, "epoch": epoch + 1, **line.fields}
        life.lines.append({**plain, "step": line.step, "host": line.host})


class Marks(Fuse):
    """Notes the moment at which each step's first command was announced."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self.life = life
        self.at_step: dict[str, int] = {}

    def burn(self, host: FakeHost | None = None) -> bool:
        line = self.life.lines[-1]
        if line["event"] == "begin":
            self.at_step.setdefault(line["step"], self.count)
        return super().burn(host)


@cache
def moments() -> dict[str, int]:
    """By step, of an undisturbed run."""
    life = Life(plan())
    marks = Marks(life)
    life.session("forward", marks)
    return marks.at_step


def crashed(at: str) -> Life:
    """A run whose engine dies soon after that step was begun; what it left running on the hosts has ended since."""
    fuse = Fuse(moments()[at] + 12)
    life = Life(plan())
    assert life.session("forward", fuse) == "killed"
    for job in life.world.jobs.values():
        while not job.over:
            job.step()
    life.world.jobs.clear()
    return life


@pytest.mark.parametrize("then", ["forward", "backward"])
@pytest.mark.parametrize(("known", "lost"), PAIRS)
def test_a_run_whose_journal_lost_its_end(known: str, lost: str, then: str) -> None:
    life = crashed(lost)
    recorded = {key.partition(".")[0] for begun in keys(life.lines).values() for key in begun}
    cut(life, known)
    past = replay(life.lines)
    newest = max(recorded, key=ORDER.index)
    assert past.begun(newest)
    assert past.served == ("StartApiServers" in recorded)
    assert life.session(then) == ("complete" if then == "forward" else "rolled-back")
    assert life.faults(restored=then == "forward") == []


@pytest.mark.parametrize("known", ["RestoreAside", "StopControllers"])
def test_the_outage_is_known_that_began_with_a_journals_last_line(known: str) -> None:
    """The copies on the hosts end where a step is about to begin: with its first command the outage does."""
    life = crashed("StopControllers")
    hosts = [name for name, recorded in keys(life.lines).items() if any("StopControllers" in key for key in recorded)]
    cut(life, known, "ACTING" if known == "StopControllers" else "DONE")
    past = replay(life.lines)
    assert past.in_outage
    told = told_by(life.lines, past)
    assert all("the controllers were told to stop (not proven)" in told[host] for host in hosts)
    assert life.session("forward") == "complete"
    past = replay(life.lines)
    assert len(past.outages) == 1
    assert not past.in_outage


def test_what_is_announced_already_is_not_recorded_again() -> None:
    life = crashed("StopControllers")
    assert evidence.records(keys(life.lines), replay(life.lines)) == []


def test_a_rollback_that_the_journal_does_not_know_is_gone_on_with() -> None:
    life = Life(plan())
    life.session("forward")
    life.session("backward", Fuse(150))
    assert replay(life.lines).state == "rolling-back"
    assert any(line["event"] == "begin" and ".undo." in line["key"] for line in life.lines)
    life.world.jobs.clear()
    cut(life, "StopEtcd")
    assert replay(life.lines).state == "rolling-back"
    assert life.session("backward") == "rolled-back"
    assert life.faults(restored=False) == []


def test_a_journal_that_knows_all_gets_nothing() -> None:
    life = Life(plan())
    life.session("forward")
    life.session("backward")
    past = replay(life.lines)
    assert evidence.lines(evidence.gather(keys(life.lines), past, kubeadm.STEPS), past, kubeadm.STEPS) == []
    for moment in range(0, 900, 90):
        life = Life(plan())
        life.session("forward", Fuse(moment))
        past = replay(life.lines)
        told = evidence.gather(keys(life.lines), past, kubeadm.STEPS)
        assert (told.told(), evidence.lines(told, past, kubeadm.STEPS)) == ([], [])


@pytest.mark.parametrize("then", ["forward", "backward"])
@pytest.mark.parametrize("known", ["StopControllers", "StopApiServers", "StopEtcd", "SwapData", "StartEtcd"])
def test_what_an_engine_elsewhere_has_begun_is_learned_when_the_hosts_are_claimed(known: str, then: str) -> None:
    """An adoption that did not reach all hosts keeps nobody from going on with the others."""
    marks = Marks(Life(plan()))
    marks.life.session("forward", marks)
    newer = ORDER[ORDER.index(known) + 1]
    life = Life(plan())
    life.session("forward", Fuse(marks.at_step[newer] + 4))
    end = next(i for i, line in enumerate(life.lines) if line.get("step") == known and line.get("to") == "DONE")
    del life.lines[end + 1 :]
    first = life.session(then)
    assert first.startswith("Halted: ")
    assert f"{newer} was begun there, and the journal did not know it; now it does" in first
    assert replay(life.lines).begun(newer)
    assert life.session(then) == ("complete" if then == "forward" else "rolled-back")
    assert life.faults(restored=then == "forward") == []


def test_a_finish_that_learns_of_a_step_removes_nothing_and_leaves_the_way_back() -> None:
    life = Life(plan())
    life.session("forward")
    life.session("backward")
    assert life.state == "rolled-back"
    life.lines[:] = [line for line in life.lines if line.get("step") != "SwapData"]
    assert "SwapData was begun" in life.session("finish")
    past = replay(life.lines)
    assert (past.state, past.finishing, past.closed) == ("stuck", False, False)
    assert life.session("backward") == "rolled-back"
    assert life.faults(restored=False) == []

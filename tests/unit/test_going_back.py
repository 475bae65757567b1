"""Going back: what is discarded is saved first, who cannot go on is told what to type, no way back is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runbook import status
from runbook.errors import Halted, Refused
from runbook.procedures.byhand import by_hand, put_back
from runbook.procedures.proof import same_data_everywhere
from runbook.replay import replay
from runbook.step import Result, Target
from tests.fake.hosts import Fuse
from tests.fake.sessions import BOUND, RUN, Life, plan
from tests.fake.shell import Step
from tests.fake.sweep import no_checks
from tests.fake.world import FakeHost

RUN_DIR = f"/var/lib/etcd-runbook/{RUN}"
DATA = "/var/lib/etcd"


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    """Three hosts, before the run; the checks, which the fake does not answer, find nothing."""
    import runbook.hands

    monkeypatch.setitem(vars(runbook.hands), "inspect", vars(runbook.hands)["inspect"])
    no_checks()
    return Life(plan())


def test_discarded_writes_are_saved_on_the_first_node(life: Life) -> None:
    assert life.session("forward") == "complete"
    assert life.session("backward") == "rolled-back"
    kept = {name: host.read(f"{RUN_DIR}/discarded.db") for name, host in life.world.hosts.items()}
    assert kept == {"m1": f"snapshot of restored {RUN}", "m2": None, "m3": None}
    assert life.faults(restored=False) == []
    assert life.after_finish() == []


def swapped(life: Life) -> FakeHost:
    """An engine killed when the swap was done everywhere; the second host."""

    class Cut(Fuse):
        def burn(self, host: FakeHost | None = None) -> bool:
            last = life.lines[-1] if life.lines else {}
            if last.get("step") == "SwapData" and last.get("to") == "DONE":
                self.at = self.count
            return super().burn(host)

    assert life.session("forward", Cut()) == "killed"
    return life.world.hosts["m2"]


def test_nothing_is_saved_where_no_api_server_was_started(life: Life) -> None:
    swapped(life)
    assert life.session("backward") == "rolled-back"
    assert not any(host.exists(f"{RUN_DIR}/discarded.db") for host in life.world.hosts.values())


def test_no_way_back_without_the_old_data(life: Life) -> None:
    m2 = swapped(life)
    old = f"{DATA}/.{RUN}.old/member"
    before = {name: dict(tree) for name, tree in life.tree().items()}
    for path in [p for p in m2.nodes if p == old or p.startswith(f"{old}/")]:
        del m2.nodes[path]
    said = life.session("backward")
    assert said.startswith(f"Halted: {RUN} cannot be rolled back now: m2: the old data that was at")
    assert "put it back there" in said
    assert isinstance(life.error, Halted)
    n = Target(life.plan, BOUND, life.plan.node("m2"))
    assert life.error.by_hand == ("as root on m2:", *put_back(n))
    assert f"mv -T /WHERE/IT/IS/member {old}" in str(life.error)
    assert "nothing was changed just now" in life.error.true
    assert life.error.next[0] == f"runbook rollback {RUN}   # once the old data is there again on m2"
    after = life.tree()
    assert {h: after[h] for h in ("m1", "m3")} == {h: before[h] for h in ("m1", "m3")}


def test_a_later_runs_data_on_one_host_is_told_before_lost_data_on_another(life: Life) -> None:
    """That stays a refusal: nothing that anybody types here may touch the later run's data."""
    m2 = swapped(life)
    old = f"{DATA}/.{RUN}.old/member"
    for path in [p for p in m2.nodes if p == old or p.startswith(f"{old}/")]:
        del m2.nodes[path]
    m3 = life.world.hosts["m3"]
    m3.nodes[f"{DATA}/member"] = replace(m3.nodes[f"{DATA}/member"], inode=10**9)
    assert life.session("backward").startswith("Refused: ")
    assert isinstance(life.error, Refused)
    assert not life.error.by_hand


def busy(argv: list[str], out: list[str], err: list[str]) -> Step:
    """A rename that is refused."""
    yield from ()
    err.append("mv: Device or resource busy\n")
    return 1


def test_a_rollback_that_is_stuck_prints_the_card(life: Life) -> None:
    m2 = swapped(life)
    m2.own_programs["mv"] = m2.programs["mv"] = busy
    assert life.session("backward").startswith("Halted: stuck while rolling back: Swap the data")
    assert life.error is not None
    n = Target(life.plan, BOUND, life.plan.node("m2"))
    assert life.error.by_hand == ("as root on m2:", *by_hand(n))
    assert f"By hand:       as root on m2:\n               if ls {RUN_DIR}/manifests/etcd.yaml " in str(life.error)
    assert f"mv -T {DATA}/.{RUN}.old/member {DATA}/member" in str(life.error)
    past = replay(life.lines)
    told = status.text(status.document(life.lines, past), past)
    assert all(line in told for line in life.error.by_hand), "whoever comes later sees it too"
    del m2.own_programs["mv"]
    m2.programs["mv"] = m2._mv
    assert life.session("backward") == "rolled-back"
    assert replay(life.lines).by_hand == ()


def test_authentication_in_the_snapshot_is_named() -> None:
    n = Target(plan(), BOUND, plan().nodes[0])
    for why in ("etcdserver: permission denied", "rpc error: code = Unknown desc = auth: user not found"):
        for question in same_data_everywhere(n).questions:
            said = question.judge(Result(1, err=f'{{"level":"warn"}}\nError: {why}\n'))
            assert "`etcdctl --user root auth disable`, then resume" in said

"""Status: where a run stands, what is true on each host, and what to type next."""

import json
from typing import Any

import pytest

from runbook import status
from runbook.journal import Line
from runbook.procedures import kubeadm
from runbook.replay import replay
from runbook.step import Scope
from tests.fake.hosts import Fuse
from tests.fake.sessions import RUN, Life, plan

HEADER: dict[str, Any] = {"run": RUN, "plan": "fake", "ticket": "", "nodes": ["m1", "m2", "m3"], "workers": ["w1"]}
KEYS = {"run", "state", "step", "outage_seconds", "hosts", "absent", "next"} | {"plan", "why", "closed", "halted_from"}


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_a, **_k: [])


def line(event: str, **more: Any) -> Line:
    return {"seq": 1, "at": "2026-04-09T14:00:00.000000Z", "epoch": 1, "event": event, **more}


def step(name: str, to: str, saw: dict[str, str]) -> Line:
    return line("step", step=name, to=to, trigger="proceed", saw=saw, **{"from": "PENDING"})


def begun() -> Life:
    life = Life(plan(3))
    life.lines.append(line("run", **HEADER))
    return life


def document(lines: list[Line]) -> dict[str, Any]:
    made = status.document(lines, replay(lines), None)
    assert json.loads(json.dumps(made)) == made
    assert set(made) >= KEYS
    return made


def test_a_run_that_is_complete() -> None:
    life = begun()
    life.session("forward")
    for number, one in enumerate(life.lines):  # the fake's clock stands still
        one["at"] = f"2026-04-09T14:{number // 60:02}:{number % 60:02}.000000Z"
    made = document(life.lines)
    assert (made["run"], made["plan"], made["state"], made["step"]) == (RUN, "fake", "complete", "VerifyCluster")
    assert made["outage_seconds"] > 0
    assert not made["outage_running"]
    assert made["absent"] == []
    assert made["hosts"]["m1"] == status.AFTER["VerifyCluster"]
    assert made["hosts"]["w1"] == status.UNTOUCHED
    assert made["next"][1] == f"runbook finish {RUN}"
    assert status.document(life.lines, replay(life.lines), {"m1": "asked just now"})["hosts"] == {
        "m1": "asked just now"
    }


def test_every_moment_of_every_fate_has_a_status() -> None:
    for kind in ("engine", "silent", "power"):
        for at in range(0, 900, 61):
            life = begun()
            life.session("forward", Fuse(at, kind))
            text = status.text(document(life.lines))
            assert text.splitlines()[0].split() == ["run", RUN]
            assert "next" in text
            assert all(c.isprintable() or c == "\n" for c in text)


def test_a_halted_run_says_from_where_and_on_which_host() -> None:
    for at in range(150, 2000, 7):
        life = begun()
        life.session("forward", Fuse(at, "silent"))
        if life.state == "halted" and replay(life.lines).current == "StopEtcd":
            break
    made = document(life.lines)
    assert made["state"] == "halted"
    assert made["halted_from"] == "outage"
    assert made["outage_running"]
    assert any("unknown" in said or "nobody knows" in said for said in made["hosts"].values())
    text = status.text(made)
    assert "halted (from outage): " in text
    assert "still going on" in text
    assert f"runbook resume {RUN}" in text
    assert "API is down" in made["means"]


def test_a_rolled_back_run() -> None:
    life = begun()
    life.session("forward")
    life.session("backward")
    made = document(life.lines)
    assert made["state"] == "rolled-back"
    assert {made["hosts"][n] for n in ("m1", "m2", "m3")} == {"old data and services as before the run"}


def test_what_is_true_follows_step_by_step() -> None:
    lines = [line("run", **HEADER), step("SwapData", "ACTING", {"m1": "yes", "m2": "ready", "m3": "ready"})]
    facts = document(lines)["hosts"]
    assert facts["m1"] == status.AFTER["SwapData"]
    assert facts["m2"] == status.UNTOUCHED
    lines.append(line("begin", step="SwapData", host="m2", key="k"))
    assert "a command was begun at 2026" in document(lines)["hosts"]["m2"]
    lines.append(line("end", step="SwapData", host="m2", key="k", code=1, said="No space left"))
    assert document(lines)["hosts"]["m2"].endswith("SwapData: a command failed: No space left")
    lines.append(line("end", step="SwapData", host="m3", key="k", code=None))
    assert document(lines)["hosts"]["m3"].endswith("nobody knows how its command ended")
    lines.append(step("SwapData", "FAILED", {"m1": "yes", "m2": "no: full", "m3": "yes"}))
    facts = document(lines)["hosts"]
    assert facts["m2"] == f"{status.UNTOUCHED}; SwapData: no: full"
    assert facts["m3"] == status.AFTER["SwapData"]
    lines.append(step("SwapData", "UNDONE", {"m1": "yes", "m2": "yes", "m3": "yes"}))
    assert document(lines)["hosts"]["m1"] == status.AFTER["StopEtcd"]
    lines.append(line("closed"))
    assert document(lines)["hosts"]["m1"] == "nothing of this run is left here"


def test_every_step_has_its_words() -> None:
    assert list(status.AFTER) == [s.id() for s in kubeadm.STEPS]
    assert status.before("RestartKubelets") == status.AFTER["StartControllers"]
    assert status.before("VerifyCluster") == status.AFTER["RestartKubelets"]
    assert "undone" in status.before("RestartWorkerKubelets")
    assert [s.id() for s in kubeadm.STEPS if s.on is Scope.WORKERS] == ["RestartWorkerKubelets"]


def test_a_journal_without_a_line() -> None:
    made = document([])
    assert made["state"] == "planned"
    assert made["hosts"] == {}
    assert status.text(made)


def test_hostile_words_stay_words() -> None:
    nasty = "\x1b[2Jx\ny\u202e"
    lines = [
        line("run", **{**HEADER, "ticket": nasty}),
        step("SwapData", "FAILED", {"m1": f"no: {nasty}"}),
        {**line("state", to="halted", why=nasty), "from": "outage"},
    ]
    text = status.text(document(lines))
    table = status.runs_table([document(lines)])
    assert all(c.isprintable() or c == "\n" for c in text + table)
    assert len(table.splitlines()) == 2


def test_the_table_of_runs() -> None:
    life = begun()
    life.session("forward")
    broken = {**status.document([], replay([]), None), "run": "other-1", "why": "journal.jsonl:3: damaged"}
    closed = document([line("run", **HEADER), line("closed")])
    rows = status.runs_table([document(life.lines), broken, closed]).splitlines()
    assert rows[0].split()[:4] == ["RUN", "STATE", "STEP", "OUTAGE"]
    assert rows[1].split()[:3] == [RUN, "complete", "VerifyCluster"]
    assert "journal.jsonl:3: damaged" in rows[2]
    assert "planned, closed" in rows[3]
    assert len({row.index(word) for row, word in zip(rows[:2], ("STATE", "complete"), strict=True)}) == 1
    assert status.runs_table([]).startswith("RUN")

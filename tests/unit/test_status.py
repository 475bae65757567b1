"""Status: where a run stands, what is true on each host, and what to type next."""

import json
from typing import Any

import pytest

from runbook import facts, status
from runbook.journal import Line
from runbook.procedures import kubeadm
from runbook.replay import replay
from runbook.runs import AtWork
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


def shown(lines: list[Line], made: dict[str, Any] | None = None) -> str:
    return status.text(made or document(lines), replay(lines))


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
    assert made["hosts"]["m1"] == facts.AFTER["VerifyCluster"]
    assert made["hosts"]["w1"] == facts.UNTOUCHED
    assert made["next"][1] == f"runbook finish {RUN}"
    assert status.document(life.lines, replay(life.lines), {"m1": "asked just now"})["hosts"] == {
        "m1": "asked just now"
    }


def test_every_moment_of_every_fate_has_a_status() -> None:
    for kind in ("engine", "silent", "power"):
        for at in range(0, 900, 61):
            life = begun()
            life.session("forward", Fuse(at, kind))
            text = shown(life.lines)
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
    assert any("no answer" in said or "nobody knows" in said for said in made["hosts"].values())
    assert len(made["silent"]) == 1
    text = shown(life.lines, made)
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
    said = document(lines)["hosts"]
    assert said["m1"] == facts.AFTER["SwapData"]
    assert said["m2"] == facts.UNTOUCHED
    lines.append(line("begin", step="SwapData", host="m2", key="k"))
    assert "a command was begun at 2026" in document(lines)["hosts"]["m2"]
    lines.append(line("end", step="SwapData", host="m2", key="k", code=1, said="No space left"))
    assert document(lines)["hosts"]["m2"].endswith("SwapData: a command failed: No space left")
    lines.append(line("end", step="SwapData", host="m3", key="k", code=None))
    assert document(lines)["hosts"]["m3"].endswith("nobody knows how its command ended")
    lines.append(step("SwapData", "FAILED", {"m1": "yes", "m2": "no: full", "m3": "yes"}))
    said = document(lines)["hosts"]
    assert said["m2"] == f"{facts.UNTOUCHED}; since then the swap was begun (not proven); SwapData: full"
    assert said["m3"] == facts.AFTER["SwapData"]
    lines.append(step("SwapData", "UNDONE", {"m1": "yes", "m2": "yes", "m3": "yes"}))
    assert document(lines)["hosts"]["m1"] == facts.AFTER["StopEtcd"]
    lines.append(line("closed"))
    assert document(lines)["hosts"]["m1"] == "nothing of this run is left here"


def test_every_step_has_its_words() -> None:
    assert list(facts.AFTER) == [s.id() for s in kubeadm.STEPS]
    assert facts.before("RestartKubelets") == facts.AFTER["StartControllers"]
    assert facts.before("VerifyCluster") == facts.AFTER["RestartKubelets"]
    assert "undone" in facts.before("RestartWorkerKubelets")
    assert [s.id() for s in kubeadm.STEPS if s.on is Scope.WORKERS] == ["RestartWorkerKubelets"]


def test_a_journal_without_a_line() -> None:
    made = document([])
    assert made["state"] == "planned"
    assert made["hosts"] == {}
    assert shown([], made)


def test_hostile_words_stay_words() -> None:
    nasty = "\x1b[2Jx\ny\u202e"
    lines = [
        line("run", **{**HEADER, "ticket": nasty}),
        step("SwapData", "FAILED", {"m1": f"no: {nasty}"}),
        {**line("state", to="halted", why=nasty), "from": "outage"},
    ]
    text = shown(lines)
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
    assert "at work now" not in "".join(rows)
    assert len({row.index(word) for row, word in zip(rows[:2], ("STATE", "complete"), strict=True)}) == 1
    assert status.runs_table([]).startswith("RUN")


# Last seen, and by whom it is worked on.


def test_what_was_last_seen_has_its_time() -> None:
    """A journal tells of the past: of each host it says when it last answered."""
    lines = [
        line("run", **HEADER),
        {**step("StopEtcd", "DONE", dict.fromkeys(("m1", "m2", "m3"), "yes")), "at": "2026-04-09T14:01:00.000000Z"},
        {**line("begin", step="SwapData", host="m1", key="k"), "at": "2026-04-09T14:01:30.000000Z"},
        {**line("end", step="SwapData", host="m1", key="k", code=0), "at": "2026-04-09T14:02:00.000000Z"},
        {**line("end", step="SwapData", host="m2", key="k", code=None), "at": "2026-04-09T14:03:00.000000Z"},
        {**step("SwapData", "UNKNOWN", {"m1": "yes", "m2": "unknown: no answer"}), "at": "2026-04-09T14:04:00.000000Z"},
    ]
    made = document(lines)
    assert made["seen"] == {
        "m1": "2026-04-09T14:04:00.000000Z",
        "m2": "2026-04-09T14:01:00.000000Z",
        "m3": "2026-04-09T14:01:00.000000Z",
        "w1": "",
    }
    assert made["silent"] == ["m2"]
    text = shown(lines)
    assert "on m1   last seen 2026-04-09 14:04:00 UTC: " + facts.AFTER["SwapData"] in text
    assert f"on m2   last seen 2026-04-09 14:01:00 UTC: {facts.AFTER['StopEtcd']}; SwapData: no answer" in text
    assert f"on w1   {facts.UNTOUCHED}" in text


def test_what_the_state_says_is_not_said_again_of_each_host() -> None:
    saw = dict.fromkeys(("m1", "m2", "m3"), "no: Secret default/knwon is not there")
    why = "Start the controllers: m1, m2, m3: Secret default/knwon is not there"
    lines = [
        line("run", **HEADER),
        step("StartControllers", "BLOCKED", saw),
        {**line("state", to="halted", why=why), "from": "outage"},
    ]
    assert shown(lines).count("is not there") == 1
    assert all("is not there" in said for host, said in document(lines)["hosts"].items() if host != "w1")


def test_who_is_at_work_on_it() -> None:
    life = begun()
    life.session("forward")
    past = replay(life.lines)
    idle = document(life.lines)
    assert idle["engine"] is None
    assert "no engine is working on it on this machine" in shown(life.lines, idle)
    work = AtWork(4711, "eve@laptop", "2026-04-09T14:02:00.000000Z")
    busy = status.document(life.lines, past, engine=work)
    assert busy["engine"] == {"pid": 4711, "holder": "eve@laptop", "since": "2026-04-09T14:02:00.000000Z"}
    assert busy["next"] == [f"runbook status {RUN}"], "every other command would be refused"
    text = shown(life.lines, busy)
    assert "process 4711 of eve@laptop on this machine is working on it now, since 2026-04-09 14:02:00 UTC" in text
    assert "at work now" in status.runs_table([busy])
    assert "a process on this machine is working on it" in shown(
        life.lines, status.document(life.lines, past, engine=AtWork())
    )


def test_other_runs_are_mentioned() -> None:
    life = begun()
    made = status.document(life.lines, replay(life.lines), others=[{"run": "b-1", "state": "halted"}])
    assert made["others"] == [{"run": "b-1", "state": "halted"}]
    assert "b-1 (halted): runbook status b-1" in shown(life.lines, made)


def test_that_all_runs_are_closed_is_said() -> None:
    lines = [line("run", **HEADER), line("closed")]
    for count, said in ((1, "no run is open: the only one known on this machine is closed"), (3, "all 3 known on")):
        made = status.document(lines, replay(lines), all_closed=count)
        assert made["all_closed"] == count
        assert said in shown(lines, made)
    assert "no run is open" not in shown(lines), "of a run that was named nothing is said of the others"


def test_a_lock_is_shown_in_words() -> None:
    raw = '/var/lib/etcd-runbook.lock names another run: {"run": "b-1", "holder": "e@l", "since": "s"}'
    lines = [line("run", **HEADER), step("LockHosts", "FAILED", {"m1": f"no: {raw}"})]
    assert document(lines)["hosts"]["m1"].endswith("LockHosts: another run holds it: b-1, by e@l, since s")


def test_what_was_begun_and_not_proven_is_told_with_what_is_known() -> None:
    """A step that failed has changed its hosts: they are not as the step before left them."""
    everywhere = dict.fromkeys(("m1", "m2", "m3"), "yes")
    lines = [
        line("run", **HEADER),
        step("SwapData", "DONE", everywhere),
        step("StartEtcd", "ACTING", {}),
        line("begin", step="StartEtcd", host="m1", key="k"),
        line("end", step="StartEtcd", host="m1", key="k", code=0),
        step("StartEtcd", "FAILED", {"m1": "no: no quorum", "m2": "no: no quorum"}),
    ]
    facts_ = document(lines)["hosts"]
    swapped = facts.AFTER["SwapData"]
    assert facts_["m1"].startswith(f"{swapped}; since then etcd was told to start on the restored data (not proven);")
    assert facts_["m2"] == f"{swapped}; StartEtcd: no quorum"
    lines += [step("StartEtcd", "UNDOING", {}), line("begin", step="StartEtcd", host="m1", key="u")]
    assert "since then etcd was told to stop (not proven)" in document(lines)["hosts"]["m1"]
    lines.append(step("StartEtcd", "UNDONE", everywhere))
    assert document(lines)["hosts"]["m1"] == swapped


# The words that facts are put together with.


def test_the_same_of_several_hosts_is_one_sentence() -> None:
    said = [
        ("m1", "m1 (10.0.0.1:22): no answer; look"),
        ("m2", "m2: no answer; look"),
        ("", "odd"),
        ("m3", "full: 1 GB"),
    ]
    assert facts.together(said) == ["m1, m2: no answer; look", "odd", "m3: full: 1 GB"]


def test_a_fragment_is_told_once() -> None:
    assert facts.once("no answer; it may run", "gone; it may run", "") == "no answer; it may run; gone"


def test_of_a_run_that_another_machine_took_over_the_clock_stands_still() -> None:
    life = begun()
    life.session("forward", Fuse(500))
    assert replay(life.lines).in_outage
    for one in life.lines:
        one["at"] = "2026-04-09T14:00:00.000000Z"
    life.lines.append({**life.lines[-1], "event": "superseded", "adopt": "runbook adopt", "at": "2026-04-09T14:00:09Z"})
    made = document(life.lines)
    assert (made["outage_seconds"], made["superseded"]) == (9.0, True)
    assert "9 s, as far as this machine knows" in shown(life.lines, made)
    life.lines.append({**life.lines[-1], "event": "adopted"})
    assert document(life.lines)["outage_seconds"] > 1_000_000

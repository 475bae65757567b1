"""What is told while a run goes on: readable, true to the journal, and never a reason for the run to stop."""

import io
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import progress
from runbook.board import Board, Mark
from runbook.errors import Halted
from runbook.journal import Line
from runbook.plan import Verify, Worker
from runbook.procedure import waits, words
from runbook.procedures import kubeadm, scripts
from runbook.replay import replay
from runbook.step import Binding, Command, Irreversible, Result, Target
from tests.fake.hosts import FakeHosts, Fuse
from tests.fake.sessions import PROCEDURE, RUN, Life, plan

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [red]x[/red]\r\n| `rm` | \u202etxt"


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_a, **_k: [])


def halted_life() -> Life:
    """A run in which a host fell silent in the outage, while it acted."""
    for at in range(150, 2000, 10):
        life = Life(plan(3))
        halted = life.session("forward", Fuse(at, "silent")).startswith("Halted") and replay(life.lines).in_outage
        if halted and any(line.get("to") == "UNKNOWN" for line in life.lines):
            return life
    raise AssertionError("no run was halted in its outage")


def plain(lines: Sequence[Line], past: Sequence[Line] = (), error: Halted | None = None, nodes: int = 3) -> str:
    out = io.StringIO()
    view = progress.Plain(out, patience=0)
    view.start(plan(nodes), PROCEDURE.steps, RUN, past)
    for line in lines:
        view(line)
    view.stop(error, replay([*past, *lines]))
    return out.getvalue()


def step(to: str, saw: dict[str, str] | None = None, **more: Any) -> Line:
    base = {"seq": 1, "at": "2026-04-09T14:00:10.000000Z", "epoch": 1, "event": "step", "step": "SwapData"}
    return {**base, "from": "PENDING", "to": to, "trigger": "proceed", "saw": saw or {}, **more}


def line(event: str, second: int = 0, **more: Any) -> Line:
    return {"seq": 1, "at": f"2026-04-09T14:00:{second:02}.000000Z", "epoch": 1, "event": event, **more}


# Plain.


def test_an_undisturbed_run_reads_from_top_to_bottom() -> None:
    life = Life(plan(3))
    assert life.session("forward") == "complete"
    text = plain(life.lines)
    at = 0
    for number, one in enumerate(PROCEDURE.steps, start=1):
        at = text.index(f"[{number:2}/{len(PROCEDURE.steps)}]", at)
        assert one.title() in text
    assert re.search(r"\[API down [\d:]+\] ▼▼▼ OUTAGE BEGINS", text)
    assert text.index("OUTAGE BEGINS") < text.index("OUTAGE ENDS") < text.index("[12/15]")
    assert "ended: complete after" in text
    assert all(entry.startswith("+") for entry in text.splitlines())
    assert "FAILED" not in text
    assert len(text.splitlines()) < 50


def test_a_halted_run_names_the_host_and_says_so() -> None:
    life = halted_life()
    past = replay(life.lines)
    text = plain(life.lines, error=Halted("halted: m2 is silent"))
    assert "UNKNOWN, a host does not answer" in text
    assert "the connection was lost" in text
    assert f"ended: {past.state} with exit code 4" in text
    assert "the control plane is down, so far for" in text
    assert "m2 is silent" not in text  # the caller prints the error


def test_a_resume_knows_the_past_and_says_again() -> None:
    life = halted_life()
    before = len(life.lines)
    assert life.session("forward") == "complete"
    text = plain(life.lines[before:], past=life.lines[:before])
    assert "again: " in text
    assert "OUTAGE BEGINS" not in text
    assert "OUTAGE ENDS" in text
    assert "[API down" in text


def test_a_rollback_is_told_backwards() -> None:
    life = Life(plan(3))
    life.session("forward")
    before = len(life.lines)
    assert life.session("backward") == "rolled-back"
    text = plain(life.lines[before:], past=life.lines[:before])
    assert text.index("[11/15] taking back") < text.index("[ 9/15] taking back") < text.index("[ 6/15] taking back")
    assert "OUTAGE BEGINS AGAIN" in text
    assert "taking back: Verify" not in text  # there is nothing to take back


def test_failures_findings_and_late_hosts_are_told() -> None:
    found: dict[str, Any] = {"check": "Disk", "severity": "warns", "host": "m2", "saw": "8% free", "do": "make room"}
    lines = [
        line("engine", command="run", holder="ops@laptop"),
        line("finding", step="CheckEverything", **found),
        step("ACTING", {"m1": "yes", "m2": "ready", "m3": "ready"}, at="2026-04-09T14:00:00.000000Z"),
        line("begin", 1, step="SwapData", host="m2", key="k.0", action="sh -c (script) runbook /x"),
        line("begin", 1, step="SwapData", host="m3", key="k.0", action="sh -c (script) runbook /x"),
        line("end", 2, step="SwapData", host="m2", key="k.0", code=0),
        line("end", 30, step="SwapData", host="m3", key="k.0", code=0),
        step("DONE", {"m1": "yes", "m2": "yes", "m3": "yes"}, at="2026-04-09T14:00:31.000000Z"),
        step("FAILED", {"m1": "yes", "m2": "no: it is full", "m3": "unknown: no answer"}),
        line("begin", 1, step="SwapData", host="m2", key="k.1", action="mv a b"),
        line("end", 2, step="SwapData", host="m2", key="k.1", code=1, said="No space left"),
        line("begin", 1, step="SwapData", host="m3", key="k.1", action="mv a b"),
        line("end", 2, step="SwapData", host="m3", key="k.1", code=None),
        line("consent", text="--discard-writes"),
        line("something-new", colour="green"),
        line("closed"),
    ]
    text = plain(lines)
    for told in (
        "run by ops@laptop, epoch 1",
        "! m2: 8% free → make room",
        "(done already on m1)",
        "m3: 29 s for sh -c (script) runbook /x",
        "done on every host in 31 s; m3 was last, 28 s after m2",
        "✗ m2: it is full",
        "? m3: no answer",
        "✗ m2: exit code 1: No space left (mv a b)",
        "? m3: nobody knows how it ended, mv a b",
        "consent: --discard-writes",
        "something-new: colour: green",
        "closed: nothing of this run is left",
    ):
        assert told in text, told


def test_a_long_silence_is_broken_by_what_is_waited_for() -> None:
    out = io.StringIO()
    view = progress.Plain(out, patience=15)
    view.start(plan(3), PROCEDURE.steps, RUN)
    try:
        began = datetime.now(UTC)
        view(step("ACTING", at=began.isoformat()))
        view(line("begin", step="SwapData", host="m2", key="k.0", action="sh -c (script) runbook"))
        said = len(out.getvalue())
        view.tick(began + timedelta(seconds=10))
        assert len(out.getvalue()) == said
        view.tick(began + timedelta(seconds=42))
        assert "[ 9/15] … 42 s so far, waiting for m2: sh -c (script) runbook" in out.getvalue()
        view(line("end", step="SwapData", host="m2", key="k.0", code=0))
        view.tick(began + timedelta(seconds=60))
        assert "waiting for m1, m2, m3 until: the restored data is in place" in out.getvalue()
    finally:
        view.stop(None, replay([]))


def ended(view: progress.Plain, out: io.StringIO, began: datetime, seconds: int) -> str:
    """What is said after so many seconds of silence."""
    before = len(out.getvalue())
    view.tick(began + timedelta(seconds=seconds))
    return out.getvalue()[before:]


def test_a_wait_says_what_is_lacking() -> None:
    """Not the whole list of what is to be shown, but what the hosts were last seen to lack."""
    out = io.StringIO()
    view = progress.Plain(out, patience=15)
    bound = Binding(RUN)
    view.start(plan(3), PROCEDURE.steps, RUN, bound=bound)
    try:
        began = datetime.now(UTC)
        view(step("ACTING", step="StartEtcd", at=began.isoformat()))
        targets = [Target(plan(3), bound, node) for node in plan(3).nodes]
        ss = next(q for q in kubeadm.StartEtcd().done(targets[0]).questions if q.says == "port 2379 open")
        view.answered("m1", ss.ask, Result(0, "LISTEN 0 4096 *:2379 *:*"))
        view.answered("m2", ss.ask, Result(0, ""))
        view.answered("m3", ss.ask, Result(None, err="m3 (10.0.1.12:22): no answer within 10s; check it"))
        view.answered("m9", ss.ask, Result(0, ""))
        said = ended(view, out, began, 42)
        assert "42 s so far, waiting for m2: nothing listens on 2379; m3: no answer within 10s; check it" in said
        view.answered("m2", ss.ask, Result(0, "LISTEN 0 4096 *:2379 *:*"))
        view.answered("m3", ss.ask, Result(0, ""))
        assert "waiting for m3: nothing listens on 2379\n" in ended(view, out, began, 84)
        view(step("DONE", step="StartEtcd"))
        assert ended(view, out, began, 126) == ""
    finally:
        view.stop(None, replay([]))


def test_a_stop_says_why_it_waits() -> None:
    """On a dead cluster it takes minutes, and the script's own words tell a responder nothing."""
    out = io.StringIO()
    view = progress.Plain(out, patience=15)
    view.start(plan(3), PROCEDURE.steps, RUN)
    try:
        began = datetime.now(UTC)
        view(step("ACTING", step="StopControllers", at=began.isoformat()))
        for node in plan(3).nodes:
            action = words(kubeadm.StopControllers().do(Target(plan(3), Binding(RUN), node))[-1])
            view(line("begin", step="StopControllers", host=node.name, key="k.0", action=action))
        gone = "the kubelet to stop kube-controller-manager, kube-scheduler, grace periods included"
        late = "after 2 min at the latest crictl stops what still runs"
        assert ended(view, out, began, 42).endswith(f"42 s so far, waiting for m1, m2, m3: {gone}; {late}\n")
        view(line("end", step="StopControllers", host="m1", key="k.0", code=0))
        assert f"waiting for m2, m3: {gone}" in ended(view, out, began, 84)
    finally:
        view.stop(None, replay([]))


def test_every_stop_of_the_procedure_is_put_into_words() -> None:
    """They are read off the journal's words, which must not change unnoticed."""
    found = 0
    for one in PROCEDURE.steps:
        for node in plan(1).nodes:
            n = Target(plan(1), Binding(RUN), node)
            undo = one.undo(n)
            for action in (*one.do(n), *(() if isinstance(undo, Irreversible) else undo)):
                stops = isinstance(action, Command) and scripts.STOP in action.argv
                assert bool(waits(words(action))) is stops, words(action)
                found += stops
    assert found >= 7
    assert waits("sh -c <STOP> runbook /etc/my manifests /x 25 etcd").endswith(
        "; after 25 s at the latest crictl stops what still runs"
    )
    assert waits("sh -c <STOP> runbook torn") == ""


def test_a_wait_to_begin_says_what_is_lacking() -> None:
    out = io.StringIO()
    view = progress.Plain(out, patience=15)
    bound, whole = Binding(RUN), replace(plan(3), verify=Verify(secrets=("default/known",)))
    view.start(whole, PROCEDURE.steps, RUN, bound=bound)
    try:
        view({**line("state", to="outage", why=""), "from": "preparing"})
        for one in PROCEDURE.steps[:11]:
            view(step("DONE", step=one.id()))
        ready = kubeadm.StartControllers().ready(Target(whole, bound, whole.nodes[0]))
        view.answered("m1", ready.questions[-1].ask, Result(1, err="NotFound"))
        said = ended(view, out, datetime.now(UTC), 42)
        assert "[12/15] … to begin, waiting for m1: NotFound" in said
    finally:
        view.stop(None, replay([]))


def test_the_views_hear_what_hosts_answer() -> None:
    heard: list[tuple[str, str]] = []
    life = Life(plan(1))
    hosts = FakeHosts(life.world, [Target(life.plan, Binding(RUN), n) for n in life.plan.nodes], 1, Fuse())
    watched = progress.Watched(hosts, lambda host, command, result: heard.append((host, str(command.argv[0]))))
    assert watched.ask({"m1": [Command(("ss", "-Hltn"), changes=False)]})["m1"][0].ok
    assert heard == [("m1", "ss")]
    assert watched.settle(["m1"], 1)["m1"].code == 95
    watched.close()


def test_what_was_told_when_a_command_ended_is_not_told_again() -> None:
    lines = [
        step("ACTING"),
        line("begin", 1, step="SwapData", host="m2", key="k.1", action="mv a b"),
        line("end", 2, step="SwapData", host="m2", key="k.1", code=1, said="No space left"),
        step("FAILED", {"m1": "yes", "m2": "no: not in place; No space left", "m3": "no: not in place"}),
    ]
    text = plain(lines)
    assert text.count("No space left") == 1
    assert "✗ m2, m3: not in place" in text


def test_equal_findings_are_one_line_and_a_refusal_is_called_so() -> None:
    found: dict[str, Any] = {"check": "Swap", "saw": "swap is on", "do": "swapoff -a"}
    lines = [
        *(line("finding", step="CheckEverything", host=h, severity="warns", **found) for h in ("m1", "m2", "m3")),
        line("finding", step="CheckEverything", host="", check="SnapshotContent", severity="ok", saw="9 keys", do=""),
        step("FAILED", {"m1": "no: full"}, step="CheckEverything"),
        {**line("state", to="rolling-back", why="preparing failed: Check everything, …"), "from": "preparing"},
        {**line("state", to="rolled-back", why=""), "from": "rolling-back"},
    ]
    text = plain(lines)
    assert text.count("swap is on") == 1
    assert "✓ plan: 9 keys" in text
    assert "! m1, m2, m3: swap is on → swapoff -a" in text
    assert "── refused: nothing was changed ──" in text
    assert "ended: refused" in text


def test_a_rollback_does_not_claim_that_the_old_api_servers_are_ready() -> None:
    life = Life(plan(3))
    life.session("forward")
    before = len(life.lines)
    life.session("backward")
    text = plain(life.lines[before:], past=life.lines[:before])
    assert "OUTAGE ENDS" in text
    assert "THIS RUN'S OUTAGE ENDS" in text
    assert "the old API servers are started again, as they were found" in text
    assert "every API server is ready" not in text
    assert "workers' kubelets" not in text, "there are none, so there is nothing to take back"


def test_the_watch_speaks_by_itself() -> None:
    out = io.StringIO()
    view = progress.Plain(out, patience=0.05)
    view.start(plan(1), PROCEDURE.steps, RUN)
    view(step("ACTING", at=datetime.now(UTC).isoformat()))
    told = threading.Event()
    for _ in range(100):
        if "so far, waiting for" in out.getvalue():
            break
        told.wait(0.05)
    view.stop(None, replay([]))
    assert "so far, waiting for" in out.getvalue()


def test_what_a_host_says_cannot_steer_the_terminal() -> None:
    lines = [
        line("finding", check=HOSTILE, severity="blocks", host=HOSTILE, saw=HOSTILE, do=HOSTILE),
        step("FAILED", {"m1": f"no: {HOSTILE}"}),
        line("end", step="SwapData", host="m1", key="k", code=1, said=HOSTILE),
        {**line("state", to="halted", why=HOSTILE), "from": "outage"},
        line("odd", text=HOSTILE),
    ]
    text = plain(lines)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert len(text.splitlines()) == len(lines) + 3


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_view_that_cannot_be_written_stops_nothing(output: str) -> None:
    view = progress.make(output, Broken(), Broken())
    view.start(plan(1), PROCEDURE.steps, RUN)
    view(step("ACTING"))
    view.stop(None, replay([]))


@given(st.lists(st.dictionaries(st.sampled_from(["event", "step", "host", "saw", "code", "to"]), st.integers())))
def test_lines_of_another_program_stop_nothing(strange: list[dict[str, Any]]) -> None:
    out = io.StringIO()
    for view in (progress.Plain(out, patience=0), progress.Json(out)):
        view.start(plan(1), PROCEDURE.steps, RUN)
        for one in strange:
            view(one)
        view.stop(None, replay([]))


# The board.


def test_what_a_host_that_came_back_is_given_is_told_of_it_alone() -> None:
    lines = [
        line("absent", hosts=["m3"]),
        step("ACTING", joining="m3"),
        step("DONE", {"m3": "yes"}, joining="m3"),
        step("SKIPPED", {"m3": "yes"}, joining="m3") | {"step": "SaveManifests"},
        step("UNDOING", joining="m3"),
        step("UNDONE", joining="m3"),
    ]
    told = plain(lines)
    for sentence in (
        "[ 9/15] on m3 alone: Swap the data: the old aside, the restored in its place",
        "[ 9/15] on m3 alone: done\n",
        "[ 3/15] on m3 alone: done already: Save the four static pod manifests, and stage the plan\n",
        "[ 9/15] on m3 alone: taking back: Swap the data: the old aside\n",
        "[ 9/15] on m3 alone: taken back\n",
    ):
        assert sentence in told, told
    assert "every host" not in told


def test_marks_follow_the_journal() -> None:
    board = Board(replace(plan(3), workers=(Worker("w1"),)), PROCEDURE.steps)
    row = board.rows["SwapData"]
    assert set(row.marks) == {"m1", "m2", "m3"}
    assert set(board.rows["RestartWorkerKubelets"].marks) == {"w1"}
    assert set(board.rows["CheckEverything"].marks) == {"m1", "m2", "m3", "w1"}

    def marks() -> str:
        return "".join(row.marks.values())

    assert marks() == "···"
    board.take(step("ACTING", {"m1": "yes", "m2": "ready", "m3": "ready"}))
    assert marks() == "✓··"
    board.take(line("begin", step="SwapData", host="m2", key="k"))
    assert marks() == "✓▶·"
    board.take(line("begin", step="SwapData", host="m3", key="k"))
    board.take(line("end", step="SwapData", host="m3", key="k", code=None))
    assert marks() == "✓▶?"
    board.take(line("end", step="SwapData", host="m2", key="k", code=3))
    assert marks() == "✓✗?"
    board.take(step("FAILED", {"m1": "yes", "m2": "no: full", "m3": "unknown: x"}))
    assert marks() == "✓✗?"
    board.take(step("UNDOING"))
    board.take(line("begin", step="SwapData", host="m1", key="k"))
    assert marks() == "▶✗?"
    board.take(step("UNDONE", {"m1": "yes", "m2": "yes", "m3": "yes"}))
    assert marks() == "↶↶↶"


def test_the_first_checks_wait_for_a_snapshot_that_comes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.board.coming", lambda: "the snapshot on m1: 120 of 500 MiB")
    out = io.StringIO()
    view = progress.Plain(out, patience=15)
    view.start(plan(3), PROCEDURE.steps, RUN)
    try:
        began = datetime.now(UTC)
        view(step("ACTING", step=PROCEDURE.steps[0].id(), at=began.isoformat()))
        view.tick(began + timedelta(seconds=20))
        assert "[ 1/15] … 20 s so far, waiting for the snapshot on m1: 120 of 500 MiB\n" in out.getvalue()
        view(step("DONE", step=PROCEDURE.steps[0].id(), at=began.isoformat()))
        view(step("ACTING", at=began.isoformat()))
        view.tick(began + timedelta(seconds=60))
        assert out.getvalue().count("the snapshot on m1") == 1, "it is the checks that wait for it"
    finally:
        view.stop(None, replay([]))


def test_the_lock_that_is_released_at_the_end_leaves_its_mark_alone() -> None:
    life = Life(plan(3))
    life.session("forward")
    board = Board(plan(3), PROCEDURE.steps, life.lines)
    assert all(mark is Mark.DONE for row in board.rows.values() for mark in row.marks.values())
    assert not board.open
    assert board.current() is None
    assert board.waiting_for() == ""


@pytest.mark.parametrize("kind", ["engine", "power", "silent"])
def test_any_journal_can_be_followed(kind: str) -> None:
    for at in range(5, 900, 97):
        life = Life(plan(3))
        life.session("forward", Fuse(at, kind))
        if life.state not in ("complete", "rolled-back"):
            life.session("backward")
        board = Board(plan(3), PROCEDURE.steps)
        for one in life.lines:
            for sentence in board.take(one):
                assert sentence.isprintable()
        assert board.past == replay(life.lines)


# JSON.


def test_json_is_one_line_an_event_and_a_result() -> None:
    life = halted_life()
    out = io.StringIO()
    view = progress.make("json", io.StringIO(), out)
    view.start(plan(3), PROCEDURE.steps, RUN)
    for one in life.lines:
        view(one)
    view.stop(Halted("it halted", true="a", means="b", next=("c", "d")), replay(life.lines))
    events = [json.loads(entry) for entry in out.getvalue().splitlines()]
    assert [e["event"] for e in events] == ["start", *(one["event"] for one in life.lines), "result"]
    assert all({"at", "event", "run"} <= set(e) and "prev" not in e for e in events)
    assert {"step", "host"} <= set(next(e for e in events if e["event"] == "begin"))
    result = events[-1]
    assert result["state"] == "halted"
    assert result["exit_code"] == 4
    assert result["outage_seconds"] > 0
    assert (result["error"], result["true"], result["means"], result["next"]) == ("it halted", "a", "b", ["c", "d"])


def test_json_of_a_run_that_ended_well() -> None:
    life = Life(plan(1))
    life.session("forward")
    out = io.StringIO()
    view = progress.Json(out)
    view.start(plan(1), PROCEDURE.steps, RUN)
    view.stop(None, replay(life.lines))
    result = json.loads(out.getvalue().splitlines()[-1])
    assert (result["state"], result["exit_code"], result["error"]) == ("complete", 0, None)


# Which one.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_view_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def kind(output: str, err: io.StringIO) -> str:
        return type(progress.make(output, err, io.StringIO())).__name__

    assert kind("text", Terminal()) == "Live"
    assert kind("text", io.StringIO()) == "Plain"
    assert kind("json", Terminal()) == "Json"
    monkeypatch.setenv("NO_COLOR", "1")
    assert kind("text", Terminal()) == "Plain"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert kind("text", Terminal()) == "Plain"


def test_what_this_machine_no_longer_knows_it_does_not_tell() -> None:
    """Another machine took the run over: whether the control plane is down now, and since when, is known there."""
    life = Life(plan(3))
    life.session("forward", Fuse(500))
    assert replay(life.lines).in_outage
    for one in life.lines:
        one["at"] = "2026-04-09T14:00:00.000000Z"
    for refused in (
        line("superseded", 9, adopt="runbook adopt", said="a newer engine"),
        line("closed", 9, elsewhere=True),
    ):
        out = io.StringIO()
        view = progress.Plain(out, patience=0)
        view.start(life.plan, PROCEDURE.steps, RUN, life.lines)
        view(refused)
        view.stop(Halted("refused"), replay([*life.lines, refused]))
        assert "[API down" not in out.getvalue(), "before it is refused nobody knows better either"
        ended = out.getvalue().splitlines()[-1]
        state = "outage when ended elsewhere" if refused["event"] == "closed" else "outage when taken over elsewhere"
        assert f"ended: {state} with exit code 4 after" in ended
        assert ended.endswith("; this run had the control plane stopped for 9 s, as far as this machine knows")


def test_the_head_does_not_date_a_run_by_a_later_command() -> None:
    life = halted_life()
    assert "; began 2" in plain([]).splitlines()[0]
    assert "; this command began 2" in plain([], past=life.lines).splitlines()[0]

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
from runbook.checks import Finding, Severity
from runbook.errors import Halted
from runbook.journal import Line
from runbook.plan import Worker
from runbook.replay import replay
from tests.fake.hosts import Fuse
from tests.fake.sessions import PROCEDURE, RUN, Life, plan

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [red]x[/red]\r\n| `rm` | \u202etxt"


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_a, **_k: [])


def halted_life() -> Life:
    """A run in which a host fell silent in the outage, or before."""
    for at in range(150, 2000, 40):
        life = Life(plan(3))
        if life.session("forward", Fuse(at, "silent")).startswith("Halted") and replay(life.lines).in_outage:
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
    assert "the API is down, so far for" in text
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
        "! m2: Disk warns: 8% free → make room",
        "(done already on m1)",
        "m3: 29.0 s for sh -c (script) runbook /x",
        "done on every host in 31.0 s; m3 was last, 28.0 s after m2",
        "✗ m2: no: it is full",
        "? m3: unknown: no answer",
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
        assert "[ 9/15] … 42.0 s so far, waiting for m2: sh -c (script) runbook" in out.getvalue()
        view(line("end", step="SwapData", host="m2", key="k.0", code=0))
        view.tick(began + timedelta(seconds=60))
        assert "waiting for m1, m2, m3 until: the restored data is in place" in out.getvalue()
    finally:
        view.stop(None, replay([]))


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


# Findings.

FINDINGS = [
    Finding("Reach", "m1", Severity.OK, "root"),
    Finding("Reach", "m2", Severity.OK, "root"),
    Finding("Space", "m1", Severity.WARNS, "8% free", "make room"),
    Finding("Space", "m2", Severity.BLOCKS, f"full {HOSTILE}", "make room at once"),
    Finding("Space", "m2", Severity.OK, "the WAL disk has room"),
    Finding("Lock", "w1", Severity.HELD, "ops@laptop has it", "runbook runs"),
    Finding("Snapshot", "", Severity.OK, "whole"),
]


def test_the_findings_table_has_a_mark_in_every_cell_and_tells_what_to_do() -> None:
    text = progress.findings_table(FINDINGS, ["m1", "m2"])
    rows = {row.split()[0]: row.split()[1:] for row in text.splitlines()[:5]}
    assert rows["check"] == ["m1", "m2", "w1", "plan"]
    assert rows["Reach"] == ["✓", "✓"]
    assert rows["Space"] == ["!", "✗"]
    assert rows["Lock"] == ["✗"]
    assert rows["Snapshot"] == ["✓"]
    told = text.splitlines()[5:]
    assert told[1].startswith("✗ held: w1: Lock: ops@laptop has it")
    assert told[2] == "  do: runbook runs"
    assert any(one.startswith("✗ blocks: m2: Space: full") for one in told)
    assert "  do: make room" in told
    assert told[-1] == "2 findings in the way of a restore, 1 worth knowing"
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "the WAL disk has room" not in text


def test_known_checks_are_shown_by_their_titles() -> None:
    from runbook.checks import all_checks

    check = all_checks("preflight")[0]
    text = progress.findings_table([check.ok("m1", "fine")], ["m1"])
    assert check.title() in text
    assert text.endswith("nothing is in the way")


def test_no_findings_at_all() -> None:
    assert "nothing is in the way" in progress.findings_table([], ["m1"])


def test_the_findings_document() -> None:
    document = json.loads(json.dumps(progress.findings_document(FINDINGS)))
    assert document[2] == {
        "check": "Space",
        "host": "m1",
        "severity": "warns",
        "saw": "8% free",
        "do": "make room",
    }
    assert document[-1]["host"] is None

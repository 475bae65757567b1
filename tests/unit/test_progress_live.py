"""The live view: a mark for each step and host, clocks, last lines; on any size of terminal."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from runbook.errors import Halted
from runbook.live import Live
from runbook.plan import Plan, Worker
from runbook.procedure import words
from runbook.procedures import kubeadm
from runbook.replay import replay
from runbook.step import Binding, Target
from tests.fake.sessions import PROCEDURE, RUN, Life, plan


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_a, **_k: [])


def view(plan_: Plan, width: int = 120, height: int = 40) -> tuple[Live, Console, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=height, _environ={})
    live = Live(out, console)
    return live, console, out


def drawn(live: Live, console: Console) -> str:
    with console.capture() as capture:
        console.print(live.view())
    return capture.get()


def plainly(live: Live, width: int = 120, height: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, _environ={})
    with console.capture() as capture:
        console.print(live.view())
    return [line.rstrip() for line in capture.get().splitlines()]


def lines_until(step: str, state: str) -> tuple[Life, int]:
    life = Life(plan(3))
    assert life.session("forward") == "complete"
    at = next(i for i, one in enumerate(life.lines) if one.get("step") == step and one.get("to") == state)
    return life, at + 1


def test_steps_go_down_and_hosts_across() -> None:
    life, until = lines_until("StopEtcd", "ACTING")
    live, _, _ = view(plan(3))
    live.start(plan(3), PROCEDURE.steps, RUN)
    try:
        for one in life.lines[: until + 1]:
            live(one)
        rows = plainly(live)
    finally:
        live.stop(None, replay(life.lines))
    assert rows[0].split() == [RUN, "m1", "m2", "m3", "time"]
    assert rows[1].split()[0] == "1"
    assert "✓" in rows[7]
    assert rows[8].count("▶") + rows[8].count("·") == 3
    assert "▶" in rows[8]
    assert rows[9].count("·") == 3
    clocks = r"outage  elapsed [\d.]+ s  outage [\w. ]+  waiting for m\d: .*"
    assert any(re.fullmatch(clocks, row) for row in rows)
    assert any("OUTAGE BEGINS" in row for row in rows)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_why_a_stop_waits_is_seen_as_far_as_the_terminal_goes(width: int) -> None:
    life, until = lines_until("StopEtcd", "ACTING")
    live, _, _ = view(plan(3), width)
    live.start(plan(3), PROCEDURE.steps, RUN)
    try:
        for one in life.lines[:until]:
            live(one)
        for node in plan(3).nodes:
            action = words(kubeadm.StopEtcd().do(Target(plan(3), Binding(RUN), node))[-1])
            live({**life.lines[0], "event": "begin", "step": "StopEtcd", "host": node.name, "action": action})
        said = next(row for row in plainly(live, width) if "waiting for" in row)
    finally:
        live.stop(None, replay([]))
    assert len(said) <= width
    assert "waiting for m1, m2, m3: the kubelet to stop etcd"[: width - 55] in said


def test_the_last_drawing_stays_and_says_how_it_ended() -> None:
    life, _ = lines_until("VerifyCluster", "DONE")
    live, _, out = view(plan(3))
    live.start(plan(3), PROCEDURE.steps, RUN)
    for one in life.lines:
        live(one)
    live.stop(Halted("x"), replay(life.lines))
    text = out.getvalue()
    assert "ended: complete with exit code 4" in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is given back
    assert "✓" in text


def test_marks_have_colours_and_hosts_no_markup() -> None:
    nasty = replace(plan(1), workers=(Worker("[red]w[/red]"),))
    live, console, _ = view(nasty)
    live.start(nasty, PROCEDURE.steps, "[bold]run")
    try:
        base = {"seq": 1, "at": "2026-04-09T14:00:10.000000Z", "epoch": 1}
        live(
            {
                **base,
                "event": "step",
                "step": "SwapData",
                "from": "ACTING",
                "to": "FAILED",
                "trigger": "proceed",
                "saw": {"m1": "no: [blink]\x1b[2Jx[/blink]"},
            }
        )
        text = drawn(live, console)
        rows = plainly(live)
    finally:
        live.stop(None, replay([]))
    assert "\x1b[1;31m✗" in text
    assert "\x1b[2J" not in text
    assert "[bold]run" in rows[0]
    assert "[red]w[/red]" in rows[0]
    assert any("[blink]" in row for row in rows)


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (200, 60)])
def test_it_fits_the_terminal(size: tuple[int, int]) -> None:
    many = replace(plan(5), workers=tuple(Worker(f"worker-{i:02}.example.internal") for i in range(20)))
    live, _, _ = view(many, *size)
    live.start(many, PROCEDURE.steps, RUN)
    try:
        rows = plainly(live, *size)
    finally:
        live.stop(None, replay([]))
    assert max(map(len, rows)) <= size[0]
    assert any("·25" in row for row in rows)  # no room for a column a host: they are counted


def test_a_view_that_fails_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    live, _, out = view(plan(1))
    live.start(plan(1), PROCEDURE.steps, RUN)
    monkeypatch.setattr("runbook.live.Live._table", lambda *_: 1 / 0)
    live({"event": "step"})
    live.stop(None, replay([]))
    assert "the view failed (ZeroDivisionError); the run goes on" in out.getvalue()

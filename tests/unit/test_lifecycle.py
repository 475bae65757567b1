"""The two state tables: total, as the design says, and never acting before the journal has the line."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from runbook import lifecycle
from runbook.lifecycle import (
    READY,
    RUN_STATES,
    RUN_TRANSITIONS,
    STEP_STATES,
    STEP_TRANSITIONS,
    YES,
    RunState,
    StepRun,
    Verdict,
    View,
    Views,
)
from runbook.procedures.kubeadm import StopEtcd
from runbook.step import Step

README = Path(__file__).parents[2] / "README.md"
NO, UNKNOWN = View(Verdict.NO, "it runs"), View(Verdict.UNKNOWN)


class Crew:
    """Writes down what is asked of it, and answers as it is told."""

    def __init__(self, views: Views | None = None, *, prepared: bool = True, full: bool = False) -> None:
        self.views, self.prepared, self.full = views or {}, prepared, full
        self.heard: list[str] = []

    def observe(self, step: Step, state: str) -> Views:
        self.heard.append(f"observe {state}")
        return self.views

    def record_step(self, step: Step, source: str, dest: str, trigger: str, views: Views) -> None:
        self._write(f"{source} -> {dest}")

    def act(self, step: Step) -> None:
        self.heard.append("act")

    def undo(self, step: Step) -> None:
        self.heard.append("undo")

    def record_run(self, source: str, dest: str, why: str) -> None:
        self._write(f"{source} -> {dest}: {why}")

    def prepared_everywhere(self) -> bool:
        return self.prepared

    def _write(self, line: str) -> None:
        if self.full:
            raise OSError("no space left on device")
        self.heard.append(line)


def step_goes(state: str, trigger: str, *views: View) -> str:
    """The state that follows."""
    run = StepRun(StopEtcd(), Crew({f"m{i}": view for i, view in enumerate(views)}), state)
    assert getattr(run, trigger)()
    return run.state


# The design's table, by hand. "*" stands for any other combination of answers.

PROCEED = {
    "PENDING": {"all done": "SKIPPED", "ready or done": "ACTING", "no": "BLOCKED", "unknown": "BLOCKED"},
    "ACTING": {"all done": "DONE", "no": "FAILED", "no and unknown": "FAILED", "unknown": "UNKNOWN"},
    "UNDOING": {"all done": "UNDONE", "no": "STUCK", "unknown": "STUCK", "ready or done": "STUCK"},
}
ANSWERS: dict[str, list[tuple[View, ...]]] = {
    "all done": [(YES,), (YES, YES, YES)],
    "ready or done": [(READY,), (YES, READY, YES), (READY, READY)],
    "no": [(NO,), (YES, NO), (READY, NO), (NO, NO)],
    "unknown": [(UNKNOWN,), (YES, UNKNOWN, READY)],
    "no and unknown": [(NO, UNKNOWN), (UNKNOWN, YES, NO)],
}
RESUME = {
    "BLOCKED": "PENDING",
    "ACTING": "ACTING",
    "FAILED": "ACTING",
    "UNKNOWN": "ACTING",
    "UNDOING": "UNDOING",
    "STUCK": "UNDOING",
}
RUN = {
    ("planned", "prepare"): "preparing",
    ("preparing", "cut"): "outage",
    ("outage", "verify"): "verifying",
    ("verifying", "complete"): "complete",
    ("verifying", "doubt"): "unverified",
    **{(s, "halt"): "halted" for s in ("planned", "preparing", "outage", "verifying")},
    ("unverified", "resume"): "verifying",
    ("stuck", "resume"): "rolling-back",
    **{(s, "rollback"): "rolling-back" for s in RUN_STATES if s != "rolled-back"},
    ("rolling-back", "undone"): "rolled-back",
    ("rolling-back", "stick"): "stuck",
}
RESUMED = {"planned": "preparing", "preparing": "preparing", "outage": "outage", "verifying": "verifying"}


@pytest.mark.parametrize(
    ("state", "kind", "dest"), [(s, kind, dest) for s, table in PROCEED.items() for kind, dest in table.items()]
)
def test_a_step_proceeds_as_the_design_says(state: str, kind: str, dest: str) -> None:
    for views in ANSWERS[kind]:
        assert step_goes(state, "proceed", *views) == dest


def test_every_combination_of_answers_has_a_row() -> None:
    for state, size in itertools.product(PROCEED, (0, 1, 2, 3)):
        for views in itertools.product((YES, READY, NO, UNKNOWN), repeat=size):
            assert step_goes(state, "proceed", *views) in PROCEED[state].values()


def test_the_first_guard_that_passes_wins() -> None:
    assert step_goes("PENDING", "proceed", YES) == "SKIPPED", "not ACTING, though every host is ready or done"
    assert step_goes("ACTING", "proceed", NO, UNKNOWN) == "FAILED", "a host that says no counts more than a silent one"


@pytest.mark.parametrize("state", STEP_STATES)
def test_a_step_resumes_and_rolls_back_as_the_design_says(state: str) -> None:
    if state in RESUME:
        assert step_goes(state, "resume") == RESUME[state]
    if state != "UNDONE":
        assert step_goes(state, "rollback") == "UNDOING"


@pytest.mark.parametrize("rows", [STEP_TRANSITIONS, RUN_TRANSITIONS], ids=["step", "run"])
def test_every_source_of_a_trigger_ends_with_an_unguarded_row(rows: list[lifecycle.Row]) -> None:
    last = {(r["trigger"], r["source"]): r for r in rows}
    assert not [key for key, row in last.items() if row["conditions"]]
    for key in last:
        mine = [r for r in rows if (r["trigger"], r["source"]) == key]
        assert all(r["conditions"] for r in mine[:-1]), f"{key}: a row behind an unguarded one is never reached"


@pytest.mark.parametrize(("cls", "states", "rows"), [(StepRun, STEP_STATES, STEP_TRANSITIONS)])
def test_a_trigger_that_has_no_row_is_an_error_and_not_a_quiet_no(
    cls: type[StepRun], states: tuple[str, ...], rows: list[lifecycle.Row]
) -> None:
    known = {(r["source"], r["trigger"]) for r in rows}
    for state, trigger in itertools.product(states, ("proceed", "resume", "rollback")):
        run = cls(StopEtcd(), Crew({"m1": YES}), state)
        if (state, trigger) in known:
            assert getattr(run, trigger)() is True
        else:
            with pytest.raises(Exception, match="Can't trigger"):
                getattr(run, trigger)()
            assert run.state == state


def test_the_tables_know_their_states_only() -> None:
    for states, rows in ((STEP_STATES, STEP_TRANSITIONS), (RUN_STATES, RUN_TRANSITIONS)):
        assert {r["source"] for r in rows} | {r["dest"] for r in rows} == set(states)


def test_the_run_goes_as_the_design_says() -> None:
    triggers = {r["trigger"] for r in RUN_TRANSITIONS}
    for state, trigger in itertools.product(RUN_STATES, sorted(triggers)):
        run = RunState(Crew(), state, halted_from="outage")
        if (state, trigger) in RUN:
            assert run.go(trigger, "because")
            assert run.state == RUN[state, trigger]
        elif (state, trigger) == ("halted", "resume"):
            assert run.go(trigger)
        else:
            with pytest.raises(Exception, match="Can't trigger"):
                run.go(trigger)


@pytest.mark.parametrize(("source", "dest"), RESUMED.items())
def test_a_halted_run_goes_on_where_it_halted(source: str, dest: str) -> None:
    run = RunState(Crew(), source)
    run.go("halt", "a cable")
    assert (run.state, run.halted_from) == ("halted", source)
    again = RunState(Crew(), "halted", halted_from=source)
    assert again.go("resume")
    assert again.state == dest


def test_the_barrier_holds() -> None:
    run = RunState(Crew(prepared=False), "preparing")
    run.go("cut")
    assert run.state == "halted", "no outage until every prepare step is done on every host"


# The journal first.


@pytest.mark.parametrize(("state", "trigger"), [("PENDING", "proceed"), ("FAILED", "resume"), ("DONE", "rollback")])
def test_what_cannot_be_recorded_is_not_done(state: str, trigger: str) -> None:
    crew = Crew({"m1": READY}, full=True)
    run = StepRun(StopEtcd(), crew, state)
    with pytest.raises(OSError, match="no space"):
        getattr(run, trigger)()
    assert run.state == state
    assert not {"act", "undo"} & set(crew.heard)


def test_what_cannot_be_recorded_does_not_move_the_run() -> None:
    run = RunState(Crew(full=True), "preparing")
    with pytest.raises(OSError, match="no space"):
        run.go("halt")
    assert (run.state, run.halted_from) == ("preparing", "")


def test_a_step_observes_then_records_then_acts() -> None:
    crew = Crew({"m1": READY})
    StepRun(StopEtcd(), crew).proceed()
    assert crew.heard == ["observe PENDING", "PENDING -> ACTING", "act"]
    crew = Crew()
    StepRun(StopEtcd(), crew, "STUCK").resume()
    assert crew.heard == ["STUCK -> UNDOING", "undo"], "only what decides by probes asks"


@pytest.mark.parametrize("state", STEP_STATES)
def test_starting_in_a_state_fires_nothing(state: str) -> None:
    crew = Crew()
    assert StepRun(StopEtcd(), crew, state).state == state
    assert not crew.heard


@pytest.mark.parametrize("state", RUN_STATES)
def test_starting_a_run_in_a_state_fires_nothing(state: str) -> None:
    crew = Crew()
    assert RunState(crew, state).state == state
    assert not crew.heard


def test_no_way_around_the_tables() -> None:
    for model in (StepRun(StopEtcd(), Crew()), RunState(Crew())):
        assert not [name for name in dir(model) if name.startswith("to_")]


# The drawing.


def test_the_drawing_shows_every_row() -> None:
    drawn = lifecycle.drawing()
    for row in (*STEP_TRANSITIONS, *RUN_TRANSITIONS):
        guard = row["conditions"][0].replace("_", " ") if row["conditions"] else "otherwise"
        assert f"| {row['trigger']} | {row['source']} | {row['dest']} | {guard} |" in drawn
    assert drawn.count("stateDiagram-v2") == 2


def test_the_readme_shows_the_drawing() -> None:
    text = README.read_text(encoding="utf-8")
    assert lifecycle.drawn_into(text) == text, "run: python -m runbook.lifecycle README.md"


def test_the_command_rewrites_what_stands_between_the_markers(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("# Before\n<!-- lifecycle:begin -->\nold\n<!-- lifecycle:end -->\nafter\n", encoding="utf-8")
    assert lifecycle.main([str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Before\n<!-- lifecycle:begin -->\n")
    assert text.endswith("<!-- lifecycle:end -->\nafter\n")
    assert lifecycle.drawing() in text
    assert "old" not in text
    assert lifecycle.main([str(file)]) == 0
    assert file.read_text(encoding="utf-8") == text, "twice is once"


def test_the_command_says_what_it_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "README.md"
    file.write_text("no markers\n", encoding="utf-8")
    assert lifecycle.main([str(file)]) == 2
    assert "lifecycle:begin" in capsys.readouterr().err
    assert lifecycle.main([]) == 2

"""The report: complete, true to the journal, and harmless whatever a host has said."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import report
from runbook.journal import Line
from runbook.replay import replay
from runbook.reporttext import code, escaped, table
from tests.fake.hosts import Fuse
from tests.fake.sessions import RUN, Life, plan

HOSTILE = (
    "\x1b[2J | a | `b` <script>alert(1)</script> [x](https://evil.example) ![y](z) **b** # h\n## h2\n"
    "| c | www.evil.example"
)
HEADER: dict[str, Any] = {
    "run": RUN,
    "plan": "fake",
    "plan_file": "plans/fake.yaml",
    "ticket": "INC-4711 | x",
    "holder": "ops@laptop",
    "version": "0.1.0",
    "snapshot": "file:///s.db",
    "snapshot_sha256": "ab" * 32,
    "plan_digest": "cd" * 32,
    "preview_digest": "ef" * 32,
    "nodes": ["m1", "m2", "m3"],
    "workers": [],
}


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_a, **_k: [])


def life_with_header() -> Life:
    life = Life(plan(3))
    life.lines.append(line("run", 0, epoch=0, **HEADER))
    return life


def line(event: str, at_second: float, **more: Any) -> Line:
    stamp = f"2026-04-09T14:{int(at_second) // 60:02}:{at_second % 60:09.6f}Z"
    return {"seq": 1, "at": stamp, "epoch": 1, "event": event, "prev": "0" * 64, **more}


def step(at_second: float, to: str, name: str = "SwapData", **more: Any) -> Line:
    plain = {"from": "PENDING", "to": to, "trigger": "proceed", "saw": {}}
    return line("step", at_second, step=name, **{**plain, **more})


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the table under a heading, as GitHub's Markdown splits them."""
    block = re.split(r"^## ", text.partition(f"\n## {title}\n")[2], flags=re.M)[0]
    found = []
    for row in [entry for entry in block.split("\n") if entry.startswith("|")][2:]:
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]])
    return found


# A whole run.


def test_an_undisturbed_run() -> None:
    life = life_with_header()
    assert life.session("forward") == "complete"
    past = replay(life.lines)
    text = report.markdown(life.lines, past, life.plan)
    assert text.startswith(f"# Restore {RUN}\n\n**complete**")
    for told in ("ops@laptop", "0.1.0", "ab" * 32, "cd" * 32, "ef" * 32, r"INC-4711 \| x", "plans/fake.yaml"):
        assert told in text
    steps = rows_of(text, "Steps")
    assert [row[0] for row in steps] == list(past.steps)
    assert all(len(row) == 7 for row in steps)
    assert {row[2] for row in steps} == {"DONE", "SKIPPED"}
    assert re.search(r"This run had the control plane stopped from .* UTC until .* UTC: \*\*\d", text)
    assert "Seen at" in text
    assert "by m1, m2, m3" in text
    assert f".{RUN}.old in /var/lib/etcd: the old data, complete" in text
    assert f"`runbook finish {RUN}`" in text
    assert "rollout restart daemonset kube-proxy" in text
    assert "persistent volumes" in text
    hosts = {row[0]: row[1:] for row in rows_of(text, "Hosts")}
    assert set(hosts) == {"m1", "m2", "m3"}
    assert "verified" in hosts["m1"][0]
    assert int(hosts["m1"][1]) > 10
    assert hosts["m1"][2] == "0"
    assert "## Failures" not in text
    assert any("OUTAGE BEGINS" in row[2] for row in rows_of(text, "Timeline"))


def test_a_halted_resumed_and_rolled_back_run() -> None:
    for at in range(150, 2000, 40):
        life = life_with_header()
        if life.session("forward", Fuse(at, "silent")).startswith("Halted") and replay(life.lines).in_outage:
            break
    halted = report.markdown(life.lines, replay(life.lines), life.plan)
    assert "**halted** from outage" in halted
    assert "and it is still down" in halted
    assert rows_of(halted, "What hosts said no to")[0][3].startswith("unknown: ")
    assert f"`runbook resume {RUN}`" in halted
    assert "## By hand" not in halted
    life.session("forward")
    assert life.session("backward") == "rolled-back"
    document = report.document(life.lines, replay(life.lines), life.plan)
    assert [e["epoch"] for e in document["engines"]] == [1, 2, 3]
    assert len(document["outages"]) == 2
    assert document["outage_seconds"] == pytest.approx(sum(o["seconds"] for o in document["outages"]), abs=0.01)
    whats = {(s["id"], s["what"]) for s in document["steps"]}
    assert {("SwapData", "do"), ("SwapData", "undo")} <= whats
    assert any(".discarded in /var/lib/etcd" in left for left in document["remains"])
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("kind", ["engine", "power", "silent"])
def test_any_journal_can_be_reported_on(kind: str) -> None:
    for at in range(0, 900, 83):
        life = life_with_header()
        life.session("forward", Fuse(at, kind))
        past = replay(life.lines)
        for known in (None, life.plan):
            text = report.markdown(life.lines, past, known)
            assert text.isascii() or all(c.isprintable() or c == "\n" for c in text)
        open_ = [s for s in report.document(life.lines, past)["steps"] if s["result"] == "not ended"]
        assert len(open_) == sum(state in ("ACTING", "UNDOING") for state in past.steps.values())


def test_a_journal_without_a_line() -> None:
    assert "planned" in report.markdown([], replay([]))


# Its parts.


def test_attempts_are_told_one_by_one() -> None:
    lines = [
        step(0, "ACTING"),
        line("begin", 1, step="SwapData", host="m1", key="a.0", action="x"),
        line("begin", 2, step="SwapData", host="m2", key="a.0", action="x"),
        line("end", 4, step="SwapData", host="m1", key="a.0", code=0),
        line("end", 5, step="SwapData", host="m2", key="a.0", code=0),
        step(10, "ACTING", trigger="resume", epoch=2),
        line("begin", 11, step="SwapData", host="m1", key="a.1", action="x"),
        line("end", 12, step="SwapData", host="m1", key="a.1", code=0),
        step(15, "DONE", saw={"m1": "yes"}, epoch=2),
        step(16, "BLOCKED", "StartEtcd", saw={"m1": "no: not yet"}),
        step(17, "PENDING", "StartEtcd"),
        step(20, "UNDOING"),
        step(21, "UNDONE"),
    ]
    found = report.attempts(lines)
    assert [(a.step, a.what, a.result) for a in found] == [
        ("SwapData", "do", "cut off"),
        ("SwapData", "do", "DONE"),
        ("StartEtcd", "look", "BLOCKED"),
        ("SwapData", "undo", "UNDONE"),
    ]
    assert found[1].seconds == 5
    assert found[1].waited == 4
    assert found[0].seconds == 0
    assert found[1].saw == {"m1": "yes"}


def test_what_a_host_that_came_back_was_given_names_it() -> None:
    """Or the table looks like a second run."""
    lines = [
        line("run", 0, epoch=0, **HEADER),
        step(1, "ACTING"),
        step(2, "DONE", saw={"m1": "yes", "m2": "yes"}),
        step(3, "ACTING", joining="m3"),
        step(5, "DONE", saw={"m3": "yes"}, joining="m3"),
        step(6, "SKIPPED", "StartEtcd", saw={"m3": "yes"}, joining="m3"),
    ]
    past = replay(lines)
    steps = rows_of(report.markdown(lines, past), "Steps")
    assert [row[0] for row in steps] == ["SwapData", "SwapData on m3", "StartEtcd on m3"]
    assert [s["joining"] for s in report.document(lines, past)["steps"]] == ["", "m3", "m3"]


def test_a_take_over_is_told_in_words_and_is_an_engines_row() -> None:
    differs = ["m2: its copy of the journal is 3 lines shorter"]
    said = {"holder": "eve@desk", "version": "0.2.0", "from": "m1", "owner": "0123456789abcdef"}
    lines = [
        line("run", 0, epoch=0, **HEADER),
        line("engine", 1, command="run", holder="ops@laptop", version="0.1.0"),
        line("adopted", 9, differs=differs, **said) | {"epoch": 2},
        line("engine", 12, command="resume", holder="eve@desk", version="0.2.0") | {"epoch": 3},
    ]
    text = report.markdown(lines, replay(lines))
    assert [row[:4] for row in rows_of(text, "Engines")] == [
        ["1", "run", "ops@laptop", "0.1.0"],
        ["2", "adopt", "eve@desk", "0.2.0"],
        ["3", "resume", "eve@desk", "0.2.0"],
    ]
    told = [row[2] for row in rows_of(text, "Timeline")]
    assert "taken over by eve@desk, with the journal of m1, epoch 2" in told
    assert "m2: its copy of the journal is 3 lines shorter" in told
    assert "owner" not in text
    for strange in (line("adopted", 9), line("adopted", 9, differs="x", holder=3)):
        assert "taken over by" in report.markdown([strange], replay([strange]))


def test_commands_that_overlap_count_once() -> None:
    at = datetime.fromisoformat
    attempt = report.Attempt("x", "do", 1, at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:10Z"))
    attempt.commands = [
        (at("2026-01-01T00:00:01Z"), at("2026-01-01T00:00:06Z")),
        (at("2026-01-01T00:00:02Z"), at("2026-01-01T00:00:04Z")),
        (at("2026-01-01T00:00:05Z"), at("2026-01-01T00:00:08Z")),
    ]
    assert attempt.waited == 3


def test_failures_have_their_last_words() -> None:
    lines = [
        line("begin", 1, step="SwapData", host="m1", key="a.0", action="mv a b"),
        line("end", 4, step="SwapData", host="m1", key="a.0", code=1, said="No space left"),
        line("end", 5, step="SwapData", host="m2", key="a.0", code=None, said=""),
        line("end", 6, step="SwapData", host="m3", key="a.0", code=0),
    ]
    text = report.markdown(lines, replay(lines))
    cells = rows_of(text, "Failures")
    assert [row[1:] for row in cells] == [
        ["SwapData", "m1", "1", "No space left", "mv a b"],
        ["SwapData", "m2", "unknown", "", ""],
    ]
    assert {row[0]: row[3] for row in rows_of(text, "Hosts")} == {"m1": "1", "m2": "1", "m3": "0"}


def test_the_proof_is_told_only_where_it_was_seen() -> None:
    failed = [step(1, "FAILED", "StartEtcd", saw={"m1": "no: other data"})]
    assert report.proof(failed) is None
    assert "was not seen" in report.markdown(failed, replay(failed))
    seen = [*failed, step(9, "DONE", "StartEtcd", saw={"m1": "yes", "m2": "yes"})]
    proof = report.proof(seen)
    assert proof is not None
    assert proof["hosts"] == ["m1", "m2"]
    assert report.COMPACTED in proof["says"]


def test_a_host_that_came_back_joins_those_that_saw_the_proof() -> None:
    seen = [
        step(1, "DONE", "StartEtcd", saw={"m1": "yes", "m2": "yes"}),
        step(9, "DONE", "StartEtcd", saw={"m3": "yes"}, joining="m3") | {"seq": 9},
    ]
    proof = report.proof(seen)
    assert proof is not None
    assert (proof["hosts"], proof["at"]) == (["m1", "m2", "m3"], seen[0]["at"])


def test_the_proofs_clauses_are_those_of_the_step() -> None:
    from runbook.procedures.proof import same_data_everywhere
    from runbook.step import Binding, Target

    whole = plan(3)
    asked = same_data_everywhere(Target(whole, Binding(), whole.nodes[0])).questions
    assert len(asked) == len(report.PROVEN) + 1  # a clause added there is to be told here


def test_nothing_remains_after_finish_or_before_the_lock() -> None:
    assert report.remains(replay([]), plan(3)) == []
    closed = [line("run", 0, **HEADER), step(1, "DONE", "LockHosts"), line("closed", 2)]
    assert report.remains(replay(closed), plan(3)) == []
    begun = [line("run", 0, **HEADER), step(1, "DONE", "LockHosts"), step(2, "DONE", "RestoreAside")]
    left = report.remains(replay(begun), plan(3, wal=True))
    assert left[0].startswith(f"/var/lib/etcd-runbook/{RUN}: ")
    assert left[1].startswith(f".{RUN}.restored in /var/lib/etcd and /var/lib/etcd-wal: ")


# Hostile texts.


def hostile_lines() -> list[Line]:
    return [
        line("run", 0, **{**HEADER, "ticket": HOSTILE, "holder": HOSTILE}),
        line("engine", 1, command=HOSTILE, holder=HOSTILE, version=HOSTILE),
        line("finding", 2, check=HOSTILE, severity="blocks", host=HOSTILE, saw=HOSTILE, do=HOSTILE),
        line("begin", 3, step="SwapData", host="m1", key="k", action=HOSTILE),
        line("end", 4, step="SwapData", host="m1", key="k", code=1, said=HOSTILE),
        step(5, "FAILED", saw={"m1": f"no: {HOSTILE}"}),
        {**line("state", 6, to="halted", why=HOSTILE), "from": "outage"},
    ]


def test_what_a_host_says_breaks_no_table_and_is_no_markup() -> None:
    lines = hostile_lines()
    text = report.markdown(lines, replay(lines), plan(3))
    assert all(c.isprintable() or c == "\n" for c in text)
    for title, columns in (("Engines", 6), ("Findings", 6), ("Failures", 6), ("Hosts", 4), ("Timeline", 3)):
        rows = rows_of(text, title)
        assert rows
        assert all(len(row) == columns for row in rows), title
    assert "<script" not in text.replace("\\<", "")
    assert "](" not in text.replace("\\]", "")
    assert "://evil" not in text
    assert not re.search(r"(?<![\w\\])www\.evil", text)
    assert [h for h in re.findall(r"^#+ (.*)", text, flags=re.M) if "h2" in h] == []
    lines_with_bars = [entry for entry in text.split("\n") if entry.startswith("|")]
    assert len(lines_with_bars) == len(set(map(id, lines_with_bars)))


@given(st.text())
def test_an_escaped_text_is_one_cell(value: str) -> None:
    shown = escaped(value)
    assert "\n" not in shown
    assert shown.isprintable()
    assert len(re.split(r"(?<!\\)(?:\\\\)*\|", f"{shown} ")) == 1 or "|" not in re.sub(r"\\.", "", shown)
    bare = re.sub(r"\\.", "", shown)
    assert not set(bare) & set("`*_[]<>|&~#$!\\")


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_code_comes_back(value: str) -> None:
    shown = code(value)
    fence = re.match(r"`*", shown)
    assert fence is not None
    inner = shown[len(fence[0]) : len(shown) - len(fence[0])]
    assert (inner[1:-1] if "`" in value else inner) == value
    if fence[0] and "`" in value:
        assert fence[0] not in inner.strip().replace(" ", "x") or len(fence[0]) > len(max(re.findall("`+", value)))


def test_an_empty_table_is_nothing() -> None:
    assert table(("a",), []) == []
    assert table(("a", "b"), [("x|y", 1)]) == ["| a | b |", "|---|---|", r"| x\|y | 1 |", ""]


def test_plain_words_stay_readable() -> None:
    for text in ("0.1.0", "10.0.1.10", "m1: 3 s (2 of 3)", "etcd-runbook/x.y", "- no"):
        assert escaped(text).replace("\\-", "-") == text
    assert escaped("1. x") == r"1\. x"
    assert escaped("file:///run/s.db, host://m1/s.db") == "file:///run/s.db, host://m1/s.db"
    assert escaped("see HTTPS://evil.example") == r"see HTTPS:\//evil.example"


def test_a_report_of_two_days_names_the_days() -> None:
    lines: Sequence[Line] = [
        {**step(1, "ACTING"), "at": "2026-04-09T23:59:59.000000Z"},
        {**step(1, "DONE"), "at": "2026-04-10T00:00:01.000000Z"},
    ]
    assert "2026-04-09 23:59:59.000" in report.markdown(lines, replay(lines))


def test_nothing_is_read_but_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("the report reads no file"))
    lines = hostile_lines()
    report.markdown(lines, replay(lines))


def test_what_remains_after_a_rollback_is_what_is_there() -> None:
    """The staged snapshot is removed with the rest of what was prepared; what was discarded is kept."""
    life = life_with_header()
    life.session("forward")
    kept = report.remains(replay(life.lines), life.plan)
    assert "the snapshot" in kept[0]
    assert not any("discarded" in what for what in kept)
    assert life.session("backward") == "rolled-back"
    run_dir = f"/var/lib/etcd-runbook/{RUN}"
    first, *others = report.remains(replay(life.lines), life.plan)
    assert first == f"{run_dir}: copies of the plan and the journal, commands' results"
    assert others[1].startswith(f"{run_dir}/discarded.db on m1: ")
    assert others[0].startswith(f".{RUN}.discarded in /var/lib/etcd: ")
    on_m1 = life.world.hosts["m1"]
    assert on_m1.read(f"{run_dir}/snapshot.db") is None
    assert on_m1.read(f"{run_dir}/plan.yaml") is not None
    assert on_m1.read(f"{run_dir}/discarded.db") is not None


def test_nothing_is_said_to_be_discarded_where_nothing_could_be_written() -> None:
    for at in range(150, 2000, 40):
        life = life_with_header()
        if life.session("forward", Fuse(at, "silent")).startswith("Halted") and replay(life.lines).in_outage:
            break
    assert life.session("backward") == "rolled-back"
    assert not replay(life.lines).served
    assert not any("discarded.db" in what for what in report.remains(replay(life.lines), life.plan))


def test_of_a_run_that_another_machine_took_over_the_outage_is_told_as_far_as_known() -> None:
    life = life_with_header()
    life.session("forward", Fuse(500))
    assert replay(life.lines).in_outage
    assert "and it is still down" in report.markdown(life.lines, replay(life.lines))
    lines = [*life.lines, line("superseded", 9, adopt="runbook adopt --host root@m1")]
    text = report.markdown(lines, replay(lines))
    assert "and it is still down" not in text
    assert "as far as this machine knows" in text


@pytest.mark.parametrize("end", ["complete", "closed"])
def test_the_report_does_not_name_itself_as_what_to_do_next(end: str) -> None:
    life = life_with_header()
    life.session("forward")
    if end == "closed":
        life.session("finish")
    document = report.document(life.lines, replay(life.lines), life.plan)
    assert not [command for command in document["next"] if command.startswith("runbook report")]
    assert bool(document["next"]) == (end == "complete")
    assert ("## Next" in report.markdown(life.lines, replay(life.lines), life.plan)) == (end == "complete")

"""``preview --without``: exactly what ``run --without`` does, on the hosts that take part, and a digest of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbook.checks import Finding, Severity
from tests.fake.desk import Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def digest(desk: Desk, *words: str) -> str:
    return desk.type("preview", str(desk.plan_path), *words).out.splitlines()[-1].removeprefix("digest: ")


def document(desk: Desk, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(desk.type("preview", str(desk.plan_path), *words, "--output", "json").out)
    return found


def commands(shown: dict[str, Any], run: str, holder: str) -> set[tuple[str, str, str]]:
    """Every command that changes a host, by step and host, as the run's journal would have it."""
    found = [(s["id"], host, argv) for s in shown["steps"] for host, p in s["hosts"].items() for argv in p["commands"]]
    found += [("LockHosts", host, argv) for host, undo in shown["unlock"].items() for argv in undo["commands"]]
    return {(s, h, " ".join(argv).replace("$RUN", run).replace("$HOLDER", holder)) for s, h, argv in found}


@pytest.mark.parametrize("gone", ["m1", "m3"])
def test_it_shows_what_a_run_without_the_node_does_and_nothing_else(desk: Desk, gone: str) -> None:
    shown = document(desk, "--without", gone)
    desk.silent = {gone}
    run = desk.restore("--without", gone)
    begun = [line for line in run.lines() if line["event"] == "begin" and not line["action"].startswith("upload ")]
    words = {(line["step"], line["host"], line["action"]) for line in begun}
    assert words
    assert words <= commands(shown, run.id, run.lines()[0]["holder"])
    assert shown["absent"] == [gone]
    every = [*(s["hosts"] for s in shown["steps"]), shown["unlock"], shown["before_rollback"], shown["finish"]]
    assert not any(gone in hosts for hosts in every)
    assert all(todo["on"] != gone for todo in shown["follow_up"])
    assert run.lines()[0]["preview_digest"] == shown["digest"]


def test_people_are_told_who_gets_nothing(desk: Desk) -> None:
    text = desk.type("preview", str(desk.plan_path), "--without", "m3").out
    assert text.startswith("PREVIEW: restore etcd from a snapshot on 2 of 3 hosts, without m3. ")
    assert "without m3: nothing is done there" in text
    assert "· on m1, m2]" in text
    assert "m1, m2, m3]" not in text
    assert document(desk)["absent"] == []


def test_its_digest_approves_the_run_without_the_node_and_no_other(desk: Desk) -> None:
    whole, less, other = digest(desk), digest(desk, "--without", "m3"), digest(desk, "--without", "m2")
    assert len({whole, less, other}) == 3
    desk.silent = {"m3"}
    for wrong in (whole, other):
        typed = desk.type("run", str(desk.plan_path), "--approve", wrong, "--without", "m3", code=2)
        assert f"is not what this would do now: its digest is {less}" in typed.err
        assert typed.next[0].startswith(f"runbook preview {desk.quoted} --without m3   # ")
    desk.type("run", str(desk.plan_path), "--approve", less, code=2)
    desk.type("run", str(desk.plan_path), "--approve", less, "--without", "m3")


def test_the_order_and_a_repetition_are_no_matter(desk: Desk) -> None:
    four = ["m4", "m5"]
    lines = desk.plan_path.read_text().splitlines()
    more = [lines[8].replace("m3", n).replace("10.0.1.12", f"10.0.1.{i}") for i, n in enumerate(four, 13)]
    desk.plan_path.write_text("\n".join([*lines[:9], *more, *lines[9:]]))
    one, two = ("--without", "m2"), ("--without", "m4")
    assert digest(desk, *one, *two) == digest(desk, *two, *one, *two)


def test_what_no_run_may_leave_out_is_refused_here_too(desk: Desk) -> None:
    for words, why in ((("m9",), "the plan has no such node"), (("m1", "m2"), "at most 1 may be absent")):
        options = [word for name in words for word in ("--without", name)]
        assert why in desk.type("preview", str(desk.plan_path), *options, code=2).err


def test_the_checks_ask_only_those_that_take_part(desk: Desk) -> None:
    asked: list[str] = []

    def inspect(
        group: str, plan: object, bound: object, hosts: object, there: list[Any], clock: object, **_: object
    ) -> list[Finding]:
        asked.extend(t.name for t in there)
        return [Finding("Swap", h, Severity.OK, "off", "") for h in asked]

    desk.patch.setattr("runbook.checks.survey.inspect", inspect)
    lines = desk.type("preview", str(desk.plan_path), "--check", "--without", "m3").out.splitlines()
    assert asked == ["m1", "m2"]
    assert lines[-3] == f"Type next:     runbook run {desk.quoted} --without m3"


def test_what_is_in_the_way_is_looked_at_again_without_the_node(desk: Desk) -> None:
    desk.findings["preflight"].append(Finding("Swap", "m1", Severity.BLOCKS, "swap is on", "swapoff -a"))
    again = f"runbook preview --check {desk.quoted} --without m3"
    typed = desk.type("preview", str(desk.plan_path), "--check", "--without", "m3", code=3)
    assert typed.next == [f"{again}   # after mending that"]
    typed = desk.type("run", str(desk.plan_path), "--yes", "--without", "m3", code=3)
    assert typed.next == [again, f"runbook run {desk.quoted} --without m3"]


def test_who_is_to_confirm_types_the_same_again(desk: Desk) -> None:
    typed = desk.type("run", str(desk.plan_path), "--without", "m3", code=2)
    again = f"runbook run {desk.quoted} --without m3"
    assert typed.next[0] == f"{again} --yes"
    assert typed.next[1].startswith(f"{again} --approve DIGEST   # ")


@pytest.mark.parametrize("command", ["preview", "run"])
def test_the_node_that_holds_the_snapshot_cannot_be_left_out(desk: Desk, command: str) -> None:
    plan = desk.plan_path.read_text()
    desk.plan_path.write_text(plan.replace("file:///s.db", "host://m2/opt/etcd.db"))
    words = ["--yes"] if command == "run" else []
    done = desk.type(command, str(desk.plan_path), *words, "--without", "m2", code=2)
    assert "takes the snapshot from that node's disk" in done.err
    assert not list((desk.home / "state").glob("runs/*"))

"""The preview shows every command of every step on every host, exactly, and what a responder must know beside."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runbook import outlook, preview
from runbook.plan import Node, OwnCheck, Paths, Plan, Tools, Verify, Worker
from runbook.procedure import Procedure
from runbook.procedures import data, kubeadm, scripts
from runbook.procedures.words import script
from runbook.shown import Scripts, quote
from runbook.step import (
    NOTHING,
    Action,
    Binding,
    Command,
    Irreversible,
    Phase,
    Probe,
    Scope,
    Secret,
    Step,
    Target,
    Upload,
    probe,
)
from tests.fake.sessions import PROCEDURE, plan

BOUND = Binding(sha256="ab" * 32, etcdctl_sha256="cd" * 32, etcdutl_sha256="ef" * 32)
OWN = (
    OwnCheck("payments answers", "local", "curl -fsS 'https://payments.internal/healthz'"),
    OwnCheck("several lines", "all", "set -e\necho 'one'\n  echo two"),
)


def rich_plan(nodes: int = 3) -> Plan:
    """A plan that uses all there is: WAL, workers, tools brought along, own checks, odd paths."""
    base = plan(nodes, wal=True)
    odd = replace(base.nodes[0], paths=replace(base.nodes[0].paths, data_dir="/srv/etcd data/$(x) 'y'"))
    return replace(
        base,
        nodes=(odd, *base.nodes[1:]),
        ticket="INC-4711",
        workers=(Worker("w1", paths=Paths(workspace="/var/tmp/run book")),),
        tools=Tools(upload=Path("/opt/tools here")),
        verify=Verify(secrets=("default/known",), rbac=("clusterrole/cluster-admin",), checks=OWN),
    )


PLANS = [plan(1), plan(3), plan(5, wal=True), rich_plan()]


def targets(plan: Plan, step: Step) -> list[Target]:
    bound = outlook.placeholders(plan, BOUND)
    nodes: list[Target] = [Target(plan, bound, n) for n in plan.nodes]
    workers = [Target(plan, bound, w) for w in plan.workers]
    if step.checks:
        return nodes + workers
    return {Scope.ALL: nodes, Scope.FIRST: nodes[:1], Scope.WORKERS: workers}[step.on]


def scripts_of(text: str) -> dict[str, str]:
    """The appendix, read back: the scripts by their names."""
    body = text.partition("\nSCRIPTS")[2].partition("\ndigest: ")[0]
    pieces = re.split(r"\n  <([\w.-]+)>[^\n]*\n", body)
    return {
        name: "\n".join(line[6:] for line in piece.rstrip("\n").split("\n"))
        for name, piece in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def shown(text: str) -> dict[tuple[int, str, str], list[str]]:
    """Every command line, by (step number, section, host)."""
    found: dict[tuple[int, str, str], list[str]] = {}
    number, section, hosts = 0, "", list[str]()
    for line in text.partition("\nAT THE END")[0].split("\n"):
        if match := re.match(r" ?(\d+)\. ", line):
            number = int(match[1])
        elif match := re.match(r" {4}(\w[\w ]*):", line):
            section = match[1]
        elif match := re.match(r" {6}on ([^(:]+?)(?: \(.*\))?:$", line):
            hosts = match[1].split(", ")
        elif line.startswith(" " * 8):
            for host in hosts:
                found.setdefault((number, section, host), []).append(line[8:])
    return found


def plain(text: str) -> str:
    return text.strip("\n")


def assert_shown(line: str, action: Action, named: dict[str, str]) -> None:
    if isinstance(action, Upload):
        assert line.startswith("upload ")
        assert quote(action.dest) in line
        assert action.sha256 in line
        assert f"mode {action.mode:04o}" in line
        return
    words = shlex.split(line)
    texts = [plain(named[w[1:-1]]) if re.fullmatch(r"<[\w.-]+>", w) else w for w in words]
    assert texts == [plain(w) if "\n" in w else w for w in action.words()]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: f"{len(p.nodes)} nodes, {len(p.workers)} workers")
def test_every_command_of_every_step_is_shown_exactly(plan: Plan) -> None:
    text = preview.render(plan, BOUND, PROCEDURE)
    lines, named = shown(text), scripts_of(text)
    count = 0
    for number, step in enumerate(PROCEDURE.steps, start=1):
        for n in targets(plan, step):
            undo = step.undo(n)
            assert not isinstance(undo, Irreversible)
            for section, actions in (("does", step.do(n)), ("undone by", undo)):
                mine = lines.pop((number, section, n.name), [])
                assert len(mine) == len(actions), (step.id(), section, n.name)
                for line, action in zip(mine, actions, strict=True):
                    assert_shown(line, action, named)
                    count += 1
    assert not lines
    assert count > 30 * len(plan.nodes)


class Small(Step):
    """Do a small thing, on every host."""

    phase: ClassVar[Phase] = Phase.OUTAGE

    def ready(self, n: Target) -> Probe:
        return NOTHING if n.name == "m3" else probe("it is small", Command(("test", "-e", "/small")), lambda r: "")

    def do(self, n: Target) -> Sequence[Action]:
        return [
            script(scripts.SAVE, "/a dir", n.run_dir, "f", timeout=1),
            Upload(f"{n.run_dir}/x", n.bound.sha256, source="/my file"),
            Command(("touch", f"/for-{n.name}" if n.name == "m1" else "/for-others")),
        ]

    def done(self, n: Target) -> Probe:
        return probe("it was done", Command(("true",)), lambda r: "").within(5)

    def undo(self, n: Target) -> Sequence[Action]:
        return [Command(("rm", "--", "/small"), optional=True)]


def test_the_snapshot_of_a_small_preview() -> None:
    small = replace(PROCEDURE, steps=(Small(), Small()))
    text = preview.render(plan(3), BOUND, small, note="revision 100")
    block = text[text.index(" 1. Do a small thing") : text.index(" 2. Do a small thing")]
    assert block.rstrip().split("\n") == [
        " 1. Do a small thing, on every host",
        "    [Small · outage · on m1, m2, m3]",
        "    may start when: it is small",
        "    does:",
        "      on m1, m2, m3:",
        "        sh -c <SAVE> runbook '/a dir' /var/lib/etcd-runbook/$RUN f",
        f"        upload '/my file' → /var/lib/etcd-runbook/$RUN/x (sha256 {'ab' * 32}, mode 0600)",
        "      on m1:",
        "        touch /for-m1",
        "      on m2, m3:",
        "        touch /for-others",
        "    done when: it was done (waits for up to 5 s)",
        "    undone by:",
        "      on m1, m2, m3 (a failure is noted, and the step goes on):",
        "        rm -- /small",
        "",
        "═══ BARRIER ═══ no host goes on until every host is done",
    ]
    assert "revision 100" in text


def test_equal_commands_are_grouped_and_differing_ones_are_not() -> None:
    text = preview.render(plan(3), BOUND, PROCEDURE)
    block = text[text.index(" 5. Restore the snapshot") : text.index(" 6. Stop the scheduler")]
    undone = block.partition("undone by")[2]
    assert re.findall(r"      on (.*):", undone) == ["m1, m2, m3"]
    does = block.partition("done when")[0]
    assert re.findall(r"      on (.*):", does) == ["m1", "m2", "m3"]
    assert "--name m1" in block
    assert "--name m2" in block


def test_the_outage_the_barriers_and_the_consent_are_marked() -> None:
    text = preview.render(rich_plan(), BOUND, PROCEDURE)
    order = [
        "1. Check everything",
        "5. Restore the snapshot",
        "═══ BARRIER",
        "── OUTAGE",
        "▼▼▼ OUTAGE BEGINS",
        "6. Stop the scheduler",
        "═══ BARRIER",
        "7. Stop the API server",
        "═══ BARRIER",
        "11. Start the API server",
        "--discard-writes",
        "▲▲▲ OUTAGE ENDS",
        "═══ BARRIER",
        "12. Start the scheduler",
        "═══ BARRIER",
        "── VERIFY",
        "13. Restart the kubelets",
    ]
    at = 0
    for mark in order:
        at = text.index(mark, at) + 1
    outage = sum(step.phase is Phase.OUTAGE for step in PROCEDURE.steps)
    assert text.count("═══ BARRIER") == outage + 1
    assert text.count("OUTAGE BEGINS") == text.count("OUTAGE ENDS") == 1


def test_what_is_never_restored_covered_and_left_to_people() -> None:
    text = preview.render(rich_plan(), BOUND, PROCEDURE)
    for told in (*preview.NEVER_RESTORED, *preview.OUTAGE_COVERS):
        assert told in text
    assert "persistent volumes" in text
    assert "-n kube-system rollout restart daemonset kube-proxy" in text
    assert "/registry/masterleases/" in text
    assert "waits for up to 3 min" in text
    by_hand = preview.follow_up(plan(3), BOUND)
    assert all(set(todo) == {"why", "on", "command"} for todo in by_hand)
    assert shlex.split(by_hand[0]["command"])[0] == "kubectl"


def test_the_plans_own_checks_are_marked_as_its_shell_text() -> None:
    text = preview.render(rich_plan(), BOUND, PROCEDURE)
    own = text[text.index("THE PLAN'S OWN CHECKS") : text.index("\nSCRIPTS")]
    assert "the only shell text of a plan" in own
    assert "payments answers" in own
    assert shlex.join(("sh", "-c", OWN[0].run)) in own
    assert "sh -c <PLAN-1>" in own
    assert plain(scripts_of(text)["PLAN-1"]) == OWN[1].run
    before = text[: text.index("THE PLAN'S OWN CHECKS")]
    assert "payments.internal" not in before
    assert "THE PLAN'S OWN CHECKS" not in preview.render(plan(3), BOUND, PROCEDURE)


def test_a_snapshot_that_is_not_known_yet_is_said_to_be_so() -> None:
    on_node = replace(plan(3), snapshot=replace(plan(3).snapshot, source="host://m1/s.db", node="m1"))
    text = preview.render(on_node, BOUND, PROCEDURE)
    assert "not known before the run" in text
    assert "m1:/s.db → /var/lib/etcd-runbook/$RUN/snapshot.db (sha256 $SHA256" in text
    assert "its content is checked here: `cat /s.db` on m1, into a file without a name" in text
    assert "its content is checked here" not in preview.render(plan(3), BOUND, PROCEDURE)
    assert preview.document(on_node, BOUND, PROCEDURE)["plan"]["snapshot"]["sha256"] is None


def test_two_renderings_are_the_same_in_other_processes_too() -> None:
    here = preview.render(rich_plan(), BOUND, PROCEDURE)
    assert here == preview.render(rich_plan(), BOUND, PROCEDURE)
    program = "from tests.unit.test_preview import *\nprint(preview.render(rich_plan(), BOUND, PROCEDURE), end='')"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
        )
        assert run.stdout.decode() == here


def test_the_run_and_its_holder_are_placeholders_in_a_real_run_too() -> None:
    real = replace(BOUND, run="prod-20260409t140000z-1a2b", holder="ops@laptop")
    assert preview.render(rich_plan(), real, PROCEDURE) == preview.render(rich_plan(), BOUND, PROCEDURE)
    assert preview.document(rich_plan(), real, PROCEDURE) == preview.document(rich_plan(), BOUND, PROCEDURE)


def test_the_last_line_is_the_digest_and_the_same_everywhere() -> None:
    text = preview.render(rich_plan(), BOUND, PROCEDURE)
    last = text.split("\n")[-1]
    assert re.fullmatch(r"digest: [0-9a-f]{64}", last)
    assert last.endswith(preview.digest(rich_plan(), BOUND, PROCEDURE))
    assert last.endswith(preview.document(rich_plan(), BOUND, PROCEDURE)["digest"])


# The document.


def resolve(argv: Sequence[str], named: dict[str, str]) -> list[str]:
    return [named[w[1:-1]] if re.fullmatch(r"<[\w.-]+>", w) else w for w in argv]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: f"{len(p.nodes)} nodes, {len(p.workers)} workers")
def test_the_document_has_every_word(plan: Plan) -> None:
    document: dict[str, Any] = json.loads(json.dumps(preview.document(plan, BOUND, PROCEDURE)))
    assert {"plan", "steps", "scripts", "never_restored", "digest"} <= set(document)
    named = document["scripts"]
    assert [s["id"] for s in document["steps"]] == [s.id() for s in PROCEDURE.steps]
    for plain_step, step in zip(document["steps"], PROCEDURE.steps, strict=True):
        assert {"id", "title", "phase", "on", "hosts"} <= set(plain_step)
        assert set(plain_step["hosts"]) == {n.name for n in targets(plan, step)}
        for n in targets(plan, step):
            mine = plain_step["hosts"][n.name]
            assert {"ready", "commands", "uploads", "done", "undo", "undone"} <= set(mine)
            commands = [list(a.words()) for a in step.do(n) if isinstance(a, Command)]
            assert [resolve(argv, named) for argv in mine["commands"]] == commands
            uploads = [(a.dest, a.sha256) for a in step.do(n) if isinstance(a, Upload)]
            assert [(u["to"], u["sha256"]) for u in mine["uploads"]] == uploads
            undo = step.undo(n)
            assert not isinstance(undo, Irreversible)
            assert [resolve(argv, named) for argv in mine["undo"]] == [
                list(a.words()) for a in undo if isinstance(a, Command)
            ]
            asks = [list(q.ask.words()) for q in step.done(n).questions]
            assert [resolve(argv, named) for argv in mine["done"]["asks"]] == asks
            assert mine["done"]["says"] == step.done(n).says
            assert mine["ready"]["wait"] == step.ready(n).wait


# Words.


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))))
@example(["", "$RUN", "a b", "$RUN'x", "$(x)", "<SWAP>", "~", "#", "$RUN$SHA256/$HOLDER", "\\", "a\tb", "!x"])
def test_quoted_words_come_back(words: list[str]) -> None:
    assert shlex.split(" ".join(quote(w) for w in words)) == words


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")))
def test_nothing_but_placeholders_stands_unquoted_before_a_shell(word: str) -> None:
    bare = quote(word)
    for placeholder in ("$RUN", "$SHA256", "$HOLDER"):
        bare = bare.replace(placeholder, "")
    assert shlex.split(bare, posix=True) is not None
    assert re.fullmatch(r"[\w@%+=:,./-]*|'.*", bare, re.S | re.A)


class Odd(Step):
    """A step with a secret, an undo that cannot be, and a host that differs."""

    phase: ClassVar[Phase] = Phase.OUTAGE

    def do(self, n: Target) -> Sequence[Action]:
        extra = [Command(("echo", "a\x1b[31mb\u202e"))] if n.name == "m2" else []
        return [Command(("login", Secret("hunter22"), f"--as={n.name}"), optional=True), *extra]

    def done(self, n: Target) -> Probe:
        return NOTHING

    def undo(self, n: Target) -> Irreversible:
        return Irreversible("it was said aloud")


def odd() -> Procedure:
    return Procedure((Odd(), kubeadm.LOCK_STEP), kubeadm.LOCK_STEP, kubeadm.may_roll_back, data.sweep)


def test_secrets_are_masked_and_what_cannot_be_undone_is_told() -> None:
    text = preview.render(plan(3), BOUND, odd())
    document = preview.document(plan(3), BOUND, odd())
    for shown_ in (text, json.dumps(document, ensure_ascii=False)):
        assert "hunter22" not in shown_
        assert "•••" in shown_
    assert "cannot be undone on m1, m2, m3: it was said aloud" in text
    assert "(a failure is noted, and the step goes on)" in text
    assert document["steps"][0]["hosts"]["m1"]["irreversible"] == "it was said aloud"


def test_no_control_character_reaches_the_terminal() -> None:
    nasty = replace(plan(1), ticket="\x1b[2J\x07 INC\u202e")
    text = preview.render(nasty, BOUND, odd(), note="\x9b31m")
    assert all(c.isprintable() or c == "\n" for c in text)
    two = preview.render(plan(2), BOUND, odd())
    assert "\\x1b[31m" in two
    assert all(c.isprintable() or c == "\n" for c in two)


def test_a_long_text_without_a_name_is_numbered() -> None:
    named = Scripts({"a\nb": "KNOWN"})
    assert named.line(Command(("sh", "-c", "a\nb", "x y"))) == "sh -c <KNOWN> 'x y'"
    assert named.line(Command(("sh", "-c", "c\nd"))) == "sh -c <PLAN-1>"
    assert named.used == {"KNOWN": "a\nb", "PLAN-1": "c\nd"}


def test_importing_the_views_is_cheap() -> None:
    heavy = ("rich", "fabric", "structlog", "transitions", "jsonschema", "yaml")
    program = (
        "import sys, runbook.preview, runbook.report, runbook.status, runbook.progress, runbook.log\n"
        f"found = [m for m in {heavy!r} if m in sys.modules]\nassert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_node_is_described_by_its_own_paths() -> None:
    own = Node("m1", "h", ("https://h:2380",), ("https://h:2379",), paths=Paths(data_dir="/data", wal_dir="/wal"))
    text = preview.render(replace(plan(1), nodes=(own,)), BOUND, PROCEDURE)
    assert "root@h:22" in text
    assert "sh -c <SWAP> runbook /data /wal $RUN /var/lib/etcd-runbook/$RUN" in text

"""Every step of the procedure: pure, in order, with plan text only where it belongs, undone within its own marks."""

from __future__ import annotations

import builtins
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.plan import Cluster, Node, Paths, Plan, Snapshot, Tools, Verify, Worker
from runbook.procedures import data, kubeadm, scripts
from runbook.procedures.words import COMPONENTS
from runbook.step import (
    Action,
    Binding,
    Command,
    Irreversible,
    Phase,
    Probe,
    Scope,
    Step,
    Target,
    Upload,
)
from runbook.transport import LOCK
from tests.fake.sessions import BOUND, RUN, plan

STEPS = kubeadm.STEPS
TEXTS = {text for name, text in vars(scripts).items() if name.isupper() and isinstance(text, str)}
TEXTS |= {'"$@" > /dev/null'}
"""The shell texts that a command may hold: constants, every one."""

PROGRAMS = ("sh", "rm", "cat", "crictl", "ss", "kubectl", "systemctl", "test")
"""The first words of the procedure's commands, beside etcd's own tools."""

ids = [step.id() for step in STEPS]


def rich() -> Plan:
    """A plan that uses every part of the vocabulary."""
    base = plan(wal=True)
    return replace(
        base,
        workers=(Worker("w1"),),
        tools=Tools(upload=Path("/srv/tools")),
        verify=Verify(secrets=("default/known",)),
    )


def targets(step: Step, of: Plan) -> list[Target]:
    places: Sequence[Node | Worker] = of.workers if step.on is Scope.WORKERS else of.nodes
    return [Target(of, BOUND, place) for place in places]


def probes(step: Step, n: Target) -> list[Probe]:
    return [step.ready(n), step.done(n), step.undone(n)]


def undo(step: Step, n: Target) -> Sequence[Action]:
    back = step.undo(n)
    return () if isinstance(back, Irreversible) else back


def changes(step: Step, n: Target) -> list[Action]:
    return [*step.do(n), *undo(step, n)]


def commands(step: Step, n: Target) -> Iterator[Command]:
    yield from (a for a in changes(step, n) if isinstance(a, Command))
    for probe in probes(step, n):
        yield from (q.ask for q in probe.questions)


# Words and order.


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_a_step_says_what_it_does(step: Step) -> None:
    assert type(step).__doc__
    title = step.title()
    assert title[0].isupper()
    assert not title.endswith(".")
    assert "\n" not in title
    assert title != step.id(), "a title is for people"
    assert len(title) <= 130


def test_titles_and_names_are_their_own() -> None:
    assert len({s.title() for s in STEPS}) == len({s.id() for s in STEPS}) == len(STEPS)


def test_the_phases_come_in_their_order() -> None:
    order = [Phase.PREPARE, Phase.OUTAGE, Phase.VERIFY]
    phases = [s.phase for s in STEPS]
    assert phases == sorted(phases, key=order.index)
    assert set(phases) == set(order)


def test_the_procedure_is_stop_all_swap_all_start_all() -> None:
    wanted = ["StopControllers", "StopApiServers", "StopEtcd", "SwapData"]
    wanted += ["StartEtcd", "StartApiServers", "StartControllers"]
    assert [s.id() for s in STEPS if s.phase is Phase.OUTAGE] == wanted
    assert [s.id() for s in STEPS if s.consent] == ["StartApiServers"]


def test_the_lock_comes_before_anything_is_changed() -> None:
    first = next(s for s in STEPS if s.do(targets(s, plan())[0]))
    assert first.id() == "LockHosts"


# Purity.


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_a_step_does_nothing_by_being_asked(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    found = targets(step, rich())
    assert found

    def refuse(*args: object, **kwargs: object) -> object:
        raise AssertionError(f"a step must not touch the machine: {args}")

    with monkeypatch.context() as patched:
        for owner, name in ((builtins, "open"), (os, "open"), (os, "stat"), (os, "listdir"), (os, "urandom")):
            patched.setattr(owner, name, refuse)
        for owner, name in ((subprocess, "Popen"), (socket, "socket"), (os, "system"), (os, "fork")):
            patched.setattr(owner, name, refuse)
        seen = [(list(commands(step, n)), changes(step, n)) for n in found]
        again = [(list(commands(step, n)), changes(step, n)) for n in found]
    assert seen == again, "the same plan, the same words"


# Words of the plan in command lines.

NASTY = st.text(st.sampled_from("ab$`()'\"\\ ;&|<>*?\n\t#~!-{}%é"), min_size=1, max_size=12).map(lambda s: f"q{s}z")


@given(NASTY, NASTY, NASTY)
@settings(max_examples=60, deadline=None)
def test_plan_text_is_never_part_of_a_script(one: str, two: str, three: str) -> None:
    """Whatever it holds: it is (part of) a word of its own, and every shell text is a constant."""
    paths = Paths(
        manifests=f"/m{one}", data_dir=f"/d{two}", wal_dir=f"/w{three}", workspace=f"/s{one}", kubeconfig=f"/k{two}"
    )
    nodes = tuple(
        Node(f"m{i}{one}", "h", (f"https://10.0.0.{i}:2380/{two}",), (f"https://10.0.0.{i}:2379",), paths=paths)
        for i in (1, 2, 3)
    )
    nasty = Plan(
        "p",
        Snapshot("file:///s", Path(f"/srv/{three}")),
        nodes,
        cluster=Cluster(token=f"t{one}"),
        tools=Tools(etcdctl=f"/b{two}/etcdctl", etcdutl=f"/b{three}/etcdutl"),
        owner=f"u{one}:g",
        verify=Verify(secrets=(f"ns{two}/s{three}",)),
        workers=(Worker("w1", paths=paths),),
    )
    for step in STEPS:
        for n in targets(step, nasty):
            for command in commands(step, n):
                words = command.words()
                for index, word in enumerate(words):
                    if word == "-c" and words[index - 1] == "sh":
                        assert words[index + 1] in TEXTS, f"{step.id()}: a shell text that is not a constant"
                        assert words[index + 2] == "runbook"
                assert words[0] in {*PROGRAMS, nasty.tools.etcdctl, nasty.tools.etcdutl}
                assert shlex.split(shlex.join(words)) == list(words)


def test_a_word_of_the_plan_that_begins_with_a_dash_is_no_option() -> None:
    """Run directories and files stand behind ``--`` wherever a program takes options."""
    for step in STEPS:
        for n in targets(step, rich()):
            for command in (a for a in changes(step, n) if isinstance(a, Command)):
                if command.argv[0] in ("rm", "install", "mkdir", "touch"):
                    assert "--" in command.argv, command.argv


# Time and marks.


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_every_command_has_its_time(step: Step) -> None:
    for n in targets(step, rich()):
        for action in changes(step, n):
            assert 0 < action.timeout <= n.plan.timeouts.restore, action
            assert not isinstance(action, Command) or action.changes, "what changes runs detached, under the epoch"
        for probe in probes(step, n):
            for question in probe.questions:
                assert 0 < question.ask.timeout <= n.plan.timeouts.restore
                assert not question.ask.changes, f"{question.says}: a question changes nothing"
                assert question.says


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_what_is_undone_carries_the_runs_own_mark(step: Step) -> None:
    """Every path that an undo gets: with the run's id, or a manifest in its directory, or the lock, or their parent."""
    for n in targets(step, rich()):
        places = (
            set() if step.on is Scope.WORKERS else {n.node.paths.manifests, n.node.paths.data_dir, n.node.paths.wal_dir}
        )
        for action in undo(step, n):
            assert isinstance(action, Command), "an undo uploads nothing"
            words = list(action.words())
            if words[:2] == ["sh", "-c"]:
                if words[2] == scripts.LEADER_LAST:
                    continue  # it waits
                assert any(RUN in word for word in words[4:]), words
                words = words[4:]
            asks = next((i for i, w in enumerate(words) if w.endswith(("etcdctl", "kubectl"))), len(words))
            for word in words[:asks]:
                if word.startswith("/"):
                    assert RUN in word or word == LOCK or word in places, word


@pytest.mark.parametrize("step", STEPS, ids=ids)
def test_what_changes_a_host_before_it_serves_again_can_be_undone(step: Step) -> None:
    for n in targets(step, rich()):
        if step.do(n) and step.phase is not Phase.VERIFY:
            assert undo(step, n)
            assert step.undone(n).questions, "and the undo is proven on the host"


def test_undoing_a_stop_is_a_start_and_the_other_way_round() -> None:
    by_name = {s.id(): s for s in STEPS}
    n = targets(STEPS[1], plan())[0]
    pairs = (("StopControllers", "StartControllers"), ("StopApiServers", "StartApiServers"), ("StopEtcd", "StartEtcd"))
    for stop, start in pairs:
        stopped = [a for a in by_name[stop].do(n) if "-c" in getattr(a, "argv", ())]
        back = undo(by_name[start], n)
        parked = [a.argv[7:] for a in back if isinstance(a, Command) and a.argv[2] == scripts.STOP]
        assert parked == [a.argv[7:] for a in stopped if isinstance(a, Command) and a.argv[2] == scripts.STOP]
        assert set(parked[0]) <= set(COMPONENTS)


def test_nothing_of_a_procedure_removes_data_before_finish() -> None:
    for step in STEPS:
        for n in targets(step, rich()):
            for action in changes(step, n):
                if isinstance(action, Command) and "rm" in action.argv[:1]:
                    assert all(RUN in w for w in action.words() if w.startswith("/"))


def test_the_sweep_is_bare_and_only_of_this_run() -> None:
    for n in (*targets(STEPS[1], rich()), Target(rich(), BOUND, Worker("w1"))):
        (command,) = data.sweep(n)
        assert command.bare, "the wrapper lives in what it removes"
        assert RUN in command.words()
        assert command.words()[-1] == f"/var/lib/etcd-runbook/{RUN}"


# What the plan decides.


def restore_words(of: Plan) -> list[str]:
    step = next(s for s in STEPS if s.id() == "RestoreAside")
    n = Target(of, BOUND, of.nodes[0])
    return next(list(a.words()) for a in step.do(n) if isinstance(a, Command))


def test_the_restore_is_the_guides_command_with_a_new_identity() -> None:
    words = restore_words(plan())
    assert words[words.index("--initial-cluster-token") + 1] == RUN
    assert words[words.index("--data-dir") + 1] == f"/var/lib/etcd/.{RUN}.restoring"
    assert words[words.index("--initial-cluster") + 1].count("https://") == 3
    assert words[words.index("--bump-revision") + 1] == "1000000000"
    assert "--mark-compacted" in words
    assert "--skip-hash-check" not in words
    assert "--wal-dir" not in words


def test_the_restore_follows_the_plan() -> None:
    base = plan(wal=True)
    words = restore_words(replace(base, cluster=Cluster(bump_revision=0, mark_compacted=False)))
    assert "--bump-revision" not in words
    assert "--mark-compacted" not in words
    assert words[words.index("--wal-dir") + 1] == f"/var/lib/etcd-wal/.{RUN}.restoring"
    raw = replace(base, snapshot=replace(base.snapshot, allow_missing_trailer=True))
    assert "--skip-hash-check" in restore_words(raw)
    named = replace(base, cluster=Cluster(token="prod-$RUN"))
    assert f"prod-{RUN}" in restore_words(named)


def test_a_preview_shows_the_placeholders_and_nothing_else_differs() -> None:
    """What was approved is what is run: only the run's id and the snapshot's sum are filled in later."""
    of = plan()
    bound = Binding(RUN, "ab" * 32, "ops@here")
    for step in STEPS:
        for shown, real in zip(targets(step, of), targets(step, of), strict=True):
            before = list(step.do(replace(shown, bound=Binding())))
            after = list(step.do(replace(real, bound=bound)))
            assert len(before) == len(after)
            for a, b in zip(before, after, strict=True):
                if isinstance(a, Command) and isinstance(b, Command):
                    filled = [w.replace("$RUN", RUN).replace("$SHA256", "ab" * 32) for w in a.words()]
                    assert [w.replace("$HOLDER", "ops@here") for w in filled] == list(b.words())
                else:
                    assert isinstance(a, Upload)
                    assert isinstance(b, Upload)


def test_going_back_waits_for_what_served_before() -> None:
    """The API server for its etcd, and then the rollback for the API server; each only where it was noted."""
    for n in targets(kubeadm.StopApiServers(), rich()):
        note, _ = (a.words() for a in kubeadm.StopApiServers().do(n) if isinstance(a, Command))
        undo_ = kubeadm.StopApiServers().undo(n)
        assert not isinstance(undo_, Irreversible)
        first, start, last = (a.words() for a in undo_ if isinstance(a, Command))
        assert (note[2], first[2], start[2], last[2]) == (scripts.ANSWERED, scripts.AWAIT, scripts.START, scripts.AWAIT)
        assert note[4] == last[4] == f"{n.run_dir}/api-answered"
        assert first[4] == f"{n.run_dir}/etcd-answered"


@pytest.mark.parametrize("name", sorted(n for n, t in vars(scripts).items() if n.isupper() and isinstance(t, str)))
def test_a_script_stops_at_an_unset_word(name: str) -> None:
    """A forgotten argument must never become an empty path."""
    text: str = getattr(scripts, name)
    if name == "DIGEST":
        return  # read-only, one word
    assert text.lstrip().startswith(("set -eu", "set -u"))

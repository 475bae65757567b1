"""The three sentences, in every state: true of the hosts, plain about the cluster, with commands that may be typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook import facts, situation
from runbook.errors import NOTE, RunbookError
from runbook.journal import Line
from runbook.lifecycle import RUN_STATES, Verdict, View
from runbook.procedures.kubeadm import STEPS
from runbook.replay import Replay, replay
from tests.fake.hosts import Fuse
from tests.fake.sessions import RUN, Life, plan

ORDER = [s.id() for s in STEPS]
HEADER: dict[str, Any] = {"run": RUN, "plan": "fake", "nodes": ["m1", "m2", "m3"], "plan_file": "/srv/my plan.yaml"}
PLAN = "'/srv/my plan.yaml'"


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.hands.inspect", lambda *_a, **_k: [])


def line(event: str, second: float, **more: Any) -> Line:
    at = datetime(2026, 4, 9, 14, tzinfo=UTC) + timedelta(seconds=second)
    return {"seq": 1, "at": at.isoformat().replace("+00:00", "Z"), "epoch": 1, "event": event, **more}


def step(second: float, name: str, to: str, saw: dict[str, str] | None = None) -> Line:
    saw = dict.fromkeys(("m1", "m2", "m3"), "yes") if saw is None else saw
    return line("step", second, step=name, to=to, trigger="proceed", saw=saw, **{"from": "ACTING"})


@pytest.mark.parametrize("worker", ["FAILED", "UNKNOWN"])
def test_a_run_that_is_not_verified_says_of_no_host_that_it_is(worker: str) -> None:
    """All checks passed, but a worker's kubelet was not restarted: exit 7, and the removal after --accept too."""
    lines = [
        line("run", 0, **HEADER | {"workers": ["w1"]}),
        *(step(i, name, "DONE") for i, name in enumerate(ORDER)),
        step(20, "RestartWorkerKubelets", worker, {"w1": "unknown: no answer"}),
        step(21, "VerifyCluster", "DONE"),
        state(22, "verifying", "unverified"),
    ]
    known = facts.told_by(lines, replay(lines))
    assert known["m1"] == facts.UNSURE
    end = line("end", 30, host="m1", step="LockHosts", key="LockHosts.sweep.1.1.0", code=0)
    assert "verified;" not in facts.told_by([*lines, end], replay(lines))["m1"].replace("is not verified;", "")


def state(second: float, source: str, dest: str, why: str = "because") -> Line:
    return line("state", second, to=dest, why=why, **{"from": source})


def at_step(name: str, to: str, run_state: str, saw: dict[str, str] | None = None, *more: Line) -> Replay:
    """A run that stands at a step, with all before it done."""
    done = [step(i, s, "DONE") for i, s in enumerate(ORDER[: ORDER.index(name)])]
    source = "preparing" if ORDER.index(name) < ORDER.index("StopControllers") else "outage"
    begun = [line("begin", 6, step="StopControllers", host="m1", key="k")] if source == "outage" else []
    lines = [line("run", 0, **HEADER), state(0, "preparing", source, ""), *begun, *done, step(50, name, to, saw)]
    return replay([*lines, state(51, source, run_state), *more])


def undone_down_to(name: str, to: str, run_state: str) -> Replay:
    """A run that went to its end, and back as far as that step."""
    done = [step(i, s, "DONE") for i, s in enumerate(ORDER)]
    later = ORDER[ORDER.index(name) + 1 :]
    undone = [step(60 + i, s, "UNDONE") for i, s in enumerate(reversed(later))]
    lines = [
        line("run", 0, **HEADER),
        state(0, "preparing", "outage", ""),
        *done,
        state(55, "complete", "rolling-back"),
    ]
    return replay([*lines, *undone, step(90, name, to), state(91, "rolling-back", run_state)])


def closed(past: Replay) -> Replay:
    return replay([*past.lines, line("finishing", 98), line("closed", 99)])


def finishing(past: Replay) -> Replay:
    return replay([*past.lines, line("finishing", 98)])


REFUSED = [state(52, "preparing", "rolling-back", "preparing failed: x"), state(53, "rolling-back", "rolled-back", "")]
SERVES, AS_IT_WAS, DOWN = "the restored cluster serves", "nothing of it was stopped", "the Kubernetes API is down"
IN_PLACE, KEPT, EITHER = "the old data is in its place", "the old data is kept, complete", "either in its place or kept"
OFF = "the scheduler and the controller-manager are stopped: nothing is scheduled or repaired"
NO_WAY_BACK = "there is no way back"

TABLE: list[tuple[str, Replay, tuple[str, ...], tuple[str, ...]]] = [
    # what, where it stands, what it means, the commands
    ("planned", at_step("CheckEverything", "ACTING", "planned", {}), (AS_IT_WAS,), ("resume", "rollback")),
    ("preparing", at_step("StageSnapshot", "ACTING", "preparing"), (AS_IT_WAS,), ("resume", "rollback")),
    ("halted, preparing", at_step("StageSnapshot", "UNKNOWN", "halted"), (AS_IT_WAS,), ("resume", "rollback")),
    ("controllers", at_step("StopControllers", "ACTING", "outage"), (OFF, IN_PLACE), ("resume", "rollback")),
    ("outage", at_step("StopApiServers", "ACTING", "outage"), (DOWN, IN_PLACE), ("resume", "rollback")),
    ("etcd stopped", at_step("StopEtcd", "FAILED", "halted"), (DOWN, IN_PLACE), ("resume", "rollback")),
    ("swapping", at_step("SwapData", "FAILED", "halted"), (DOWN, EITHER), ("resume", "rollback")),
    ("swapped", at_step("StartEtcd", "UNKNOWN", "halted"), (DOWN, KEPT), ("resume", "rollback")),
    (
        "API servers starting",
        at_step("StartApiServers", "FAILED", "halted"),
        (DOWN, KEPT),
        ("resume", "rollback --discard-writes"),
    ),
    (
        "waiting for Secrets",
        at_step("StartControllers", "BLOCKED", "halted"),
        (SERVES, OFF, KEPT),
        ("resume", f"resume --plan {PLAN}", "rollback --discard-writes"),
    ),
    (
        "verifying",
        at_step("RestartKubelets", "ACTING", "verifying"),
        (SERVES, KEPT),
        ("resume", "rollback --discard-writes"),
    ),
    (
        "unverified",
        at_step("VerifyCluster", "FAILED", "unverified"),
        (SERVES, "nobody knows that it is well", KEPT),
        ("resume", f"resume --plan {PLAN}", "finish --accept", "rollback --discard-writes"),
    ),
    (
        "complete",
        at_step("VerifyCluster", "DONE", "complete"),
        (SERVES, "kept beside it until `runbook finish`"),
        ("report", "finish", "rollback --discard-writes"),
    ),
    (
        "rolling back, still serving",
        undone_down_to("StartControllers", "UNDOING", "rolling-back"),
        (SERVES, OFF, KEPT),
        ("resume",),
    ),
    ("rolling back", undone_down_to("StartApiServers", "UNDOING", "rolling-back"), (DOWN, KEPT), ("resume",)),
    ("swapping back", undone_down_to("SwapData", "UNDOING", "rolling-back"), (DOWN, EITHER), ("resume",)),
    ("stuck", undone_down_to("SwapData", "STUCK", "stuck"), (DOWN, EITHER), ("rollback --discard-writes",)),
    (
        "stuck late",
        undone_down_to("StopControllers", "STUCK", "stuck"),
        ("the old cluster's API servers have their manifests", OFF, IN_PLACE),
        ("rollback --discard-writes",),
    ),
    (
        "rolled back",
        undone_down_to("CheckEverything", "UNDONE", "rolled-back"),
        ("the old data, manifests and services were put back, as this run had found them",),
        ("report", "finish"),
    ),
    (
        "rolled back, closed",
        closed(undone_down_to("CheckEverything", "UNDONE", "rolled-back")),
        ("the old data, manifests and services were put back, as this run had found them",),
        ("report",),
    ),
    (
        "refused",
        closed(at_step("CheckEverything", "FAILED", "preparing", {"m1": "no: full"}, *REFUSED)),
        ("nothing was changed: the old cluster is as this run found it",),
        (f"preview --check {PLAN}", f"run {PLAN}"),
    ),
    (
        "preparing failed",
        closed(at_step("RestoreAside", "UNDONE", "preparing", None, *REFUSED)),
        ("nothing was changed", "what had been prepared was removed again"),
        (f"preview --check {PLAN}", f"run {PLAN}"),
    ),
    (
        "finishing",
        finishing(at_step("VerifyCluster", "DONE", "complete")),
        (SERVES, "not ended on all", NO_WAY_BACK),
        ("finish",),
    ),
    ("closed", closed(at_step("VerifyCluster", "DONE", "complete")), (SERVES, NO_WAY_BACK), ("report",)),
]


@pytest.mark.parametrize(("what", "past", "means", "commands"), TABLE, ids=[row[0] for row in TABLE])
def test_every_state_has_its_three_sentences(
    what: str, past: Replay, means: tuple[str, ...], commands: tuple[str, ...]
) -> None:
    said = situation.describe(past, RUN)
    assert said["true"], what
    assert all(word not in said["true"] for word in ("DONE", "FAILED", "BLOCKED", "UNDOING")), "words, not states"
    for words in means:
        assert words in said["means"]
    claims = {SERVES, AS_IT_WAS, DOWN, IN_PLACE, KEPT, EITHER, OFF, NO_WAY_BACK}
    assert {claim for claim in claims if claim in said["means"]} == claims & set(means), said["means"]
    assert situation.commands(past, RUN) == tuple(_typed(command) for command in commands)
    assert all(c.startswith("runbook ") for c in said["next"])
    assert RunbookError("x", **said).next == said["next"]


def _typed(words: str) -> str:
    """``finish --accept`` as it is typed for this run."""
    verb, _, rest = words.partition(" ")
    if verb in ("preview", "run"):
        return f"runbook {words}"
    return f"runbook {verb} {RUN}{f' {rest}' if rest else ''}"


def test_every_state_is_in_the_table() -> None:
    assert {past.state for _, past, _, _ in TABLE} == set(RUN_STATES)


@pytest.mark.parametrize("run_state", RUN_STATES)
@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize("to", ["ACTING", "FAILED", "UNKNOWN", "BLOCKED", "STUCK"])
def test_no_place_in_the_run_is_without_them(run_state: str, name: str, to: str) -> None:
    past = at_step(name, to, run_state, {"m1": "yes", "m2": "unknown: lost"})
    said = situation.describe(past, RUN, {"m1": View(Verdict.NO, "etcd still runs"), "m2": View(Verdict.UNKNOWN)})
    assert "m1" in said["true"]
    assert "it does not answer now" in said["true"]
    assert said["means"]
    assert said["next"]
    assert all(command.startswith("runbook ") for command in said["next"])


def test_a_success_without_a_node_names_all_that_a_success_names() -> None:
    """The way back too: it is as open as ever, and closes with `finish`."""
    end = [step(70, ORDER[-1], "DONE"), state(71, "verifying", "complete")]
    whole, less = at_step(ORDER[-1], "DONE", "verifying", None, *end), [line("absent", 1, hosts=["m3"])]
    less_m3 = replay([*whole.lines[:2], *less, *whole.lines[2:]])
    verbs = ["report", "finish", "rollback"]
    assert [c.split()[1] for c in situation.commands(whole, RUN)] == verbs
    assert [c.split()[1] for c in situation.commands(less_m3, RUN)] == ["resume", *verbs]
    assert situation.advice(less_m3, RUN)[-1] == situation.advice(whole, RUN)[-1]
    closes = (
        f"runbook finish {RUN} --accept{NOTE}closes the run without m3: removes the old data, and with it the way back"
    )
    assert closes in situation.advice(less_m3, RUN)


def test_by_the_journal_alone_it_is_told_as_of_when_a_host_last_answered() -> None:
    """What the engine of a lost laptop wrote down later, that it was refused, is no news of the hosts."""
    refused = [line("engine", 3600), line("superseded", 3601, adopt="runbook adopt --host root@m1")]
    past = at_step("SwapData", "UNKNOWN", "halted", {"m1": "yes", "m2": "unknown: lost", "m3": "yes"}, *refused)
    assert situation.remembered(past, RUN)["true"].splitlines() == [
        "as of 2026-04-09 14:00:50 UTC, when a host last answered this machine:",
        f"m1, m3: {facts.AFTER['SwapData']}",
        f"m2: {facts.AFTER['StopEtcd']}; it did not answer at last",
    ]


def test_a_run_of_which_no_host_was_heard_is_told_as_of_the_journals_last_line() -> None:
    past = replay([line("run", 0, **HEADER), state(7, "planned", "halted")])
    heading = "as of 2026-04-09 14:00:07 UTC, when this machine's journal ends:"
    assert situation.remembered(past, RUN)["true"].splitlines() == [heading, f"m1, m2, m3: {facts.UNTOUCHED}"]
    assert situation.remembered(replay([]), RUN)["true"] == "nothing was done on any host"


def test_what_is_true_is_told_host_by_host() -> None:
    past = at_step("SwapData", "UNKNOWN", "halted", {"m1": "yes", "m2": "unknown: lost", "m3": "yes"})
    said = situation.describe(past, RUN)
    assert said["true"].splitlines() == [
        f"m1, m3: {facts.AFTER['SwapData']}",
        f"m2: {facts.AFTER['StopEtcd']}; it does not answer now",
    ]
    assert "the run waits for m2: by itself it goes neither on nor back without an answer" in said["means"]
    assert said["next"][0] == f"runbook resume {RUN}{NOTE}goes on, once m2 answers again"
    assert said["next"][1].startswith(f"runbook resume {RUN} --plan {PLAN}{NOTE}where it has another address now")


def test_nothing_is_said_to_serve_that_the_run_has_not_seen_serve() -> None:
    """The old cluster may have been dead before the run: what is left alone is as it was found."""
    before = ORDER[: ORDER.index("SwapData")]
    assert not [name for name in before if re.search(r"\bserves?\b|\bruns\b", facts.AFTER[name])]
    for name in before:
        for past in (at_step(name, "FAILED", "halted"), undone_down_to(name, "UNDOING", "rolling-back")):
            said = situation.describe(past, RUN)
            assert not re.search(r"\bserves?\b", said["true"] + said["means"]), said
    halted = situation.meaning(at_step("StopControllers", "ACTING", "halted"))
    assert halted.startswith("the API servers were not stopped, they are as this run found them, but the scheduler")


def test_a_rollback_asks_for_consent_from_the_first_api_server_on() -> None:
    for name in ORDER:
        back = [c for c in situation.commands(at_step(name, "FAILED", "halted"), RUN) if "rollback" in c]
        assert back, name
        wanted = ORDER.index(name) >= ORDER.index("StartApiServers")
        assert all(("--discard-writes" in c) == wanted for c in back), (name, back)


def test_what_is_pinned_is_mended_by_going_back() -> None:
    past = at_step(
        "StopEtcd", "BLOCKED", "outage", {"m1": "no: small"}, state(52, "outage", "halted", "bumpRevision 9")
    )
    assert situation.commands(past, RUN)[0] == f"runbook rollback {RUN}"


def test_a_run_without_a_first_line_does_not_know_its_plan() -> None:
    assert situation.commands(replay([line("closed", 1)]), RUN) == ("runbook preview --check PLAN", "runbook run PLAN")


# Not one of these claims may ever be untrue of the hosts.


def wrong(life: Life) -> list[str]:
    """What the sentences claim of the data and the services, and the hosts are not like."""
    past = replay(life.lines)
    means, found = situation.meaning(past), []
    for host in life.world.hosts.values():
        host.stop_unwanted()
        host.reconcile()
        in_place = host.lineage() == f"old {host.name}"
        kept = host.read(f"{host.node.paths.data_dir}/.{RUN}.old/member/snap/db") == f"old {host.name}"
        restored = host.lineage() == f"restored {RUN}"
        truth = {
            AS_IT_WAS: in_place and len(host.containers) == 4,
            IN_PLACE: in_place,
            KEPT: kept,
            EITHER: kept or in_place,
            SERVES: restored and {"etcd", "kube-apiserver"} <= host.containers,
            "services were put back": in_place and len(host.containers) == 4,
            "as this run found it": in_place and len(host.containers) == 4,
        }
        found += [f"{host.name}: {claim}" for claim, holds in truth.items() if claim in means and not holds]
    return found


@pytest.mark.parametrize("kind", ["engine", "silent"])
@pytest.mark.parametrize("what", ["forward", "backward"])
def test_what_it_means_is_true_wherever_a_run_is_cut_off(kind: str, what: str) -> None:
    for at in range(3, 700, 37):
        life = Life(plan(3))
        life.lines.append(line("run", 0, **HEADER))
        if what == "backward":
            life.session("forward")
        life.session(what, Fuse(at, kind))
        assert not wrong(life), (at, replay(life.lines).steps)


def test_a_rollback_says_where_what_it_discarded_is_kept() -> None:
    """Until `finish`; the snapshot of it is on the first of the hosts that took part when etcd was stopped."""
    life = Life(plan(3))
    life.lines.append(line("run", 0, **HEADER))
    life.session("forward")
    life.session("backward", silent=["m1"], without=["m1"])
    past = replay(life.lines)
    assert past.state == "rolled-back"
    kept = f"what was discarded is kept until `runbook finish`: .{RUN}.discarded in the data directory"
    assert f"; {kept}, and as a snapshot on m2, discarded.db in the run's directory" in situation.meaning(past)
    assert life.world.hosts["m2"].read(f"/var/lib/etcd-runbook/{RUN}/discarded.db") is not None
    assert "discarded" not in situation.meaning(closed(past))
    assert "discarded" not in situation.meaning(finishing(past))

"""The engine on the fake hosts: exit codes, what is left behind, and that nothing is done before it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbook.checks import Finding, Severity
from runbook.errors import Halted, Held, Refused, RunbookError, Unverified
from runbook.facts import AFTER, told_by
from runbook.hands import FRESH, Hands, Open
from runbook.journal import Journal, Line, read
from runbook.replay import replay
from runbook.step import Result, Step, Target
from runbook.transport import LOCK, Copy, Witness
from tests.fake.hosts import FakeHosts, Fuse
from tests.fake.sessions import BOUND, PROCEDURE, RUN, Life, plan
from tests.fake.world import FakeHost

JOURNAL = f"/var/lib/etcd-runbook/{RUN}/journal.jsonl"
OTHER = '{"run": "other-1", "holder": "x@y", "since": "z"}\n'


@pytest.fixture(autouse=True)
def findings(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Finding]]:
    """What the checks find, by their group; nothing at first."""
    found: dict[str, list[Finding]] = {"preflight": [], "verify": []}
    monkeypatch.setattr("runbook.hands.inspect", lambda group, *_: found[group])
    return found


def told(life: Life, kind: type[RunbookError], code: int) -> RunbookError:
    """The error that the session ended with; it has all that a responder needs."""
    error = life.error
    assert type(error) is kind, error
    assert error.code == code
    assert error.true
    assert error.means
    assert error.next
    return error


# How a run ends.


def test_a_check_that_says_no_ends_the_run_with_nothing_touched(findings: dict[str, list[Finding]]) -> None:
    findings["preflight"] += [
        Finding("Disk", "m2", Severity.BLOCKS, "4 GB free, 9 needed", "make room"),
        Finding("Mounts", "m3", Severity.BLOCKS, "not a mount point", "mount it"),
        Finding("Even", "", Severity.WARNS, "an even number of nodes", ""),
    ]
    life = Life(plan())
    before = life.tree()
    life.session("forward")
    error = told(life, Refused, 3)
    assert "✗ m2: 4 GB free, 9 needed\n      do: make room" in str(error)
    assert "m3: not a mount point" in str(error), "all findings are told at once"
    assert life.tree() == before
    assert [line["check"] for line in life.lines if line["event"] == "finding"] == ["Disk", "Mounts", "Even"]


def test_what_is_restored_is_journalled_where_all_is_well_too(findings: dict[str, list[Finding]]) -> None:
    findings["preflight"] += [
        Finding("SnapshotContent", "", Severity.OK, "244 live keys (pods 79), of etcd 3.5.16"),
        Finding("DiskSpace", "m1", Severity.OK, "room for it"),
    ]
    life = Life(plan())
    assert life.session("forward") == "complete"
    told = [line["saw"] for line in life.lines if line["event"] == "finding"]
    assert told == ["244 live keys (pods 79), of etcd 3.5.16"]


def test_a_host_that_another_run_holds_takes_precedence(findings: dict[str, list[Finding]]) -> None:
    findings["preflight"] += [
        Finding("Disk", "m1", Severity.BLOCKS, "full", ""),
        Finding("Lock", "m2", Severity.HELD, "held by other-1", ""),
    ]
    life = Life(plan())
    life.session("forward")
    told(life, Held, 6)


@pytest.mark.parametrize("host", ["m1", "m2", "m3"])
def test_a_lock_that_another_run_takes_first_is_left_alone(host: str) -> None:
    """The check saw no lock; when the lock was to be taken, there was one."""
    life = Life(plan())
    life.world.hosts[host].put(LOCK, OTHER)
    before = life.tree()
    life.session("forward")
    error = told(life, Held, 6)
    assert "other-1" in str(error)
    assert life.tree() == before, "the locks that were taken are given back, the other run's is not touched"


def test_a_failed_preparation_is_undone() -> None:
    life = Life(plan())
    life.world.etcdutl_fails = "m3"
    before = life.tree()
    life.session("forward")
    error = told(life, Refused, 3)
    assert "no space left on device" in str(error)
    assert life.tree() == before
    assert replay(life.lines).state == "rolled-back"
    assert replay(life.lines).closed


def test_a_check_of_the_serving_cluster_that_fails(findings: dict[str, list[Finding]]) -> None:
    findings["verify"].append(Finding("Nodes", "m1", Severity.BLOCKS, "2 of 3 nodes are ready", "wait"))
    life = Life(plan())
    life.session("forward")
    error = told(life, Unverified, 7)
    assert life.state == "unverified"
    assert "but not verified" in error.message
    assert "is verified" not in str(error)
    assert "m2, m3: the restored cluster serves, with nothing amiss found here, but is not verified" in error.true
    assert any("--accept" in command for command in error.next)
    assert not any(host.exists(LOCK) for host in life.world.hosts.values()), "it is unlocked"
    findings["verify"].clear()
    assert life.session("forward") == "complete"
    assert set(told_by(life.lines, replay(life.lines)).values()) == {AFTER["VerifyCluster"]}
    assert not life.faults(restored=True)


def test_a_halt_in_the_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(plan())
    life.world.living_revision = 5_000_000_000
    life.session("forward")
    error = told(life, Halted, 4)
    assert "bumpRevision" in str(error)
    assert replay(life.lines).halted_from == "outage"
    assert "API is down" in error.means
    assert life.session("backward") == "rolled-back"
    assert not life.faults(restored=False)


def test_a_halt_tells_the_last_words_of_what_did_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the message, in the journal and on each host; without the secret that stood in the log."""
    life = Life(plan())
    monkeypatch.setattr(
        life.world, "crashes", lambda host, name: (host.name, name, host.lineage()[:3]) == ("m2", "etcd", "res")
    )
    log = '{"level":"fatal","msg":"discovery failed","error":"https://me:swordfish@10.0.1.11 refused"}\n'
    life.world.last_words["m2", "etcd"] = f'{{"status": {{"exitCode": 1, "metadata": {{"attempt": 4}}}}}}\n----\n{log}'
    life.session("forward")
    error = told(life, Halted, 4)
    words = "the last container etcd that ended did so with exit code 1, after 4 restarts; its last words: fatal: "
    assert words + "discovery failed: https://me:•••@10.0.1.11 refused" in str(error)
    assert error.message.count("that ended did so") == 1, "the others have nothing to tell"
    assert words in str(life.lines)
    assert "swordfish" not in f"{error}{life.lines}"


def test_a_silent_host_while_preparing_halts_and_undoes_nothing() -> None:
    """Nobody can say what it did: that is not a no."""
    life = Life(plan())
    life.session("forward", silent=["m2"])
    told(life, Halted, 4)
    assert replay(life.lines).halted_from == "preparing"
    assert life.session("forward") == "complete"


def test_a_silent_host_keeps_a_rollback_from_beginning() -> None:
    """It may hold a later run's data: nothing is undone on a guess, and the run stays what it is."""
    life = Life(plan())
    life.session("forward")
    before = life.tree()
    life.session("backward", silent=["m1"])
    told(life, Halted, 4)
    assert replay(life.lines).state == "complete"
    assert life.tree() == before
    assert life.session("backward") == "rolled-back"
    assert not life.faults(restored=False)


def test_a_changed_manifest_is_found_before_anything_is_undone() -> None:
    life = Life(plan())
    life.session("forward")
    life.world.hosts["m2"].put("/etc/kubernetes/manifests/etcd.yaml", "another one")
    before = life.tree()
    life.session("backward")
    error = told(life, Refused, 3)
    assert "m2: /etc/kubernetes/manifests/etcd.yaml was changed" in str(error)
    assert life.tree() == before
    assert replay(life.lines).state == "complete"


def test_a_run_is_not_rolled_back_once_another_runs_data_is_in_place() -> None:
    life = Life(plan())
    life.session("forward")
    host = life.world.hosts["m2"]
    host.make_dirs("/var/lib/etcd/.later-20260410.old")
    host.make_dirs("/var/lib/etcd/.later-20260410.restored/member/snap")
    host.rename("/var/lib/etcd/member", "/var/lib/etcd/.later-20260410.old/member")
    host.rename("/var/lib/etcd/.later-20260410.restored/member", "/var/lib/etcd/member")
    before = life.tree()
    number = len(life.lines)
    life.session("backward")
    error = told(life, Refused, 3)
    assert ".later-20260410.old" in str(error)
    assert life.tree() == before
    assert [line["event"] for line in life.lines[number:]] == ["engine"], "not even a line of it"


def test_later_data_that_was_given_the_same_inode_is_still_another() -> None:
    """`finish` of the run before frees an inode, which the file system may give to what comes next."""
    life = Life(plan())
    life.session("forward")
    m2 = life.world.hosts["m2"]
    mine = m2.nodes["/var/lib/etcd/member"]
    m2.nodes["/var/lib/etcd/member"] = replace(mine, birth=mine.birth + 3600)
    life.session("backward")
    assert "member is not what this run put there" in str(told(life, Refused, 3))
    assert life.state == "complete"
    m2.nodes["/var/lib/etcd/member"] = mine
    assert life.session("backward") == "rolled-back"


# Locks.


def test_a_resumed_run_takes_its_locks_again() -> None:
    life = Life(plan())
    life.session("forward", Fuse(400))
    for host in life.world.hosts.values():
        host.drop(LOCK)
    assert life.session("forward") == "complete"
    assert not life.faults(restored=True)


def test_a_run_does_not_go_on_where_another_one_has_the_lock_now() -> None:
    life = Life(plan())
    life.session("forward", Fuse(400))
    for host in life.world.hosts.values():
        host.drop(LOCK)
    life.world.hosts["m3"].put(LOCK, OTHER)
    life.session("forward")
    told(life, Held, 6)
    held = {name: host.read(LOCK) for name, host in life.world.hosts.items()}
    assert held == {"m1": None, "m2": None, "m3": OTHER}


def test_a_lock_that_cannot_be_released_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(plan())
    real = FakeHosts.act

    def act(self: FakeHosts, actions: Mapping[str, Sequence[object]], key: str, witness: object) -> dict[str, Result]:
        if ".release." in key:
            return {host: Result(None, err="no answer") for host in actions}
        return real(self, actions, key, witness)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeHosts, "act", act)
    life.session("forward")
    error = told(life, Halted, 4)
    assert "restored and verified, but the lock could not be released" in str(error)
    monkeypatch.undo()
    monkeypatch.setattr("runbook.hands.inspect", lambda *_: [])
    assert life.session("forward") == "complete"
    assert not life.faults(restored=True)


# Settling.


def without_copies(host: FakeHost) -> dict[str, tuple[str | None, str]]:
    """All files of a host but the copy of the journal, which is written beside anything that runs."""
    return {path: held for path, held in host.tree().items() if not path.endswith("/journal.jsonl")}


def still_running(monkeypatch: pytest.MonkeyPatch, code: int = 96) -> None:
    def settle(self: FakeHosts, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        return {h: Result(code if h == "m2" else 0, err="a command of this run still runs") for h in hosts}

    monkeypatch.setattr(FakeHosts, "settle", settle)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that were settled, each time."""
    seen: list[str] = []
    really = FakeHosts.settle

    def settle(self: FakeHosts, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        seen.extend(hosts)
        return really(self, hosts, wait)

    monkeypatch.setattr(FakeHosts, "settle", settle)
    return seen


def test_an_engine_settles_once_on_each_host(settled: list[str]) -> None:
    """It knows of all that it began."""
    assert Life(plan()).session("forward") == "complete"
    assert settled == ["m1", "m2", "m3"]


@pytest.mark.parametrize("optional", [False, True])
def test_where_nobody_saw_the_end_of_a_command_the_next_step_settles(
    settled: list[str], monkeypatch: pytest.MonkeyPatch, *, optional: bool
) -> None:
    """It may still run: to act beside it would be refused, and a rollback stuck. An optional one ends no sequence."""
    act, lost = FakeHosts.act, Result(None, err="lost")

    def lose(self: FakeHosts, actions: Mapping[str, Any], key: str, witness: Witness) -> dict[str, Result]:
        results = act(self, actions, key, witness)
        if optional and key.startswith("StopApiServers.do."):
            witness.ended("m2", f"{key}.0", actions["m2"][0], lost)
        # the step itself is done, so that the run goes on; but its end was not seen
        return results | {"m2": lost} if not optional and key.startswith("StageSnapshot.do.") else results

    monkeypatch.setattr(FakeHosts, "act", lose)
    assert Life(plan()).session("forward") == "complete"
    assert settled == ["m1", "m2", "m3", "m2"]


def test_a_host_that_missed_a_copy_of_the_journal_gets_it_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = FakeHosts.keep
    missed: list[int] = []

    def once(self: FakeHosts, copies: Mapping[str, Sequence[Copy]]) -> dict[str, Result]:
        if not missed and len(self.world.hosts["m1"].read(JOURNAL) or "") > 5000:
            missed.append(len(life.lines))
            return {host: Result(None, err="no answer") for host in copies}
        return keep(self, copies)

    monkeypatch.setattr(FakeHosts, "keep", once)
    life = Life(plan())
    assert life.session("forward") == "complete"
    assert missed
    for host in life.world.hosts.values():
        assert (host.read(JOURNAL) or "").count("\n") == len(life.lines)


def test_what_a_step_has_shown_a_moment_ago_counts_for_it_alone_and_not_for_long() -> None:
    life = Life(plan())
    seen, step = Open(life.world), PROCEDURE.steps[2]
    seen.keep(step, ["m1"])
    assert seen.hosts(step) == {"m1"}
    assert seen.hosts(PROCEDURE.steps[3]) == set()
    life.world.sleep(FRESH + 0.1)
    assert seen.hosts(step) == set()


def test_what_still_runs_on_a_host_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although nothing of the step can be seen there yet."""
    life = Life(plan())
    life.session("forward", Fuse(400))
    with monkeypatch.context() as patched:
        still_running(patched)
        life.session("backward")
        told(life, Halted, 4)
        assert life.state == "stuck"
        before = without_copies(life.world.hosts["m2"])
        life.session("backward")
        assert without_copies(life.world.hosts["m2"]) == before
    assert life.session("backward") == "rolled-back"
    assert not life.faults(restored=False)


def test_finish_does_not_remove_what_a_command_still_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(plan())
    life.session("forward")
    before = without_copies(life.world.hosts["m2"])
    with monkeypatch.context() as patched:
        still_running(patched)
        life.session("finish")
        told(life, Halted, 4)
        assert "m2" in str(life.error)
        assert not replay(life.lines).closed
    assert without_copies(life.world.hosts["m2"]) == before
    assert not life.after_finish()


@pytest.mark.parametrize("what", ["forward", "backward", "finish"])
def test_a_superseded_engine_gives_up(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    life = Life(plan())
    life.session("forward", Fuse(400) if what != "finish" else Fuse())
    for job in life.world.jobs.values():
        while not job.over:
            job.step()
    before, state = life.tree(), life.state
    still_running(monkeypatch, 97)
    life.session(what)
    error = told(life, Held, 6)
    assert "m2" in str(error)
    assert life.tree() == before
    assert life.state == state, "its journal says nothing that the newer one's could contradict"


@pytest.mark.parametrize("at", ["StopApiServers", "StopEtcd", "SwapData", "StartEtcd"])
def test_one_host_that_knows_of_a_newer_engine_is_enough_to_stop_this_one_everywhere(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Each host judges its own commands only: what the others would still do, the newer engine's rollback misses."""
    life, carry_out = Life(plan()), Hands.carry_out
    before: list[dict[str, object]] = []

    def overtaken(self: Hands, step: Step, *rest: Any) -> dict[str, Result]:
        if step.id() == at and not before:
            m1 = life.world.hosts["m1"]
            m1.put(f"{m1.node.paths.workspace}/{RUN}/epoch", "99")
            before.append({name: without_copies(host) for name, host in life.world.hosts.items()})
        return carry_out(self, step, *rest)

    monkeypatch.setattr(Hands, "carry_out", overtaken)
    life.session("forward")
    told(life, Held, 6)
    assert before == [{name: without_copies(host) for name, host in life.world.hosts.items()}]


# The journal first.


class Full(Journal):
    """A disk that is full when a line of some kind is to be written."""

    kind = "begin"

    def append(self, event: str, fields: Mapping[str, object] | None = None, *, step: str = "", host: str = "") -> Line:
        if event == self.kind:
            raise Halted(f"{self.path}: the journal cannot be written", true="t", means="m", next=("n",))
        return super().append(event, fields, step=step, host=host)


def engine_with(journal: Journal, life: Life) -> None:
    from runbook.engine import Engine

    targets = [Target(life.plan, BOUND, node) for node in life.plan.nodes]
    hosts = FakeHosts(life.world, targets, 1, Fuse())
    Engine(life.plan, BOUND, PROCEDURE, hosts, journal, life.world).forward()


@pytest.mark.parametrize("kind", ["begin", "step", "state"])
def test_nothing_is_begun_that_cannot_be_written_down(kind: str, tmp_path: Path) -> None:
    life = Life(plan())
    before = life.tree()
    journal = Full(tmp_path / "journal.jsonl")
    journal.kind = kind
    with pytest.raises(Halted, match="cannot be written"):
        engine_with(journal, life)
    journal.close()
    assert life.tree() == before


def test_each_action_stands_in_the_file_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fake import hosts as fake

    path = tmp_path / "journal.jsonl"
    seen: list[str] = []
    real = fake.Job.__init__

    def init(self: fake.Job, host: object, action: object, key: str) -> None:
        if key:
            last = [line for line in read(path)[0] if line["event"] == "begin" and line["key"] == key]
            assert last, f"{key} begins, and the journal does not know it"
            seen.append(key)
        real(self, host, action, key)  # type: ignore[arg-type]

    monkeypatch.setattr(fake.Job, "__init__", init)
    journal = Journal(path)
    life = Life(plan(nodes=1))
    engine_with(journal, life)
    journal.close()
    assert len(seen) == len(set(seen)) > 15, "each has a key of its own"
    past = replay(read(path)[0])
    assert past.state == "complete"
    assert past.outage_seconds() > 0


def test_a_failed_action_is_written_down_with_what_it_said() -> None:
    life = Life(plan())
    life.world.etcdutl_fails = "m2"
    life.session("forward")
    ended = [line for line in life.lines if line["event"] == "end" and line["code"]]
    assert [(line["host"], line["step"], line["code"]) for line in ended] == [("m2", "RestoreAside", 1)]
    assert "no space left" in ended[0]["said"]


def test_an_undisturbed_run_touches_only_its_own_places() -> None:
    life = Life(plan(wal=True))
    before = life.tree()
    assert life.session("forward") == "complete"
    for name, tree in life.tree().items():
        new = set(tree) - set(before[name])
        gone = set(before[name]) - set(tree)
        assert all(RUN in path or path == "/var/lib/etcd-runbook" for path in new), new
        assert gone == {"/var/lib/etcd-wal/1.wal"}, "the old data is aside; the restored has other files"

"""The commands as a responder types them, on the fake hosts: what they say at three in the morning."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from runbook import runs, situation
from runbook.checks import Finding, Severity
from runbook.step import Binding
from runbook.transport import LOCK
from tests.fake.desk import Desk
from tests.fake.hosts import Fuse

OTHER = '{"run": "other-1", "holder": "eve@laptop", "since": "2026-04-09T14:00:00Z"}\n'
WHO = "other-1, by eve@laptop, since 2026-04-09 14:00:00 UTC, last sign of life 2026-04-09 14:00:00 UTC (1 min ago)"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def lock(desk: Desk, *hosts: str, text: str = OTHER) -> None:
    for host in hosts or ("m1", "m2", "m3"):
        desk.world.hosts[host].put(LOCK, text)


def held(run: runs.Run) -> str:
    return f'{{"run": "{run.id}", "holder": "eve@laptop", "since": "2026-04-09T14:00:00Z"}}\n'


# Another run holds the hosts.


def test_a_run_that_meets_another_says_that_alone(desk: Desk) -> None:
    """Its outage explains all the rest; nobody may read that the cluster is as it was, or be sent to run again."""
    lock(desk)
    desk.findings["preflight"] += [
        Finding("Locks", h, Severity.HELD, f"held by the run other-1 on {h}", "ask") for h in ("m1", "m2", "m3")
    ]
    desk.findings["preflight"] += [
        Finding("Manifests", "m1", Severity.BLOCKS, "etcd.yaml is missing", "put it back"),
        Finding("DataDirectory", "m1", Severity.WARNS, "data of an earlier run", "runbook finish other-1"),
    ]
    typed = desk.type("run", str(desk.plan_path), "--yes", code=6)
    assert f"Error: another run holds m1, m2, m3: {WHO}\n" in typed.err
    assert "the cluster may be in the outage of that run" in typed.err
    assert "no host is changed" in typed.err
    for wrong in ("etcd.yaml is missing", "runbook finish", "as it was", "as this run found it"):
        assert wrong not in typed.err
    assert typed.next[0] == "ask eve@laptop; on that machine: runbook status other-1"
    assert typed.next[1].startswith("runbook adopt --host root@10.0.1.10 --run other-1 --identity-file ")
    assert typed.next[-1] == f"runbook preview --check {desk.quoted}   # once that run has ended"


def test_a_check_before_says_the_same(desk: Desk) -> None:
    lock(desk, "m2")
    desk.findings["preflight"] += [
        Finding("Locks", "m2", Severity.HELD, "held by the run other-1", "ask"),
        Finding("Manifests", "m1", Severity.BLOCKS, "etcd.yaml is missing", "put it back"),
    ]
    typed = desk.type("preview", str(desk.plan_path), "--check", code=6)
    assert f"another run holds m2: {WHO}" in typed.err
    assert "etcd.yaml is missing" not in typed.out + typed.err


def test_a_lock_that_is_taken_just_before_ours(desk: Desk) -> None:
    lock(desk, "m3")
    typed = desk.type("run", str(desk.plan_path), "--yes", code=6)
    assert f"another run holds m3: {WHO}" in typed.err
    assert '{"run"' not in typed.err


def test_a_holder_that_this_machine_knows_is_named_with_its_commands(desk: Desk) -> None:
    first = desk.restore()
    lock(desk, text=held(first))
    desk.findings["preflight"].append(Finding("Locks", "m1", Severity.HELD, "held", "ask"))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=6)
    assert typed.next[0] == f"runbook status {first.id}"
    assert any(command.startswith(f"runbook rollback {first.id}") for command in typed.next)
    assert "ask eve" not in typed.err


def test_a_holder_that_is_at_work_here_is_left_alone(desk: Desk) -> None:
    first = desk.restore()
    lock(desk, text=held(first))
    desk.findings["preflight"].append(Finding("Locks", "m1", Severity.HELD, "held", "ask"))
    with first.locked():
        typed = desk.type("run", str(desk.plan_path), "--yes", code=6)
    assert typed.next[0].startswith(f"runbook status {first.id}   # process ")
    assert typed.next[0].endswith("is at work on it") or "is at work on it" in typed.next[0]
    assert not any(word in typed.err for word in (" finish ", " resume ", " rollback "))


@pytest.mark.parametrize("words", [("rollback", "--discard-writes"), ("finish", "--yes")])
def test_an_old_run_under_the_lock_of_a_new_one(desk: Desk, words: tuple[str, ...]) -> None:
    """Exit 6, with the holder's name and commands, never this run's own; and nothing is touched."""
    old, new = desk.restore(), desk.restore(code=4)  # the second is halted in its outage: its bump is too small
    before = {name: host.tree() for name, host in desk.world.hosts.items()}
    typed = desk.type(words[0], old.id, *words[1:], code=6)
    assert f"another run holds m1, m2, m3: {new.id}, by {runs.holder()}, since 2026-04-09 14:00:00 UTC" in typed.err
    assert "last sign of life" in typed.err
    assert typed.next[0] == f"runbook status {new.id}"
    assert any(command.startswith(f"runbook rollback {new.id}") for command in typed.next)
    assert "{" not in typed.err
    assert {name: host.tree() for name, host in desk.world.hosts.items()} == before
    assert old.replay().state == "complete"
    assert not old.replay().finishing


def test_a_bump_too_small_is_sent_back_first(desk: Desk) -> None:
    """What is pinned cannot be mended in the middle of a run."""
    desk.restore()
    typed = desk.type("run", str(desk.plan_path), "--yes", code=4)
    assert typed.next[0].startswith("runbook rollback ")
    assert "then a run with the bumpRevision that would do" in typed.next[0]


def test_a_lock_that_nobody_can_read(desk: Desk) -> None:
    lock(desk, "m1", text="what is this")
    desk.findings["preflight"].append(Finding("Locks", "m1", Severity.HELD, f"{LOCK} is there: what is this", "look"))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=6)
    assert f"m1 is locked: {LOCK} is there: what is this" in typed.err
    assert typed.next[0].startswith("ssh ")
    assert typed.next[0].endswith(f" root@10.0.1.10 rm {LOCK}   # only once you know who made it")


# A run that is refused.


def test_a_refused_run_tells_each_thing_once(desk: Desk) -> None:
    for host in ("m1", "m2", "m3"):
        desk.findings["preflight"].append(
            Finding("Swap", host, Severity.BLOCKS, "swap is on", f"ssh {host} swapoff -a")
        )
        desk.findings["preflight"].append(Finding("Old", host, Severity.WARNS, "an old kernel", "upgrade it"))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=3)
    assert typed.err.count("an old kernel") == 1
    assert "! m1, m2, m3: an old kernel → upgrade it" in typed.err
    assert typed.err.count("swap is on") == 2, "when it is found, and in the error"
    assert "✗ m1, m2, m3: swap is on\n      do: ssh m1 swapoff -a (likewise on m2, m3)" in typed.err
    assert "refused" in typed.err
    assert "rolled-back" not in typed.err
    assert typed.next == [f"runbook preview --check {desk.quoted}", f"runbook run {desk.quoted}"]


def test_a_refused_run_is_called_so(desk: Desk) -> None:
    desk.findings["preflight"].append(Finding("Swap", "m1", Severity.BLOCKS, "swap is on", ""))
    run = desk.restore(code=3)
    assert desk.type("runs").out.splitlines()[1].split()[:2] == [run.id, "refused"]
    text = desk.type("status", run.id).out
    assert "refused, nothing was changed" in text
    assert "nothing was changed: the old cluster is as this run found it" in text
    document = json.loads(desk.type("status", run.id, "--output", "json").out)
    assert (document["state"], document["refused"]) == ("rolled-back", True)
    assert "was refused: there is nothing to resume" in desk.type("resume", run.id, code=2).err


def test_a_run_that_failed_while_preparing_says_that_it_tidied_up(desk: Desk) -> None:
    desk.world.etcdutl_fails = "m3"
    typed = desk.type("run", str(desk.plan_path), "--yes", code=3)
    assert "no host is changed; what had been prepared was removed again" in typed.err
    assert "m3: " in typed.err
    assert "no space left" in typed.err


# preview --check.


def test_the_verdict_stands_at_the_end_just_before_the_digest(desk: Desk) -> None:
    desk.findings["preflight"] += [
        Finding("Swap", "m1", Severity.BLOCKS, "swap is on", "swapoff -a"),
        Finding("Swap", "m2", Severity.BLOCKS, "swap is on", "swapoff -a"),
        Finding("Even", "", Severity.WARNS, "an even number", ""),
    ]
    typed = desk.type("preview", str(desk.plan_path), "--check", code=3)
    lines = typed.out.splitlines()
    assert lines[-1].startswith("digest: ")
    assert "Nothing has been connected to" not in typed.out
    assert "1 finding in the way (m1, m2), 1 warning (plan)" in lines[0]
    assert lines[-4] == "1 finding in the way (m1, m2), 1 warning (plan)"
    assert lines[-3].startswith(f"Type next:     runbook preview --check {desk.quoted}")
    assert typed.err.splitlines()[0].startswith(
        "Error: 1 finding in the way (m1, m2); all of it is told in the preview"
    )
    assert typed.next == [f"runbook preview --check {desk.quoted}   # after mending that"]


def test_a_check_that_finds_nothing_says_what_to_type(desk: Desk) -> None:
    lines = desk.type("preview", str(desk.plan_path), "--check").out.splitlines()
    assert lines[-3] == f"Type next:     runbook run {desk.quoted}"


def test_a_check_tells_the_sum_of_a_snapshot_that_lies_on_a_node(desk: Desk) -> None:
    """It has just been computed there; the digest speaks of it no more than before, nor where it was not found out."""
    desk.plan_path.write_text(desk.plan_path.read_text().replace("file:///s.db", "host://m2/opt/etcd.db"))
    known = (Binding(sha256="$SHA256"), "its sha256 and its state are found out at the start")
    desk.patch.setattr("runbook.commands.binding_for_checks", lambda _: known)
    unknown = desk.type("preview", str(desk.plan_path), "--check").out
    assert "not known before the run" in unknown
    assert "are found out at the start" in unknown
    saw = f"/opt/etcd.db: 24 KiB, revision 51, sha256 {'7e' * 32}"
    desk.findings["preflight"] += [Finding("SnapshotWhole", "m2", Severity.OK, saw)]
    found = desk.type("preview", str(desk.plan_path), "--check").out
    assert f"{'7e' * 32}, as found on m2 now; this preview's digest does not speak of it" in found.partition("HOSTS")[0]
    assert "not known before the run" not in found
    assert "are found out at the start" not in found
    assert found.splitlines()[-1] == unknown.splitlines()[-1]
    desk.findings["preflight"] = [Finding("SnapshotWhole", "m2", Severity.BLOCKS, saw)]
    assert "not known before the run" in desk.type("preview", str(desk.plan_path), "--check", code=3).out


def test_a_sum_that_the_plan_says_is_what_its_digest_speaks_of(desk: Desk) -> None:
    host = f'host://m2/opt/etcd.db", sha256: "{"7e" * 32}'
    desk.plan_path.write_text(desk.plan_path.read_text().replace("file:///s.db", host))
    known = (Binding(sha256="7e" * 32), "its sha256 and its state are found out at the start")
    desk.patch.setattr("runbook.commands.binding_for_checks", lambda _: known)
    desk.findings["preflight"] += [Finding("SnapshotWhole", "m2", Severity.OK, f"/opt/etcd.db: sha256 {'7e' * 32}")]
    head = desk.type("preview", str(desk.plan_path), "--check").out.partition("HOSTS")[0]
    assert f"{'7e' * 32}, as found on m2 now\n" in head
    assert "are found out at the start" not in head


def test_a_preview_without_a_check_has_connected_to_nothing(desk: Desk) -> None:
    assert "Nothing has been connected to" in desk.type("preview", str(desk.plan_path)).out


def test_a_check_for_programs_is_one_document(desk: Desk) -> None:
    desk.findings["preflight"].append(Finding("Swap", "m1", Severity.BLOCKS, "swap is on", "swapoff -a"))
    typed = desk.type("preview", str(desk.plan_path), "--check", "--output", "json", code=3)
    document = json.loads(typed.out)
    assert (document["blocking"], document["warnings"], document["exit_code"]) == (1, 0, 3)
    assert document["next"] == [f"runbook preview --check {desk.quoted}"]


# What this machine lacks.


@pytest.mark.parametrize(("name", "key"), [("key", "spec.ssh.identityFile"), ("known", "spec.ssh.knownHostsFile")])
def test_a_missing_local_file_is_named_by_the_plans_key(desk: Desk, name: str, key: str) -> None:
    run = desk.restore()
    (desk.home / name).unlink()
    for words, code in (
        (("run", str(desk.plan_path), "--yes"), 3),
        (("preview", str(desk.plan_path), "--check"), 3),
        (("rollback", run.id, "--discard-writes"), 4),
    ):
        typed = desk.type(*words, code=code)
        said = typed.out + typed.err
        assert f"{key}: {desk.home / name}: No such file or directory" in said
        assert ("ssh -i KEYFILE root@10.0.1.10 true" if name == "key" else "ssh-keyscan 10.0.1.10 10.0.1.11") in said
    assert run.replay().state == "complete"
    assert len(runs.all_runs()) == 1


def test_a_check_that_could_ask_no_host_does_not_say_that_it_did(desk: Desk) -> None:
    (desk.home / "key").unlink()
    told = desk.type("preview", str(desk.plan_path), "--check", code=3).out
    assert "Nothing has been connected to, and nothing was changed: 1 finding in the way (plan); told" in told
    assert "NOT CHECKED: no host could be asked" in told
    assert "were asked" not in told
    assert "CHECKED JUST NOW" not in told
    assert "\nThis machine can read the key and known-hosts files that the plan names " in told
    assert "LocalFiles" not in told


def test_a_runs_own_plan_is_never_to_be_edited(desk: Desk) -> None:
    """A run that was given up because its plan was edited cannot be resumed: the mended copy comes by --plan."""
    run = desk.restore(code=0)
    cut = next(i for i, line in enumerate(run.lines()) if line.get("step") == "StartEtcd")
    run.journal_path.write_bytes(b"".join(run.journal_path.read_bytes().splitlines(keepends=True)[:cut]))
    (desk.home / "known").rename(desk.home / "found")
    typed = desk.type("resume", run.id, code=4)
    copy = desk.home / "fake-resumed.yaml"
    words = f"cp {run.plan_path} {copy}, write the right path to spec.ssh.knownHostsFile in {copy}, then: "
    assert f"{words}runbook resume {run.id} --plan {copy}" in typed.err
    assert f"correct spec.ssh.knownHostsFile in {run.plan_path}" not in typed.err
    copy.write_text(run.plan_path.read_text().replace("knownHostsFile: known", "knownHostsFile: found"))
    desk.type("resume", run.id, "--plan", str(copy), code=None)
    assert "settings" in [line["event"] for line in run.lines()]


def test_a_complete_run_gets_the_right_path_by_adopt(desk: Desk) -> None:
    """Its resume has nothing to do, and so takes no settings."""
    run = desk.restore()
    (desk.home / "key").unlink()
    typed = desk.type("rollback", run.id, "--discard-writes", code=4)
    words = f"runbook adopt --host root@10.0.1.10 --run {run.id} --known-hosts-file {desk.home / 'known'}"
    assert f"from now on: {words} --identity-file FILE" in typed.err


# What this machine has lost.


def test_a_runs_plan_that_is_not_there_is_brought_back_by_adopt(desk: Desk) -> None:
    run = desk.restore()
    run.plan_path.unlink()
    commands: list[tuple[str, ...]] = [("rollback", run.id, "--discard-writes"), ("finish", run.id, "--yes")]
    for words in commands:
        typed = desk.type(*words, code=4)
        assert (
            f"{run.plan_path}: No such file or directory: the plan that {run.id} began with cannot be read" in typed.err
        )
        again = " ".join(["runbook", *(w for w in words if w != "--yes")])
        assert typed.next[1:] == [f"cp {desk.quoted} {run.plan_path}   # the plan as it was approved", again]
    assert run.id in desk.type("report", run.id).out
    assert json.loads(desk.type("report", run.id, "--output", "json").out)["run"] == run.id


def adopted(desk: Desk, run: runs.Run, host: str = "10.0.1.10") -> str:
    login = f"--identity-file {desk.home / 'key'} --known-hosts-file {desk.home / 'known'}"
    why = "brings the plan as it was approved back from the hosts"
    return f"runbook adopt --host root@{host} --run {run.id} {login}   # {why}"


def test_a_file_that_is_not_the_approved_plan_is_not_called_so(desk: Desk) -> None:
    """The hosts of a run whose plan is gone are then known by what has become of the file that it was made from."""
    run = desk.restore()
    run.plan_path.unlink()
    desk.plan_path.write_text(desk.plan_path.read_text() + "# another one\n")
    assert desk.type("rollback", run.id, "--discard-writes", code=4).next[1] == adopted(desk, run)
    desk.plan_path.write_text(desk.plan_path.read_text().replace("name: fake", "name: other"))
    hosts = f"runbook adopt --run {run.id} --host HOST   # any host of the run: brings its copy back"
    assert desk.type("rollback", run.id, "--discard-writes", code=4).next[1] == hosts


def test_an_edited_plan_is_brought_back_and_the_same_command_typed_again(desk: Desk) -> None:
    run = desk.restore()
    run.plan_path.write_text(run.plan_path.read_text().replace("10.0.1.12", "10.0.1.13"))
    for words in (("rollback", run.id, "--discard-writes"), ("finish", run.id, "--yes"), ("report", run.id)):
        again = " ".join(["runbook", *(w for w in words if w != "--yes")])
        typed = desk.type(*words, code=2)
        assert typed.next == [f"cp {desk.quoted} {run.plan_path}   # the plan as it was approved", again]
    desk.plan_path.unlink()
    assert desk.type("finish", run.id, "--yes", code=2).next == [adopted(desk, run), f"runbook finish {run.id}"]


def test_other_settings_in_an_edited_plan_go_on_by_a_copy(desk: Desk) -> None:
    run = desk.restore()
    cut = next(i for i, line in enumerate(run.lines()) if line.get("step") == "StartEtcd")
    run.journal_path.write_bytes(b"".join(run.journal_path.read_bytes().splitlines(keepends=True)[:cut]))
    run.plan_path.write_text(run.plan_path.read_text() + "  timeouts: {quorum: 90s}\n")
    typed = desk.type("rollback", run.id, "--without", "m3", code=2)
    copy = desk.home / "fake-edited.yaml"
    assert [line.partition("   #")[0] for line in typed.next] == [
        f"cp {run.plan_path} {copy}",
        f"cp {desk.quoted} {run.plan_path}",
        f"runbook rollback {run.id} --without m3",
        f"runbook resume {run.id} --plan {copy}",
    ]
    copy.write_bytes(run.plan_path.read_bytes())
    run.plan_path.write_bytes(desk.plan_path.read_bytes())
    desk.type("resume", run.id, "--plan", str(copy), code=None)
    assert "settings" in [line["event"] for line in run.lines()]


def test_a_journal_that_cannot_be_bound_to_its_plan_is_damaged(desk: Desk) -> None:
    run = desk.restore()
    lines = [json.loads(line) for line in run.journal_path.read_text().splitlines()]
    del lines[0]["plan_base"]
    run.journal_path.write_text(json.dumps(lines[0]) + "\n")
    typed = desk.type("rollback", run.id, code=4)
    assert "journal.jsonl:1: the journal is damaged: it is of the event run and lacks plan_base" in typed.err


@pytest.mark.parametrize("words", [("status",), ("runs",), ("resume",), ("report",)])
def test_a_line_that_says_nothing_takes_no_command_down(desk: Desk, words: tuple[str, ...]) -> None:
    """Its chain is whole, and yet nobody can replay it: named, with exit code 4, and only for that run."""
    from runbook.journal import sha

    run = desk.restore()
    raw = run.journal_path.read_bytes().splitlines()
    last = {**json.loads(raw[-1]), "event": "state", "seq": len(raw) + 1, "prev": sha(raw[-1])}
    del last["to"]
    run.journal_path.write_bytes(b"\n".join([*raw, json.dumps(last).encode()]) + b"\n")
    typed = desk.type(*words, code=0 if words == ("runs",) else 4)
    assert f"journal.jsonl:{len(raw) + 1}: the journal is damaged" in typed.out + typed.err


def test_a_run_that_was_killed_before_its_first_line_has_a_name_and_never_began(desk: Desk) -> None:
    run = desk.restore()
    run.journal_path.write_bytes(b"")
    document = json.loads(desk.type("status", run.id, "--output", "json").out)
    assert (document["run"], document["never_began"], document["next"]) == (run.id, True, ["runbook run PLAN"])
    text = desk.type("status", run.id).out
    assert "this run never began: nothing was done on any host" in text
    assert "runbook resume" not in text
    assert desk.type("runs").out.splitlines()[1].startswith(f"{run.id}  never began")
    assert "nothing was ever begun" in desk.type("resume", run.id, code=2).err


# Another machine has taken the run over.


def test_a_forgotten_machine_hears_why_and_is_not_sent_to_resume(desk: Desk) -> None:
    """Neither then nor by `status` afterwards: its journal is old, and to go on from it would lose what came after."""
    run = desk.restore()
    cut = next(i for i, line in enumerate(run.lines()) if line.get("step") == "StartEtcd")
    run.journal_path.write_bytes(b"".join(run.journal_path.read_bytes().splitlines(keepends=True)[:cut]))
    for host in desk.world.hosts.values():
        host.put(f"/var/lib/etcd-runbook/{run.id}/epoch", "7")
    typed = desk.type("resume", run.id, code=6)
    assert "a newer engine has taken this run over: m1, m2, m3: a newer engine has the run" in typed.err
    adopt = f"runbook adopt --host root@10.0.1.10 --run {run.id} --identity-file {desk.home / 'key'}"
    for said in (typed, desk.type("status", run.id)):
        text = said.out + said.err
        assert f"ask who took {run.id} over; on that machine: runbook status {run.id}" in text
        assert adopt in text
        assert "only where that machine is lost" in text
        assert "runbook resume" not in text
        assert "without this machine: what is known of it here is old" in text
    typed = desk.type("finish", run.id, "--yes", code=2)
    assert (
        f"{run.id} was in the outage when taken over elsewhere: finish follows a complete run or a rollback"
        in typed.err
    )
    assert " UTC, when a host last answered this machine:\n" in typed.err.partition("What is true:  as of 20")[2]


def test_a_rollback_whose_consent_nobody_knows_asks_for_it(desk: Desk) -> None:
    """As adopt leaves it, where the hosts' commands tell of a rollback whose journal is lost."""
    run = desk.restore()
    with run.locked() as book:
        book.append("state", {"from": "complete", "to": "rolling-back", "why": "the hosts hold commands of it"})
    typed = desk.type("resume", run.id, code=2)
    assert typed.next[0].startswith(f"runbook rollback {run.id} --discard-writes")
    assert "nothing was changed just now" in typed.err
    desk.type("rollback", run.id, "--discard-writes")


# Confirmation.


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class Interrupting(Tty):
    def readline(self, *_: object) -> str:  # type: ignore[override]
        raise KeyboardInterrupt


def test_nobody_to_confirm_gets_the_whole_command(desk: Desk) -> None:
    typed = desk.type("run", str(desk.plan_path), code=2)
    assert typed.next[0] == f"runbook run {desk.quoted} --yes"
    assert typed.next[1].startswith(f"runbook run {desk.quoted} --approve DIGEST   # ")


@pytest.mark.parametrize(("stdin", "code"), [(Tty("no\n"), 2), (Interrupting(), 130)])
def test_not_confirmed_and_interrupted_at_the_question_say_that_nothing_was_changed(
    desk: Desk, stdin: io.StringIO, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from runbook.confirming import confirm
    from runbook.errors import RunbookError

    desk.patch.setattr("sys.stdin", stdin)
    with pytest.raises(RunbookError) as caught:
        confirm(False, "runbook finish x")("Remove it?")
    error = caught.value
    assert (error.code, error.true, error.next) == (code, "nothing was changed", ("runbook finish x",))
    assert error.message.startswith(("not confirmed", "interrupted, not confirmed"))


def test_ctrl_c_before_a_run_says_that_nothing_was_changed(desk: Desk) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    desk.patch.setattr("runbook.meanwhile.preview_binding", interrupt)
    typed = desk.type("run", str(desk.plan_path), "--yes", code=130)
    assert "nothing was changed" in typed.err


# Part-way.


def test_a_silent_host_is_waited_for(desk: Desk) -> None:
    """Halted in the outage: what the others hold, that the run waits, and for whom."""
    run = desk.restore()
    desk.silent = {"m2"}
    typed = desk.type("rollback", run.id, "--discard-writes", code=4)
    assert "m2" in typed.err
    assert "nothing was changed just now" in typed.err
    assert "m1, m3: the restored cluster serves and is verified" in typed.err
    assert "it does not answer now" in typed.err
    assert "nothing is undone on a guess" in typed.err
    assert typed.next[0] == f"runbook rollback {run.id} --discard-writes   # once m2 answers again"
    assert typed.next[1].startswith(f"runbook rollback {run.id} --discard-writes --without m2   # ")


def test_a_halt_with_a_silent_host(desk: Desk) -> None:
    for at in range(150, 1500, 40):
        desk.fuse = Fuse(at, "silent")
        typed = desk.type("run", str(desk.plan_path), "--yes", code=None)
        desk.fuse = Fuse()
        run = runs.all_runs()[0]
        if typed.code == 4 and run.replay().in_outage:
            break
        desk.type("rollback", run.id, "--discard-writes", code=None)
    lost = next(name for name, host in desk.world.hosts.items() if not host.reachable)
    assert f"the run waits for {lost}" in typed.err
    assert "it does not answer now" in typed.err
    assert typed.next[0].endswith(f"# goes on, once {lost} answers again")
    assert typed.next[1].startswith(f"runbook resume {run.id} --plan {desk.quoted}")
    lines = typed.err.splitlines()
    told = [line for line in lines if "no answer: the connection was lost" in line]
    assert all(line.count("the connection was lost") == 1 for line in told)
    text = desk.type("status").out
    assert "last seen " in text
    assert f"the run waits for {lost}" in text
    assert "no engine is working on it" in text


def test_a_secret_that_is_mistyped(desk: Desk) -> None:
    desk.plan_path.write_text(desk.plan_path.read_text() + "  verify: {secrets: [default/knwon]}\n")
    kubectl = type(desk.world.hosts["m1"])._run_kubectl

    def without(self: object, argv: list[str], out: list[str], err: list[str]) -> object:
        if any("knwon" in word for word in argv):
            err.append('Error from server (NotFound): secrets "knwon" not found\n')
            return iter_code(1)
        return kubectl(self, argv, out, err)  # type: ignore[arg-type]

    for host in desk.world.hosts.values():
        host.own_programs["kubectl"] = lambda argv, out, err, host=host: without(host, argv, out, err)  # type: ignore[misc,assignment]
    typed = desk.type("run", str(desk.plan_path), "--yes", code=4)
    run = runs.all_runs()[0]
    assert 'm1, m2, m3: Error from server (NotFound): secrets "knwon" not found' in typed.err
    assert "the scheduler and the controller-manager are stopped" in typed.err
    assert any(
        command.startswith(f"runbook resume {run.id} --plan {desk.quoted}   # after mending spec.verify.secrets")
        for command in typed.next
    )


def iter_code(code: int) -> Generator[None, None, int]:
    yield from ()
    return code


# After success.


def test_what_to_type_after_success_says_what_it_does(desk: Desk) -> None:
    typed = desk.type("run", str(desk.plan_path), "--yes")
    run = runs.all_runs()[0].id
    assert typed.out.splitlines()[0].startswith(f"{run}: complete")
    assert "   # when the cluster is well: removes the old data, and with it the way back" in typed.out
    assert "   # back to the old data: throws away what was written since" in typed.out


def test_a_rollback_without_consent_is_not_sent_to_resume(desk: Desk) -> None:
    run = desk.restore()
    typed = desk.type("rollback", code=2)
    assert typed.next[0].startswith(f"runbook rollback {run.id} --discard-writes")
    assert "resume" not in typed.err
    assert "nothing was changed just now" in typed.err


def test_where_there_is_nothing_to_do_no_host_was_asked_and_it_says_so(desk: Desk) -> None:
    desk.restore()
    assert "\nWhat is true:  as of 20" in desk.type("resume").out


def test_one_command_has_one_result_line(desk: Desk) -> None:
    typed = desk.type("run", str(desk.plan_path), "--yes", "--output", "json")
    assert [r["state"] for r in desk.results(typed)] == ["complete"]
    typed = desk.type("resume", "--output", "json")
    assert [r["note"] for r in desk.results(typed)] == ["this run is complete and owes nothing"]
    typed = desk.type("finish", "--yes", "--output", "json")
    assert [r["closed"] for r in desk.results(typed)] == [True]
    typed = desk.type("rollback", runs.all_runs()[0].id, "--output", "json", code=2)
    assert [r["exit_code"] for r in desk.results(typed)] == [2]


def test_programs_get_commands_without_notes(desk: Desk) -> None:
    desk.restore()
    assert all("#" not in c for c in json.loads(desk.type("status", "--output", "json").out)["next"])


def test_a_plan_with_errors_ends_with_what_to_type(desk: Desk) -> None:
    desk.plan_path.write_text(desk.plan_path.read_text().replace("peerURLs", "peerURLS", 1))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=2)
    assert typed.err.startswith(f"{desk.plan_path}:7:")
    assert "nothing was changed" in typed.err
    assert typed.next == [f"runbook validate {desk.quoted}   # after mending it"]


# A fault of the program's own.


def test_a_plan_that_is_not_there_is_looked_for(desk: Desk) -> None:
    for name in ("nope.yaml", "no/such/plan.yaml"):
        for words in (("run", str(desk.home / name), "--yes"), ("preview", str(desk.home / name))):
            typed = desk.type(*words, code=2)
            assert typed.next == [f"ls -l {desk.home}   # which file is the plan?"]


def test_a_labs_snapshot_into_no_directory_is_a_users_mistake(desk: Desk) -> None:
    typed = desk.type("lab", "snapshot", str(desk.home / "no/x.db"), code=2)
    assert f"there is no directory {desk.home / 'no'}" in typed.err


def test_a_crash_in_a_run_says_where_it_stands(desk: Desk) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("oh")

    desk.patch.setattr("runbook.engine.Engine._enter", crash)
    typed = desk.type("run", str(desk.plan_path), "--yes", code=1)
    run = runs.all_runs()[0]
    assert f"ZeroDivisionError: oh; all of it is in {run.path / 'debug.log'}" in typed.err
    assert "the old cluster is as it was" in typed.err
    assert typed.next[0].startswith(f"runbook resume {run.id}")


def test_a_crash_outside_a_run(desk: Desk) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("oh")

    desk.patch.setattr("runbook.meanwhile.preview_binding", crash)
    typed = desk.type("run", str(desk.plan_path), "--yes", code=1)
    assert "this command changed nothing on any host" in typed.err
    assert typed.next[0].startswith("runbook runs")


def test_the_handlers_of_signals_are_given_back(desk: Desk) -> None:
    before = signal.getsignal(signal.SIGTERM)
    desk.restore()
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_room_for_a_journal(desk: Desk) -> None:
    (desk.home / "state").write_text("a file where the directory should be")
    typed = desk.type("run", str(desk.plan_path), "--yes", code=1)
    assert "the journal's directory cannot be made" in typed.err
    assert "no host is changed" in typed.err
    assert typed.next[0] == f"df -h {desk.home}"


def test_no_run_is_known(desk: Desk) -> None:
    typed = desk.type("status", code=2)
    assert "no run is known on this machine" in typed.err
    assert desk.type("runs").out.startswith("RUN")


def test_status_after_the_only_run_was_finished(desk: Desk) -> None:
    run = desk.restore()
    desk.type("finish", "--yes")
    text = desk.type("status").out
    assert text.split()[:2] == ["run", run.id]
    assert "complete, closed" in text
    assert "no run is open: the only one known on this machine is closed" in text
    document = json.loads(desk.type("status", "--output", "json").out)
    assert (document["run"], document["closed"], document["all_closed"]) == (run.id, True, 1)
    assert "no run is open" not in desk.type("status", run.id).out
    assert "no run is open, all have been closed" in desk.type("resume", code=2).err


# What is judged is judged under the run's own lock.


@pytest.mark.parametrize(
    "words",
    [("resume",), ("rollback",), ("rollback", "--discard-writes"), ("resume", "--plan", "x"), ("finish", "--yes")],
)
def test_while_the_first_engine_lives_every_other_command_ends_with_6(desk: Desk, words: tuple[str, ...]) -> None:
    """Before anything else is said: what the journal says now may not be so in a moment."""
    run = desk.restore()
    with run.locked():
        typed = desk.type(words[0], run.id, *words[1:], code=6)
    assert "is being worked on by process " in typed.err
    assert "--discard-writes" not in typed.err


def confirmed(meanwhile: Callable[[], object]) -> Callable[[str], None]:
    def confirm(_: str) -> None:
        meanwhile()

    return confirm


def test_finish_removes_nothing_where_the_run_has_moved_since_its_question(desk: Desk) -> None:
    """A rollback that got stuck, begun in another terminal while this one asked: the old data is all there is."""
    from runbook import commands, progress
    from runbook.errors import UsageError

    run = desk.restore()

    def meanwhile() -> None:
        desk.silent = {"m2"}
        desk.type("rollback", run.id, "--discard-writes", code=4)
        desk.silent = set()

    before = {name: host.tree() for name, host in desk.world.hosts.items()}
    view = progress.Json(io.StringIO())
    with pytest.raises(UsageError, match="has moved on since the question") as caught:
        commands.finish(run, False, confirmed(meanwhile), view)
    assert caught.value.next[0] == f"runbook status {run.id}"
    assert "nothing was removed" in caught.value.true
    assert {name: host.tree() for name, host in desk.world.hosts.items()} == before
    assert not run.replay().finishing


def test_finish_asks_without_holding_the_run(desk: Desk) -> None:
    """A question that somebody forgot in a terminal keeps nobody from rolling back."""
    from runbook import commands, progress

    run, free = desk.restore(), []
    commands.finish(run, False, confirmed(lambda: free.append(run.engine())), progress.Json(io.StringIO()))
    assert free == [None]
    assert run.replay().closed


def absent_and_accepted(desk: Desk) -> runs.Run:
    """A run that was complete without m3, accepted and closed; m3 is back."""
    desk.silent = {"m3"}
    run = desk.restore("--without", "m3")
    desk.type("finish", run.id, "--accept", "--yes")
    desk.silent = set()
    return run


def test_a_closed_run_is_not_resumed(desk: Desk) -> None:
    """m3 was joined afresh, as the advice said: its etcd must not be stopped, nor old data swapped in."""
    run = absent_and_accepted(desk)
    assert run.replay().accepted
    before = {name: host.tree() for name, host in desk.world.hosts.items()}
    for words in (("resume", run.id), ("resume", run.id, "--without", "m3")):
        assert "closed" in desk.type(*words).out
    assert {name: host.tree() for name, host in desk.world.hosts.items()} == before


def cannot_remove(desk: Desk, name: str) -> None:
    """Its disk has become read-only, say."""

    def refuse(argv: list[str], out: list[str], err: list[str]) -> Generator[None, None, int]:
        err.append("rm: Input/output error\n")
        return iter_code(1)

    host = desk.world.hosts[name]
    host.own_programs["rm"] = host.programs["rm"] = refuse


def test_a_run_that_is_being_removed_is_not_resumed(desk: Desk) -> None:
    """`finish --accept` of a run that was not verified, and got half-way: there is no data left to go on with."""
    desk.findings["verify"].append(Finding("Nodes", "m1", Severity.BLOCKS, "2 of 3 nodes are ready", "wait"))
    run = desk.restore(code=7)
    cannot_remove(desk, "m2")
    desk.type("finish", run.id, "--accept", "--yes", code=4)
    before = {name: host.tree() for name, host in desk.world.hosts.items()}
    typed = desk.type("resume", run.id, code=2)
    assert "nothing can be resumed any more" in typed.err
    assert typed.next[0].startswith(f"runbook finish {run.id}")
    assert {name: host.tree() for name, host in desk.world.hosts.items()} == before


def test_a_host_that_is_gone_for_good_keeps_no_run_open(desk: Desk) -> None:
    run = desk.restore()
    desk.silent = {"m3"}
    typed = desk.type("finish", run.id, "--yes", code=4)
    assert "not everything could be removed: m3: " in typed.err
    assert typed.next[-1] == f"runbook finish {run.id} --accept   # closes the run without m3, if it is gone for good"
    assert "resume" not in typed.err
    assert "there is no way back" in desk.type("resume", run.id).out
    typed = desk.type("finish", run.id, "--accept", "--yes")
    assert "closed without m3: what the run left there is there still" in typed.out
    past = run.replay()
    assert past.closed
    assert list(past.left) == ["m3"]
    document = json.loads(desk.type("status", run.id, "--output", "json").out)
    assert document["hosts"]["m1"] == "nothing of this run is left here"
    assert "what the run left here is here still" in document["hosts"]["m3"]
    m3 = desk.world.hosts["m3"]
    assert m3.exists(f"/var/lib/etcd-runbook/{run.id}")
    later = f"runbook finish {run.id}   # once m3 is back: removes what the run left there"
    assert later in situation.advice(past, run.id)
    desk.type("finish", run.id, "--yes", code=4)
    desk.silent = set()
    others = {name: host.tree() for name, host in desk.world.hosts.items() if name != "m3"}
    assert "nothing of this run is left" in desk.type("finish", run.id, "--yes").out
    assert not [path for path in m3.nodes if run.id in path]
    assert {name: host.tree() for name, host in desk.world.hosts.items() if name != "m3"} == others
    assert "already been closed" in desk.type("finish", run.id).out


def test_a_node_that_was_absent_from_the_beginning_has_nothing_to_be_cleaned_of(desk: Desk) -> None:
    run = absent_and_accepted(desk)
    assert "already been closed" in desk.type("finish", run.id).out


def test_a_host_that_answers_and_cannot_be_swept_is_not_accepted(desk: Desk) -> None:
    """It can be mended; only silence is taken for good."""
    run = desk.restore()
    cannot_remove(desk, "m2")
    typed = desk.type("finish", run.id, "--accept", "--yes", code=4)
    assert "m2: " in typed.err
    assert not run.replay().closed


def test_the_lock_that_a_closed_run_left_is_told_with_its_removal(desk: Desk) -> None:
    run = desk.restore()
    desk.silent = {"m3"}
    desk.type("finish", run.id, "--yes", "--accept")
    desk.silent = set()
    lock(desk, "m3", text=held(run))
    desk.findings["preflight"].append(Finding("Locks", "m3", Severity.HELD, "held", "ask"))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=6)
    assert typed.next[0].endswith(f" root@10.0.1.12 rm {LOCK}   # that run is closed, and left its lock there")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_the_exit_code_is_the_commands_own_also_where_nobody_listens(tmp_path: Path, closed: str) -> None:
    env = {**os.environ, "RUNBOOK_STATE_DIR": str(tmp_path)}
    (tmp_path / "p.yaml").write_text("x")
    for words, code in (("runs", 0), ("status nothing", 2), (f"validate {tmp_path}/p.yaml", 2)):
        line = f'exec "$0" -m runbook.cli {words} {closed}'
        assert subprocess.run(["sh", "-c", line, sys.executable], env=env, check=False).returncode == code


def test_a_closed_standard_stream_is_no_files_number(tmp_path: Path) -> None:
    """The journal must not become what a child process takes for its standard error."""
    look = "from runbook import streams; streams.hold(); import os; print(os.open('/dev/null', 0))"
    for closed in ("<&-", "2>&-", "<&- 2>&-"):
        line = f'exec "$0" -c "{look}" {closed}'
        done = subprocess.run(["sh", "-c", line, sys.executable], capture_output=True, text=True, check=True)
        assert int(done.stdout) > 2

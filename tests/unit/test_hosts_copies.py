"""The host's scripts for copies of the journal, and for who may claim a run: run by the real ``sh``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runbook.hosts import wrapper
from runbook.journal import Journal
from runbook.transport import ANY, Claim, Copy
from tests.unit.test_hosts_wrapper import Host, end

NONCE = "cd" * 16


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(wrapper, "LOCK", str(tmp_path / "lock"))
    return Host(tmp_path, ["/bin/sh"])


def keep(host: Host, claim: Claim, *copies: Copy) -> tuple[str, str]:
    guarded = wrapper.Guarded(str(host.dir), "prod-1", claim)
    code, _, err = end(host.run(NONCE, guarded.keep(NONCE, copies)))
    return code, err.decode()


def test_a_copy_grows_and_is_written_anew(host: Host) -> None:
    assert keep(host, Claim(1), Copy("journal.jsonl", 0, b"one\n"), Copy("plan.yaml", 0, b"it's $(a) plan\n"))[0] == "0"
    assert keep(host, Claim(1), Copy("journal.jsonl", 4, b"two\n"))[0] == "0"
    assert (host.dir / "journal.jsonl").read_bytes() == b"one\ntwo\n"
    assert (host.dir / "plan.yaml").read_bytes() == b"it's $(a) plan\n"
    assert (host.dir / "journal.jsonl").stat().st_mode & 0o777 == 0o600
    assert keep(host, Claim(1), Copy("journal.jsonl", 99, b"x"))[0] == "94"
    assert keep(host, Claim(1), Copy("journal.jsonl", 0, b"new\n"))[0] == "0"
    assert (host.dir / "journal.jsonl").read_bytes() == b"new\n"


def test_a_long_journal_with_every_byte_that_a_word_may_hold(host: Host) -> None:
    data = (bytes(range(1, 256)) + b"\n") * 4000
    assert keep(host, Claim(1), Copy("journal.jsonl", 0, data))[0] == "0"
    assert (host.dir / "journal.jsonl").read_bytes() == data


def test_a_superseded_engine_writes_nothing(host: Host) -> None:
    assert keep(host, Claim(5), Copy("journal.jsonl", 0, b"new\n"))[0] == "0"
    code, err = keep(host, Claim(4), Copy("journal.jsonl", 0, b"old\n"))
    assert code == "97"
    assert "its epoch is 5, ours is 4" in err
    assert (host.dir / "journal.jsonl").read_bytes() == b"new\n"


def test_no_directory_is_no_copy(host: Host) -> None:
    host.dir.rmdir()
    assert keep(host, Claim(1), Copy("journal.jsonl", 0, b"x"))[0] == "95"


def test_what_was_taken_over_is_not_taken_back_by_a_higher_number(host: Host) -> None:
    """A forgotten machine starts its engine anew: its epoch is higher, and it does not know who came after it."""
    piece = Copy("journal.jsonl", 0, b"x\n")
    assert keep(host, Claim(1, "aa"), piece)[0] == "0"
    assert keep(host, Claim(2, "bb", ("aa",)), piece)[0] == "0", "a later engine of the same journal"
    assert keep(host, Claim(3, "cc", (ANY,)), piece)[0] == "0", "adopted elsewhere"
    for epoch in (3, 4, 9):
        code, err = keep(host, Claim(epoch, "dd", ("aa", "bb")), piece)
        assert code == "97", epoch
    assert "this run was taken over on another machine; this engine changes nothing more" in err
    assert keep(host, Claim(4, "ee", ("aa", "bb", "cc")), piece)[0] == "0"
    assert (host.dir / "epoch").read_text() == "4 ee\n"


def test_two_that_adopt_at_once_do_not_both_have_it(host: Host) -> None:
    piece = Copy("journal.jsonl", 0, b"x\n")
    assert keep(host, Claim(7, "aa", (ANY,)), piece)[0] == "0"
    code, err = keep(host, Claim(7, "bb", (ANY,)), piece)
    assert code == "97"
    assert "this run was taken over elsewhere; this engine changes nothing more" in err, "just now or an hour ago"
    assert keep(host, Claim(7, "aa", (ANY,)), piece)[0] == "0"


def test_who_took_a_run_over_is_told_by_the_copy_of_the_journal(host: Host, tmp_path: Path) -> None:
    """By the line of the engine whose word stands beside the epoch, and no other's."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("engine", {"command": "run", "holder": "ops@laptop", "owner": "aa"})
    journal.epoch = 7
    adopted = journal.append("adopted", {"holder": "eve@desk", "version": "0", "differs": [], "owner": "bb"})
    journal.append("engine", {"command": "resume", "holder": "old@desk", "owner": "cc"})
    piece = Copy("journal.jsonl", 0, journal.tail(0))
    journal.close()
    assert keep(host, Claim(7, "bb", (ANY,)), piece)[0] == "0"
    who = f"by eve@desk since {adopted['at'][:10]} {adopted['at'][11:19]} UTC"
    for epoch, said in (
        (7, f"this run was taken over elsewhere, {who}; this engine changes nothing more"),
        (8, f"this run was taken over on another machine, {who}; this engine changes nothing more"),
        (6, f"a newer engine has this run, {who}: its epoch is 7, ours is 6"),
    ):
        code, err = keep(host, Claim(epoch, "aa", ("aa",)), piece)
        assert (code, err.strip()) == ("97", said)


def test_a_directory_that_takes_no_copy_is_named(host: Host) -> None:
    (host.dir / "copies.lock").mkdir()
    code, err = keep(host, Claim(1), Copy("journal.jsonl", 0, b"x"))
    assert (code, err.strip()) == ("1", f"cannot write in {host.dir}")


@pytest.mark.parametrize("shell", [["/bin/sh", "-s"], ["bash", "--posix", "-s"]], ids=" ".join)
def test_a_script_that_dies_takes_its_shell_along(host: Host, shell: list[str]) -> None:
    """It waits for more scripts: without that, nobody would hear that this one gives no answer any more."""
    (host.dir / "epoch.lock").mkdir()
    guarded = wrapper.Guarded(str(host.dir), "prod-1", Claim(1))
    script = guarded.keep(NONCE, [Copy("journal.jsonl", 0, b"x\n")]) + b"echo still there\n"
    done = subprocess.run(shell, input=script, capture_output=True, timeout=20, check=False)
    assert done.returncode != 0
    assert b"epoch.lock" in done.stderr
    assert b"still there" not in done.stdout

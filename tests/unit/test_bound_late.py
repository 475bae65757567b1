"""A run that nobody is asked about begins before its snapshot is hashed: it is bound after its first checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from runbook.checks import Finding, Severity
from runbook.runs import Run, all_runs
from runbook.step import Binding
from tests.fake.desk import Desk
from tests.fake.sessions import SHA256


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The snapshot is on this machine, and the plan does not say what its SHA-256 is."""
    desk = Desk(tmp_path, monkeypatch)
    snapshot = desk.home / "s.db"
    snapshot.write_bytes(b"s")
    desk.plan_path.write_text(desk.plan_path.read_text().replace("/s.db", str(snapshot)))
    desk.findings["preflight"] = [whole(SHA256)]
    return desk


def whole(sha256: str) -> Finding:
    """What the check of the snapshot says where all is well."""
    return Finding("SnapshotWhole", "", Severity.OK, f"/s.db: 1 B, revision 1, sha256 {sha256}")


def events(run: Run) -> list[str]:
    """The journal's events, and of steps which."""
    return [f"{line['step']} {line['to']}" if line["event"] == "step" else line["event"] for line in run.lines()]


def interrupted(desk: Desk) -> Run:
    """A run whose engine is interrupted between its first checks and the line that says what they saw."""

    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runbook.commands.learned", interrupt)
        run = desk.restore(code=130)
    assert "bound" not in events(run)
    return run


def test_the_first_line_does_not_wait_for_the_hash(desk: Desk) -> None:
    run = desk.restore()
    seen = events(run)
    assert run.lines()[0]["snapshot_sha256"] == run.lines()[0]["preview_digest"] == ""
    assert seen.index("CheckEverything DONE") < seen.index("bound") < seen.index("LockHosts ACTING")
    assert seen.count("bound") == 1
    assert run.replay().header["snapshot_sha256"] == SHA256


def test_its_digest_is_that_of_the_preview(desk: Desk) -> None:
    preview = desk.type("preview", str(desk.plan_path), "--output", "json")
    assert desk.restore().replay().header["preview_digest"] in preview.out


def test_whoever_approves_a_digest_is_bound_before(desk: Desk) -> None:
    digest = json.loads(desk.type("preview", str(desk.plan_path), "--output", "json").out)["digest"]
    run = desk.restore("--approve", digest)
    assert run.lines()[0]["snapshot_sha256"] == SHA256
    assert run.lines()[0]["preview_digest"] == digest
    assert "bound" not in events(run)


def test_a_run_that_ended_before_it_was_bound_goes_on(desk: Desk) -> None:
    run = interrupted(desk)
    desk.type("report", run.id)
    desk.type("status", run.id)
    desk.type("resume", run.id)
    assert run.replay().state == "complete"
    assert run.replay().header["snapshot_sha256"] == SHA256


def test_a_run_that_ended_before_it_was_bound_is_taken_back(desk: Desk) -> None:
    before = desk.world.hosts["m1"].tree()
    run = interrupted(desk)
    desk.type("rollback", run.id)
    assert run.replay().state == "rolled-back"
    desk.type("finish", run.id, "--yes")
    assert desk.world.hosts["m1"].tree() == before


def test_what_is_bound_is_what_was_checked(desk: Desk) -> None:
    """A backup job may put another file in its place while the hosts are asked: nobody has checked that one."""
    replaced = "ab" * 32
    desk.patch.setattr("runbook.meanwhile.preview_binding", lambda _: (Binding(sha256=replaced), ""))
    run = desk.restore()
    assert run.replay().header["snapshot_sha256"] == SHA256
    assert replaced not in run.journal_path.read_text()


def test_a_snapshot_that_only_appears_while_a_person_thinks(desk: Desk) -> None:
    """What was shown, and agreed to, spoke of no snapshot."""
    snapshot = desk.home / "s.db"
    snapshot.unlink()
    desk.patch.setattr("runbook.commands.bound_meanwhile", lambda *_, **__: (Binding(), "not there yet"))
    desk.patch.setattr("runbook.cli.confirm", lambda *_: lambda _: snapshot.write_bytes(b"s"))
    typed = desk.type("run", str(desk.plan_path), code=3)
    assert "is not there" in typed.err
    assert not all_runs()


def test_checks_that_say_no_come_before_it(desk: Desk) -> None:
    desk.findings["preflight"] = [Finding("SnapshotWhole", "", Severity.BLOCKS, "it was cut off", "take another")]
    typed = desk.type("run", str(desk.plan_path), "--yes", code=3)
    assert "it was cut off" in typed.err
    assert "bound" not in events(all_runs()[0])


def test_a_snapshot_that_is_not_there_is_refused_before_a_run_begins(desk: Desk) -> None:
    (desk.home / "s.db").unlink()
    desk.patch.setattr("runbook.meanwhile.preview_binding", lambda _: (Binding(), ""))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=3)
    assert "is not there" in typed.err
    assert not all_runs()


def test_the_progress_says_what_is_restored(desk: Desk) -> None:
    typed = desk.type("run", str(desk.plan_path), "--yes")
    assert f"what is restored has the sha256 {SHA256}" in typed.err
    assert "preview_digest" not in typed.err


def test_a_run_that_was_checked_and_not_bound_is_checked_again(desk: Desk) -> None:
    """Else it would be bound to whatever lies there by then."""
    run = interrupted(desk)
    assert "CheckEverything DONE" in events(run)
    desk.findings["preflight"] = [Finding("SnapshotWhole", "", Severity.BLOCKS, "it was cut off", "take another")]
    typed = desk.type("resume", run.id, code=3)
    assert "it was cut off" in typed.err
    assert run.replay().state == "rolled-back"

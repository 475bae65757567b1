"""A restore plan whose snapshot is in a store, as a responder types it: found, fetched, journalled, taken again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from runbook import bind, waiting
from runbook.checks import Finding, Severity
from runbook.checks.snapshot import SnapshotWhole
from runbook.plan import Plan
from runbook.runs import Run, all_runs
from runbook.snapshots import scratch, sealing
from runbook.snapshots.sidecar import SUFFIX
from runbook.snapshots.store_files import Files
from runbook.step import Binding, Upload
from tests.fake.desk import Desk, Typed
from tests.fake.hosts import Fuse, Job
from tests.fake.shell import Step
from tests.unit.store_kit import IDENTITY, PUBLIC, SAMPLE, Shelf

OWN = f"/proc/{os.getpid()}/"
"""Where the copy can be read, which is nobody's business."""


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shelf: Shelf) -> Desk:
    """The plan takes the latest of the store; the identity is in a file of this machine."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv(sealing.IDENTITY, raising=False)
    (tmp_path / "keys.txt").write_text(f"{IDENTITY}\n")
    desk = Desk(tmp_path, monkeypatch)
    for name in ("commands.preview_binding", "meanwhile.preview_binding"):
        monkeypatch.setattr(f"runbook.{name}", bind.preview_binding)
    monkeypatch.setattr("runbook.commands.binding_for_checks", bind.binding_for_checks)
    takes(desk, f"{shelf.url}?latest=verified")
    return desk


def takes(desk: Desk, url: str, more: str = ", identityFile: keys.txt") -> None:
    """What the plan restores."""
    text = re.sub(r"snapshot: \{.*\}", f'snapshot: {{from: "{url}"{more}}}', desk.plan_path.read_text())
    desk.plan_path.write_text(text)


def put(shelf: Shelf, hours: float = 1, **more: object) -> str:
    """An encrypted snapshot in the store; its name."""
    return shelf.put(hours=hours, now=datetime.now(UTC), **{"recipients": (PUBLIC,), **more}).name  # type: ignore[arg-type]


@pytest.fixture
def sent(desk: Desk) -> list[Path]:
    """Where every snapshot that is sent to a host was read from; it could be read there when it was."""
    seen: list[Path] = []
    receive = Job._receive

    def look(job: Job, upload: Upload) -> Step:
        if upload.dest.endswith("/snapshot.db"):
            assert Path(upload.source).read_bytes() == SAMPLE.read_bytes()
            seen.append(Path(upload.source))
        return receive(job, upload)

    desk.patch.setattr(Job, "_receive", look)
    return seen


def halted(desk: Desk, at: int) -> Run:
    """A run that stops at that moment, because a host is silent from then on."""
    desk.fuse = Fuse(at, "silent")
    run = desk.restore(code=4)
    desk.fuse = Fuse()
    return run


def in_outage(desk: Desk) -> Run:
    """A run that stops in the outage."""
    for at in range(150, 1500, 40):
        desk.fuse = Fuse(at, "silent")
        desk.type("run", str(desk.plan_path), "--yes", code=None)
        desk.fuse = Fuse()
        run = all_runs()[0]
        if run.replay().in_outage:
            return run
        desk.type("rollback", run.id, "--discard-writes", code=None)
    raise AssertionError("no run stopped there")


def left(desk: Desk) -> list[str]:
    """What was left where the plain copy lay; and nothing else of the run tells of what opens it."""
    for path in (desk.home / "state").rglob("*"):
        if path.is_file():
            assert str(IDENTITY).encode() not in path.read_bytes()
    return [path.name for path in (desk.home / "tmp").iterdir()]


def test_a_run_takes_the_latest_verified_one(desk: Desk, shelf: Shelf, sent: list[Path]) -> None:
    put(shelf, 9)
    name = put(shelf, 3)
    put(shelf, 1, verified=False)
    typed = desk.type("run", str(desk.plan_path), "--yes")
    told = f"{shelf.url}?latest=verified is {name}: taken "
    assert told in typed.err
    octets = next(e.size for e in shelf.store.entries() if e.name == name)
    assert f"(3 h old), {octets / 1024:.0f} KiB, of prod, revision 51" in typed.err
    assert "of prod, revision 51, verified " in typed.err
    (run,) = all_runs()
    first = run.lines()[0]
    assert (first["snapshot"], first["snapshot_found"]) == (f"{shelf.url}?latest=verified", f"{shelf.url}/{name}")
    assert first["snapshot_sha256"] == sha256(SAMPLE)
    assert len(sent) == 3
    assert {path.parent for path in sent} == {Path(OWN, "fd")}
    assert not sent[0].exists()
    assert left(desk) == []
    for words in (("status",), ("report",)):
        assert name in desk.type(*words, run.id).out
    assert json.loads(desk.type("status", run.id, "--output", "json").out)["snapshot"] == f"{shelf.url}/{name}"
    assert OWN not in run.journal_path.read_text() + typed.err + typed.out


def test_a_run_that_goes_on_takes_the_same_one(desk: Desk, shelf: Shelf, sent: list[Path]) -> None:
    name = put(shelf, 3)
    run = halted(desk, 30)
    assert not sent
    put(shelf, 0.1)
    typed = desk.type("resume", run.id)
    assert run.replay().state == "complete"
    assert len(sent) == 3
    assert run.replay().header["snapshot_found"] == f"{shelf.url}/{name}"
    assert left(desk) == []
    assert OWN not in run.journal_path.read_text() + typed.err


def test_from_the_outage_on_the_store_is_not_needed(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    run = in_outage(desk)
    empty(shelf)
    desk.type("resume", run.id)
    assert run.replay().state == "complete"


def test_going_back_and_ending_need_no_store(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    run = in_outage(desk)
    empty(shelf)
    (desk.home / "keys.txt").unlink()
    desk.type("rollback", run.id)
    desk.type("status", run.id)
    desk.type("report", run.id)
    desk.type("finish", run.id, "--yes")
    assert run.replay().closed


def empty(shelf: Shelf) -> None:
    for path in shelf.path.iterdir():
        path.unlink()
    shelf.path.rmdir()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_resume_without_the_store_waits(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    run = halted(desk, 30)
    kept = {path.name: path.read_bytes() for path in shelf.path.iterdir()}
    empty(shelf)
    before = run.lines()
    typed = desk.type("resume", run.id, code=4)
    assert f"the snapshot is not at hand: cannot list {shelf.url}: No such file" in typed.err
    assert f"runbook resume {run.id}   # after mending that" in typed.next
    assert any(line.startswith(f"runbook rollback {run.id}") for line in typed.next)
    assert run.lines() == before
    shelf.path.mkdir()
    for file, data in kept.items():
        (shelf.path / file).write_bytes(data)
    desk.type("resume", run.id)
    assert run.replay().state == "complete"


def test_another_file_under_the_runs_name(desk: Desk, shelf: Shelf) -> None:
    told = shelf.put(now=datetime.now(UTC), recipients=(PUBLIC,))
    run = halted(desk, 30)
    other = shelf.put(
        SAMPLE.with_name("etcd-3.5.16-snapshot.db").read_bytes(), now=datetime.now(UTC), recipients=(PUBLIC,)
    )
    (shelf.path / told.name).write_bytes((shelf.path / other.name).read_bytes())
    shelf.write(replace(other, name=told.name))
    typed = desk.type("resume", run.id, code=4)
    assert f"{told.name} now has the sha256 {other.sha256}; this run is bound to {told.sha256}" in typed.err


def test_the_way_to_the_store_may_change_meanwhile(desk: Desk, shelf: Shelf) -> None:
    """On another machine the identity lies elsewhere."""
    put(shelf)
    run = halted(desk, 30)
    (desk.home / "keys.txt").rename(desk.home / "elsewhere.txt")
    typed = desk.type("resume", run.id, code=4)
    assert "keys.txt, cannot be read: No such file" in typed.err
    other = desk.home / "other.yaml"
    other.write_text(desk.plan_path.read_text().replace("keys.txt", "elsewhere.txt"))
    desk.type("resume", run.id, "--plan", str(other))
    assert run.replay().state == "complete"


def test_the_environments_identity_is_stronger(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    (desk.home / "keys.txt").rename(desk.home / "elsewhere.txt")
    desk.patch.setenv(sealing.IDENTITY, str(desk.home / "elsewhere.txt"))
    desk.restore()
    takes(desk, f"{shelf.url}?latest=verified", "")
    desk.patch.setenv(sealing.IDENTITY, str(desk.home / "none.txt"))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=3)
    assert f"{sealing.IDENTITY}, {desk.home}/none.txt, cannot be read: No such file" in typed.err


# --- an absent host gets it when it is back ---


def test_a_host_that_is_back_gets_the_runs_own(desk: Desk, shelf: Shelf, sent: list[Path]) -> None:
    put(shelf, 3)
    desk.silent = {"m3"}
    run = desk.restore("--without", "m3")
    assert len(sent) == 2
    typed = desk.type("resume", run.id, code=4)
    assert "still owed their steps, and silent: m3" in typed.err
    put(shelf, 0.1)
    desk.silent = set()
    desk.type("resume", run.id)
    assert len(sent) == 3
    assert not run.replay().absent
    assert left(desk) == []


def test_a_host_that_is_back_waits_for_a_store_that_is_gone(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    desk.silent = {"m3"}
    run = desk.restore("--without", "m3")
    empty(shelf)
    desk.silent = set()
    typed = desk.type("resume", run.id, code=4)
    assert "the snapshot is not at hand" in typed.err
    assert set(run.replay().absent) == {"m3"}
    assert run.replay().state == "complete"


# --- what is refused, with what there is and what to type ---


def refused(desk: Desk, *told: str) -> Typed:
    """Exit 3, in these words; no run began, and nothing was left."""
    typed = desk.type("run", str(desk.plan_path), "--yes", code=3)
    for words in told:
        assert words in typed.err
    assert "no host is changed" in typed.err
    assert typed.next[-1] == f"runbook run {desk.quoted}   # after mending that"
    assert not all_runs()
    assert left(desk) == []
    assert OWN not in typed.err
    return typed


def test_a_store_that_is_not_there(desk: Desk, shelf: Shelf) -> None:
    empty(shelf)
    refused(desk, f"spec.snapshot.from: cannot list {shelf.url}: No such file or directory", "mount it")


def test_none_that_was_verified(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf, 5, verified=False)
    refused(desk, f"{shelf.url} has no verified snapshot; there are {name} (5 h old, not verified, of prod)")


def test_no_identity(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    takes(desk, f"{shelf.url}?latest=verified", "")
    typed = refused(desk, f"{shelf.url}/{name} is encrypted to {PUBLIC}, and no identity was given")
    assert typed.next[0].startswith(f"export {sealing.IDENTITY}=FILE")


def test_another_identity(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    (desk.home / "keys.txt").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    typed = refused(
        desk, f"{shelf.url}/{name}: it cannot be decrypted", f"(encrypted to {PUBLIC}; the identity is from"
    )
    assert typed.next[0] == f"runbook snapshot list {shelf.url}   # is there another one?"


def test_a_file_that_is_no_identity(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    (desk.home / "keys.txt").write_text("SECRET stuff\n")
    assert "stuff" not in refused(desk, "keys.txt holds no age identity").err


def test_sums_that_do_not_match(desk: Desk, shelf: Shelf) -> None:
    told = shelf.put(now=datetime.now(UTC), recipients=(PUBLIC,))
    shelf.write(replace(told, sha256="f" * 64))
    refused(desk, f"{told.name}: the plain file has", f"its sidecar says {told.size} and {'f' * 64}")


def test_a_snapshot_that_is_none_although_its_sums_match(desk: Desk, shelf: Shelf) -> None:
    """Somebody sealed a file that was damaged by then: the trailer tells."""
    data = bytearray(SAMPLE.read_bytes())
    data[5000] ^= 1
    name = put(shelf, data=bytes(data))
    refused(desk, f"{shelf.url}/{name}: its checksum is wrong", f"runbook snapshot list {shelf.url}")


def test_no_room(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    desk.patch.setattr(scratch, "RESERVE", 1 << 60)
    refused(desk, f"{shelf.url}/{name} cannot be brought here", "TMPDIR may name another place")


def test_no_sidecar(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    (shelf.path / (name + SUFFIX)).unlink()
    takes(desk, f"{shelf.url}/{name}")
    refused(desk, f"{shelf.url}/{name} has no sidecar")


def test_the_plans_sum_is_another(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    takes(desk, f"{shelf.url}?latest=verified", f', sha256: "{"7e" * 32}"')
    refused(desk, f"has the sha256 {sha256(SAMPLE)} by its sidecar; the plan says {'7e' * 32}")


def test_where_nobody_could_log_in_nothing_is_fetched(desk: Desk, shelf: Shelf) -> None:
    put(shelf)
    (desk.home / "known").unlink()
    desk.patch.setattr(scratch, "held", lambda *_: pytest.fail("the snapshot was fetched"))
    typed = desk.type("run", str(desk.plan_path), "--yes", code=3)
    assert "this machine cannot log in to the hosts" in typed.err
    assert not all_runs()


# --- previews ---


def test_a_preview_connects_to_nothing(desk: Desk, shelf: Shelf) -> None:
    empty(shelf)
    text = desk.type("preview", str(desk.plan_path)).out
    head = text.partition("HOSTS")[0]
    assert f"{shelf.url}?latest=verified" in head
    assert "which snapshot it is, its sha256 and its state are found out at the start" in head
    assert "this preview's digest does not speak of the snapshot's content" in head
    assert "it is fetched, opened and checked here, in a file without a name" in head
    assert f"upload '{shelf.url}?latest=verified' → " in text
    desk.type("validate", str(desk.plan_path))


def test_an_approved_digest_is_the_previews(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    text = desk.plan_path.read_text()
    digest = desk.type("preview", str(desk.plan_path)).out.splitlines()[-1].removeprefix("digest: ")
    typed = desk.type("run", str(desk.plan_path), "--approve", digest, code=2)
    assert "so no digest speaks of it" in typed.err
    assert f"from: {shelf.url}/{name}, or its sha256" in typed.next[0]
    desk.plan_path.write_text(text.replace(f"{shelf.url}?latest=verified", f"{shelf.url}/{name}"))
    digest = desk.type("preview", str(desk.plan_path)).out.splitlines()[-1].removeprefix("digest: ")
    run = desk.restore("--approve", digest)
    assert run.lines()[0]["preview_digest"] == digest
    assert run.replay().state == "complete"


def test_a_check_brings_it_here(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    checks(desk)
    typed = desk.type("preview", str(desk.plan_path), "--check")
    assert (
        f"{sha256(SAMPLE)}, as found at {shelf.url}/{name} now; this preview's digest does not speak of it" in typed.out
    )
    assert f"{shelf.url}/{name}: " in typed.out
    assert OWN not in typed.out + typed.err
    assert left(desk) == []
    plain = desk.type("preview", str(desk.plan_path)).out
    assert plain.splitlines()[-1] == typed.out.splitlines()[-1]


def test_a_check_tells_that_it_cannot_be_had_beside_all_else(desk: Desk, shelf: Shelf) -> None:
    put(shelf, verified=False)
    checks(desk, Finding("Swap", "m1", Severity.BLOCKS, "swap is on", "swapoff -a"))
    typed = desk.type("preview", str(desk.plan_path), "--check", code=3)
    assert "has no verified snapshot" in typed.out
    assert "name one of them, or verify one" in typed.out
    assert "swap is on" in typed.out


def checks(desk: Desk, *others: Finding) -> None:
    """The checks of the snapshot are the real ones; the hosts say nothing else."""

    def inspect(_: str, plan: Plan, bound: Binding, *__: object, **___: object) -> list[Finding]:
        whole = SnapshotWhole()
        return [*whole.judge(plan, bound, {"": tuple(whole.look(plan, bound))}), *others]

    desk.patch.setattr("runbook.checks.survey.inspect", inspect)


def test_who_waits_is_told_how_much_has_come(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    octets = next(e.size for e in shelf.store.entries() if e.name == name)
    for what in ("FIRST", "EVERY", "REDRAWN"):
        desk.patch.setattr(waiting, what, 0.01)
    read = Files.read

    def slowly(self: Files, file: str) -> Iterator[bytes]:
        yield from read(self, file)
        time.sleep(0.5 if file == name else 0)

    desk.patch.setattr(Files, "read", slowly)
    typed = desk.type("run", str(desk.plan_path), "--yes", "--output", "json")
    assert (
        f"fetching {shelf.url}/{name}: all {octets / 1024:.0f} KiB have come, and are being proven"
        in typed.err.splitlines()
    )
    assert "fetching" not in typed.out


def test_a_person_is_told_which_one_before_being_asked(desk: Desk, shelf: Shelf) -> None:
    name = put(shelf)
    questions: list[str] = []
    desk.patch.setattr("runbook.cli.confirm", lambda *_: questions.append)
    desk.type("run", str(desk.plan_path))
    assert f"from {shelf.url}?latest=verified (it is {name}, and its sha256" in questions[0]


def test_it_is_taken_while_the_person_thinks(desk: Desk, shelf: Shelf) -> None:
    """What was agreed to is what was shown, whatever was added since."""
    name = put(shelf, 3)
    desk.patch.setattr("runbook.cli.confirm", lambda *_: lambda _: put(shelf, 0.1))
    desk.type("run", str(desk.plan_path))
    assert all_runs()[0].lines()[0]["snapshot_found"] == f"{shelf.url}/{name}"

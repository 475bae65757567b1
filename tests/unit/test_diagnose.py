"""`runbook diagnose`: what is in the archive whatever the hosts do, what it never takes, and where it is put."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runbook import redaction
from runbook.diagnose import gather as gathering
from runbook.diagnose import questions, scripts, work
from runbook.diagnose.archive import Archive
from runbook.diagnose.contents import Contents
from runbook.errors import UsageError
from runbook.plan import Worker
from runbook.step import Binding, Command, Result, Target
from tests.fake.desk import Desk
from tests.fake.sessions import plan

LISTED = {
    *("host", "time", "restore", "disk", "listeners", "versions", "kubelet", "kubelet-log", "processes", "manifests"),
    *("encryption", "certificates", "containers", "pods", "etcd-log", "apiserver-log", "etcd-status", "etcd-health"),
    *("etcd-members", "etcd-alarms", "kubernetes"),
}
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEtheprivatepart\n-----END PRIVATE KEY-----"
Answering = Callable[[str, int, Command], Result]


class Hosts:
    """Hosts that answer as they are told to; ``answer`` is given the host, how many it was asked, and the command."""

    def __init__(self, answer: Answering) -> None:
        self.answer, self.asked = answer, dict.fromkeys(("m1", "m2", "m3"), 0)
        self.closed = False

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        assert len(asks) == 1, "each host is asked by itself"
        return {name: tuple(self._one(name, c) for c in commands) for name, commands in asks.items()}

    def _one(self, name: str, command: Command) -> Result:
        assert not command.changes
        assert not command.bare
        self.asked[name] += 1
        return self.answer(name, self.asked[name], command)

    def close(self) -> None:
        self.closed = True


def well(name: str, number: int, command: Command) -> Result:
    return Result(0, f"\n$ something\nthe answer {number} of {name}\n", seconds=0.25)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    answering(made, well)
    return made


def answering(desk: Desk, answer: Answering) -> Hosts:
    hosts = Hosts(answer)
    desk.patch.setattr("runbook.diagnose.work.hosts_of", lambda plan, claim: lambda bound: hosts)
    return hosts


def unpacked(path: Path) -> dict[str, str]:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        data = io.BytesIO(stream.read())
    with tarfile.open(fileobj=data) as tar:
        assert all(m.isfile() and m.mode == 0o600 and m.uid == 0 and m.uname == "" for m in tar.getmembers())
        return {m.name: tar.extractfile(m).read().decode() for m in tar.getmembers()}  # type: ignore[union-attr]


def diagnosed(desk: Desk, *words: str) -> tuple[dict[str, str], dict[str, Any], str]:
    """The files, the manifest, and what was printed."""
    typed = desk.type("diagnose", *words, "-o", str(desk.home / "x.tar.zst"))
    files = {name.removeprefix("x/"): text for name, text in unpacked(desk.home / "x.tar.zst").items()}
    return files, json.loads(files["MANIFEST.json"]), typed.out


def left_over(desk: Desk) -> list[str]:
    return [p.name for p in desk.home.iterdir() if "diagnose" in p.name or p.suffix in (".part", ".zst")]


# What is in it.


def test_everything_is_in_it_by_names_that_never_change(desk: Desk) -> None:
    files, manifest, out = diagnosed(desk, str(desk.plan_path))
    hosts = {f"hosts/{host}/{topic}.txt" for host in ("m1", "m2", "m3") for topic in LISTED}
    assert set(files) == {*hosts, "plan.yaml", "MANIFEST.json", "README.txt"}
    lines = files["hosts/m2/etcd-members.txt"].splitlines()
    assert lines[0] == "# command:    etcdctl member list -w table"
    assert lines[1] == "# exit code:  0"
    assert lines[2] == "# host:       m2 (10.0.1.11)"
    assert "the answer" in lines[-1]
    assert {e["file"] for e in manifest["files"]} == set(files) - {"MANIFEST.json", "README.txt"}
    for entry in manifest["files"]:
        assert entry["bytes"] == len(files[entry["file"]].encode()), entry
    assert manifest["cluster"]["topology"] == "HA, 3 members"
    assert manifest["cluster"]["bumpRevision"] == 1_000_000_000
    assert "63 files" not in out
    assert "64 files from 3 of 3 hosts" in out
    assert "Missing:       nothing" in out


def test_it_is_private_and_has_a_name_by_itself(desk: Desk) -> None:
    old = os.umask(0)
    try:
        typed = desk.type("diagnose", str(desk.plan_path))
    finally:
        os.umask(old)
    (made,) = desk.home.glob("*.tar.zst")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert made.name.startswith("fake-diagnose-2")
    assert typed.out.startswith(f"{made.name}: ")
    assert all(name.startswith(f"{made.name.removesuffix('.tar.zst')}/") for name in unpacked(made))
    next_ = f"tar --zstd -xOf {made.name} {made.name.removesuffix('.tar.zst')}/README.txt"
    assert typed.out.endswith(f"{next_}   # read it, and look into the files, before you send it on\n")
    assert left_over(desk) == [made.name]


def test_a_run_brings_its_journal_and_report(desk: Desk) -> None:
    run = desk.restore()
    files, manifest, out = diagnosed(desk, run.id)
    assert files["run/journal.jsonl"].encode() == run.journal_path.read_bytes(), "nothing in it was to be masked"
    assert files["run/plan.yaml"].encode() == run.plan_path.read_bytes()
    assert files["run/report.md"] == desk.type("report", run.id).out.removesuffix("\n")
    assert run.id in files["run/status.txt"]
    assert "run/debug.log" in files
    assert manifest["run"] == run.id
    assert f"and the run {run.id}" in out
    assert run.id in questions.topics(Target(desk.plan, Binding(run.id), desk.plan.nodes[0]))[2].command.words()


@pytest.mark.parametrize("how", ["nothing", "prefix", "plan"])
def test_the_run_that_is_meant(desk: Desk, how: str) -> None:
    run = desk.restore()
    words = {"nothing": [], "prefix": [run.id[:20]], "plan": [str(desk.plan_path)]}[how]
    files, manifest, _ = diagnosed(desk, *words)
    assert manifest["run"] == run.id
    assert ("plan.yaml" in files) == (how == "plan")


def test_a_closed_run_of_the_plan_stays_out(desk: Desk) -> None:
    run = desk.restore()
    desk.type("finish", run.id, "--yes")
    assert diagnosed(desk, str(desk.plan_path))[1]["run"] == ""


def test_the_run_that_is_part_way_is_meant_before_one_that_is_not(desk: Desk) -> None:
    desk.restore()
    halted = desk.restore(code=4)
    assert diagnosed(desk)[1]["run"] == halted.id


def test_a_worker_is_asked_what_it_can_tell() -> None:
    node = plan(1).nodes[0]
    worker = Worker("w 1/..", node.ssh, node.paths)
    names = {t.name for t in questions.topics(Target(replace(plan(1), workers=(worker,)), Binding(), worker))}
    assert names == {t for t in LISTED if t not in ("manifests", "encryption", "certificates", "apiserver-log")
                     and not t.startswith("etcd-") and t != "kubernetes"}  # fmt: skip
    assert {t.name for t in questions.topics(Target(plan(1), Binding(), node))} == LISTED


# Hosts that are half dead.


def test_hosts_that_do_not_answer_are_named(desk: Desk) -> None:
    def half(name: str, number: int, command: Command) -> Result:
        silent = name == "m2" or (name == "m3" and number > 4)
        return Result(None, err=f"{name} (10.0.1.1:22): no route") if silent else well(name, number, command)

    hosts = answering(desk, half)
    files, manifest, out = diagnosed(desk, str(desk.plan_path))
    assert [name for name in files if "/m2/" in name] == ["hosts/m2/no-answer.txt"]
    assert "no route" in files["hosts/m2/no-answer.txt"]
    assert "Missing:       m2 (10.0.1.1:22): no route\n" in out
    assert "64 files" not in out
    assert "2 of 3 hosts" in out
    assert {t for t in LISTED if f"hosts/m1/{t}.txt" in files} == LISTED
    assert len([name for name in files if "/m3/" in name]) == 4
    assert manifest["hosts"]["m2"] == {"answered": False, "why": "m2 (10.0.1.1:22): no route"}
    assert manifest["hosts"]["m3"]["answered"] is True
    lost = [e for e in manifest["files"] if e["host"] == "m3" and e["why"]]
    assert len(lost) == len(LISTED) - 4
    assert all("no route" in e["why"] and e["bytes"] == 0 for e in lost)
    assert "m2 (10.0.1.1:22): no route" in files["README.txt"]
    assert "MISSING: not asked: m3 (10.0.1.1:22): no route" in files["README.txt"]
    assert hosts.asked["m2"] <= 2, "a host that does not answer is not asked everything"
    assert hosts.closed


def test_one_question_that_hangs_costs_no_other(desk: Desk) -> None:
    """What stood behind it in the same round trip is asked anew."""

    def hangs(name: str, number: int, command: Command) -> Result:
        hung = name == "m1" and scripts.DISK in command.words()[2]
        return Result(None, err="m1: no answer for 17 s") if hung else well(name, number, command)

    answering(desk, hangs)
    _, manifest, out = diagnosed(desk, str(desk.plan_path))
    assert [e["file"] for e in manifest["files"] if e["why"]] == ["hosts/m1/disk.txt"]
    assert "Missing:       hosts/m1/disk.txt: m1: no answer for 17 s\n" in out


def test_a_host_that_never_comes_back_is_not_waited_for(desk: Desk) -> None:
    """The whole has its time, whatever a host does; what was answered before counts."""
    free = threading.Event()

    def stuck(name: str, number: int, command: Command) -> Result:
        if name == "m3" and number > 6:
            free.wait(60)
        return well(name, number, command)

    answering(desk, stuck)
    desk.patch.setattr(gathering.gather, "__defaults__", (1.0,))
    began = time.monotonic()
    try:
        files, manifest, out = diagnosed(desk, str(desk.plan_path))
        assert time.monotonic() - began < 10
    finally:
        free.set()
    assert "hosts/m3/host.txt" in files
    assert manifest["hosts"]["m3"] == {
        "answered": True, "why": "no answer within the 1 s that all questions have together"}  # fmt: skip
    assert {t for t in LISTED if f"hosts/m1/{t}.txt" in files} == LISTED
    assert "within the 1 s" in out


def test_what_has_come_in_time_is_taken_however_slow_we_are(desk: Desk) -> None:
    desk.patch.setattr(gathering.gather, "__defaults__", (0.5,))
    slow = redaction.masked

    def masked(text: str) -> Any:
        time.sleep(0.05)
        return slow(text)

    desk.patch.setattr(work, "masked", masked)
    assert diagnosed(desk, str(desk.plan_path))[2].count("\nMissing:       nothing\n") == 1


def test_a_host_without_sudo_is_a_host_that_did_not_answer(desk: Desk) -> None:
    def no_sudo(name: str, number: int, command: Command) -> Result:
        return Result(1, err=f"{name}: sudo refused, nothing was run") if name == "m1" else well(name, number, command)

    answering(desk, no_sudo)
    files, manifest, _ = diagnosed(desk, str(desk.plan_path))
    assert files["hosts/m1/no-answer.txt"] == "m1: sudo refused, nothing was run\n"
    assert manifest["hosts"]["m1"]["answered"] is False


def nobody(name: str, number: int, command: Command) -> Result:
    return Result(None, err=f"{name}: no route")


def test_where_nothing_can_be_had_there_is_no_archive(desk: Desk) -> None:
    answering(desk, nobody)
    typed = desk.type("diagnose", str(desk.plan_path), code=3)
    assert "no host of the plan" in typed.err
    assert "m2: no route" in typed.err
    assert left_over(desk) == []


def test_a_run_is_worth_an_archive_even_then(desk: Desk) -> None:
    run = desk.restore()
    answering(desk, nobody)
    files, manifest, out = diagnosed(desk, run.id)
    assert "0 of 3 hosts" in out
    assert files["run/journal.jsonl"]
    assert not any(host["answered"] for host in manifest["hosts"].values())


def test_a_lab_that_is_down_is_like_hosts_that_are(desk: Desk) -> None:
    run = desk.restore()

    def down(*_: object) -> None:
        raise UsageError("a lab that is not up")

    desk.patch.setattr("runbook.diagnose.work.hosts_of", down)
    files, _, out = diagnosed(desk, run.id)
    assert "a lab that is not up" in out
    assert files["run/report.md"]
    desk.type("finish", run.id, "--yes")
    assert "a lab that is not up" in desk.type("diagnose", str(desk.plan_path), code=2).err


@pytest.mark.parametrize("what", ["journal", "plan", "gone"])
def test_a_damaged_run_is_when_help_is_needed(desk: Desk, what: str) -> None:
    run = desk.restore()
    if what == "journal":
        text = run.journal_path.read_text()
        run.journal_path.write_text(text.replace('"event":"engine"', '"event":"engima"', 1))
    elif what == "plan":
        run.plan_path.write_text(run.plan_path.read_text() + "# edited\n")
    else:
        run.plan_path.unlink()
    files, manifest, out = diagnosed(desk, run.id)
    assert files["run/journal.jsonl"].encode() == run.journal_path.read_bytes()
    assert manifest["doubts"]
    assert manifest["doubts"][0].splitlines()[0][:40] in out
    assert ("hosts/m1/host.txt" in files) == (what != "gone")
    assert ("run/report.md" in files) == (what != "journal")


# Secrets.


def test_what_hosts_and_files_hold_is_masked_and_counted(desk: Desk) -> None:
    desk.plan_path.write_text(
        desk.plan_path.read_text() + "  verify: {checks: [{name: a, on: local, run: curl -u me:hunter22 https://x}]}\n"
    )
    run = desk.restore()
    with (run.path / "debug.log").open("a") as log:
        log.write('{"event": "x", "password": "hunter22"}\n')

    def telling(name: str, number: int, command: Command) -> Result:
        told = f"{PEM}\ntoken: hunter22\n[cut: only the last 9 bytes are kept]\n    hunter22\n  foo: x\nwhole\n"
        return Result(0, f"\n$ something\n{told}", err=f"Bearer hunter22 {name}")

    answering(desk, telling)
    files, manifest, out = diagnosed(desk, str(desk.plan_path))
    everything = "\n".join(files.values()) + out
    assert "hunter22" not in everything
    assert "theprivatepart" not in everything
    assert "whole" in files["hosts/m1/host.txt"]
    assert "foo: x" not in files["hosts/m1/host.txt"], "of what is indented nobody knows what it belonged to"
    entry = next(e for e in manifest["files"] if e["file"] == "hosts/m1/host.txt")
    assert entry["masked"] == {"private key": 1, "named value": 1, "bearer or basic": 1}
    assert entry["cut"] is True
    assert manifest["masked"]["private key"] == 3 * len(LISTED)
    assert manifest["masked"]["named value"] == 3 * len(LISTED) + 1
    assert "hosts/m1/host.txt: 1 bearer or basic, 1 named value, 1 private key" in files["README.txt"]
    assert f"{3 * len(LISTED)} private key" in out


def test_programs_get_a_document(desk: Desk) -> None:
    answering(desk, lambda name, n, c: nobody(name, n, c) if name == "m3" else well(name, n, c))
    typed = desk.type("diagnose", str(desk.plan_path), "-o", "a b.tar.zst", "--output", "json")
    document = json.loads(typed.out)
    assert document["archive"] == "a b.tar.zst"
    assert document["bytes"] == (desk.home / "a b.tar.zst").stat().st_size
    assert document["hosts"]["m3"] == {"answered": False, "why": "m3: no route"}
    assert document["missing"] == ["m3: no route"]
    assert document["next"] == ["tar --zstd -xOf 'a b.tar.zst' 'a b/README.txt'"]
    assert document["exit_code"] == 0


# Where it is put.


def test_no_file_loses_its_place(desk: Desk, tmp_path: Path) -> None:
    hosts = answering(desk, well)
    there = tmp_path / "there"
    there.write_text("mine")
    typed = desk.type("diagnose", str(desk.plan_path), "-o", str(there), code=2)
    assert "there is such a file already" in typed.err
    assert there.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    desk.type("diagnose", str(desk.plan_path), "-o", str(link), code=2)
    assert sum(hosts.asked.values()) == 0, "it is refused before anybody is asked"


def test_nor_one_that_comes_meanwhile(desk: Desk, tmp_path: Path) -> None:
    def meanwhile(name: str, number: int, command: Command) -> Result:
        (tmp_path / "late.tar.zst").write_text("mine")
        return well(name, number, command)

    answering(desk, meanwhile)
    desk.type("diagnose", str(desk.plan_path), "-o", "late.tar.zst", code=2)
    assert (tmp_path / "late.tar.zst").read_text() == "mine"
    assert left_over(desk) == ["late.tar.zst"]


def test_a_place_that_cannot_be_written_is_told_first(desk: Desk) -> None:
    hosts = answering(desk, well)
    typed = desk.type("diagnose", str(desk.plan_path), "-o", "/nowhere/at/all/x.tar.zst", code=2)
    assert "the archive cannot be written there: No such file or directory" in typed.err
    assert sum(hosts.asked.values()) == 0


def test_without_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with Archive(tmp_path / "a.tar.zst", "a") as archive:
        archive.add("x", "text")
        archive.finish()
    assert unpacked(tmp_path / "a.tar.zst") == {"a/x": "text"}
    assert os.listdir(tmp_path) == ["a.tar.zst"]


@pytest.mark.parametrize(
    ("file", "inside"), [("a.tar.zst", "a"), ("a", "a"), (".tar.zst", "diagnose"), ("a b.zst", "a b"), ("..a", "..a")]
)
def test_names_inside_are_relative_whatever_the_file_is_called(desk: Desk, file: str, inside: str) -> None:
    desk.type("diagnose", str(desk.plan_path), "-o", file)
    assert {name.partition("/")[0] for name in unpacked(desk.home / file)} == {inside}


def test_a_full_disk_leaves_nothing_behind(desk: Desk) -> None:
    run = desk.restore()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    desk.patch.setattr(tarfile.TarFile, "addfile", full)
    typed = desk.type("diagnose", run.id, code=1)
    assert "could not be written to its end: No space left on device" in typed.err
    assert left_over(desk) == []


def test_an_interruption_leaves_nothing_behind(desk: Desk) -> None:
    def interrupted(name: str, number: int, command: Command) -> Result:
        raise KeyboardInterrupt

    hosts = answering(desk, interrupted)
    typed = desk.type("diagnose", str(desk.plan_path), code=130)
    assert "nothing was changed" in typed.err
    assert left_over(desk) == []
    assert hosts.closed


# What is typed wrong.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuch.yaml"], "nosuch.yaml:1:1: there is no such file"),
        (["nosuch"], "no run is known on this machine"),
        ([""], "RUN is an empty word"),
        ([], "no run is known on this machine"),
        (["broken.yml"], "broken.yml:1:"),
    ],
)
def test_what_is_typed_wrong_is_told(desk: Desk, words: list[str], says: str) -> None:
    (desk.home / "broken.yml").write_text("kind: EtcdRestore\n")
    typed = desk.type("diagnose", *words, code=2)
    assert says in typed.err
    assert left_over(desk) == []


def test_an_unknown_run_among_known_ones_lists_them(desk: Desk) -> None:
    run = desk.restore()
    typed = desk.type("diagnose", "nosuch", code=2)
    assert typed.next == [f"runbook diagnose {run.id}"]


def test_a_plan_needs_no_ending(desk: Desk) -> None:
    shutil.copy(desk.plan_path, desk.home / "plan")
    assert diagnosed(desk, "plan")[1]["hosts"]["m1"]["answered"]


# What costs time.


def test_zstandard_is_loaded_only_where_it_is_used() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from runbook.cli import cli;"
        "CliRunner().invoke(cli, ['diagnose', '--help']); CliRunner().invoke(cli, ['validate', 'nosuch.yaml']);"
        "assert 'zstandard' not in sys.modules; assert 'runbook.diagnose.work' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_at_worst_a_round_trip_takes_no_longer_than_all_have() -> None:
    topics = questions.topics(Target(plan(3), Binding(), plan(3).nodes[0]))
    while topics:
        batch = gathering._batch(topics)
        assert len(batch) == 1 or sum(t.command.timeout for t in batch) <= gathering.BATCH
        assert all(t.command.timeout <= 14 for t in batch)
        topics = topics[len(batch) :]


def test_a_silent_host_is_told_with_its_name_once() -> None:
    contents = Contents("x", "y", "", hosts={"m1": "m1 (1.2.3.4:22): no route", "m2": "no answer"})
    assert contents.missing() == ["m1 (1.2.3.4:22): no route", "m2: no answer"]

"""The journal: a torn last line is dropped, other damage is named, and nothing begins before its line is durable."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook import journal
from runbook.errors import Halted
from runbook.journal import ZEROS, Journal, JournalDamaged, fields, last, read, sha
from runbook.procedure import words
from runbook.replay import replay
from runbook.step import Command, Secret
from tests.fake.sessions import BOUND, PROCEDURE, plan

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
EVENT = st.tuples(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=10),
    st.dictionaries(NAMES.map(lambda name: "x" + name), VALUES, max_size=3),
    st.sampled_from(["", "StopEtcd"]),
    st.sampled_from(["", "m1"]),
)


def write(path: Path, events: list[tuple[str, dict[str, Any], str, str]]) -> list[journal.Line]:
    book = Journal(path)
    for event, more, step, host in events:
        book.append(event, more, step=step, host=host)
    book.close()
    return book.lines


def three(path: Path) -> list[bytes]:
    """A journal of three lines, without their newlines."""
    write(
        path,
        [
            ("run", {"run": "r-1"}, "", ""),
            ("state", {"from": "planned", "to": "preparing"}, "", ""),
            ("begin", {}, "S", "m1"),
        ],
    )
    return path.read_bytes().splitlines()


@given(st.lists(EVENT, max_size=6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_was_written_is_read_again(tmp_path: Path, events: list[tuple[str, dict[str, Any], str, str]]) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    lines = write(path, events)
    again, size = read(path)
    assert again == lines
    assert size == path.stat().st_size
    assert [line["event"] for line in again] == [event for event, *_ in events]
    assert [line["seq"] for line in again] == list(range(1, len(events) + 1))
    for line, (_, more, step, host) in zip(again, events, strict=True):
        assert fields(line) == more | ({"step": step} if step else {}) | ({"host": host} if host else {})


def test_each_line_holds_the_sum_of_the_one_before(tmp_path: Path) -> None:
    raw = three(tmp_path / "j")
    assert [json.loads(line)["prev"] for line in raw] == [ZEROS, sha(raw[0]), sha(raw[1])]
    for line in map(json.loads, raw):
        assert {"seq", "at", "epoch", "event", "prev"} <= line.keys()
        assert line["at"].endswith("Z")


def test_a_torn_last_line_is_dropped_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    raw = three(path)
    whole = path.read_bytes()
    kept = len(raw[0]) + len(raw[1]) + 2
    for end in range(kept, len(whole)):
        path.write_bytes(whole[:end])
        lines, size = read(path)
        assert ([line["seq"] for line in lines], size) == ([1, 2], kept), end
        book = Journal(path)
        book.append("state", {"from": "preparing", "to": "halted"})
        book.close()
        again, _ = read(path)
        assert [line["event"] for line in again] == ["run", "state", "state"], end
        assert again[2]["prev"] == sha(raw[1])


def test_a_last_block_of_zeros_is_a_torn_line(tmp_path: Path) -> None:
    """What a file system leaves that had grown the file before it wrote the block."""
    path = tmp_path / "journal.jsonl"
    raw = three(path)
    path.write_bytes(raw[0] + b"\n" + b"\0" * 300)
    assert len(read(path)[0]) == 1
    path.write_bytes(raw[0] + b"\n" + b"\0" * 300 + b"\n")
    assert len(read(path)[0]) == 1


DAMAGE: list[tuple[str, Callable[[list[bytes]], list[bytes]], int]] = [
    ("removed first", lambda r: r[1:], 1),
    ("removed", lambda r: [r[0], r[2]], 2),
    ("swapped", lambda r: [r[1], r[0], r[2]], 1),
    ("duplicated", lambda r: [r[0], r[0], r[1], r[2]], 2),
    ("duplicated last", lambda r: [*r, r[2]], 4),
    ("inserted", lambda r: [r[0], b'{"seq":2,"event":"x"}', r[1], r[2]], 2),
    ("an empty line", lambda r: [r[0], b"", r[1], r[2]], 2),
    ("not an object", lambda r: [r[0], b"[1]", r[1], r[2]], 2),
    ("not UTF-8", lambda r: [r[0], b'{"a":"\xff"}', r[1], r[2]], 2),
    ("cut in the middle", lambda r: [r[0], r[1][:20], r[2]], 2),
    ("another beginning", lambda r: [r[0].replace(b"r-1", b"r-2"), r[1], r[2]], 2),
]


@pytest.mark.parametrize(("what", "damage", "number"), DAMAGE, ids=[d[0] for d in DAMAGE])
def test_any_other_damage_is_named(
    tmp_path: Path, what: str, damage: Callable[[list[bytes]], list[bytes]], number: int
) -> None:
    path = tmp_path / "journal.jsonl"
    raw = three(path)
    path.write_bytes(b"".join(line + b"\n" for line in damage(raw)))
    before = path.read_bytes()
    for attempt in (read, Journal):
        with pytest.raises(JournalDamaged) as caught:
            attempt(path)
        assert caught.value.code == 4
        assert f"{path}:{number}: " in str(caught.value)
        assert caught.value.true
        assert caught.value.means
        assert "runbook adopt" in caught.value.next[0]
    assert path.read_bytes() == before, "a damaged journal is evidence: it stays as it is"


def chained(path: Path, *lines: dict[str, Any]) -> None:
    """A journal of these lines, whose chain is whole whatever they hold."""
    prev, raw = ZEROS, b""
    for seq, line in enumerate(lines, start=1):
        whole = {"seq": seq, "at": "2026-04-09T14:00:00Z", "epoch": 1, **line, "prev": prev}
        piece = json.dumps({key: value for key, value in whole.items() if value is not ...}).encode()
        prev, raw = sha(piece), raw + piece + b"\n"
    path.write_bytes(raw)


STEP = {"event": "step", "step": "StopEtcd", "from": "PENDING", "to": "ACTING", "trigger": "proceed", "saw": {}}
STATE = {"event": "state", "from": "outage", "to": "halted", "why": ""}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({**STEP, "to": ...}, "it is of the event step and lacks to"),
    ({**STEP, "to": "GONE"}, "its to is 'GONE'"),
    ({**STEP, "saw": "yes"}, "its saw is 'yes'"),
    ({**STEP, "trigger": ...}, "lacks trigger"),
    ({**STEP, "epoch": "one"}, "its epoch is 'one'"),
    ({**STEP, "epoch": True}, "its epoch is True"),
    ({**STEP, "epoch": 0}, "its epoch is 0, and that of the line before 1"),
    ({**STEP, "at": "yesterday"}, "its at is 'yesterday'"),
    ({**STEP, "at": "2026-04-09T14:00:00"}, "its at is '2026-04-09T14:00:00'"),
    ({**STEP, "event": ...}, "it lacks event"),
    ({**STEP, "event": ["step"]}, "its event is"),
    ({**STATE, "to": ...}, "it is of the event state and lacks to"),
    ({**STATE, "to": "nowhere"}, "its to is 'nowhere'"),
    ({**STATE, "from": ...}, "it is of the event state and lacks from"),
    ({"event": "begin", "step": "S", "host": ["m1"]}, "its host is"),
    ({"event": "end", "step": "S", "host": "m1", "code": "0"}, "its code is '0'"),
    ({"event": "absent"}, "it is of the event absent and lacks hosts"),
    ({"event": "absent", "hosts": "m1"}, "its hosts is 'm1'"),
    ({"event": "present"}, "it is of the event present and lacks host"),
    ({"event": "settings"}, "it is of the event settings and lacks base"),
    ({"event": "adopted", "owner": 5}, "its owner is 5"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_line_that_cannot_be_read_as_what_it_says_is_damage(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    """Its chain may be whole: nobody who replays it may stumble over it."""
    path = tmp_path / "journal.jsonl"
    chained(path, {"event": "run", "run": "r-1"}, line)
    with pytest.raises(JournalDamaged, match=f":2: the journal is damaged: .*{re.escape(said)}"):
        read(path)


def test_lines_as_the_program_writes_them_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    finding = {"event": "finding", "check": "Swap", "severity": "warns", "saw": "swap is on", "do": "", "host": "m1"}
    later = {**STATE, "epoch": 2}
    unknown = {"event": "new", "host": ["m1"], "to": 7, "epoch": 2}
    chained(path, {"event": "run", "run": "r-1"}, STEP, STATE, finding, later, unknown)
    assert len(read(path)[0]) == 6


def test_a_flipped_byte_anywhere_but_in_the_last_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    raw = three(path)
    whole = path.read_bytes()
    for at in range(len(raw[0]) + len(raw[1]) + 1):
        for flip in (0x01, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            with pytest.raises(JournalDamaged):
                read(path)


def test_a_journal_that_is_not_there_is_damage_too(tmp_path: Path) -> None:
    with pytest.raises(JournalDamaged, match="No such file"):
        read(tmp_path / "nothing")


# Durability.


def test_a_line_is_synced_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    book = Journal(path)
    synced: list[bytes] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    line = book.append("begin", {"action": "rm"})
    assert len(synced) == 1
    assert json.loads(synced[0]) == line
    book.close()


def test_a_new_journals_name_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: kinds.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    Journal(tmp_path / "journal.jsonl").close()
    assert True in kinds


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    three(path)
    book = Journal(path)
    before, lines = path.read_bytes(), len(book.lines)
    real, calls = os.write, iter((True, False))

    def write(fd: int, data: bytes) -> int:
        if next(calls):
            return real(fd, bytes(data[:10]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(Halted, match="No space left") as caught:
        book.append("begin", {"action": "rm"})
    monkeypatch.undo()
    assert (caught.value.code, path.read_bytes(), len(book.lines)) == (4, before, lines)
    assert caught.value.true
    assert caught.value.next
    assert book.append("state", {"from": "preparing", "to": "halted"})["seq"] == 4
    book.close()
    assert len(read(path)[0]) == 4


def test_a_failed_sync_does_not_count_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    book = Journal(path)
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(Halted, match="Input/output"):
        book.append("begin")
    assert (book.lines, path.read_bytes()) == ([], b"")


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    old = os.umask(0)
    try:
        Journal(path).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_epoch_is_the_newest_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for wanted in (1, 2, 3):
        book = Journal(path)
        assert book.epoch == wanted - 1
        book.epoch += 1
        book.append("engine")
        book.close()


# What is in it.


def test_a_secret_is_never_written() -> None:
    shown = words(Command(("etcdctl", "--password", Secret("hunter2"), "--user", "root")))
    assert "hunter2" not in shown
    assert "•••" in shown


SECRETS = {
    "Authorization: Bearer abcdefghijkl.mnop": "abcdefghijkl",
    "curl: password=hunter2 was refused": "hunter2",
    "https://ops:hunter2@payments.internal/healthz": "hunter2",
    "kubeadm join --token abcdef.0123456789abcdef": "0123456789abcdef",
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----": "MHcCAQ",
}


@pytest.mark.parametrize("text", SECRETS)
def test_what_a_host_says_is_kept_without_its_secrets(tmp_path: Path, text: str) -> None:
    """At every depth, in the file and in what the listener hears; and the chain is that of the file."""
    path = tmp_path / "journal.jsonl"
    heard: list[journal.Line] = []
    book = Journal(path)
    book.listener = heard.append
    book.append("end", {"key": "k", "code": 1, "said": f"it said: {text}; and ended"}, step="S", host="m1")
    done = {"from": "ACTING", "to": "FAILED", "trigger": "proceed"}
    book.append("step", {**done, "saw": {"m1": f"no: {text}"}, "list": [[text], (text,)]}, step="S")
    book.append("state", {"from": "outage", "to": "halted", "why": text})
    book.close()
    assert read(path)[0] == book.lines == heard
    assert SECRETS[text] not in path.read_text()
    assert path.read_text().count("•••") >= 5
    assert book.lines[0]["said"].startswith("it said: ")


LEGITIMATE = (
    "m1: 3 members, revision 1000000123, spec.cluster.bumpRevision: 1000000000, cluster id 8e9e05c52164694d",
    "the old data that was at /var/lib/etcd/.prod-eu1-20260409t140000z-3f2a.old/member is gone: put it back there",
    "sh -c <RESTORE> runbook /var/lib/etcd-runbook/r-1 keep etcdutl --initial-cluster-token r-1 --name m1",
    '/var/lib/etcd-runbook.lock names another run: {"run": "other-1", "holder": "eve@laptop", "since": "2026"}',
    'Error from server (NotFound): secrets "known" not found in default/known; sha256 ' + "a1b2" * 16,
    "--cert /etc/kubernetes/pki/etcd/server.crt --key /etc/kubernetes/pki/etcd/server.key --user=",
)


@pytest.mark.parametrize("text", LEGITIMATE)
def test_what_is_no_secret_stays_as_it_is(tmp_path: Path, text: str) -> None:
    book = Journal(tmp_path / "journal.jsonl")
    line = book.append("end", {"code": 1, "said": text, "saw": {"m1": text}, "action": text})
    book.close()
    assert (line["said"], line["saw"], line["action"]) == (text, {"m1": text}, text)


def test_what_the_program_reads_back_stays_as_it_is(tmp_path: Path) -> None:
    """Names and paths that look like a secret: without them the run could not go on."""
    place = "/srv/password=eu1/token: a/plan.yaml"
    names = ["abcdef.0123456789abcdef"]  # a host's name, of the form of kubeadm's tokens
    header = {"plan_file": place, "plan_base": place, "base": place, "nodes": names, "hosts": names, "owner": names[0]}
    book = Journal(tmp_path / "journal.jsonl")
    line = book.append("run", header, host=names[0])
    book.close()
    assert fields(line) == header | {"host": names[0]}


def test_a_script_is_not_written_out() -> None:
    shown = words(Command(("sh", "-c", "set -eu\nrm x\n", "runbook", "/a")))
    assert "rm x" not in shown
    assert shown.startswith("sh -c ")
    assert shown.endswith(" runbook /a")


def test_no_step_brings_a_secret_in_the_clear() -> None:
    from runbook.step import Target

    n = Target(plan(), BOUND, plan().nodes[0])
    shown = [words(a) for s in PROCEDURE.steps if s.on != "workers" for a in s.do(n)]
    assert shown
    assert not [text for text in shown if "password" in text.lower()]


def test_the_newest_line_that_matches(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    three(path)
    lines, _ = read(path)
    assert last(lines, "begin", host="m1") == lines[2]
    assert last(lines, "begin", host="m2") is None


@given(st.lists(EVENT, max_size=4))
@settings(max_examples=30, deadline=None)
def test_unknown_events_are_passed_over(events: list[tuple[str, dict[str, Any], str, str]]) -> None:
    """An older program can read a newer journal."""
    known = {"seq": 1, "at": "2026-04-09T14:00:00Z", "epoch": 1, "prev": ZEROS}
    lines = [{**more, **known, "event": f"new {event}", "step": step} for event, more, step, _ in events]
    lines.insert(len(lines) // 2, {**known, "event": "state", "from": "planned", "to": "preparing", "why": ""})
    assert replay(lines).state == "preparing"

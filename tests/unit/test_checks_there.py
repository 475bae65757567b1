"""The checks of a snapshot on a host's disk: they say of its content what they say of a file's of this machine."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.checks import Finding, Severity
from runbook.checks import snapshot as snapshot_check
from runbook.checks.snapshot import summed_up
from runbook.plan import Plan, Snapshot, Verify
from runbook.snapshots.bolt import NotBolt
from runbook.snapshots.content import Changed, NotWhole
from runbook.step import Result
from tests.unit.bolt_kit import History, keyspace, snapshot
from tests.unit.checks_faults import THERE, lock
from tests.unit.checks_world import BOUND, NODES, PLAN, Change, Fetching, bad, findings, says, where

OK, WARNS, BLOCKS = Severity.OK, Severity.WARNS, Severity.BLOCKS
POD = b"/registry/pods/a/b"
SECRET = b"/registry/secrets/default/known"
KNOWN = Verify(secrets=("default/known",))
NO_ETCDUTL = where(lambda w: "status" in w and "snapshot" in w, says("", 127, "etcdutl: not found"))
"""As stock kubeadm leaves its hosts: what the snapshot is, only the copy can tell."""


def alike(found: Sequence[Finding], *names: str) -> set[tuple[str, str, str, str]]:
    """What is not ok, with one name for the snapshot, and one place for what is told of the file itself."""

    def said(text: str) -> str:
        for name in names:
            text = text.replace(name, "FILE")
        return text

    return {(f.check, "" if f.check == "SnapshotWhole" else f.host, f.severity.value, said(f.saw)) for f in bad(found)}


def of(found: Sequence[Finding], *checks: str) -> list[tuple[str, str, Severity]]:
    return [(f.check, f.host, f.severity) for f in bad(found) if not checks or f.check in checks]


def summed(sha256: str) -> Change:
    """The host finds this sum of its file."""
    return where(snapshot_check.READ, lambda _n, r: Result(0, r.out.replace("a" * 64, sha256)))


Buckets = Mapping[str, Mapping[bytes, bytes]]


@pytest.mark.parametrize(
    ("history", "buckets", "verify", "speaks"),
    [
        ([(2, POD, b"v"), (3, POD, None)], {}, Verify(), {("SnapshotContent", BLOCKS)}),
        ([(i, b"/calico/%d" % i, b"v") for i in range(2, 20)], {}, Verify(), {("SnapshotContent", WARNS)}),
        ([(2, POD, b"v")], {}, KNOWN, {("KnownObjects", WARNS)}),
        ([(2, POD, b"v"), (3, SECRET, b"v")], {}, KNOWN, set()),
        ([(2, SECRET, b"k8s:enc:aescbc:v1:key1:zzzz")], {}, Verify(), {("Encryption", BLOCKS)}),
        ([(2, POD, b"v")], {"auth": {b"authEnabled": b"\x01"}}, Verify(), {("SnapshotWhole", WARNS)}),
        ([(2, POD, b"v")], {"alarm": {b"\x08\x01": b""}}, Verify(), {("SnapshotWhole", WARNS)}),
        ([(2, POD, b"v")], {"cluster": {b"clusterVersion": b"3.6.0"}}, Verify(), {("SnapshotContent", WARNS)}),
        ([(9_000_000_000, POD, b"v")], {}, Verify(), set()),
        ([], {}, Verify(), {("SnapshotWhole", BLOCKS), ("SnapshotContent", BLOCKS)}),
    ],
    ids=["no key", "calico", "no Secret", "its Secret", "encrypted", "auth", "alarm", "3.6", "revision", "empty"],
)
def test_the_same_is_said_of_a_file_on_a_host(
    tmp_path: Path, history: History, buckets: Buckets, verify: Verify, speaks: set[tuple[str, Severity]]
) -> None:
    path = tmp_path / "s.db"
    path.touch(0o600)
    path.write_bytes(snapshot(keyspace(history, **buckets)))  # type: ignore[arg-type]
    os.utime(path, (0, time.time() - 7200))  # its age, in minutes, is the same for both
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    here = findings(NO_ETCDUTL, plan=replace(PLAN, snapshot=Snapshot(str(path), path), verify=verify))
    changes = (NO_ETCDUTL, summed(digest))
    there = findings(*changes, plan=replace(THERE, verify=verify), fetching=Fetching(path, digest))
    assert {(check, severity) for check, _, severity in of(here) if check != "WhatIsLost"} >= speaks
    assert alike(there, "/opt/etcd.db on m2", "/opt/etcd.db", str(path)) == alike(here, str(path))


def test_it_is_fetched_as_the_plan_reaches_its_host() -> None:
    source = replace(THERE.snapshot, sha256="a" * 64)
    fetching = Fetching()
    assert bad(findings(plan=replace(THERE, snapshot=source), fetching=fetching)) == []
    assert fetching.hosts == {"cp2.internal"}
    assert {(t.path, t.sha256, t.allow_missing_trailer) for t in fetching.asked} == {("/opt/etcd.db", "a" * 64, False)}
    assert {len(t.wanted) for t in fetching.asked} == {3}
    assert len(set(fetching.asked)) == 1  # so that all share one


def test_its_revision_is_known_where_the_host_has_no_etcdutl() -> None:
    found = findings(NO_ETCDUTL, plan=THERE)
    assert [f.saw for f in found if f.check == "Bump" and f.severity is OK]
    assert of(findings(NO_ETCDUTL, plan=THERE, fetching=Fetching(fails=OSError("no room"))), "Bump") == [
        ("Bump", "", WARNS)
    ]


def test_what_came_over_is_what_the_host_has() -> None:
    found = findings(plan=THERE, fetching=Fetching(sha256="c" * 64))
    assert of(found) == [("SnapshotWhole", "m2", BLOCKS)]
    (told,) = bad(found)
    assert "/opt/etcd.db has the sha256 aaaa" in told.saw
    assert "what came over here has cccc" in told.saw


def test_a_copy_that_is_damaged_though_the_host_says_it_is_whole() -> None:
    """Its database may be, which a host without etcdutl cannot tell."""
    damage = NotWhole("/opt/etcd.db: its database is damaged: it has no bbolt magic number. Use another snapshot.")
    found = findings(NO_ETCDUTL, plan=THERE, fetching=Fetching(fails=damage))
    assert of(found, "SnapshotWhole", "SnapshotContent") == [("SnapshotWhole", "m2", BLOCKS)]
    assert "its database is damaged" in bad(found)[0].saw


@pytest.mark.parametrize(
    ("error", "severity", "text"),
    [
        (OSError("m2 (cp2.internal:22): no answer for 15 s"), WARNS, "could not be read: m2 (cp2.internal:22): no ans"),
        (Changed("was written to, or replaced, while it was fetched"), BLOCKS, "m2 was written to, or replaced, while"),
        (NotBolt("has at byte 7 what is no key"), BLOCKS, "its content cannot be read: it has at byte 7"),
    ],
    ids=["lost", "changed", "damaged"],
)
def test_what_did_not_come_over_is_told_once(error: Exception, severity: Severity, text: str) -> None:
    found = findings(plan=THERE, fetching=Fetching(fails=error))
    assert of(found) == [("SnapshotContent", "", severity)]
    (told,) = bad(found)
    assert told.saw.startswith("/opt/etcd.db on m2")
    assert text in told.saw
    assert told.do


def test_a_copy_that_is_cut_short_is_no_raw_copy() -> None:
    """The host tells only that there is no checksum; the file's own head, which came over, how long it was."""
    cut = where(snapshot_check.READ, lambda _n, _r: Result(0, f"size 24576\nmagic edda0ced\nwhole {'a' * 64}\n"))
    found = findings(cut, plan=THERE, fetching=Fetching(fails=NotWhole("/opt/etcd.db: it is cut short: it has 24576")))
    (told,) = [f for f in bad(found) if f.check == "SnapshotWhole"]
    assert "it is cut short" in told.saw
    assert "allowMissingTrailer" not in told.saw + told.do


def test_of_a_file_that_is_not_whole_on_the_host_one_check_tells() -> None:
    damaged = where(snapshot_check.READ, lambda _n, r: Result(0, r.out.replace("trailer bb", "trailer bc")))
    found = findings(damaged, plan=THERE, fetching=Fetching(fails=NotWhole("/opt/etcd.db: its checksum is wrong")))
    assert of(found, "SnapshotWhole", "SnapshotContent", "Encryption") == [("SnapshotWhole", "m2", BLOCKS)]


@pytest.mark.parametrize(
    ("silent", "changes", "absent"),
    [(("m2",), (), ()), ((), (), ("m2",)), ((), (lock('{"run": "other-20260401t000000z-ffff"}'),), ())],
    ids=["silent", "left out", "held"],
)
def test_from_a_host_that_is_not_asked_nothing_is_fetched(
    silent: tuple[str, ...], changes: tuple[Change, ...], absent: tuple[str, ...]
) -> None:
    """It would only cost its time once more; and where another run holds a host, nothing else is done there."""
    fetching = Fetching()
    found = findings(*changes, plan=THERE, bound=replace(BOUND, absent=absent), silent=silent, fetching=fetching)
    assert not fetching.asked
    told = [(f.host, f.severity, f.saw) for f in found if f.check == "SnapshotContent"]
    assert told == [("", WARNS, "/opt/etcd.db on m2: the run goes on without that host") for _ in absent]


def test_another_users_port_and_key_reach_it(tmp_path: Path) -> None:
    ssh = replace(NODES[1].ssh, user="ops", port=2222, jump="bastion", identity_file=tmp_path / "key")
    plan: Plan = replace(THERE, nodes=(NODES[0], replace(NODES[1], ssh=ssh), NODES[2]))
    fetching = Fetching()
    findings(plan=plan, fetching=fetching)
    address = fetching.asked[0].address
    assert all(word in address for word in ('"ops"', "2222", '"bastion"', str(tmp_path / "key")))


def test_the_sum_is_told_wherever_it_was_found_out() -> None:
    """The preview's head says it."""
    assert summed_up(findings(plan=THERE)) == "a" * 64
    assert summed_up(findings(plan=THERE, fetching=Fetching(fails=OSError("no room")))) == "a" * 64
    assert summed_up(findings(plan=THERE, fetching=Fetching(sha256="c" * 64))) == ""

"""What the first checks promise beyond their one thing: local files, silent hosts, own locks, read-only questions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbook.checks import Severity, all_checks, disk
from runbook.checks.bump import enough
from runbook.plan import Plan, Snapshot, Tools
from runbook.step import Result, Target
from tests.unit.checks_faults import files, lock, look, no_etcd, room
from tests.unit.checks_world import BOUND, DB, NODES, PLAN, RUN, SSH, FakeHosts, bad, findings, says, where

BLOCKS, WARNS = Severity.BLOCKS, Severity.WARNS
GIB = 1 << 30

# --- the snapshot on the responder's machine ---


def local(path: Path, **changes: Any) -> Plan:
    return replace(PLAN, snapshot=replace(Snapshot(str(path), path), **changes))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], "checksum is wrong"),
        (lambda b: b[:-32], "no checksum at its end"),
        (lambda b: b[:-1], "cut short"),
        (lambda b: b"", "is empty"),
        (lambda b: b"hello\n" * 9000, "is a text"),
    ],
    ids=["flipped byte", "no trailer", "truncated", "empty", "text"],
)
def test_a_damaged_snapshot_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], text: str) -> None:
    file = tmp_path / "s.db"
    file.write_bytes(damage(DB.read_bytes()))
    file.chmod(0o600)
    found = [f for f in bad(findings(plan=local(file))) if f.check == "SnapshotWhole"]
    assert [(f.severity, f.host) for f in found] == [(BLOCKS, "")]
    assert text in found[0].saw
    assert found[0].do


def test_a_snapshot_that_is_another_than_planned_missing_or_changed(tmp_path: Path) -> None:
    assert "SHA-256" in bad(findings(plan=local(DB, sha256="0" * 64)))[0].saw
    assert "no such file" in bad(findings(plan=local(tmp_path / "none.db")))[0].saw
    bound = replace(BOUND, sha256="0" * 64)
    (changed,) = bad(findings(bound=bound))
    assert "this run is bound to" in changed.saw
    part = tmp_path / "s.db.part"
    part.write_bytes(DB.read_bytes())
    assert ".part" in next(f for f in bad(findings(plan=local(part))) if f.check == "SnapshotWhole").saw


def test_a_world_readable_snapshot_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    file.write_bytes(DB.read_bytes())
    file.chmod(0o644)
    (told,) = bad(findings(plan=local(file)))
    assert (told.check, told.severity) == ("SnapshotWhole", WARNS)


# --- what else is promised ---


def test_only_the_connection_check_tells_of_a_host_that_does_not_answer() -> None:
    found = bad(findings(silent=["m3"]))
    assert [(f.check, f.host, f.severity) for f in found] == [("Reachable", "m3", BLOCKS)]
    assert "no route to host" in found[0].saw


def test_an_unknown_host_key_is_told_with_what_to_type() -> None:
    plan = replace(PLAN, nodes=(replace(NODES[0], ssh=SSH), *NODES[1:]))
    hosts = FakeHosts(plan, [where("id", lambda _n, _r: Result(None, err="the host key is not known"), on="m1")])
    (told,) = [f for f in bad(findings(plan=plan, hosts=hosts)) if f.host == "m1"]
    assert "ssh-keyscan -p 2222 cp1.internal" in told.do


def test_a_slow_round_trip_is_no_wrong_clock() -> None:
    """A host that is asked late tells a late time: only what the waiting cannot explain is told."""
    (check,) = [c for c in all_checks("preflight") if c.id() == "Clocks"]

    def off(seconds: float, took: float) -> list[str]:
        answers = {"": (Result(0, "1000.0", seconds=took),), "m1": (Result(0, str(1000 + seconds)),)}
        return [f.severity.value for f in check.judge(PLAN, BOUND, answers)]

    assert off(3, 3.5) == ["ok"]
    assert off(5, 3.5) == ["warns"]
    assert off(-1.5, 3.5) == ["warns"]


def test_a_dead_cluster_has_nothing_to_compare_with() -> None:
    (told,) = [f for f in findings(no_etcd()) if f.check == "Members"]
    assert (told.severity, told.host) == (Severity.OK, "")
    assert "dead cluster" in told.saw


def test_two_needs_on_one_file_system_are_added_up(tmp_path: Path) -> None:
    file = tmp_path / "big.db"
    with file.open("wb") as f:
        f.truncate(GIB)
    plan = local(file)
    wanted = 2 * GIB + 128 * disk.MIB + 512 * disk.MIB  # copy, data, WAL, a twentieth of 10 GiB
    free = -(-wanted // 4096)
    same, apart = "1 4096 2621440 {0} 9 9999\n" * 2, "1 4096 2621440 {0} 9 9999\n2 4096 2621440 {0} 9 9999\n"

    def short(text: str, blocks: int) -> bool:
        return any(f.check == "DiskSpace" for f in bad(findings(room(text.format(blocks)), plan=plan)))

    assert not short(same, free)
    assert short(same, free - 1)
    assert not short(apart, free - GIB // 4096)


TOOL = """#!/bin/sh
echo 'etcdutl version: 3.5.24'
echo --initial-cluster-token --initial-advertise-peer-urls --skip-hash-check --bump-revision --mark-compacted --rev
"""


def test_tools_that_are_brought_along(tmp_path: Path) -> None:
    plan = replace(PLAN, tools=Tools(upload=tmp_path))
    found = [f for f in bad(findings(plan=plan)) if f.check == "EtcdTools"]
    assert [f.severity for f in found] == [BLOCKS]
    assert "no executable file" in found[0].saw
    for name in ("etcdctl", "etcdutl"):
        tool = tmp_path / name
        tool.write_text(TOOL)
        tool.chmod(0o755)
    assert bad(findings(plan=plan)) == []
    (tmp_path / "etcdutl").write_bytes(b"\x7fELF of another machine")
    (told,) = [f for f in bad(findings(plan=plan)) if f.check == "EtcdTools"]
    assert (told.severity, "do not run on this machine" in told.saw) == (WARNS, True)


def test_hosts_without_etcdctl_are_warned_of_where_it_is_brought_along(tmp_path: Path) -> None:
    plan = replace(PLAN, tools=Tools(upload=tmp_path))
    gone = where(lambda w: w[0] == "etcdctl", says("", 127, "not found"), on="")
    told = {f.check: f.severity for f in bad(findings(gone, plan=plan)) if f.check in ("Members", "Bump")}
    assert told == {"Members": WARNS, "Bump": WARNS}


def test_this_runs_own_lock_and_leftovers_are_no_matter() -> None:
    mine = json.dumps({"run": RUN, "holder": "ada@desk", "since": "x"})
    assert bad(findings(lock(mine), look(f"directory 1\nmember 1\nhidden .{RUN}.old\n"))) == []


def test_a_mount_point_and_a_link_as_data_directory_are_fine() -> None:
    found = findings(look("link /data/etcd\ndirectory 1\nmounted\nmember 1\n"))
    assert bad(found) == []
    (told,) = [f for f in found if f.check == "DataDirectory" and f.host == "m2"]
    assert "mount point, really /data/etcd" in told.saw


def test_the_suggested_bump_is_enough_and_round() -> None:
    for living, snapshot in ((4711, 51), (2_000_000_051, 51), (51, 51)):
        assert snapshot + enough(living, snapshot) >= living + 1_000_000_000
        assert enough(living, snapshot) % 1_000_000 == 0


def test_all_questions_are_read_only_and_each_is_asked_once() -> None:
    hosts = FakeHosts(PLAN)
    findings(hosts=hosts)
    assert len(hosts.asked) == 3  # connections, clocks, everything else
    for asks in hosts.asked:
        for commands in asks.values():
            assert len(set(commands)) == len(commands)


def test_no_plan_text_stands_in_a_shell_text() -> None:
    """Values reach scripts as positional words only; so every script must be the same for any plan."""
    odd = "/x$(touch owned)"
    paths = replace(NODES[0].paths, manifests=odd, data_dir=odd, wal_dir=odd, workspace=odd, etcd_ca=odd, etcd_cert=odd)
    node = replace(NODES[0], paths=paths, peer_urls=("https://$(touch owned):2380",))
    plan = replace(PLAN, nodes=(node,), owner="$(touch owned):x", verify=PLAN.verify)
    for group in ("preflight", "verify"):
        for check in all_checks(group):
            if check.id() == "OwnChecks":
                continue  # the one place where the plan's text is a shell command
            for command in check.asks(Target(plan, BOUND, node)):
                words = command.words()
                if words[:2] == ("sh", "-c"):
                    assert "touch" not in words[2]


def test_a_wal_directory_of_its_own_that_plan_and_manifest_agree_on() -> None:
    def edit(found: dict[str, str | None]) -> None:
        text = found["etcd.yaml"] or ""
        text = text.replace("--data-dir=/var/lib/etcd\n", "--data-dir=/var/lib/etcd\n    - --wal-dir=/wal/m\n")
        text = text.replace("    volumeMounts:\n", "    volumeMounts:\n    - {mountPath: /wal, name: wal}\n")
        found["etcd.yaml"] = text.replace(
            "  volumes:\n", "  volumes:\n  - {name: wal, hostPath: {path: /var/lib/etcd-wal/}}\n"
        )

    paths = replace(NODES[0].paths, wal_dir="/var/lib/etcd-wal/m")
    plan = replace(PLAN, nodes=tuple(replace(n, paths=paths) for n in NODES))
    assert bad(findings(files(edit, on=""), plan=plan)) == []
    inside = replace(
        plan, nodes=tuple(replace(n, paths=replace(paths, wal_dir="/var/lib/etcd/member/w")) for n in NODES)
    )
    told = [f for f in bad(findings(files(edit, on=""), plan=inside)) if f.check == "DataDirectory"]
    assert len(told) == 3
    assert all("lies inside" in f.saw for f in told)

"""Findings: a mark in every cell, each thing told once with all its hosts, and no mark for what nobody looked at."""

from __future__ import annotations

import json
from dataclasses import replace

from runbook import findings
from runbook.checks import Finding, Severity, all_checks
from runbook.checks.bump import Bump
from runbook.checks.locks import Locks
from runbook.step import Binding, Result, Target
from tests.fake.sessions import BOUND, plan

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [red]x[/red]\r\n| `rm` | \u202etxt"
FINDINGS = [
    Finding("Reach", "m1", Severity.OK, "root"),
    Finding("Reach", "m2", Severity.OK, "root"),
    Finding("Space", "m1", Severity.WARNS, "8% free", "make room"),
    Finding("Space", "m2", Severity.BLOCKS, f"full {HOSTILE}", "make room at once"),
    Finding("Space", "m2", Severity.OK, "the WAL disk has room"),
    Finding("Lock", "w1", Severity.HELD, "ops@laptop has it", "runbook runs"),
    Finding("Snapshot", "", Severity.OK, "whole"),
]


def test_the_table_has_a_mark_in_every_cell_and_tells_what_to_do() -> None:
    lines = findings.table(FINDINGS, ["m1", "m2"])
    rows = {row.split()[0]: row.split()[1:] for row in lines[:5]}
    assert rows["check"] == ["m1", "m2", "w1", "plan"]
    assert rows["Reach"] == ["✓", "✓"]
    assert rows["Space"] == ["!", "✗"]
    assert rows["Lock"] == ["✗"]
    assert rows["Snapshot"] == ["✓"]
    told = lines[5:]
    assert told[1:3] == ["✗ w1: ops@laptop has it", "    do: runbook runs"]
    assert any(one.startswith("✗ m2: full") for one in told)
    assert "    do: make room" in told
    assert told[-1] == "2 findings in the way (m2, w1), 1 warning (m1)"
    assert all(one.isprintable() for one in lines)
    assert "the WAL disk has room" not in "\n".join(lines)


def test_known_checks_are_shown_by_their_titles() -> None:
    check = all_checks("preflight")[0]
    lines = findings.table([check.ok("m1", "fine")], ["m1"])
    assert lines[1].startswith(check.title())
    assert lines[-1] == "nothing is in the way"


def test_what_is_restored_and_how_old_it_is_is_told_where_all_is_well_too() -> None:
    seen = Finding("SnapshotContent", "", Severity.OK, f"244 live keys {HOSTILE}")
    lines = findings.table([seen, Finding("DiskSpace", "m1", Severity.OK, "room")], ["m1"])
    assert [one for one in lines if "✓ plan: 244 live keys" in one]
    assert all(one.isprintable() for one in lines)
    assert not [one for one in lines if "m1: room" in one]


def test_no_findings_at_all() -> None:
    assert findings.table([], ["m1"])[-1] == "nothing is in the way"


def test_the_document() -> None:
    document = json.loads(json.dumps(findings.document(FINDINGS)))
    assert document[2] == {"check": "Space", "host": "m1", "severity": "warns", "saw": "8% free", "do": "make room"}
    assert document[-1]["host"] is None


def test_the_same_on_several_hosts_is_told_once() -> None:
    same = [Finding("Swap", h, Severity.WARNS, "swap is on", f"ssh {h} swapoff -a") for h in ("m1", "m2", "m3")]
    other = Finding("Swap", "m4", Severity.WARNS, "swap is on, 4 GB", "ssh m4 swapoff -a")
    assert findings.told(findings.grouped([*same, other])) == [
        "! m1, m2, m3: swap is on",
        "    do: ssh m1 swapoff -a (likewise on m2, m3)",
        "! m4: swap is on, 4 GB",
        "    do: ssh m4 swapoff -a",
    ]


def test_a_run_is_taken_over_by_one_host_of_it_not_by_each() -> None:
    """``adopt`` asks the others itself."""
    lock = Result(0, '\nlock {"run": "r-1", "holder": "eve@laptop", "since": "2026-04-09T14:00:00Z"}')
    unread = Result(0, "\nlock ")
    answers = {"m1": (unread,), "m2": (lock,), "m3": (lock,)}
    told = findings.told(findings.grouped(Locks().judge(plan(3), BOUND, answers)))
    assert any(line.endswith("rm /var/lib/etcd-runbook.lock") for line in told)
    assert [line for line in told if "runbook adopt --host root@10.0.1.11 --run r-1" in line]
    assert not any("likewise" in line or "10.0.1.12" in line for line in told)


def test_a_moment_between_two_hosts_makes_no_difference() -> None:
    saw = "held by the run r-1; last sign of life 14:00 ({} s ago)"
    both = [
        Finding("Locks", "m1", Severity.HELD, saw.format(46)),
        Finding("Locks", "m2", Severity.HELD, saw.format(47)),
    ]
    assert findings.told(findings.grouped(both)) == [f"✗ m1, m2: {saw.format(46)}"]


def test_a_transports_label_is_not_told_beside_the_host() -> None:
    silent = [Finding("Reachable", h, Severity.BLOCKS, f"{h} (10.0.0.1:22): no answer", "") for h in ("m1", "m2")]
    assert findings.told(findings.grouped(silent)) == ["✗ m1, m2: no answer"]


def test_where_another_run_holds_a_host_that_alone_counts() -> None:
    assert findings.decisive(FINDINGS) == [FINDINGS[5]]
    assert findings.decisive(FINDINGS[:5]) == FINDINGS[:5]


def test_beside_a_snapshot_that_blocks_its_unread_revision_is_no_news() -> None:
    """Missing, a directory, or no snapshot: one error tells it. A copy that did not come over is none of these."""
    whole = Finding("SnapshotWhole", "", Severity.BLOCKS, "/s.db: No such file or directory", "name another")
    unread = next(iter(Bump().judge(plan(1), BOUND, {"": (Result(1),), "m1": (Result(0),)})))
    assert unread.severity == "warns"
    low = Finding("Bump", "", Severity.BLOCKS, "1 + 2 = 3 is not above the living revision 4", "raise it")
    assert findings.decisive([whole, unread, low]) == [whole, low]
    warned = replace(whole, severity=Severity.WARNS)
    assert findings.decisive([warned, unread]) == [warned, unread]


def test_a_lock_is_told_in_words() -> None:
    saw = (
        '/var/lib/etcd-runbook.lock names another run: {"run": "r-1", "holder": "e@l", "since": "2026-04-09T14:02:00Z"}'
    )
    told = findings.told(findings.grouped([Finding("Lock", "m1", Severity.HELD, saw)]))
    assert told == ["✗ m1: another run holds it: r-1, by e@l, since 2026-04-09 14:02:00 UTC"]


# What could not be asked gets no green mark.


def silent(*hosts: str) -> list[Finding]:
    return [Finding("Reachable", host, Severity.BLOCKS, "no answer") for host in hosts]


def targets() -> list[Target]:
    return [Target(plan(3), Binding(), node) for node in plan(3).nodes]


def test_a_check_that_no_host_answered_does_not_say_that_all_is_well() -> None:
    well = [Finding("ControlPlaneNodes", "", Severity.OK, "none is missing")]
    snapshot = [Finding("SnapshotWhole", "", Severity.OK, "whole")]
    found = [*silent("m1", "m2", "m3"), *well, *snapshot]
    missed = findings.not_asked(plan(3), targets(), found)
    assert missed["ControlPlaneNodes"] == ["m1", "m2", "m3"]
    assert "Reachable" not in missed
    assert "SnapshotWhole" not in missed, "it asks no host: the file is here"
    honest = findings.honest(found, targets(), missed)
    assert well[0] not in honest
    assert snapshot[0] in honest
    rows = {row[0]: row[1:] for row in findings.grid(honest, ["m1", "m2", "m3"], missed)}
    assert rows["ControlPlaneNodes"] == ["?", "?", "?", " "]
    assert rows["Reachable"] == ["✗", "✗", "✗", " "]
    assert any("could not be asked" in line for line in findings.table(honest, ["m1", "m2", "m3"], missed))


def test_a_check_that_one_host_answered_may_say_so() -> None:
    well = [Finding("ControlPlaneNodes", "", Severity.OK, "none is missing")]
    found = [*silent("m1", "m2"), *well]
    missed = findings.not_asked(plan(3), targets(), found)
    honest = findings.honest(found, targets(), missed)
    assert well[0] in honest
    rows = {row[0]: row[1:] for row in findings.grid(honest, ["m1", "m2", "m3"], missed)}
    assert rows["ControlPlaneNodes"] == ["?", "?", " ", "✓"]


def test_every_host_answered() -> None:
    assert findings.not_asked(plan(3), targets(), []) == {}


def test_a_finding_holds_no_secret() -> None:
    """It is printed, journalled and copied to every host; a check's program may say anything."""
    found = Finding("Own", "", Severity.BLOCKS, "curl said: Authorization: Bearer abcdefghijkl, password=hunter2", "x")
    assert "hunter2" not in found.saw
    assert "abcdefghijkl" not in found.saw
    assert found.saw.startswith("curl said: ")

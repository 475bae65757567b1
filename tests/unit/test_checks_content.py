"""The checks of a snapshot's content: on crafted snapshots and crafted answers; their shell texts by a real ``sh``."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.checks import Finding, Severity, content, lost
from runbook.checks.words import script
from runbook.listing import LIST
from runbook.plan import Cluster, Plan, Snapshot, Verify
from runbook.snapshots.content import Content
from runbook.step import Result
from tests.unit.bolt_kit import History, keyspace, snapshot
from tests.unit.checks_faults import no_etcd
from tests.unit.checks_world import BOUND, MEMBER, PLAN, Change, bad, findings, listing, says, where

OK, WARNS, BLOCKS = Severity.OK, Severity.WARNS, Severity.BLOCKS
LEASE = b"/registry/leases/kube-node-lease/m1"
POD = b"/registry/pods/a/b"


def planned(tmp_path: Path, history: History, **buckets: dict[bytes, bytes]) -> Plan:
    """A plan whose snapshot has this history, and no other wishes."""
    path = tmp_path / "s.db"
    path.touch(0o600)
    path.write_bytes(snapshot(keyspace(history, **buckets)))  # type: ignore[arg-type]
    return replace(PLAN, snapshot=Snapshot(str(path), path), verify=Verify())


def of(check: str, *changes: Change, plan: Plan = PLAN) -> list[Finding]:
    return [f for f in findings(*changes, plan=plan) if f.check == check]


# --- what it holds ---


def test_a_snapshot_without_a_live_key(tmp_path: Path) -> None:
    (told,) = of("SnapshotContent", plan=planned(tmp_path, [(2, POD, b"v"), (3, POD, None)]))
    assert (told.severity, told.host) == (BLOCKS, "")
    assert "holds no live key" in told.saw


def test_a_snapshot_of_another_etcd(tmp_path: Path) -> None:
    (told,) = of("SnapshotContent", plan=planned(tmp_path, [(i, b"/calico/%d" % i, b"v") for i in range(2, 20)]))
    assert told.severity is WARNS
    assert "holds no Kubernetes object: 18 live keys (other 18)" in told.saw


@pytest.mark.parametrize(
    "bucket", [{"cluster": {b"clusterVersion": b"3.6.0"}}, {"meta": {b"storageVersion": b"3.6.0"}}]
)
def test_a_snapshot_of_another_version(tmp_path: Path, bucket: dict[str, dict[bytes, bytes]]) -> None:
    found = bad(of("SnapshotContent", plan=planned(tmp_path, [(2, POD, b"v")], **bucket)))
    assert {(f.host, f.severity) for f in found} == {(h, WARNS) for h in ("m1", "m2", "m3")}
    assert {f.saw for f in found} == {"the snapshot was taken of etcd 3.6, this host's is 3.5"}
    dead = bad(of("SnapshotContent", no_etcd(), plan=planned(tmp_path, [(2, POD, b"v")], **bucket)))
    assert {f.saw for f in dead} == {f.saw for f in found}  # by the image then


def test_a_tree_that_is_damaged_though_the_checksum_is_right(tmp_path: Path) -> None:
    plan = planned(tmp_path, [(i, POD, b"v") for i in range(2, 9)])
    raw = bytearray(plan.snapshot.path.read_bytes()[:-32])
    at = raw.index(POD) - 2
    raw[at] = 0x12
    plan.snapshot.path.write_bytes(snapshot(bytes(raw)))
    found = bad(findings(plan=plan))
    assert [(f.check, f.severity) for f in found] == [("SnapshotContent", BLOCKS)]
    assert "its content cannot be read: it has at byte" in found[0].saw


def test_a_reading_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: Future[Content] = Future()
    failed.set_exception(OSError("the reading process died (exit -9)"))
    monkeypatch.setattr(content, "begin", lambda *_: failed)
    found = bad(findings())
    assert [(f.check, f.severity) for f in found] == [("SnapshotContent", WARNS)]
    assert "its content could not be read: the reading process died (exit -9)" in found[0].saw


def test_of_a_file_that_is_not_whole_one_check_tells(tmp_path: Path) -> None:
    plan = planned(tmp_path, [(2, POD, b"v")])
    raw = plan.snapshot.path.read_bytes()
    plan.snapshot.path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert {f.check for f in bad(findings(plan=plan))} == {"SnapshotWhole"}


def test_the_plans_known_objects() -> None:
    rbac = ("clusterrole/cluster-admin", "role/kube-system/x", "ClusterRoleBinding/none", "rolebinding/a/b")
    plan = replace(PLAN, verify=Verify(secrets=("default/known", "default/none"), rbac=rbac))
    (told,) = of("KnownObjects", plan=plan)
    assert told.severity is WARNS
    assert told.saw == "not in the snapshot: Secret default/none, ClusterRoleBinding/none, rolebinding/a/b"
    assert not content.KnownObjects().applies(replace(PLAN, verify=Verify()))


def test_at_most_so_many_are_named() -> None:
    assert content.shown({f"k{i:02d}": 20 - i for i in range(12)}, 2) == "k00 20, k01 19, and 10 kinds more"
    assert content.names([str(i) for i in range(23)]).endswith("19, and 3 more")


# --- what would be lost ---


def lists(text: str) -> Change:
    return where(LIST, says(text), on="m1")


def test_nothing_was_written_but_leases_and_events() -> None:
    (told,) = of("WhatIsLost")
    assert (told.severity, told.host) == (OK, "")
    assert "4660 revisions before the present one of m1; nothing but leases" in told.saw
    assert "2026-04-09T14:00Z, by its newest Lease" in told.saw


def test_what_was_created_changed_and_deleted() -> None:
    def edit(lines: list[str]) -> None:
        lines.remove("roles 44 44")
        lines.remove("volume 2 2 pv-1")
        at = lines.index("secrets 46 46")
        lines[at] = "secrets 46 52"
        lines += [
            "volume 60 60 pv-1",
            "volume 61 99 pv-2",
            "cert-manager.io/certificates 52 52",
            "services/specs 99 99",
        ]

    (told, created, deleted) = of("WhatIsLost", lists(listing(edit)))
    assert {f.severity for f in (told, created, deleted)} == {WARNS}
    assert "created 4 (persistentvolumes 2, certificates.cert-manager.io 1, services 1)" in told.saw
    assert "changed 1 (secrets 1)" in told.saw
    assert "deleted 2 (persistentvolumes 1, roles 1)" in told.saw
    assert "will not know: pv-1, pv-2" in created.saw
    assert "come back as objects: pv-1" in deleted.saw


def test_the_same_in_a_packed_list() -> None:
    text = listing(lambda lines: lines.append("pods 52 52"))
    packed = "packed\n" + base64.b64encode(gzip.compress(text.partition("\n")[2].encode())).decode()
    assert [f.saw for f in of("WhatIsLost", lists(packed))] == [f.saw for f in of("WhatIsLost", lists(text))]
    assert "created 1 (pods 1)" in of("WhatIsLost", lists(packed))[0].saw
    (cut,) = of("WhatIsLost", lists(packed[:50]))
    assert "its list was cut off" in cut.saw


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none there is no etcdctl\n", "there is no etcdctl"),
        ("plain\nfailed Error: context deadline exceeded\n", "no etcd answers"),
        ("", "no etcd answers"),
        (listing(end="more") + "late\n", "too many to list within 15 s"),
        (listing(end="more") + "failed Error: EOF\n", "not counted: Error: EOF"),
        (listing(revision=50), "this is not the cluster it was taken of"),
    ],
    ids=["no tool", "no etcd", "nothing", "late", "half", "another"],
)
def test_what_cannot_be_compared_is_told_with_the_age(text: str, words: str) -> None:
    (told,) = of("WhatIsLost", where(LIST, says(text), on=""))
    assert told.severity is WARNS
    assert words in told.saw
    assert "the snapshot was taken" in told.saw
    assert told.do


def test_a_host_that_is_silent_though_its_etcd_lives() -> None:
    (told,) = bad([f for f in findings(silent=["m1"]) if f.check == "WhatIsLost"])
    assert "https://10.0.1.10:2379 should have been asked, and that host is silent" in told.saw


def test_a_cluster_that_was_restored_since() -> None:
    text = listing().replace(str(MEMBER), "99")
    (told,) = of("WhatIsLost", lists(text))
    assert "restored since, or is another" in told.saw


def test_a_dead_cluster_and_a_fresh_snapshot(tmp_path: Path) -> None:
    fresh = json.dumps({"spec": {"renewTime": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}.000000Z"}})
    dead = where(LIST, says("plain\nfailed no\n"), on="")
    (told,) = of("WhatIsLost", dead, plan=planned(tmp_path, [(2, LEASE, fresh.encode())]))
    assert told.severity is WARNS, "its title would say that nothing is lost"
    plan = planned(tmp_path, [(2, POD, b"v")])
    os.utime(plan.snapshot.path, (0, time.time() - 7200))
    (old,) = of("WhatIsLost", dead, plan=plan)
    assert (old.severity, "2 h" in old.saw) == (WARNS, True)
    assert "by the file's date, which a copy may have changed" in old.saw


FAKE = r"""#!/bin/sh
# an etcdctl whose etcd has the keys of $KEYS, in pages of two, whatever is asked for
for word; do case $word in --rev=*) rev=${word#--rev=} ;; --endpoints=*) url=${word#--endpoints=} ;; esac; done
case " $* " in *" endpoint status -w fields "*) echo '"DBSize" :' "$SIZE"; exit ;; esac
case " $* " in *" endpoint status "*) [ "$url" = "$ALIVE" ]; exit ;; esac
[ "$url" = https://own:2379 ] || exit 9
echo "$*" >> "$LOG"
while [ "$1" != get ]; do shift; done
printf '"ClusterID" : 1\n"MemberID" : 17\n"Revision" : %s\n"RaftTerm" : 2\n' "$((90 + $(wc -l < "$LOG")))"
sort "$KEYS" | awk -v from="$2" '$1 >= from && n < 2 { n++
  printf "\"Key\" : \"%s\"\n\"CreateRevision\" : %s\n\"ModRevision\" : %s\n", $1, $2, $3
  print "\"Version\" : 1\n\"Value\" : \"\"\n\"Lease\" : 0" }
  $1 >= from { all++ } END { if (all > 2) print "\"More\" : true"; print "\"Count\" :", all }'
"""


def ran(
    tmp_path: Path, keys: str, before: str = "", alive: str = "", seconds: int = 9, size: str = "1048576"
) -> Result:
    (tmp_path / "bin").mkdir(exist_ok=True)
    tool = tmp_path / "bin/etcdctl"
    tool.write_text(FAKE)
    tool.chmod(0o755)
    (tmp_path / "keys").write_text(keys)
    (tmp_path / "log").write_text("")
    env = os.environ | {"KEYS": str(tmp_path / "keys"), "LOG": str(tmp_path / "log"), "ALIVE": alive, "SIZE": size}
    words = script(LIST, "https://own:2379", before, str(seconds), "0", "", str(tool), "--cacert=x y").words()
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


KEYS = """/registry/a.io/things/n/x 3 9
/registry/events/n/e 4 4
/registry/health 5 5
/registry/leases/n/l 6 99
/registry/masterleases/1 6 99
/registry/persistentvolumes/pv-1 7 7
/registry/pods/n/p 8 8
/registry/pods/n/q 30 30
/registry/services/specs/n/s 9 31
"""


def test_keys_are_listed_in_pages_of_one_revision(tmp_path: Path) -> None:
    found = lost.living(ran(tmp_path, KEYS, before="https://dead:2379"), 20)
    assert found is not None
    assert (found.revision, found.member, found.whole, found.why) == (91, "11", True, "")
    assert +found.created == {"pods": 1}
    assert +found.changed == {"services/specs": 1}
    assert found.older == {"a.io/things": 1, "persistentvolumes": 1, "pods": 1, "services/specs": 1}
    assert found.volumes == {"pv-1": 7}
    asked = (tmp_path / "log").read_text().splitlines()
    assert [line.count("--rev=0") for line in asked] == [1, *([0] * (len(asked) - 1))]
    assert all("--rev=91" in line for line in asked[1:])
    assert all("--keys-only" in line and "--consistency=s" in line for line in asked)


@pytest.mark.parametrize(
    ("size", "limit"), [("1048576", "288"), ("1073741824", "20"), ("", "20"), ("1", "576")], ids=str
)
def test_a_page_is_of_so_many_keys_as_have_few_mebibytes_of_values(tmp_path: Path, size: str, limit: str) -> None:
    ran(tmp_path, KEYS, size=size)
    asked = (tmp_path / "log").read_text().splitlines()
    assert "--limit=20 " in asked[0]
    assert all(f"--limit={limit} " in line for line in asked[1:])


def test_only_the_first_that_lives_lists(tmp_path: Path) -> None:
    result = ran(tmp_path, KEYS, before="https://dead:2379 https://first:2379", alive="https://first:2379")
    assert result.out == "elsewhere https://first:2379\n"
    assert (tmp_path / "log").read_text() == ""


def test_a_list_that_takes_too_long_or_fails_is_not_whole(tmp_path: Path) -> None:
    late = lost.living(ran(tmp_path, KEYS, seconds=0), 20)
    assert late is not None
    assert (late.whole, "too many" in late.why) == (False, True)
    (tmp_path / "bin/etcdctl").unlink()
    words = script(LIST, "u", "", "9", "0", "", str(tmp_path / "bin/etcdctl")).words()
    gone = subprocess.run(words, capture_output=True, text=True, check=False)
    assert gone.stdout.startswith("none there is no ")
    failing = script(LIST, "u", "", "9", "0", "", "false").words()
    dead = subprocess.run(failing, capture_output=True, text=True, check=False)
    assert lost.living(Result(0, dead.stdout), 20) is None
    odd = lost.living(ran(tmp_path, "/registry/a/b 1 1\n/registry/a/c\\\\\\\\x 1 1\n/registry/b/d 1 1\n"), 20)
    assert odd is not None
    assert (odd.whole, "backslash" in odd.why) == (False, True)


# --- the token ---


def test_the_token_of_the_present_cluster() -> None:
    default = replace(PLAN, cluster=Cluster(token="etcd-cluster"))
    assert {(f.host, f.severity) for f in of("Token", plan=default)} == {(h, BLOCKS) for h in ("m1", "m2", "m3")}
    living = replace(PLAN, cluster=Cluster(token=BOUND.run))
    found = of("Token", plan=living)
    assert {(f.host, f.severity) for f in found} == {(h, BLOCKS) for h in ("m1", "m2", "m3")}
    assert "the cluster that lives was made with the token" in found[0].saw
    new = replace(PLAN, cluster=Cluster(token="new"))
    assert {f.severity for f in of("Token", plan=new)} == {OK}
    assert not of("Token")  # a run's own name

"""The cross-member proof on real clusters: each of its clauses made false, on clusters that etcd calls healthy.

Everything on these hosts but etcd is stopped, so nothing writes. Where a clause cannot be made false alone on a real
cluster, its docstring says why; the last tests prove those on real output with one figure changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from runbook.lab import Lab
from runbook.lab.fill import etcd_of
from runbook.lifecycle import Verdict
from runbook.plan import Cluster
from runbook.procedures.proof import same_data_everywhere
from runbook.step import Probe, Question, Result
from tests.lab.conftest import NAME, eventually
from tests.lab.proofkit import BUMP, ETCDCTL, OWN, ByHand, Restored, Rig, on_all, plan_of, sh

pytestmark = pytest.mark.lab

MEMBERS = "the planned members, in the restored cluster"
HASHES = "equal hashes at the restored revision"
ANSWERS = "every member answers"
ALARMS = "no alarms"
COMPACTED = "older revisions are compacted"
ALL = {MEMBERS, HASHES, ANSWERS, ALARMS, COMPACTED}
HEALTHY = {"m1": True, "m2": True, "m3": True}
RUN = "proof-20260409t140000z-0a1b"
GOOD = Restored()
PLANNED = Cluster()
Edit = Callable[[Any], Any]


@pytest.fixture(scope="module")
def hand() -> Iterator[ByHand]:
    """Three hosts, where etcd alone runs."""
    lab = Lab.up(f"{NAME}-proof", nodes=3)
    try:
        yield ByHand(lab)
    finally:
        lab.down()


@pytest.fixture(scope="module")
def rig(hand: ByHand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The run; and snapshots of one lineage on every host: `one`, `two` a write later, and `full` with an alarm."""
    lab, tmp = hand.lab, tmp_path_factory.mktemp("proof")
    lab.fill(objects=30)
    for value in ("one", "two"):
        hand.put(value)
        hand.keep(lab.snapshot(tmp / f"{value}.db"), value)
    alarm(lab, "ACTIVATE")
    hand.keep(lab.snapshot(tmp / "full.db"), "full")
    alarm(lab, "DEACTIVATE")
    rig = Rig(lab, plan_of(lab, tmp / "one.db"), RUN)
    figures_of(rig, "one")
    yield rig
    rig.close()


def reconfigure(hand: ByHand, *words: str) -> None:
    """Change the members; for five seconds after its start etcd refuses to, as not all peers are known to be well."""
    argv = [*ETCDCTL, OWN, "member", *words]
    eventually(f"member {words[0]}", lambda: hand.lab.exec("m1", argv).returncode == 0, every=0.3)


def id_of(hand: ByHand, text: str) -> str:
    """The id of the member whose line of `member list` has this text."""
    return next(line.split(",")[0] for line in hand.etcdctl("member", "list").splitlines() if text in line)


def figures_of(rig: Rig, snapshot: str) -> None:
    """Stage this snapshot's figures in the run's directory."""
    script = 'mkdir -p -m 700 "$1"; etcdutl snapshot status "/root/$2.db" -w json > "$1/snapshot.json"'
    on_all((n.name for n in rig.nodes), lambda host: sh(rig.lab, host, script, rig.nodes[0].run_dir, snapshot))


def alarm(lab: Lab, action: str, kind: str = "NOSPACE") -> None:
    """Raise or end an alarm of m1, as etcd itself does where its quota is used up."""

    def call() -> None:
        with contextlib.closing(etcd_of(lab, lab.nodes[0])) as etcd:
            own = etcd.call("/v3/maintenance/status", {})["header"]["member_id"]
            etcd.call("/v3/maintenance/alarm", {"action": action, "memberID": own, "alarm": kind})

    lab.in_operator(call)


def settled(hand: ByHand, count: int = 3) -> None:
    """Every member has said where it serves, and knows the leader."""

    def seen() -> bool:
        status = json.loads(hand.etcdctl("endpoint", "status", "--cluster", "-w", "json"))
        return [bool(s["Status"].get("leader")) for s in status] == [True] * count

    eventually(f"{count} members are settled", seen)


def proof(rig: Rig, cluster: Cluster = PLANNED, *, brief: bool = False) -> dict[str, Probe]:
    """The proof, for each host; of another plan where its cluster is another."""
    plan = replace(rig.plan, cluster=cluster)
    return {n.name: same_data_everywhere(replace(n, plan=plan), brief=brief) for n in rig.nodes}


def told(rig: Rig, cluster: Cluster = PLANNED) -> dict[str, str]:
    """What a responder reads: each host's first objection."""
    return {host: view.saw for host, view in rig.ask(proof(rig, cluster)).items()}


def on_every_host(found: dict[str, dict[str, str]], clauses: set[str]) -> dict[str, list[str]]:
    """These clauses and no others are denied on all three hosts, the hashes on the one that asks all members for them.

    By clause, what the hosts say.
    """
    elsewhere = clauses - {HASHES}
    assert {host: set(said) for host, said in found.items()} == {"m1": clauses, "m2": elsewhere, "m3": elsewhere}, found
    return {clause: [said[clause] for said in found.values() if clause in said] for clause in clauses}


# --- yes ---


def test_yes_on_every_host_of_a_restored_cluster(hand: ByHand, rig: Rig) -> None:
    hand.build(GOOD, RUN)
    views = rig.wait({host: probe.within(30) for host, probe in proof(rig).items()})
    assert {host: (v.verdict, v.saw) for host, v in views.items()} == dict.fromkeys(views, (Verdict.YES, ""))
    assert set(rig.objections(proof(rig))["m1"]) == set()
    assert {q.says for q in proof(rig)["m1"].questions} == ALL
    assert rig.objections(proof(rig, brief=True)) == {"m1": {}, "m2": {}, "m3": {}}


def test_still_yes_after_later_writes(hand: ByHand, rig: Rig) -> None:
    hand.build(GOOD, RUN)
    hand.spoil()
    settled(hand)
    for number in range(5):
        hand.put(f"later {number}")
    assert rig.objections(proof(rig)) == {"m1": {}, "m2": {}, "m3": {}}


# --- the members ---


def test_a_member_more_than_planned(hand: ByHand, rig: Rig) -> None:
    hand.build(GOOD, RUN)
    settled(hand)
    reconfigure(hand, "add", "m4", "--peer-urls=https://10.0.1.99:2380")
    said = on_every_host(rig.objections(proof(rig)), {MEMBERS})[MEMBERS]
    assert all("the members are not the planned ones: " in s for s in said)
    assert all("(unstarted)=https://10.0.1.99:2380" in s for s in said)
    assert hand.healthy() == HEALTHY
    reconfigure(hand, "remove", id_of(hand, "10.0.1.99"))
    assert rig.objections(proof(rig)) == {"m1": {}, "m2": {}, "m3": {}}


def test_other_peer_urls_than_planned(hand: ByHand, rig: Rig) -> None:
    hand.build(GOOD, RUN)
    settled(hand)
    id_ = id_of(hand, ", m3, ")
    reconfigure(hand, "update", id_, "--peer-urls=https://10.0.1.12:2380,https://10.0.1.12:2390")
    said = on_every_host(rig.objections(proof(rig)), {MEMBERS})[MEMBERS]
    assert all("m3=https://10.0.1.12:2380/https://10.0.1.12:2390" in s for s in said)
    assert hand.healthy() == HEALTHY
    reconfigure(hand, "update", id_, "--peer-urls=https://10.0.1.12:2380")
    assert rig.objections(proof(rig)) == {"m1": {}, "m2": {}, "m3": {}}


def test_a_learner_is_never_a_planned_member(hand: ByHand, rig: Rig) -> None:
    """The learner's own clause cannot be reached on a real cluster; it is proven on crafted output below.

    Etcd puts the time into the id of a member that is added, and etcdutl makes every member a voter: the planned ids
    are always voters'.
    """
    hand.build(GOOD, RUN)
    settled(hand)
    reconfigure(hand, "add", "m4", "--learner", "--peer-urls=https://10.0.1.99:2380")
    assert '"isLearner":true' in hand.etcdctl("member", "list", "-w", "json")
    said = on_every_host(rig.objections(proof(rig)), {MEMBERS})[MEMBERS]
    assert all("the members are not the planned ones" in s for s in said)
    reconfigure(hand, "remove", id_of(hand, "10.0.1.99"))
    assert rig.objections(proof(rig)) == {"m1": {}, "m2": {}, "m3": {}}


# --- the cluster's id ---


def test_the_planned_members_in_another_cluster(hand: ByHand, rig: Rig) -> None:
    """The one way to the planned member ids with another cluster id: restored with a fourth, which is then removed.

    Whoever names the cluster says so, hence three clauses; history and alarms do not.
    """
    hand.build(replace(GOOD, others="m4=https://10.0.1.99:2380"), RUN)
    hand.spoil()
    settled(hand)
    reconfigure(hand, "remove", id_of(hand, "10.0.1.99"))
    settled(hand)
    said = on_every_host(rig.objections(proof(rig)), {MEMBERS, HASHES, ANSWERS})
    assert all("is not the restored cluster's" in s for s in said[MEMBERS])
    assert all("is in the cluster" in s for s in said[ANSWERS])
    assert said[HASHES] == ["a hash comes from another cluster"]
    assert hand.healthy() == HEALTHY


def test_restored_with_another_token(hand: ByHand, rig: Rig) -> None:
    """The data is right, and compacted; but these members are another run's, or the old cluster's."""
    hand.build(replace(GOOD, token="etcd-cluster"), RUN)
    settled(hand)
    said = on_every_host(rig.objections(proof(rig)), {MEMBERS, HASHES, ANSWERS})
    assert all("is not the restored cluster's" in s for s in said[MEMBERS])
    assert all("3 endpoints answer with the ids" in s for s in said[ANSWERS])
    assert all("the hashes come from 3 members" in s for s in said[HASHES])
    assert all("is not the restored cluster's" in s for s in told(rig).values())


def test_healthy_singletons(hand: ByHand, rig: Rig) -> None:
    """A restore without --initial-cluster of all: as many clusters as hosts, each healthy, each with all the data."""
    hand.build(replace(GOOD, alone=True), RUN)
    eventually("all are healthy", lambda: hand.healthy() == HEALTHY)
    said = on_every_host(rig.objections(proof(rig)), {MEMBERS, HASHES, ANSWERS})
    assert all("is not the restored cluster's" in s for s in said[MEMBERS])
    assert len({s.split()[2] for s in said[MEMBERS]}) == 3, "three cluster ids"
    assert all(s.startswith("1 endpoints answer") for s in said[ANSWERS])


def test_an_empty_cluster_after_a_wrong_host_path(hand: ByHand, rig: Rig) -> None:
    """DirectoryOrCreate makes an empty directory of a typing error, and kubeadm's first node a new cluster in it."""
    hand.build(GOOD, RUN)
    hand.spoil()
    settled(hand)
    hand.stop("m1")
    hand.start("m1", edit="s|path: /var/lib/etcd$|path: /var/lib/etcd-typo|")
    eventually("m1 is healthy", lambda: hand.healthy() == HEALTHY)
    found = rig.objections(proof(rig))
    assert "is not the restored cluster's" in found["m1"][MEMBERS]
    assert "future revision" in found["m1"][HASHES]
    for host in ("m2", "m3"):
        assert set(found[host]) == {ANSWERS}
        assert "3 endpoints answer with the ids" in found[host][ANSWERS]


# --- every member answers ---


def test_one_member_stopped(hand: ByHand, rig: Rig) -> None:
    """The hashes are asked of every member too, so two clauses say no, where all else is as planned."""
    hand.build(GOOD, RUN)
    hand.spoil()
    settled(hand)
    hand.stop("m3")
    eventually("the others are quorate", lambda: hand.healthy() == {"m1": True, "m2": True, "m3": False})
    probes = proof(rig)
    own = rig.ask({"m3": probes.pop("m3")})["m3"]  # the first question alone: each costs a whole time limit
    found = rig.objections(probes)
    for host in ("m1", "m2"):
        assert set(found[host]) == ({HASHES, ANSWERS} if host == "m1" else {ANSWERS})
        assert found[host][ANSWERS].startswith("not every member answers")
    assert found["m1"][HASHES].startswith("the hashes could not be compared")
    assert (own.verdict, own.saw.split(":")[0]) == (Verdict.NO, "etcd does not answer")


CUT = "ip rule add ipproto tcp dport 2380 prohibit; ip rule add ipproto tcp sport 2380 prohibit"
JOIN = "ip rule del ipproto tcp dport 2380; ip rule del ipproto tcp sport 2380"


def test_a_member_that_answers_and_has_no_leader(hand: ByHand, rig: Rig) -> None:
    """Its peers' port is cut off, its clients' is not: it still gives the right hash, and the rest are quorate."""
    hand.build(GOOD, RUN)
    hand.spoil()
    settled(hand)
    sh(rig.lab, "m3", CUT)
    try:
        eventually("m3 knows that it is alone", lambda: "no leader" in hand.etcdctl("endpoint", "status", "--cluster"))
        probes = proof(rig)
        own = rig.ask({"m3": probes.pop("m3")})["m3"]
        found = rig.objections(probes)
    finally:
        sh(rig.lab, "m3", JOIN)
    for host in ("m1", "m2"):
        assert found[host] == {ANSWERS: "https://10.0.1.12:2379 reports etcdserver: no leader"}
    assert (own.verdict, own.saw.split(":")[0]) == (Verdict.NO, "etcd does not answer")
    settled(hand)
    assert rig.objections(proof(rig)) == {"m1": {}, "m2": {}, "m3": {}}


# --- the data ---


def test_different_data_at_the_same_revision(hand: ByHand, rig: Rig) -> None:
    """What the proof is for: same cluster, same revision, healthy 3/3, and other data on one member."""
    hand.build(replace(GOOD, odd=("two", BUMP - 1), checked=False), RUN)
    settled(hand)
    status = json.loads(hand.etcdctl("endpoint", "status", "--cluster", "-w", "json"))
    assert len({s["Status"]["header"]["revision"] for s in status}) == 1
    values = {h: hand.etcdctl("get", "/test/key", "--print-value-only", host=h).strip() for h in HEALTHY}
    assert values == {"m1": "one", "m2": "one", "m3": "two"}
    said = on_every_host(rig.objections(proof(rig)), {HASHES})[HASHES]
    assert all("the members hold different data at revision" in s for s in said)
    assert hand.healthy() == HEALTHY
    assert set(rig.objections(proof(rig, brief=True))["m1"]) == {HASHES}


def test_another_snapshot_of_the_lineage_on_one_host(hand: ByHand, rig: Rig) -> None:
    """As it happens: one host was given a newer snapshot, with the same bump. etcd's own check at the start is on."""
    hand.build(replace(GOOD, odd=("two", BUMP)), RUN)
    settled(hand)
    values = {h: hand.etcdctl("get", "/test/key", "--print-value-only", host=h).strip() for h in HEALTHY}
    assert values == {"m1": "one", "m2": "one", "m3": "two"}
    said = on_every_host(rig.objections(proof(rig)), {HASHES})[HASHES]
    assert all("the hashes could not be compared" in s for s in said)
    assert hand.healthy() == HEALTHY


def test_a_revision_below_the_restored_one(hand: ByHand, rig: Rig) -> None:
    """A revision that is not reached is not hashed: so "below" looks on a real cluster; the rest on crafted output.

    Alone it needs a plan without bump: where history is compacted up to the planned revision, it has been reached.
    """
    hand.build(replace(GOOD, bump=0), RUN)
    settled(hand)
    said = on_every_host(rig.objections(proof(rig)), {HASHES, COMPACTED})
    assert all("required revision is a future revision" in s for clause in said.values() for s in clause)
    plain = Cluster(bump_revision=0, mark_compacted=False)
    assert rig.objections(proof(rig, plain)) == {"m1": {}, "m2": {}, "m3": {}}
    figures_of(rig, "two")
    try:
        said = on_every_host(rig.objections(proof(rig, plain)), {HASHES})
    finally:
        figures_of(rig, "one")
    assert all("required revision is a future revision" in s for s in said[HASHES])


def test_history_that_is_not_compacted(hand: ByHand, rig: Rig) -> None:
    """Without both flags, under a plan that wants history compacted: nothing else is wrong."""
    hand.build(replace(GOOD, bump=0), RUN)
    settled(hand)
    said = on_every_host(rig.objections(proof(rig, Cluster(bump_revision=0))), {COMPACTED})
    assert said[COMPACTED] == ["a read at an older revision answered: the history was not marked as compacted"] * 3


def test_history_compacted_one_revision_short(hand: ByHand, rig: Rig) -> None:
    """A bump one too small, and one write since: the revision is right, the hashes are equal, the history is not."""
    hand.build(replace(GOOD, bump=BUMP - 1), RUN)
    hand.spoil()
    settled(hand)
    hand.put("later")
    on_every_host(rig.objections(proof(rig)), {COMPACTED})


# --- alarms ---


@pytest.mark.parametrize("raised", ["since", "in the snapshot"])
def test_an_alarm(hand: ByHand, rig: Rig, raised: str) -> None:
    """A member's status carries its alarms, so two clauses say no; the responder reads the one with the advice."""
    hand.build(GOOD if raised == "since" else replace(GOOD, snapshot="full"), RUN)
    hand.spoil()
    figures_of(rig, "one" if raised == "since" else "full")
    try:
        settled(hand)
        if raised == "since":
            alarm(rig.lab, "ACTIVATE")
        said = on_every_host(rig.objections(proof(rig)), {ALARMS, ANSWERS})
        read = told(rig)
        hand.etcdctl("alarm", "disarm")
        assert rig.objections(proof(rig)) == {"m1": {}, "m2": {}, "m3": {}}
    finally:
        figures_of(rig, "one")
    assert all(s.startswith("alarm: NOSPACE on ") for s in said[ALARMS])
    assert all("reports" in s and "NOSPACE" in s for s in said[ANSWERS])
    assert all("etcdctl alarm disarm" in s for s in read.values())


# --- what no real cluster shows alone: real output, with one thing changed ---


@pytest.fixture(scope="module")
def recorded(hand: ByHand, rig: Rig) -> dict[str, tuple[Question, Result]]:
    """Each question of the proof, with m1's real answer in a restored cluster, which is yes."""
    hand.build(GOOD, RUN)
    settled(hand)
    probe = proof(rig)["m1"]
    answers = rig.answers({"m1": [q.ask for q in probe.questions]})["m1"]
    found = {q.says: (q, r) for q, r in zip(probe.questions, answers, strict=True)}
    assert {q.judge(r) for q, r in found.values()} == {""}
    return found


def learner(members: Any) -> None:
    members["members"][1]["isLearner"] = True


def no_leader(status: Any) -> None:
    del status[1]["Status"]["leader"]


def two_leaders(status: Any) -> None:
    status[1]["Status"]["leader"] = status[1]["Status"]["leader"] ^ 1


def other_cluster(status: Any) -> None:
    status[2]["Status"]["header"]["cluster_id"] ^= 1


def one_missing(listed: Any) -> None:
    del listed[1]


def twice(listed: Any) -> None:
    listed[1] = listed[0]


def low(hashes: Any) -> None:
    hashes[1]["HashKV"]["header"]["revision"] -= 1


def other_hash(hashes: Any) -> None:
    hashes[1]["HashKV"]["hash"] ^= 1


def other_compaction(hashes: Any) -> None:
    hashes[1]["HashKV"]["compact_revision"] -= 1


def foreign_hash(hashes: Any) -> None:
    hashes[1]["HashKV"]["header"]["cluster_id"] ^= 1


def corrupt(alarms: Any) -> None:
    alarms["alarms"] = [{"memberID": 7, "alarm": 2}]


@pytest.mark.parametrize(
    ("clause", "change", "says"),
    [
        (MEMBERS, learner, "still learners: m2"),
        (ANSWERS, no_leader, "https://10.0.1.11:2379 has no leader"),
        (ANSWERS, two_leaders, "the members do not agree on a leader"),
        (ANSWERS, other_cluster, "https://10.0.1.12:2379 is in the cluster"),
        (ANSWERS, one_missing, "2 of 3 members answer, not m2"),
        (ANSWERS, twice, "3 endpoints answer with the ids"),
        (HASHES, one_missing, "the hashes come from 2 members"),
        (HASHES, twice, "not from the 3 planned ones"),
        (HASHES, low, "https://10.0.1.11:2379 is at revision"),
        (HASHES, other_hash, "the members hold different data at revision"),
        (HASHES, other_compaction, "the members hold different data at revision"),
        (HASHES, foreign_hash, "a hash comes from another cluster"),
        (ALARMS, corrupt, "alarm: CORRUPT on 7"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value.split()[0] if value in ALL else "",
)
def test_crafted(recorded: dict[str, tuple[Question, Result]], clause: str, change: Edit, says: str) -> None:
    """Why not on a real cluster.

    A learner: see above. No leader, two leaders: a member that knows no leader says so among its errors, and two
    leaders last for less than an election. A lower revision: etcd refuses to hash. A hash or status of too few
    members, with exit code 0: etcdctl exits 1 there. Another hash, compaction or cluster: seen above.
    """
    question, result = recorded[clause]
    *head, body = result.out.strip().split("\n")  # hashkv's has the revision before it
    answer = json.loads(body)
    change(answer)
    crafted = "\n".join([*head, json.dumps(answer)])
    assert says in question.judge(replace(result, out=crafted))


@pytest.mark.parametrize("clause", sorted(ALL))
def test_no_answer_is_never_a_yes(recorded: dict[str, tuple[Question, Result]], clause: str) -> None:
    question, result = recorded[clause]
    assert question.judge(Result(1, "", "Error: context deadline exceeded"))
    if clause != COMPACTED:  # there, success is the "no" itself
        assert question.judge(Result(0, "", ""))
        assert question.judge(replace(result, out="garbage"))
    else:
        assert question.judge(Result(0, "", ""))


def test_the_view_is_a_hosts_own(rig: Rig) -> None:
    """Each host asks its own member alone: nothing goes through another host or a load balancer."""
    for n in rig.nodes:
        for question in same_data_everywhere(n).questions:
            assert f"--endpoints={','.join(n.node.client_urls)}" in question.ask.words()

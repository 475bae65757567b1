"""The checks of the serving cluster: silent on a healthy one, and each speaks alone of its own thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from runbook.checks import Severity, all_checks, etcd, verify
from runbook.checks.verify import rbac_path
from runbook.plan import OwnCheck, Plan, Verify
from runbook.step import Result, Target
from tests.unit.checks_world import (
    BOUND,
    NODES,
    PLAN,
    Change,
    FakeHosts,
    bad,
    findings,
    hash_json,
    member_json,
    nodes_json,
    pods_json,
    sample,
    says,
    status_json,
    where,
)

BLOCKS, WARNS = Severity.BLOCKS, Severity.WARNS
REFUSED = sample("kubectl-1.32.4-refused.err")


def not_ready(items: list[Any]) -> None:
    for condition in items[1]["status"]["conditions"]:
        if condition["type"] == "Ready":
            condition.update(status="Unknown", reason="NodeStatusUnknown")


def pods(edit: Callable[[list[Any]], object]) -> Change:
    return where("/api/v1/pods", says(pods_json(edit)), on="")


def member(edit: Callable[[dict[str, Any]], object]) -> Change:
    value = json.loads(member_json(PLAN, me="m2"))
    edit(value)
    return where("member", says(json.dumps(value)))


def crashing(items: list[Any]) -> None:
    status = items[0]["status"]
    status["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    status["conditions"][1]["status"] = "False"


def phantom(items: list[Any]) -> None:
    pod = json.loads(json.dumps(items[0]))
    pod["metadata"].update(namespace="default", name="web-1")
    pod["status"]["phase"] = "Pending"
    items.append(pod)


@dataclass(frozen=True)
class Case:
    check: str
    change: Change
    text: str
    severity: Severity = BLOCKS
    host: str = "m2"


CASES = {
    "a node not ready": Case(
        "NodesReady",
        where("/api/v1/nodes", says(nodes_json(edit=not_ready)), on=""),
        "m2 (NodeStatusUnknown)",
        host="",
    ),
    "no API server": Case(
        "NodesReady",
        where("/api/v1/nodes", says("", 1, sample("kubectl-1.32.4-refused.err")), on=""),
        "refused",
        host="",
    ),
    "no nodes": Case(
        "NodesReady",
        where("/api/v1/nodes", says(nodes_json(edit=list.clear)), on=""),
        "no node at all",
        host="",
    ),
    "a pod crashes": Case("Pods", pods(crashing), "etcd-m1 is CrashLoopBackOff", host="m1"),
    "a pod missing": Case("Pods", pods(lambda i: i.pop(4)), "etcd-m2 is missing"),
    "another pod unwell": Case("Pods", pods(phantom), "default/web-1 (Pending)", WARNS, host=""),
    "a Secret unreadable": Case(
        "Secrets",
        where(lambda w: w[-1].endswith("/secrets/known"), says("", 1, sample("kubectl-1.32.4-notfound.err"))),
        'default/known: Error from server (NotFound): secrets "known" not found',
    ),
    "a role unreadable": Case(
        "Rbac",
        where(lambda w: w[-1].endswith("/roles/x"), says("", 1, "Error from server (NotFound)")),
        "role/kube-sys",
    ),
    "another cluster": Case(
        "EtcdHealthy", member(lambda v: v["header"].update(cluster_id=7)), "cluster id 7 is not the restored cluster's"
    ),
    "another's member": Case(
        "EtcdHealthy", where("member", says(member_json(PLAN))), "m1 answers on this host's client"
    ),
    "another member": Case("EtcdHealthy", member(lambda v: v["members"][0].update(ID=9)), "not the planned ones"),
    "a member too few": Case("EtcdHealthy", member(lambda v: v["members"].pop()), "not the planned ones"),
    "a learner": Case("EtcdHealthy", member(lambda v: v["members"][0].update(isLearner=True)), "learners: m1"),
    "no member list": Case("EtcdHealthy", where("member", says("", 1, "deadline exceeded")), "deadline exceeded"),
    "a member silent": Case(
        "EtcdHealthy", where("--cluster", says(status_json(PLAN, ["m1", "m2"]), 1)), "not every member answers, not m3"
    ),
    "an alarm": Case(
        "EtcdHealthy", where("alarm", says(sample("etcd-3.5.16-alarm-nospace.json"))), "NOSPACE on bdae9bbc11dd390d"
    ),
    "alarms unheard": Case("EtcdHealthy", where("alarm", says("", 1, "no")), "alarms could not be read"),
    "different data": Case(
        "EtcdHealthy",
        where(etcd.HASHES, says(hash_json(PLAN, (7, 7, 8))), on="m1"),
        "the members hold different data",
        host="m1",
    ),
    "a hash too few": Case(
        "EtcdHealthy",
        where(etcd.HASHES, says(hash_json(PLAN, (7, 7))), on="m1"),
        "the hashes come from 2 members",
        host="m1",
    ),
    "hashes unheard": Case(
        "EtcdHealthy",
        where(etcd.HASHES, says("", 3, "tells no revision"), on="m1"),
        "tells no revision",
        host="m1",
    ),
}


def told(*changes: Change, plan: Plan = PLAN) -> list[Any]:
    return bad(findings(*changes, group="verify", plan=plan))


def test_all_are_silent_on_a_healthy_cluster() -> None:
    found = findings(group="verify")
    assert bad(found) == []
    assert {f.check for f in found} == {c.id() for c in all_checks("verify") if c.applies(PLAN)}


@pytest.mark.parametrize("name", CASES)
def test_one_thing_wrong_is_told_by_its_check_alone(name: str) -> None:
    case = CASES[name]
    found = told(case.change)
    assert {(f.check, f.host, f.severity) for f in found} == {(case.check, case.host, case.severity)}
    assert case.text in found[0].saw
    assert found[0].do


def test_every_check_has_a_case_in_which_it_speaks() -> None:
    elsewhere = {"StillReachable", "OwnChecks"}
    assert {c.id() for c in all_checks("verify")} == {case.check for case in CASES.values()} | elsewhere


def test_a_plan_may_do_without() -> None:
    plan = replace(PLAN, verify=Verify(nodes_ready=False, pods=False))
    assert {f.check for f in findings(group="verify", plan=plan)} == {"StillReachable", "EtcdHealthy"}


def test_a_silent_host_is_told_once() -> None:
    found = bad(findings(group="verify", silent=["m1"]))
    assert [(f.check, f.host) for f in found] == [("StillReachable", "m1")]


def test_absent_nodes_are_not_missed() -> None:
    bound = replace(BOUND, absent=("m2",))
    changes = (
        where("/api/v1/nodes", says(nodes_json(edit=not_ready)), on=""),
        pods(lambda items: items.pop(4)),
        where("status", says(status_json(PLAN, ["m1", "m3"])), on=""),
        where(etcd.HASHES, says(hash_json(PLAN, (7, 7), absent=["m2"])), on=""),
    )
    hosts = FakeHosts(PLAN, changes, silent=["m2"])
    found = findings(group="verify", bound=bound, hosts=hosts)
    assert bad(found) == []
    assert any("but for m2" in f.saw for f in found)
    words = [c.words() for asks in hosts.asked for c in asks["m1"] if "status" in c.words() or etcd.HASHES in c.words()]
    assert all("--cluster" not in w and "--endpoints=https://10.0.1.10:2379,https://10.0.1.12:2379" in w for w in words)
    assert len(words) == 2


def test_a_no_is_asked_again_until_it_is_a_yes() -> None:
    count = 0

    def answer(_n: Target, result: Result) -> Result:
        nonlocal count
        count += 1
        return Result(0, nodes_json(edit=not_ready)) if count <= 3 else result

    assert told(where("/api/v1/nodes", answer, on="")) == []
    assert count > 3


def test_a_no_is_not_asked_for_ever() -> None:
    hosts = FakeHosts(PLAN, [where("/api/v1/nodes", says("", 1, "no"), on="")])
    assert bad(findings(group="verify", hosts=hosts))
    assert 3 <= len(hosts.asked) <= 6


def test_own_checks_run_where_the_plan_says() -> None:
    own = (
        OwnCheck("here", "local", "echo on stderr >&2; exit 3", 0.5),
        OwnCheck("good", "local", 'test "$((1 + 1))" = 2', 0.5),
        OwnCheck("there", "m3", "false; true", 0.5),
        OwnCheck("everywhere", "all", "true", 0.5),
    )
    plan = replace(PLAN, verify=replace(PLAN.verify, checks=own))
    found = [f for f in findings(group="verify", plan=plan) if f.check == "OwnChecks"]
    assert [(f.host, f.saw, f.severity.value) for f in found] == [
        ("", "here: exit code 3: on stderr", "blocks"),
        ("", "good", "ok"),
        ("m1", "everywhere", "ok"),
        ("m2", "everywhere", "ok"),
        ("m3", "there", "ok"),
        ("m3", "everywhere", "ok"),
    ]
    no = where(lambda w: w[2:3] == ("false; true",), says("", 1, "not yet"), on="m3")
    (there,) = [f for f in told(no, plan=plan) if f.host == "m3"]
    assert (there.severity, there.saw) == (BLOCKS, "there: exit code 1: not yet")


def test_no_secret_leaves_its_host() -> None:
    """The question throws the object away on the host: only a word of the script's own comes back."""
    (check,) = [c for c in all_checks("verify") if c.id() == "Secrets"]
    (command,) = check.asks(Target(PLAN, BOUND, NODES[0]))
    assert command.words()[2] == verify.THERE
    assert '"$@" > /dev/null' in verify.THERE


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("clusterrole/cluster-admin", "clusterroles/cluster-admin"),
        ("ClusterRoleBinding/system:node", "clusterrolebindings/system:node"),
        ("role/kube-system/a b", "namespaces/kube-system/roles/a%20b"),
        ("rolebinding/x/y", "namespaces/x/rolebindings/y"),
    ],
)
def test_rbac_paths(text: str, path: str) -> None:
    assert rbac_path(text) == f"/apis/rbac.authorization.k8s.io/v1/{path}"

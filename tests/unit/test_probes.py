"""What the words of the procedure make of a host's answers: when is a component stopped, and does the bump suffice?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.plan import Cluster
from runbook.procedures import pods
from runbook.procedures.proof import SINCE, bump_enough
from runbook.step import Probe, Result, Target
from tests.fake.sessions import BOUND, plan

PLAN = plan()
NODE = Target(PLAN, BOUND, PLAN.nodes[0])
PODS = (Path(__file__).parent / "samples/crictl-pods.json").read_text()


def said(probe: Probe, result: Result) -> str:
    (question,) = probe.questions
    return question.judge(result)


def lists(containers: list[dict[str, object]], sandboxes: str = '{"items": []}') -> Result:
    return Result(0, json.dumps({"containers": containers}) + "\n----\n" + sandboxes)


def container(name: str, state: str = "CONTAINER_RUNNING", namespace: str = "kube-system") -> dict[str, object]:
    labels = {"io.kubernetes.container.name": name, "io.kubernetes.pod.namespace": namespace}
    return {"id": f"0123456789abcdef-{name}", "state": state, "labels": labels}


def box(name: str, *, pod: str = "", state: str = "SANDBOX_READY", tier: str = "control-plane") -> str:
    item = {"id": "fedcba9876543210", "metadata": {"name": pod or f"{name}-m1", "namespace": "kube-system"}}
    return json.dumps({"items": [{**item, "state": state, "labels": {"component": name, "tier": tier}}]})


@pytest.mark.parametrize(
    ("result", "objection"),
    [
        (lists([]), ""),
        (lists([container("etcd", "CONTAINER_EXITED")], box("etcd", state="SANDBOX_NOTREADY")), ""),
        (lists([container("etcd-exporter"), container("etcd", namespace="monitoring")]), ""),
        (lists([], box("etcd", pod="etcd-backup-m1", tier="batch")), ""),
        (lists([container("etcd")]), "etcd still runs: 0123456789abc"),
        (lists([container("etcd", "CONTAINER_CREATED")]), "etcd still runs: 0123456789abc"),
        # A crash loop: only exited containers, and a sandbox that waits for the next.
        (
            lists([container("etcd", "CONTAINER_EXITED")], box("etcd")),
            "the kubelet still wants etcd, whose pod is ready: etcd-m1 (fedcba9876543)",
        ),
        (lists([], box("", pod="etcd-m1", tier="")), "the kubelet still wants etcd"),
        (lists([], box("etcd", pod="etcd-other-node-name")), "the kubelet still wants etcd"),
        (lists([], PODS), "etcd-m1 (f2bca817b931a)"),
        (Result(1, "/m/etcd.yaml is still there\n"), "/m/etcd.yaml is still there"),
        (Result(3, "", "connect: no such file"), "crictl could not say: connect: no such file"),
        (Result(127, "", "sh: crictl: not found"), "crictl could not say"),
        (Result(0, "", ""), "not JSON"),
        (Result(0, '{"containers": []}\n----\n', ""), "not JSON"),
    ],
)
def test_when_a_component_is_stopped(result: Result, objection: str) -> None:
    seen = said(pods.stopped(NODE, "etcd"), result)
    assert seen == "" if not objection else objection in seen


def test_every_component_named_must_be_stopped() -> None:
    both = pods.stopped(NODE, "kube-scheduler", "kube-controller-manager")
    seen = said(both, lists([container("kube-scheduler")], box("kube-controller-manager")))
    assert seen.startswith("kube-scheduler still runs: ")
    assert "; the kubelet still wants kube-controller-manager" in seen
    assert said(both, lists([container("etcd")], box("etcd"))) == ""


@pytest.mark.parametrize(
    ("result", "objection"),
    [
        (lists([container("etcd"), container("kube-apiserver", "CONTAINER_EXITED")]), ""),
        (lists([container("etcd", "CONTAINER_EXITED")]), "no container etcd runs"),
        (
            lists([container("etcd", namespace="monitoring"), container("etcd-exporter")]),
            "no container etcd runs, and the kubelet has made no etcd: its log there says why",
        ),
    ],
)
def test_whether_a_component_runs(result: Result, objection: str) -> None:
    alone = Result(0, result.out.partition("\n----\n")[0])
    assert said(pods.runs(NODE, "etcd"), alone) == objection


@pytest.mark.parametrize("result", [Result(0), Result(127, "", "sh: crictl: not found"), Result(0, "\n")])
def test_where_no_container_has_ended_or_crictl_is_absent_there_are_no_last_words(result: Result) -> None:
    assert said(pods.last_words(NODE, "etcd"), result) == ""


def status(revision: int) -> str:
    header = {"cluster_id": 1, "member_id": 2, "revision": revision}
    return json.dumps([{"Endpoint": "e", "Status": {"header": header}}])


FIGURES = json.dumps({"hash": 1, "revision": 100, "totalKey": 7, "totalSize": 20480}) + "\n\n"
BUMP = PLAN.cluster.bump_revision


@pytest.mark.parametrize(
    ("result", "objection"),
    [
        (Result(0, FIGURES + status(100 + BUMP - 1)), ""),
        (Result(0, FIGURES + status(100 + BUMP)), f"bumpRevision {BUMP + 1_000_000_000} would do"),
        # A dead cluster, from the beginning on: nobody to compare with, and no delay.
        (Result(4, FIGURES), ""),
        # One that died since: what was known of it is a lower bound.
        (Result(4, FIGURES + status(99 + BUMP - SINCE)), ""),
        (
            Result(4, FIGURES + status(100 + BUMP - SINCE)),
            f"was at revision {100 + BUMP - SINCE} while this was prepared",
        ),
        (Result(1, "", "cat: snapshot.json: No such file"), "No such file"),
        (Result(0, "", ""), "not JSON"),
    ],
)
def test_whether_the_bump_is_enough(result: Result, objection: str) -> None:
    seen = said(bump_enough(NODE), result)
    assert seen == "" if not objection else objection in seen


def test_without_a_bump_there_is_nothing_to_compare() -> None:
    plain = replace(NODE, plan=replace(PLAN, cluster=Cluster(bump_revision=0, mark_compacted=False)))
    assert said(bump_enough(plain), Result(0, FIGURES + status(999))) == ""
    assert said(bump_enough(plain), Result(4, FIGURES + status(999))) == ""

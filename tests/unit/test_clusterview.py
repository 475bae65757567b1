"""What one host sees of the whole cluster, in words that name who is missing."""

from __future__ import annotations

import json

from runbook import clusterview
from runbook.step import Result, Target
from tests.fake.sessions import BOUND, plan


def status(n: Target, *names: str, cluster: int = 0, twice: bool = False) -> Result:
    """``endpoint status -w json`` as etcdctl prints it where only these members are known to answer, exit code 0."""
    planned, nodes = clusterview.planned(n)
    ids = [id_ for id_, node in nodes.items() if node.name in names] * (2 if twice else 1)
    listed = []
    for id_ in ids:
        header = {"cluster_id": cluster or planned, "member_id": id_, "revision": 9, "raft_term": 2}
        told = {"header": header, "version": "3.5.16", "dbSize": 1, "leader": ids[0], "raftIndex": 1, "raftTerm": 2}
        listed.append({"Endpoint": f"https://{nodes[id_].name}:2379", "Status": told})
    return Result(0, json.dumps(listed), "")


def test_who_does_not_answer_is_named() -> None:
    """A member that was never started has published no client URL: etcdctl does not ask it, and is content."""
    whole = plan(3)
    n = Target(whole, BOUND, whole.nodes[0])
    assert clusterview.endpoints(n, status(n, "m1", "m2", "m3")) == ""
    assert clusterview.endpoints(n, status(n, "m1", "m2")) == "2 of 3 members answer, not m3"
    assert clusterview.endpoints(n, status(n, "m2")) == "1 of 3 members answer, not m1, m3"


def test_what_is_not_of_the_restored_cluster_is_told_by_its_ids() -> None:
    """As many clusters as hosts, each of one member with the planned id; or one member on two URLs."""
    whole = plan(3)
    n = Target(whole, BOUND, whole.nodes[0])
    assert clusterview.endpoints(n, status(n, "m1", cluster=7)).startswith("1 endpoints answer with the ids")
    assert clusterview.endpoints(n, status(n, "m1", "m2", twice=True)).startswith("4 endpoints answer with the ids")

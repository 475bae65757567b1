"""What ``init`` makes of what hosts say: healthy, half dead, wholly dead, odd, and not to be restored at all."""

from __future__ import annotations

import base64
import json
import random
import shlex
from dataclasses import replace
from typing import Any

import pytest

from runbook.discovery.asks import Written
from runbook.discovery.draft import PUT_BACK, Source
from runbook.discovery.judge import judge
from runbook.discovery.seen import survey
from runbook.errors import Held, Refused
from runbook.parse import member_ids
from runbook.planfile import PlanErrors
from runbook.step import Command, Result
from tests.unit.checks_world import NODES, PLAN, RUN, nodes_json
from tests.unit.init_world import (
    IPS,
    Machine,
    Machines,
    cluster,
    drafted,
    edited,
    json_of,
    places,
    seen_of,
    written,
)

IDS = member_ids({n.name: n.peer_urls for n in PLAN.nodes}, RUN)
SNAPSHOT = Source("file:///srv/etcd.db", "0" * 64, revision=4000)
HALF: dict[str, Any] = {"living": ("m1", "m2")}
DEAD: dict[str, Any] = {"api": False, "etcd": False}


def member(name: str) -> str:
    """As a database holds it."""
    return json.dumps({"id": IDS[name], "peerURLs": [f"https://{IPS[name]}:2380"], "name": name}, separators=(",", ":"))


# The cluster lives.


def test_a_healthy_cluster_is_written_whole() -> None:
    config = "clusterName: prod-eu1\ncontrolPlaneEndpoint: api.prod:6443\n"
    machines = cluster(m1={"secrets": {"default/known": 30, "kube-system/bootstrap-token-x": 3}, "kubeadm": config})
    text, plan = written(machines, SNAPSHOT)
    assert plan.name == "prod-eu1"
    assert [(n.name, n.host, n.peer_urls, n.client_urls) for n in plan.nodes] == [
        (n.name, IPS[n.name], n.peer_urls, n.client_urls) for n in NODES
    ]
    assert plan.snapshot.source == "file:///srv/etcd.db"
    assert plan.snapshot.sha256 == "0" * 64
    assert [w.host for w in plan.workers] == ["10.0.1.50"]
    assert plan.verify.secrets == ("default/known",)
    assert plan.verify.rbac == ("clusterrole/cluster-admin",)
    assert plan.owner == "keep"
    assert plan.cluster.bump_revision == 1_000_000_000
    assert "api.prod:6443" in text
    assert "etcd 3.5.24 answers, image 3.5.24-0; API server answers, Kubernetes 1.30.14" in text
    assert drafted(machines, SNAPSHOT).warnings == []


def test_the_defaults_are_written_too() -> None:
    text, plan = written(cluster())
    for key in (
        "token",
        "markCompacted",
        "knownHostsFile",
        "connectTimeout",
        "etcdctl",
        "workspace",
        "timeouts",
        "pods",
    ):
        assert f"{key}: " in text
    usual = PLAN.nodes[0].paths
    assert {n.paths for n in plan.nodes} == {usual}


def test_what_is_asked_only_once_is_asked_of_one_host() -> None:
    machines = cluster()
    hosts = Machines({m.ip: m for m in machines})
    survey(hosts, places(machines))  # type: ignore[arg-type]
    assert len(hosts.rounds) == 3
    last = [w for commands in hosts.rounds[2].values() for c in commands for w in c.words()]
    assert last.count("get") == 2  # the names of Secrets, kubeadm's configuration
    assert not any(c.changes for round_ in hosts.rounds for commands in round_.values() for c in commands)
    assert max(c.timeout for round_ in hosts.rounds for commands in round_.values() for c in commands) <= 20


@pytest.mark.parametrize(("snapshot", "bump"), [(4000, 1_000_000_000), (None, 1_000_000_000)])
def test_the_usual_bump_where_it_is_enough(snapshot: int | None, bump: int) -> None:
    assert drafted(cluster(), Source("x", revision=snapshot)).bump == bump


@pytest.mark.parametrize("snapshot", [4000, None])
def test_a_larger_bump_where_the_cluster_was_restored_before(snapshot: int | None) -> None:
    machines = cluster(**{name: {"revision": 1_000_005_000} for name in IPS})
    draft = drafted(machines, Source("x", revision=snapshot))
    assert (snapshot or 0) + draft.bump >= 2_000_005_000
    assert any("1000005000" in note for note in draft.notes("bump"))


@pytest.mark.parametrize(
    ("made", "snapshot", "secrets"), [(30, 4000, ["default/known"]), (30, None, []), (4500, 4000, [])]
)
def test_only_a_secret_that_must_be_in_the_snapshot(made: int, snapshot: int | None, secrets: list[str]) -> None:
    draft = drafted(cluster(m1={"secrets": {"default/known": made}}), Source("x", revision=snapshot))
    assert draft.secrets == secrets
    assert draft.notes("secrets")


def test_a_living_member_that_no_host_holds() -> None:
    machines = cluster()[:2]
    draft = drafted(machines)
    assert [n.name for n in draft.nodes] == ["m1", "m2"]
    assert any("DANGER: member m3 at https://10.0.1.12:2380 lives" in w for w in draft.warnings)
    assert draft.missing == ["10.0.1.12"]
    text, _ = written(machines)
    assert text.count("# WARNING: DANGER: member m3") == 1


def test_a_dead_member_that_no_host_holds() -> None:
    machines = cluster(**{n: {"extra": [json_of("m9", "10.0.1.99")]} for n in IPS})
    assert [w for w in drafted(machines).warnings if "m9" in w and "does not answer" in w and "DANGER" not in w]


def test_a_control_plane_node_that_no_host_is() -> None:
    def stranger(items: list[Any]) -> None:
        other = json.loads(json.dumps(items[0]).replace('"m1"', '"m9"').replace("10.0.1.10", "10.0.1.99"))
        items.append(other)

    machines = cluster(m1={"nodes": nodes_json(edit=stranger)})
    assert any("control-plane node m9" in w for w in drafted(machines).warnings)


def test_an_api_server_that_talks_to_other_members_too() -> None:
    servers = ("--etcd-servers=https://127.0.0.1:2379", "--etcd-servers=https://127.0.0.1:2379,https://10.0.1.11:2379")
    draft = drafted(cluster(m1={"files": edited("m1", "kube-apiserver.yaml", servers)}))
    assert any("m1: kube-apiserver has --etcd-servers=" in w and "`run` refuses" in w for w in draft.warnings)


def test_members_in_different_clusters() -> None:
    m1, *rest = PLAN.nodes
    other = replace(PLAN, nodes=(replace(m1, peer_urls=("https://10.0.1.10:2390",)), *rest))
    draft = drafted(cluster(m3={"plan": other}))
    assert any("different clusters already: m1, m2 in " in w for w in draft.warnings)
    assert any("m1: the cluster lists it at" in w for w in draft.warnings)


# Paths, owners, tools.


def test_paths_are_those_of_the_hosts() -> None:
    data = ("path: /var/lib/etcd\n", "path: /data/etcd\n")
    wal = ("    - --snapshot-count=10000\n", "    - --snapshot-count=10000\n    - --wal-dir=/wal/etcd\n")
    mount = (
        "    - mountPath: /var/lib/etcd\n",
        "    - mountPath: /wal\n      name: w\n    - mountPath: /var/lib/etcd\n",
    )
    volume = ("  volumes:\n", "  volumes:\n  - hostPath:\n      path: /fast/wal\n    name: w\n")
    files = edited("m3", "etcd.yaml", data, wal, mount, volume)
    text, plan = written(cluster(m3={"files": files, "words": {"manifests": "/etc/kubelet.d"}}))
    m1, _, m3 = plan.nodes
    assert m1.paths.data_dir == "/var/lib/etcd"
    assert (m3.paths.data_dir, m3.paths.wal_dir, m3.paths.manifests) == (
        "/data/etcd",
        "/fast/wal/etcd",
        "/etc/kubelet.d",
    )
    assert 'paths: {manifests: "/etc/kubelet.d", dataDir: "/data/etcd", walDir: "/fast/wal/etcd"}' in text


def test_a_data_directory_that_is_no_host_path() -> None:
    machines = cluster(m2={"files": edited("m2", "etcd.yaml", ("mountPath: /var/lib/etcd", "mountPath: /elsewhere"))})
    assert any(w.startswith("m2: no host path is mounted behind etcd's dataDir") for w in drafted(machines).warnings)


def _as(name: str, user: int = 1000) -> dict[str, str | None]:
    asked = f"  securityContext:\n    runAsUser: {user}\n    runAsGroup: {user}\n    seccompProfile:"
    return edited(name, "etcd.yaml", ("  securityContext:\n    seccompProfile:", asked))


def test_an_owner_that_the_disk_contradicts_is_kept_and_told() -> None:
    draft = drafted(cluster(m2={"files": _as("m2")}))
    assert draft.owner == "keep"
    assert any(w.startswith("m2: etcd.yaml says runAsUser 1000, runAsGroup 1000") for w in draft.warnings)


def test_an_owner_that_agrees_is_silent() -> None:
    machines = cluster(**{n: {"files": _as(n), "stat": "1000 1000 700 etcd etcd 60 directory"} for n in IPS})
    draft = drafted(machines)
    assert draft.owner == "keep"
    assert draft.warnings == []
    assert draft.notes("owner") == ["as the old data has it: etcd:etcd 700"]


def test_where_no_old_data_is_the_manifest_says_whose_it_is() -> None:
    machines = cluster(**{n: {"files": _as(n), "stat": "-", "etcd": False} for n in IPS})
    draft = drafted(machines)
    assert draft.owner == "1000:1000"
    assert any("there is no old data to keep" in w for w in draft.warnings)


def test_hosts_without_tools() -> None:
    draft = drafted(cluster(m2={"more": ["no tools"]}))
    assert any(w.startswith("m2: no etcdctl and no etcdutl there: put both, 3.5.24, into") for w in draft.warnings)
    _, plan = written(cluster(m2={"more": ["no tools"]}))
    assert plan.tools.etcdutl == "etcdutl"


def test_without_etcdctl_the_one_in_the_container_is_asked() -> None:
    inside = ("trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt", "trusted-ca-file=/pki/ca.crt")
    machines = cluster(**{n: {"more": ["no tools"], "files": edited(n, "etcd.yaml", inside)} for n in IPS})
    hosts = Machines({m.ip: m for m in machines})
    seen = survey(hosts, places(machines))  # type: ignore[arg-type]
    assert all(s.members and s.statuses for s in seen)
    words = [w for round_ in hosts.rounds for commands in round_.values() for c in commands for w in c.words()]
    assert words.count("--cacert=/pki/ca.crt") == 3 * 3 + 1
    machines = cluster(**{n: {"more": ["no tools", "no container"]} for n in IPS})
    draft = drafted(machines)
    assert any("no member listed the cluster (m1, m2, m3: no etcdctl there" in w for w in draft.warnings)
    assert "etcd could not be asked" in written(machines)[0]


def test_the_api_servers_revision_counts_where_etcd_cannot_be_asked() -> None:
    nodes = nodes_json()
    assert '"resourceVersion": "1000000412"' in nodes
    draft = drafted(cluster(**{n: {"more": ["no tools", "no container"], "nodes": nodes} for n in IPS}), SNAPSHOT)
    assert draft.bump > 1_000_000_412 - 4000 + 500_000_000


def test_tools_beside_path() -> None:
    more = ["no tools", "tool etcdctl /opt/bin/etcdctl", "tool etcdutl /opt/bin/etcdutl"]
    _, plan = written(cluster(**{n: {"more": more} for n in IPS}))
    assert (plan.tools.etcdctl, plan.tools.etcdutl) == ("/opt/bin/etcdctl", "/opt/bin/etcdutl")


def test_tools_of_another_version() -> None:
    more = ["no tools", "tool etcdctl etcdctl", "tool etcdutl etcdutl", "version etcdutl etcdutl version: 3.6.5"]
    draft = drafted(cluster(m1={"more": more}))
    assert any("etcdutl is 3.6.5, etcd is 3.5.24" in w for w in draft.warnings)


def test_flags_of_the_api_server_that_matter() -> None:
    flag = "    - --encryption-provider-config=/etc/kubernetes/enc.yaml\n    - --secure-port=6443"
    files = edited("m1", "kube-apiserver.yaml", ("    - --secure-port=6443", flag))
    text, _ = written(cluster(m1={"files": files}))
    assert "# kube-apiserver --encryption-provider-config=/etc/kubernetes/enc.yaml" in text


# Half dead.


def test_a_silent_host_is_written_from_what_the_others_say() -> None:
    text, plan = written(cluster(m1=HALF, m2=HALF, m3={"up": False}))
    assert [(n.name, n.host, n.peer_urls) for n in plan.nodes][2] == ("m3", "10.0.1.12", ("https://10.0.1.12:2380",))
    assert "# m3 (10.0.1.12) did not answer: no answer within 10 s" in text
    assert "name and URLs: m1 lists it" in text
    assert "10.0.1.12 (10.0.1.12:22)" not in text


def test_an_api_server_that_is_down_leaves_a_note() -> None:
    draft = drafted(cluster(**{n: {"api": False} for n in IPS}))
    assert draft.workers == []
    assert any("no API server answered" in note and "connection refused" in note for note in draft.notes("workers"))


def test_without_a_quorum_the_data_names_the_members() -> None:
    changes: dict[str, Any] = {"quorum": False, "written": f"{member('m1')}\n{member('m3')}\n", "api": False}
    machines = cluster(m1=changes, m2=changes | {"written": ""}, m3={"up": False})
    draft = drafted(machines)
    assert [n.name for n in draft.nodes] == ["m1", "m2", "m3"]
    assert "name and URLs: the data of m1 names it; its paths are taken to be those of the others" in draft.notes(
        "node m3"
    )


# Wholly dead.


def test_a_dead_cluster_is_written_from_its_manifests() -> None:
    machines = cluster(**{n: DEAD | {"dead": 4700} for n in IPS})
    text, plan = written(machines, SNAPSHOT)
    assert [n.name for n in plan.nodes] == ["m1", "m2", "m3"]
    assert "the dead members' data shows at least revision 4700" in text
    assert plan.verify.secrets == ()
    assert plan.verify.rbac == ("clusterrole/cluster-admin",)
    assert "etcd does not answer (connection refused), image 3.5.24-0" in text


def test_the_dead_data_may_demand_a_larger_bump() -> None:
    machines = cluster(**{n: DEAD | {"dead": 1_000_004_711} for n in IPS})
    assert drafted(machines, SNAPSHOT).bump + 4000 > 2_000_004_711


def test_a_cluster_of_which_nothing_is_left_says_so() -> None:
    machines = cluster(**{n: DEAD | {"db": False} for n in IPS})
    assert any("no etcd tells its revision" in w for w in drafted(machines, SNAPSHOT).warnings)


def test_the_snapshot_names_a_host_of_which_nobody_else_knows() -> None:
    machines = cluster(m1=DEAD, m2=DEAD, m3={"up": False})
    alone = drafted(machines)
    assert [n.name for n in alone.nodes] == ["m1", "m2"]
    assert any("--host 10.0.1.12 is not in this plan: no answer" in w for w in alone.warnings)
    known = Source("file:///x.db", members=(Written("m3", ("https://10.0.1.12:2380",), ()),))
    draft = drafted(machines, known)
    assert [(n.name, n.client_urls) for n in draft.nodes][2] == ("m3", ("https://10.0.1.12:2379",))


def test_a_member_that_began_anew_does_not_hide_the_others() -> None:
    """An empty data directory makes kubeadm's first node a healthy cluster of one, which lists itself alone."""
    lone: dict[str, Any] = {"plan": replace(PLAN, nodes=PLAN.nodes[:1]), "living": ("m1",)}
    known = Source("file:///x.db", revision=4000, members=(Written("m3", ("https://10.0.1.12:2380",), ()),))
    draft = drafted(cluster(m1=lone, m2=DEAD, m3={"up": False}), known)
    assert [n.name for n in draft.nodes] == ["m1", "m2", "m3"]
    assert any("m3 (10.0.1.12) did not answer" in w for w in draft.warnings)
    assert any(w.startswith("m2: the living members do not list it") for w in draft.warnings)
    given = drafted(cluster(m1=lone, m2=DEAD)[:2], known)
    assert [n.name for n in given.nodes] == ["m1", "m2"]
    assert any("member m3 at https://10.0.1.12:2380 is on no --host" in w for w in given.warnings)
    alone = drafted(cluster(m1=lone, m2={"up": False}, m3={"up": False})[::2], known)
    assert [n.name for n in alone.nodes] == ["m1", "m3"]
    assert any("m3 (10.0.1.12) did not answer" in w and "do not list it" in w for w in alone.warnings)


def test_a_joined_member_names_the_first() -> None:
    first = "https://10.0.1.10:2380,m2=https://10.0.1.11:2380"
    files = edited("m2", "etcd.yaml", ("initial-cluster=m1=https://10.0.1.11:2380", f"initial-cluster=m1={first}"))
    draft = drafted(cluster(m1={"up": False}, m2=DEAD | {"files": files}, m3={"up": False})[:2])
    assert [n.name for n in draft.nodes] == ["m2", "m1"]
    assert any("as the cluster was when m2 joined" in note for note in draft.notes("node m1"))


def test_a_name_that_nobody_knows_is_taken_for_no_member() -> None:
    """``--host cp1`` that cannot be resolved may be any host, and rather is a typing error."""
    machines = cluster(m1=HALF, m2=HALF, m3={"up": False})
    seen = [*seen_of(machines)]
    seen[2] = replace(seen[2], place=replace(seen[2].place, name="cp9", host="cp9"))
    assert [n.name for n in judge(seen, Source(), {"cp9": set()}).nodes] == ["m1", "m2"]
    guessed = judge(seen, Source(), {"cp9": {"192.0.2.9"}})
    assert [n.name for n in guessed.nodes] == ["m1", "m2", "m3"]
    assert any("taken for this one because no other is left" in w for w in guessed.warnings)


def test_a_worker_that_is_silent_is_taken_for_no_member() -> None:
    worker = Machine("w1", up=False)
    draft = drafted([*cluster(m1=HALF, m2=HALF)[:2], worker])
    assert [n.name for n in draft.nodes] == ["m1", "m2"]
    assert [w.host for w in draft.workers] == ["10.0.1.50"]
    assert any("--host 10.0.1.50 is the worker w1, and did not answer: no answer" in w for w in draft.warnings)


def test_manifests_put_aside_are_read_where_they_lie() -> None:
    files = edited("m1", "etcd.yaml")
    text = base64.b64encode((files.pop("etcd.yaml") or "").encode()).decode()
    more = ["stray /root/aside/etcd.yaml", f"stray-text {text}"]
    draft = drafted(cluster(m1={"files": files, "more": more, "etcd": False}))
    assert [n.name for n in draft.nodes] == ["m1", "m2", "m3"]
    assert any("etcd.yaml is missing" in w and "/root/aside/etcd.yaml: put it back" in w for w in draft.warnings)
    (back,) = draft.put_back
    assert back.startswith("ssh ")
    words = shlex.split(shlex.split(back)[-1])
    manifests = "/etc/kubernetes/manifests"
    place = [
        "/var/lib/etcd/member/wal",
        "/root/aside/etcd.yaml",
        f"{manifests}/.etcd.yaml.part",
        f"{manifests}/etcd.yaml",
    ]
    assert words == ["sh", "-c", PUT_BACK, *place]
    assert drafted(cluster()).put_back == []


# Odd hosts.


def test_one_machine_under_two_names() -> None:
    machines = cluster()
    twin = Machine("m1", words={"hostname": "m1"})
    seen = [*seen_of(machines), *seen_of([twin])]
    seen[3] = replace(seen[3], place=replace(seen[3].place, name="cp1"))
    draft = judge(seen, Source())
    assert [n.name for n in draft.nodes] == ["m1", "m2", "m3"]
    assert any("--host cp1 is the same machine as 10.0.1.10" in w for w in draft.warnings)


def test_two_machines_of_one_name_are_refused() -> None:
    machines = cluster(m2={"files": edited("m2", "etcd.yaml", ("--name=m2", "--name=m1"))})
    with pytest.raises(Refused, match=r"both etcd\.yaml say --name=m1"):
        drafted(machines)


def test_a_worker_among_the_hosts() -> None:
    worker = Machine("w1", files={"kube-proxy.yaml.d": None})
    draft = drafted([*cluster(), worker])
    assert [w.host for w in draft.workers] == ["10.0.1.50"]
    assert any("--host 10.0.1.50 is no control plane" in w for w in draft.warnings)


@pytest.mark.parametrize(
    "says",
    ["", "%PDF-1.4\x00\x1b[31m", "{}" * 5000, "uid 0\n== manifests\nfile !!!\n"],
)
def test_a_host_that_answers_garbage_is_named(says: str) -> None:
    machines = cluster(m3={"says": says})
    text, plan = written(machines)
    assert [n.name for n in plan.nodes][:2] == ["m1", "m2"]
    assert "\x1b" not in text
    assert any("m3" in w or "10.0.1.12" in w for w in drafted(machines).warnings)


def test_a_login_that_is_not_root() -> None:
    with pytest.raises(Refused, match="user id 1000, not as root"):
        drafted([Machine("m1", words={"uid": "1000"})])


def test_weird_words_of_a_host_stay_comments() -> None:
    machines = cluster(m1={"words": {"cluster": "a: b # c", "hostname": "x\ty"}}, m2={"words": {"cluster": "eu_1"}})
    _, plan = written(machines)
    assert plan.name == "kubernetes"  # m3's


def test_a_name_that_no_run_can_have() -> None:
    _, plan = written(cluster(**{n: {"words": {"cluster": "Prod_EU"}} for n in IPS}))
    assert plan.name == "restore"


def test_snapshots_on_hosts_are_named_where_none_was_given() -> None:
    machines = cluster(m2={"backups": "1775743200 12582912 /opt/backup/etcd 1.db\nrubbish\n"})
    assert "# seen: host://m2/opt/backup/etcd 1.db, 12 MiB, 2026-04-09 14:00 UTC" in written(machines)[0]
    assert "seen: host" not in written(machines, SNAPSHOT)[0]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_hosts_say_it_ends_in_a_plan_or_in_words(seed: int) -> None:
    """Answers cut off, shuffled, with strange characters: an exception of any other kind would be a fault of ours."""
    chance = random.Random(seed)  # noqa: S311 - no secret depends on it
    strange = ["\0", '"', "{", "}", ":", "0", "-", "\n", " ", "é", "#", "\u2028", "\\ud800"]

    class Odd(Machine):
        def answer(self, command: Command) -> Result:
            found = super().answer(command)
            at = chance.randrange(len(found.out) + 1)
            kinds = [found.out[:at], found.out[:at] + chance.choice(strange) + found.out[at:], found.out[at:]]
            codes = [found.code, found.code, 1, 124, 127, None]
            return found if chance.random() < 0.7 else Result(chance.choice(codes), chance.choice(kinds), found.err)

    more: dict[str, Any] = {"kubeadm": "clusterName: x\n", "secrets": {"a/b": 3}, "written": member("m3"), "dead": 9}
    alive: list[dict[str, Any]] = [
        {"etcd": chance.random() < 0.6, "api": chance.random() < 0.6, "up": chance.random() < 0.8} for _ in IPS
    ]
    try:
        text, plan = written([Odd(name, **more, **live) for name, live in zip(IPS, alive, strict=True)])
    except (Refused, Held, PlanErrors):
        return
    assert plan.nodes
    assert all(c.isprintable() or c == "\n" for c in text)


def test_a_listed_url_that_is_none() -> None:
    m3 = replace(PLAN.nodes[2], peer_urls=("https://[10.0.1.12:2380",), client_urls=())
    odd = replace(PLAN, nodes=(*PLAN.nodes[:2], m3))
    half = HALF | {"plan": odd, "nodes": nodes_json()}
    with pytest.raises(PlanErrors, match="peerURLs"):
        written(cluster(m1=half, m2=half, m3={"up": False}))


# No plan at all.


def test_no_host_answered() -> None:
    with pytest.raises(Refused) as told:
        drafted(cluster(**{n: {"up": False} for n in IPS}))
    assert "10.0.1.10, 10.0.1.11, 10.0.1.12: no answer within 10 s" in told.value.message
    assert told.value.code == 3


def test_an_external_etcd_is_refused() -> None:
    servers = ("--etcd-servers=https://127.0.0.1:2379", "--etcd-servers=https://e1:2379,https://e2:2379")
    files = edited("m1", "kube-apiserver.yaml", servers)
    del files["etcd.yaml"]
    with pytest.raises(Refused, match=r"external.*--etcd-servers=https://e1:2379,https://e2:2379"):
        drafted([Machine("m1", files=files), *cluster()[1:]])


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("sign /etc/rancher/k3s", "k3s"),
        ("sign /var/lib/rancher/rke2", "RKE2"),
        ("sign /etc/eks", "EKS"),
        ("sign /home/kubernetes/kube-env", "GKE"),
        ("sign /opt/azure/containers", "AKS"),
        ("service etcd active", "etcd as a service"),
    ],
)
def test_other_distributions_are_refused_by_name(more: str, what: str) -> None:
    with pytest.raises(Refused, match=what):
        drafted([Machine("w1", files={"other.yaml": "x"}, more=[more])])


def test_no_manifest_anywhere() -> None:
    with pytest.raises(Refused, match=r"no etcd\.yaml and no kube-apiserver\.yaml in /etc/kubernetes/manifests: a w"):
        drafted([Machine("w1", files={"other.yaml": "x"})])


@pytest.mark.parametrize(("old", "new", "why"), [("- etcd\n", "- sh\n", "runs sh"), ("kind: Pod", "kind: Pad", "Pad")])
def test_an_etcd_manifest_of_another_kind(old: str, new: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        drafted(cluster(m1={"files": edited("m1", "etcd.yaml", (old, new))}))


def test_a_host_whose_manifests_another_run_has_parked() -> None:
    files = edited("m1", "etcd.yaml")
    del files["etcd.yaml"]
    lock = 'now 1775743200\nlife 1775743190\n\nlock {"run": "prod-20260409t140000z-0a1b", "holder": "ann@desk"}'
    with pytest.raises(Held, match="prod-20260409t140000z-0a1b, by ann@desk") as caught:
        drafted(cluster(m1={"files": files, "lock": lock}))
    assert caught.value.next[-1].startswith("runbook adopt --host root@10.0.1.10 --run prod-20260409t140000z-0a1b")
    assert any("another run holds 10.0.1.10" in w for w in drafted(cluster(m1={"lock": lock})).warnings)

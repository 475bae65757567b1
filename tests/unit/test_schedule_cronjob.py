"""The rendered CronJob: what Kubernetes' schemas say of it, what it may do, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook.backup import Backup
from runbook.errors import UsageError
from runbook.planfile import load_backup
from runbook.snapshots.schedule import cronjob, render
from runbook.snapshots.schedule.cronjob import plan_inside
from runbook.snapshots.schedule.yamltext import comment, document
from tests.unit.schedule_kit import IMAGES, NODES, VERSIONS, Json, backup, containers, faults

FILE = {"url": "file:///mnt/backups"}
PKI = "/etc/kubernetes/pki/etcd"


@pytest.fixture(params=["s3", "file", "http", "longest"])
def any_backup(request: pytest.FixtureRequest, tmp_path: Path) -> Backup:
    """One of each kind that renders differently."""
    more: dict[str, Json] = {
        "s3": {"schedule": {"secret": "etcd-store"}},
        "file": {"store": FILE, "schedule": {"pace": "staging", "etcdImage": "registry.k8s.io/etcd:3.5.16-0"}},
        "http": {"nodes": [{**n, "clientURLs": ["http://10.0.1.1:2379"]} for n in NODES[:1]]},
        "longest": {"name": "a" * 40, "schedule": {"pace": "busy", "namespace": "backups"}},
    }
    return backup(tmp_path, **more[request.param])


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(any_backup: Backup, version: str) -> None:
    for made in cronjob(any_backup):
        assert faults(made, version) == []


def test_the_schemas_are_strict(tmp_path: Path) -> None:
    """Or the test above says nothing."""
    config, job = cronjob(backup(tmp_path))
    job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["hostNetwrok"] = True
    job["spec"]["startingDeadlineSeconds"] = "soon"
    config["data"]["backup.yaml"] = 1
    said = faults(job, VERSIONS[0]) + faults(config, VERSIONS[0])
    assert len(said) == 3
    assert "hostNetwrok" in " ".join(said)


def test_what_is_rendered_is_what_was_built(any_backup: Backup) -> None:
    """The comments are comments: the text reads as the objects."""
    text = render(any_backup, "cronjob")
    assert list(yaml.safe_load_all(text)) == cronjob(any_backup)
    assert text.startswith(f"# etcd snapshots of {any_backup.name}: rendered by runbook")


def test_the_pod_is_where_etcd_is_and_asks_nothing_of_the_api(any_backup: Backup) -> None:
    spec = cronjob(any_backup)[1]["spec"]
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"node-role.kubernetes.io/control-plane": ""}
    assert pod["tolerations"][0]["key"] == "node-role.kubernetes.io/control-plane"
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "Default")
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["timeZone"] == "Etc/UTC"
    assert len(cronjob(any_backup)[1]["metadata"]["name"]) <= 52


def test_no_container_has_more_rights_than_it_needs(any_backup: Backup) -> None:
    made = cronjob(any_backup)[1]
    pod = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(made):
        rights = container["securityContext"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert {"requests", "limits"} == set(container["resources"])
        assert (rights.get("runAsUser") == 0) == (container["name"] in ("save", "hand-over"))


def test_only_saving_sees_the_certificates_and_only_pushing_the_credentials(tmp_path: Path) -> None:
    made = cronjob(backup(tmp_path, schedule={"secret": "etcd-store"}))[1]
    keys = {c["name"]: [m["mountPath"] for m in c["volumeMounts"] if PKI in m["mountPath"]] for c in containers(made)}
    assert keys.pop("save") == [f"{PKI}/ca.crt", f"{PKI}/server.crt", f"{PKI}/server.key"]
    assert keys.pop("push") == [f"{PKI}/ca.crt"]  # no secret: by it the sidecar names the cluster
    assert not any(keys.values())
    assert [c["name"] for c in containers(made) if "envFrom" in c] == ["push"]
    volumes = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
    assert {v["hostPath"]["type"] for v in volumes if "hostPath" in v} == {"File"}
    mounts = [m for c in containers(made) for m in c["volumeMounts"] if m["name"] != "work"]
    assert all(m["readOnly"] for m in mounts)


def test_a_ca_that_does_not_lie_where_push_looks_is_not_promised(tmp_path: Path) -> None:
    """Or each run would warn of a fingerprint that no run can have."""
    made = cronjob(backup(tmp_path, paths={"etcdCA": "/etc/etcd/pki/etcd-ca.pem"}))[1]
    push = containers(made)[-1]
    assert "--pki" not in push["args"][0]
    assert not any("etcd-ca" in m["mountPath"] for m in push["volumeMounts"])
    assert "--pki /etc/kubernetes/pki\n" in containers(cronjob(backup(tmp_path))[1])[-1]["args"][0]


def test_the_numbers_follow_the_schedule(tmp_path: Path) -> None:
    made = cronjob(backup(tmp_path, schedule={"cron": "0,20 4 * * *", "deadline": "10m"}))[1]["spec"]
    assert (made["schedule"], made["startingDeadlineSeconds"]) == ("0,20 4 * * *", 600)
    assert made["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 600
    assert cronjob(backup(tmp_path, schedule={"pace": "staging"}))[1]["spec"]["startingDeadlineSeconds"] == 3600


@pytest.mark.parametrize(
    ("image", "tool"),
    [
        ("registry.k8s.io/etcd:3.5.16-0", "etcdctl"),
        ("gcr.io/etcd-development/etcd:v3.6.6", "etcdutl"),
        ("mirror.internal:5000/etcd:3.7.0@sha256:" + "0" * 64, "etcdutl"),
    ],
)
def test_the_tool_that_the_image_has(tmp_path: Path, image: str, tool: str) -> None:
    """Kubernetes' images of etcd 3.5 have no etcdutl, and etcd 3.6's etcdctl has no ``snapshot status``."""
    plan = backup(tmp_path, schedule={"etcdImage": image})
    status = next(c for c in containers(cronjob(plan)[1]) if c["name"] == "status")
    assert status["command"][:3] == [tool, "snapshot", "status"]
    assert ("without etcdutl" in render(plan, "cronjob")) == (tool == "etcdctl")


def test_an_image_that_was_asked_of_the_hosts(tmp_path: Path) -> None:
    plan = backup(tmp_path, schedule={"etcdImage": ""})
    made = cronjob(plan, "registry.k8s.io/etcd:3.5.21-0")[1]
    assert containers(made)[0]["image"] == "registry.k8s.io/etcd:3.5.21-0"
    assert "etcd:3.5.21-0" in render(plan, "kubernetes", "registry.k8s.io/etcd:3.5.21-0")


def test_a_directory_is_mounted_and_never_made(tmp_path: Path) -> None:
    made = cronjob(backup(tmp_path, store={"url": "file:///mnt/two%20words"}))[1]
    volumes = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
    assert volumes[-1]["hostPath"] == {"path": "/mnt/two words", "type": "Directory"}
    assert containers(made)[-1]["volumeMounts"][-1] == {"name": "store", "mountPath": "/mnt/two words"}


def test_the_plan_inside_is_a_plan(any_backup: Backup, tmp_path: Path) -> None:
    """What push and prune read there says the same of store, keys and keeping."""
    inside = tmp_path / "inside.yaml"
    inside.write_text(cronjob(any_backup)[0]["data"]["backup.yaml"])
    read = load_backup(inside)[0]
    for name in ("name", "store", "compress", "recipients", "keep"):
        assert getattr(read, name) == getattr(any_backup, name)
    assert read.schedule.when == any_backup.schedule.when
    assert read.metrics is None
    assert [n.name for n in read.hosts.nodes] == [n.name for n in any_backup.hosts.nodes]


def test_nothing_of_this_machine_goes_into_the_cluster(tmp_path: Path) -> None:
    ssh = {"user": "ops", "identityFile": "/home/ops/.ssh/key", "jump": "bastion.internal"}
    inside = str(plan_inside(backup(tmp_path, ssh=ssh, metrics="/var/lib/metrics")))
    assert not [word for word in ("ops", "bastion", "/var/lib/metrics") if word in inside]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schedule": {"etcdImage": ""}}, "spec.schedule.etcdImage: is missing"),
        ({"schedule": {"etcdImage": ""}}, "kubectl -n kube-system get pod -l component=etcd -o jsonpath="),
        ({"schedule": {"etcdImage": "registry.k8s.io/etcd"}}, "found 'registry.k8s.io/etcd'; allowed: an image with a"),
        ({"schedule": {"etcdImage": "registry.k8s.io/etcd:latest"}}, "a tag that begins with etcd's version"),
        ({"schedule": {"etcdImage": "registry.k8s.io:5000/etcd"}}, "a tag that begins with etcd's version"),
        ({"schedule": {"image": ""}}, "spec.schedule.image: is missing; an image with runbook in it"),
        ({"store": {"url": "host://m1/backups"}}, "a pod has no SSH key to a host"),
        ({"nodes": [NODES[0], {**NODES[1], "paths": {"etcdCert": "/pki/x.crt"}}]}, "not the same on all of them"),
        ({"nodes": [NODES[0], {**NODES[1], "clientURLs": ["https://10.0.1.11:4001"]}]}, "does not listen alike"),
        ({"schedule": {"cron": "*/20 * * * *"}}, "spec.schedule.deadline: found 30m, and '*/20 * * * *' fires again"),
    ],
)
def test_what_stands_in_the_way(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    plan = backup(tmp_path, **changes)
    with pytest.raises(UsageError) as error:
        render(plan, "kubernetes")
    assert f"{plan.file}: spec." in error.value.message
    assert says in str(error.value)
    assert error.value.next


def test_everything_that_stands_in_the_way_at_once(tmp_path: Path) -> None:
    plan = backup(tmp_path, store={"url": "host://m1/backups"}, schedule=dict.fromkeys(IMAGES, ""))
    with pytest.raises(UsageError) as error:
        cronjob(plan)
    assert len(error.value.message.splitlines()) == 3


def test_a_comment_for_what_is_not_there() -> None:
    with pytest.raises(KeyError, match=r"spec\.wrong"):
        document({"spec": {"right": 1}}, {"spec.wrong": "Why?"})


def test_comments_stand_above_their_keys() -> None:
    value = {"spec": {"a": [{"name": "one", "x": "0 */6 * * *"}, {"name": "two", "x": "# no\ncomment\n"}], "b": "yes"}}
    why = {"spec": "All.", "spec.a.two": "The second.", "spec.a.two.x": "Its x.", "spec.b": "A text."}
    text = document(value, why, "Head.")
    assert yaml.safe_load(text) == value
    assert text.splitlines() == [
        "# Head.",
        "# All.",
        "spec:",
        "  a:",
        "    - name: one",
        "      x: 0 */6 * * *",
        "    # The second.",
        "    - name: two",
        "      # Its x.",
        "      x: |",
        "        # no",
        "        comment",
        "  # A text.",
        "  b: 'yes'",
    ]


def test_long_comments_are_wrapped_and_commands_are_not() -> None:
    text = comment("word " * 40 + "\n  kubectl " + "x" * 200, 4)
    lines = text.splitlines()
    assert all(line.startswith("    # ") for line in lines)
    assert len(lines[-1]) > 200
    assert max(map(len, lines[:-1])) <= 114

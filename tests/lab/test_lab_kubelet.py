"""The stand-in kubelet does what the facts say of the real one."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest

from runbook.lab import Lab

from .conftest import eventually

pytestmark = pytest.mark.lab
MANIFESTS = "/etc/kubernetes/manifests"
SH = "trap 'echo got TERM; exit 0' TERM; echo started; while :; do sleep 0.1; done"


def pod(name: str, command: list[str], **spec: Any) -> str:
    mounts = spec.pop("mounts", [])
    container = {"name": name, "image": "none", "command": command, "volumeMounts": mounts, **spec.pop("container", {})}
    meta = {"name": name, "namespace": "default"}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **spec}}
    )


def sh(lab: Lab, script: str, host: str = "m1") -> str:
    return lab.exec(host, ["sh", "-ec", script], check=True).stdout


def put(lab: Lab, name: str, text: str) -> None:
    lab.exec("m1", ["sh", "-c", f"cat > /root/new && mv /root/new {MANIFESTS}/{shlex.quote(name)}"], text, check=True)


def containers(lab: Lab, name: str, *, every: bool = True) -> list[dict[str, Any]]:
    found = json.loads(sh(lab, f"crictl ps {'-a' if every else ''} --name '^{name}$' -o json"))["containers"]
    assert isinstance(found, list)
    return found


def sandboxes(lab: Lab, name: str) -> list[dict[str, Any]]:
    found = json.loads(sh(lab, f"crictl pods --name '^{name}-m1$' -o json"))["items"]
    assert isinstance(found, list)
    return found


def running(lab: Lab, name: str) -> list[str]:
    return [c["id"] for c in containers(lab, name, every=False)]


def log(lab: Lab, name: str) -> str:
    return sh(lab, f"cat /var/log/pods/default_{name}-m1_*/{name}/*.log 2>/dev/null || :")


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> Iterator[None]:
    yield
    sh(lab, f"rm -f {MANIFESTS}/try* {MANIFESTS}/.try*; systemctl start kubelet")
    ids = sh(lab, "crictl ps -q --name '^try'").split()
    if ids:
        sh(lab, f"crictl stop {' '.join(ids)}")
    sh(lab, "for id in $(crictl ps -a -q --state exited --name '^try'); do crictl rm $id; done")
    eventually("the tried pods are gone", lambda: not containers(lab, "try.*") and not sandboxes(lab, "try.*"))
    sh(lab, "rm -rf /var/log/pods/default_try* /srv/*")


def test_dot_files_are_no_manifests_and_all_others_are(lab: Lab) -> None:
    put(lab, ".try.yaml", pod("try", ["sleep", "1000"]))
    put(lab, "try.yaml.bak", pod("trybak", ["sleep", "1000"]))
    eventually("the .bak file is a manifest", lambda: running(lab, "trybak"))
    time.sleep(0.5)
    assert not containers(lab, "try")
    sh(lab, f"mv {MANIFESTS}/.try.yaml {MANIFESTS}/try.yaml")
    eventually("the renamed one is a manifest", lambda: running(lab, "try"))


def test_of_two_pods_of_one_name_one_runs(lab: Lab) -> None:
    put(lab, "try.yaml", pod("try", ["sleep", "1000"]))
    eventually("it runs", lambda: running(lab, "try"))
    first = running(lab, "try")
    put(lab, "try.yaml.bak", pod("try", ["sleep", "1000"]))
    time.sleep(1)
    assert running(lab, "try") == first
    sh(lab, f"rm {MANIFESTS}/try.yaml")
    eventually("the other takes its place", lambda: running(lab, "try") not in ([], first), within=40)


def test_a_changed_manifest_is_another_pod(lab: Lab) -> None:
    put(lab, "try.yaml", pod("try", ["sh", "-c", SH]))
    eventually("it runs", lambda: "started" in log(lab, "try"))
    first = containers(lab, "try")[0]
    put(lab, "try.yaml", pod("try", ["sh", "-c", SH + "\n"]))
    eventually("it was replaced", lambda: running(lab, "try") not in ([], [first["id"]]))
    assert containers(lab, "try")[0]["podSandboxId"] != first["podSandboxId"]
    assert "got TERM" in log(lab, "try")


def test_sigterm_then_sigkill_after_the_grace_period(lab: Lab) -> None:
    stubborn = "trap '' TERM; echo started; while :; do sleep 0.1; done"
    put(lab, "try.yaml", pod("try", ["sh", "-c", stubborn], terminationGracePeriodSeconds=3))
    eventually("it runs", lambda: "started" in log(lab, "try"))
    sh(lab, f"rm {MANIFESTS}/try.yaml")
    began = time.monotonic()
    time.sleep(2)
    assert running(lab, "try"), "killed before its grace was over"
    eventually("it is killed", lambda: not running(lab, "try"))
    assert 2.5 < time.monotonic() - began < 6
    eventually("it has ended", lambda: not running(lab, "try"))


def test_the_grace_period_is_thirty_seconds_where_the_manifest_names_none(lab: Lab) -> None:
    annotations = containers(lab, "etcd")[0]["annotations"]
    assert annotations["io.kubernetes.pod.terminationGracePeriod"] == "30"


def test_a_dead_container_is_restarted_at_once_and_then_after_a_back_off(lab: Lab) -> None:
    put(lab, "try.yaml", pod("try", ["sh", "-c", "echo started; exit 3"]))
    eventually("one restart", lambda: [c["metadata"]["attempt"] for c in containers(lab, "try")][:1] == [1], within=5)
    began = time.monotonic()
    inspected = json.loads(sh(lab, f"crictl inspect {containers(lab, 'try')[0]['id']}"))
    assert inspected["status"]["exitCode"] == 3
    time.sleep(5)
    assert containers(lab, "try")[0]["metadata"]["attempt"] == 1, "restarted without a back-off"
    eventually("a second restart", lambda: containers(lab, "try")[0]["metadata"]["attempt"] == 2, within=15)
    assert time.monotonic() - began > 8


def test_a_sandbox_is_ready_as_long_as_its_pod_is_wanted(lab: Lab) -> None:
    """Also in a back-off, when no container runs; it goes only after the manifest went."""
    put(lab, "try.yaml", pod("try", ["sh", "-c", "echo started; exit 3"]))
    eventually("it is in a back-off", lambda: [c["metadata"]["attempt"] for c in containers(lab, "try")][:1] == [1])
    eventually("nothing runs", lambda: not running(lab, "try"))
    (box,) = sandboxes(lab, "try")
    assert box["state"] == "SANDBOX_READY"
    assert {c["podSandboxId"] for c in containers(lab, "try")} == {box["id"]}
    assert sh(lab, "crictl pods -q --state ready --label io.kubernetes.pod.name=try-m1").split() == [box["id"]]
    sh(lab, f"rm {MANIFESTS}/try.yaml")
    eventually("it is gone", lambda: [s["state"] for s in sandboxes(lab, "try")] == ["SANDBOX_NOTREADY"], within=5)
    assert not running(lab, "try")


def test_a_sandbox_that_is_stopped_by_hand_is_made_anew(lab: Lab) -> None:
    """What runs in it is killed without grace; another takes its place, for the pod is wanted."""
    put(lab, "try.yaml", pod("try", ["sh", "-c", SH]))
    eventually("it runs", lambda: "started" in log(lab, "try"))
    (box,) = sandboxes(lab, "try")
    assert sh(lab, f"crictl stopp {box['id']}") == f"Stopped sandbox {box['id']}\n"
    eventually("there is another", lambda: [s["metadata"]["attempt"] for s in sandboxes(lab, "try")][:1] == [1])
    assert [s["state"] for s in sandboxes(lab, "try")] == ["SANDBOX_READY", "SANDBOX_NOTREADY"]
    assert "got TERM" not in log(lab, "try")
    eventually("it runs there", lambda: containers(lab, "try", every=False)[0]["podSandboxId"] != box["id"])


def test_restart_policy_never(lab: Lab) -> None:
    put(lab, "try.yaml", pod("try", ["sh", "-c", "echo started; exit 3"], restartPolicy="Never"))
    eventually("it ran", lambda: [c["state"] for c in containers(lab, "try")] == ["CONTAINER_EXITED"])
    time.sleep(1)
    assert len(containers(lab, "try")) == 1


@pytest.mark.parametrize(
    ("kind", "before", "starts"),
    [
        ("DirectoryOrCreate", ":", True),
        ("Directory", ":", False),
        ("Directory", "mkdir -p /srv/data", True),
        ("File", "mkdir -p /srv/data", False),
        ("File", "touch /srv/data", True),
        ("", ":", False),
    ],
)
def test_host_paths_by_type(lab: Lab, kind: str, before: str, starts: bool) -> None:
    sh(lab, f"rm -rf /srv/data; {before}")
    volume = {"name": "data", "hostPath": {"path": "/srv/data", "type": kind}}
    mount = {"name": "data", "mountPath": "/data"}
    put(lab, "try.yaml", pod("try", ["sleep", "1000"], volumes=[volume], mounts=[mount]))
    if starts:
        eventually("it runs", lambda: running(lab, "try"))
        return
    eventually("the mount fails", lambda: "FailedMount" in sh(lab, "tail -n 3 /var/log/kubelet.log"))
    assert not containers(lab, "try")
    sh(lab, "rm -rf /srv/data; [ File = " + (kind or "-") + " ] && touch /srv/data || mkdir /srv/data")
    eventually("it is tried again", lambda: running(lab, "try"))


def test_a_container_sees_only_its_volumes_and_has_its_user(lab: Lab) -> None:
    sh(lab, "mkdir -p /srv/elsewhere; echo there > /srv/elsewhere/file; chown 1234 /srv/elsewhere")
    script = "cat /data/file; ls /srv /etc/kubernetes; id -u; id -g; echo written > /data/new; sleep 1000"
    volume = {"name": "data", "hostPath": {"path": "/srv/elsewhere", "type": "Directory"}}
    context = {"runAsUser": 1234, "runAsGroup": 4321}
    mount = {"name": "data", "mountPath": "/data"}
    text = pod("try", ["sh", "-c", script], volumes=[volume], mounts=[mount], securityContext=context)
    put(lab, "try.yaml", text)
    eventually("it wrote through the volume", lambda: "written" in sh(lab, "cat /srv/elsewhere/new || :"))
    said = log(lab, "try")
    assert said.startswith("there\n")
    assert "cannot access '/srv'" in said
    assert "cannot access '/etc/kubernetes'" in said
    assert said.endswith("1234\n4321\n")


def test_etcd_on_another_host_path_is_another_and_empty_member(lab: Lab) -> None:
    """The guide's trap: DirectoryOrCreate makes a wrong path an empty directory, and etcd starts on it."""
    manifest = sh(lab, f"cat {MANIFESTS}/etcd.yaml")
    wrong = manifest.replace("path: /var/lib/etcd\n", "path: /var/lib/etcd-wrong\n")
    assert wrong != manifest
    try:
        put(lab, "etcd.yaml", wrong)
        eventually("it has begun a member there", lambda: sh(lab, "ls /var/lib/etcd-wrong/member 2>/dev/null || :"))
        assert sh(lab, "ls /var/lib/etcd/member") == "snap\nwal\n"
    finally:
        put(lab, "etcd.yaml", manifest)
        lab.wait_healthy(60)
        sh(lab, "rm -rf /var/lib/etcd-wrong")


def test_containers_outlive_the_kubelet_and_a_new_one_takes_them_over(lab: Lab) -> None:
    before = {name: running(lab, name) for name in ("etcd", "kube-apiserver", "kube-scheduler")}
    sh(lab, "systemctl restart kubelet")
    time.sleep(1)
    assert {name: running(lab, name) for name in before} == before
    sh(lab, "systemctl stop kubelet")
    assert lab.exec("m1", ["systemctl", "is-active", "kubelet"]).returncode == 3
    put(lab, "try.yaml", pod("try", ["sleep", "1000"]))
    sh(lab, "crictl stop " + before["kube-scheduler"][0])
    time.sleep(1)
    assert not running(lab, "try")
    assert not running(lab, "kube-scheduler"), "restarted without a kubelet"
    assert running(lab, "etcd") == before["etcd"]
    sh(lab, "systemctl start kubelet")
    eventually("both run", lambda: running(lab, "try") and running(lab, "kube-scheduler"))
    assert running(lab, "etcd") == before["etcd"]


def test_a_kubelet_that_never_saw_an_api_server_deletes_no_pods(lab: Lab) -> None:
    parked = "/root/parked"
    try:
        sh(lab, f"mkdir -p {parked}; mv {MANIFESTS}/kube-apiserver.yaml {parked}/")
        eventually("the API server is gone", lambda: not running(lab, "kube-apiserver"), within=40)
        sh(lab, f"systemctl restart kubelet; mv {MANIFESTS}/kube-scheduler.yaml {parked}/")
        eventually("it says so", lambda: "sources aren't ready yet" in sh(lab, "tail -n 5 /var/log/kubelet.log"))
        time.sleep(1)
        scheduler = running(lab, "kube-scheduler")
        assert scheduler, "deleted although the API server was never seen"
        sh(lab, f"crictl stop -t 5 {scheduler[0]}")
        time.sleep(1)
        assert not running(lab, "kube-scheduler"), "what no manifest names is not started again"
        (box,) = sandboxes(lab, "kube-scheduler")
        assert box["state"] == "SANDBOX_READY", "its sandbox is not taken away either"
        sh(lab, f"crictl stopp {box['id']}")
        assert sandboxes(lab, "kube-scheduler")[0]["state"] == "SANDBOX_NOTREADY"
    finally:
        sh(lab, f"mv {parked}/* {MANIFESTS}/; rmdir {parked}")
        lab.wait_healthy(60)


def test_a_parked_etcd_takes_the_api_server_from_ready(lab: Lab) -> None:
    ready = ["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "--raw", "/readyz?verbose"]
    assert "[+]etcd ok" in lab.exec("m1", ready, check=True).stdout
    try:
        sh(lab, f"mv {MANIFESTS}/etcd.yaml /root/")
        eventually("etcd is gone", lambda: not running(lab, "etcd"), within=40)
        failed = lab.exec("m1", ready)
        assert failed.returncode != 0
        assert "[-]etcd failed" in failed.stdout + failed.stderr
    finally:
        sh(lab, f"mv /root/etcd.yaml {MANIFESTS}/")

"""What a host offers to who logs in: ssh with strict keys, sudo, crictl, systemctl, kubectl, kubeadm's files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook.lab import Lab
from tests.lab.conftest import eventually

pytestmark = pytest.mark.lab


def ssh(lab: Lab, target: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return lab.exec("operator", ["ssh", "-F", str(lab.ssh_config), *options, target, command], timeout=30)


def test_host_keys_are_strict(lab: Lab, tmp_path: Path) -> None:
    for target in ("m1", "cp2", "10.0.1.12"):
        assert ssh(lab, target, "hostname").returncode == 0
    swapped = tmp_path / "known_hosts"
    lines = lab.known_hosts.read_text().splitlines()
    keys = [line.split(" ", 1)[1] for line in lines]
    assert len(set(keys)) == 3, "each host has a key of its own"
    swapped.write_text(f"{lines[0].split(' ', 1)[0]} {keys[1]}\n")
    for option in (f"-oUserKnownHostsFile={swapped}", "-oUserKnownHostsFile=/dev/null"):
        refused = ssh(lab, "m1", "true", option)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr


def test_no_key_no_login(lab: Lab) -> None:
    refused = ssh(lab, "m1", "true", "-oPubkeyAuthentication=no")
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_the_user_has_sudo_and_can_lose_it(lab: Lab) -> None:
    assert ssh(lab, "ops@m1", "id -un; sudo -n id -un").stdout == "ops\nroot\n"
    lab.exec("m1", ["mv", "/etc/sudoers.d/lab", "/root/"], check=True)
    try:
        refused = ssh(lab, "ops@m1", "sudo -n id -un")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "password is required" in refused.stderr
    finally:
        lab.exec("m1", ["mv", "/root/lab", "/etc/sudoers.d/lab"], check=True)


@pytest.mark.parametrize("user", ["root", "ops"])
def test_the_tools_are_there_for_a_login_without_a_terminal(lab: Lab, user: str) -> None:
    names = "etcdctl etcdutl kubectl crictl systemctl sudo openssl ss flock timeout nice ionice sha256sum setsid stat"
    done = ssh(lab, f"{user}@m2", f"for t in {names}; do command -v $t >/dev/null || echo $t; done; etcdutl version")
    assert done.stdout.startswith("etcdutl version: "), done.stdout + done.stderr
    assert "--bump-revision" in ssh(lab, f"{user}@m2", "etcdutl snapshot restore --help").stdout


def test_a_tool_can_be_taken_away_and_comes_back(lab: Lab) -> None:
    lab.exec("m1", ["mv", "/usr/local/bin/etcdutl", "/root/"], check=True)
    try:
        assert ssh(lab, "m1", "etcdutl version").returncode == 127
        assert ssh(lab, "m2", "etcdutl version").returncode == 0, "it was one host's"
    finally:
        lab.exec("m1", ["mv", "/root/etcdutl", "/usr/local/bin/"], check=True)


def test_crictl_prints_what_the_real_one_does(lab: Lab) -> None:
    def crictl(*words: str) -> Any:
        return json.loads(lab.exec("m1", ["crictl", *words], check=True).stdout)

    def running() -> list[Any]:
        found: list[Any] = crictl("ps", "-o", "json")["containers"]
        return found

    def names() -> list[str]:
        return sorted(c["metadata"]["name"] for c in running())

    # A controller that found no API server ends, and its kubelet waits for 10 s or 20 s before it starts it anew.
    four = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    eventually("all four run", lambda: names() == four, within=60)
    found = running()
    etcd = next(c for c in found if c["metadata"]["name"] == "etcd")
    keys = ("id", "podSandboxId", "metadata", "image", "imageRef", "state", "createdAt", "labels", "annotations")
    assert set(etcd) == set(keys)
    assert etcd["state"] == "CONTAINER_RUNNING"
    assert etcd["createdAt"].isdigit()
    assert etcd["labels"]["io.kubernetes.container.name"] == "etcd"
    assert etcd["labels"]["io.kubernetes.pod.name"] == "etcd-m1"
    assert etcd["labels"]["io.kubernetes.pod.namespace"] == "kube-system"
    # The quick answer and the full program's are the same.
    assert crictl("ps", "--name", "", "-o", "json")["containers"] == found
    assert crictl("ps", "--name", "^etcd$", "-o", "json")["containers"] == [etcd]
    assert crictl("ps", "--label", "io.kubernetes.container.name=etcd", "-o", "json")["containers"] == [etcd]
    unknown = lab.exec("m1", ["crictl", "stop", "0123"])
    assert (unknown.returncode, "NotFound" in unknown.stderr) == (1, True)
    assert crictl("images", "-o", "json")["images"]
    assert crictl("inspect", etcd["id"][:13])["info"]["pid"] > 1
    logged = lab.exec("m1", ["crictl", "logs", etcd["id"]], check=True)
    assert ("ready to serve client requests" in logged.stderr, logged.stdout) == (True, "")
    assert len(lab.exec("m1", ["crictl", "logs", "--tail", "2", etcd["id"]]).stderr.splitlines()) == 2
    assert ssh(lab, "ops@m1", "crictl ps -o json").returncode != 0, "the runtime is root's"


QUICK: tuple[tuple[str, ...], ...] = (
    ("ps", "-q"),
    ("ps", "-a", "-q", "--label", "component=etcd"),
    ("ps", "-q", "--label", "io.kubernetes.container.name=etcd", "--label", "io.kubernetes.pod.namespace=kube-system"),
    ("ps", "-a", "-o", "json", "--label", "io.kubernetes.pod.namespace=kube-system"),
    ("pods", "-q", "--state", "ready", "--label", "component=etcd", "--label", "tier=control-plane"),
    ("pods", "-q", "--label", "component=etcd,tier=none"),
    ("pods", "-o", "json"),
    ("pods", "-o", "json", "--label", "io.kubernetes.pod.namespace=none"),
)


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_crictls_quick_answers_are_the_full_programs(lab: Lab, words: tuple[str, ...]) -> None:
    quick = lab.exec("m1", ["crictl", *words], check=True).stdout
    full = lab.exec("m1", ["/opt/runbook-lab/bin/crictl", *words], check=True).stdout
    if "json" in words:
        assert json.loads(quick) == json.loads(full)
    else:
        assert quick == full


def test_crictls_sandboxes(lab: Lab) -> None:
    boxes = json.loads(lab.exec("m1", ["crictl", "pods", "-o", "json"], check=True).stdout)["items"]
    boxes = [b for b in boxes if b["state"] == "SANDBOX_READY"]  # of an earlier test's there may be one more
    names = ["etcd-m1", "kube-apiserver-m1", "kube-controller-manager-m1", "kube-scheduler-m1"]
    assert sorted(b["metadata"]["name"] for b in boxes) == names
    etcd = next(b for b in boxes if b["metadata"]["name"] == "etcd-m1")
    keys = {"id", "metadata", "state", "createdAt", "labels", "annotations", "runtimeHandler"}
    assert set(etcd) == keys
    assert {"component": "etcd", "tier": "control-plane"}.items() <= etcd["labels"].items()
    assert etcd["labels"]["io.kubernetes.pod.namespace"] == etcd["metadata"]["namespace"] == "kube-system"
    running = json.loads(lab.exec("m1", ["crictl", "ps", "-o", "json"], check=True).stdout)["containers"]
    assert {c["podSandboxId"] for c in running} == {b["id"] for b in boxes}
    assert lab.exec("m1", ["crictl", "pods", "--state", "odd"]).returncode == 1
    assert lab.exec("m1", ["crictl", "stopp", "0123"]).returncode == 1
    assert lab.exec("m1", ["crictl", "rmp", etcd["id"]]).returncode == 1, "it is in use"


def test_systemctl_prints_and_exits_as_the_real_one(lab: Lab) -> None:
    def systemctl(*words: str) -> tuple[int, str]:
        done = lab.exec("m1", ["systemctl", *words])
        return done.returncode, done.stdout

    assert systemctl("is-active", "kubelet") == (0, "active\n")
    assert systemctl("is-active", "--quiet", "kubelet.service") == (0, "")
    assert systemctl("is-active", "sshd") == (0, "active\n")
    assert systemctl("is-active", "nothing")[0] == 4
    assert systemctl("restart", "nothing")[0] == 5
    assert systemctl("show", "kubelet", "-p", "ActiveState", "--value") == (0, "active\n")
    pid = systemctl("show", "-p", "MainPID", "kubelet")
    assert systemctl("restart", "kubelet") == (0, "")
    assert systemctl("show", "-p", "MainPID", "kubelet") != pid
    assert systemctl("stop", "kubelet") == (0, "")
    assert systemctl("is-active", "kubelet") == (3, "inactive\n")
    assert systemctl("status", "kubelet")[0] == 3
    assert systemctl("start", "kubelet") == (0, "")
    assert ssh(lab, "ops@m1", "systemctl is-active kubelet").stdout == "active\n"
    assert "authentication required" in ssh(lab, "ops@m1", "systemctl restart kubelet").stderr


def kubectl(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return lab.exec("m3", ["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *words])


def test_kubectl_gets_what_a_restore_looks_at(lab: Lab) -> None:
    def raw(path: str) -> Any:
        done = kubectl(lab, "get", "--raw", path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    nodes = raw("/api/v1/nodes")
    assert [n["metadata"]["name"] for n in nodes["items"]] == ["m1", "m2", "m3"]
    assert int(nodes["metadata"]["resourceVersion"]) > 1
    assert raw("/api/v1/namespaces/default/secrets/known")["kind"] == "Secret"
    assert raw("/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin")["rules"]
    pods = raw("/api/v1/pods")["items"]
    assert {"etcd-m1", "kube-apiserver-m3"} <= {p["metadata"]["name"] for p in pods}
    missing = kubectl(lab, "get", "--raw", "/api/v1/namespaces/default/secrets/none")
    assert missing.returncode == 1
    assert "NotFound" in missing.stderr
    for words in (["nodes"], ["pods", "-A"], ["secrets", "-n", "default"], ["clusterroles"]):
        assert kubectl(lab, "get", *words).returncode == 0
    assert kubectl(lab, "get", "nodes").stdout.count(" Ready ") == 3
    request = (
        "printf 'GET /api/v1/nodes HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect 10.0.1.12:6443 2>/dev/null"
    )
    assert '"reason": "Forbidden"' in lab.exec("m3", ["timeout", "3", "sh", "-c", request]).stdout


def test_objects_are_created_and_removed_through_the_api(lab: Lab) -> None:
    assert kubectl(lab, "create", "secret", "generic", "made", "--from-literal=a=b", "--validate=false").returncode == 0
    assert kubectl(lab, "get", "secret", "made", "-o", "name").stdout == "secret/made\n"
    assert "already exists" in kubectl(lab, "create", "secret", "generic", "made", "--validate=false").stderr
    assert kubectl(lab, "delete", "secret", "made", "--wait=false").returncode == 0


def test_manifests_and_certificates_are_kubeadms(lab: Lab) -> None:
    known: list[str] = []
    for host in lab.nodes:
        known.append(f"{host.name}=https://{host.ip}:2380")
        text = lab.exec(host.name, ["cat", "/etc/kubernetes/manifests/etcd.yaml"], check=True).stdout
        pod = yaml.safe_load(text)
        command = pod["spec"]["containers"][0]["command"]
        assert f"--initial-cluster={','.join(known)}" in command, "as at the time it joined"
        assert ("--initial-cluster-state=existing" in command) == (host.name != "m1")
        data = next(v for v in pod["spec"]["volumes"] if v["name"] == "etcd-data")
        assert data["hostPath"] == {"path": "/var/lib/etcd", "type": "DirectoryOrCreate"}
        listed = lab.exec(host.name, ["ls", "/opt/runbook-lab/etc"]).stdout
        assert listed == "", "the first start's arguments are gone"
        names = lab.exec(
            host.name,
            ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", "/etc/kubernetes/pki/etcd/peer.crt"],
        ).stdout
        assert f"IP Address:{host.ip}" in names
        verify = ["openssl", "verify", "-CAfile", "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/apiserver.crt"]
        lab.exec(host.name, verify, check=True)
    sums = {
        lab.exec(h.name, ["sha256sum", "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/sa.key"]).stdout
        for h in lab.nodes
    }
    assert len(sums) == 1

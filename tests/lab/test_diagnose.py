"""`runbook diagnose` on a cluster without a quorum, full of planted secrets: all is there but them, and in time."""

from __future__ import annotations

import base64
import json
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
import zstandard

from runbook.diagnose.questions import topics
from runbook.lab import Lab
from runbook.planfile import load
from runbook.step import Binding, Target
from tests.lab.conftest import eventually
from tests.lab.kit import Desk

pytestmark = pytest.mark.lab

MANIFESTS = "/etc/kubernetes/manifests"
RUN = "test-20260409t140000z-0a1b"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


PLANTED = {
    "of a Secret in the API": "planted-in-the-api",
    "of a manifest": b64("planted in a secret"),
    "in an environment": "plantedInAnEnvironment01",
    "of a private key": "UExBTlRFRElOQVBSSVZBVEVLRVkw" * 2,
    "of the encryption at rest": b64("planted for encryption 32 bytes!"),
    "a bearer token": "planted.bearer-token_01",
    "in a URL": "plantedInAUrl01",
    "a cloud key": "AKIA" + "PLANTED0PLANTED0",
    "a bootstrap token": "plantd.plantedplanted01",
    "a password in what a restore printed": "plantedInARestore01",
}
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED['of a private key']}\n-----END RSA PRIVATE KEY-----"
LOG = (
    f"{PEM}\nAuthorization: Bearer {PLANTED['a bearer token']}\nhttps://ops:{PLANTED['in a URL']}@10.0.1.10:2379/\n"
    f"used {PLANTED['a cloud key']} and {PLANTED['a bootstrap token']}\nthis line is harmless\n"
)
SECRET = f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  any: {PLANTED['of a manifest']}\n"
ENCRYPTION = (
    "kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aescbc:\n      keys:\n"
    f"      - name: key1\n        secret: {PLANTED['of the encryption at rest']}\n  - identity: {{}}\n"
)


def write(lab: Lab, host: str, path: str, text: str, how: str = ">") -> None:
    lab.exec(host, ["sh", "-c", f'mkdir -p "${{1%/*}}"; printf %s "$2" {how} "$1"', "sh", path, text], check=True)


def plant(lab: Lab, desk: Desk) -> None:
    """A secret of each kind where a host may have one."""
    secret = {"kind": "Secret", "metadata": {"name": "planted"}, "data": {"x": b64(PLANTED["of a Secret in the API"])}}
    desk.put("/registry/secrets/default/planted", json.dumps(secret))
    lab.exec("m1", ["sh", "-c", f"cp -a {MANIFESTS} /root/manifests"], check=True)
    write(lab, "m1", "/etc/kubernetes/enc.yaml", ENCRYPTION)
    read = lab.exec("m1", ["cat", f"{MANIFESTS}/kube-apiserver.yaml"], check=True).stdout
    flag = "    - --encryption-provider-config=/etc/kubernetes/enc.yaml\n    - --etcd-cafile="
    assert "    - --etcd-cafile=" in read
    write(lab, "m1", "/root/kube-apiserver.yaml", read.replace("    - --etcd-cafile=", flag))
    pod = yaml.safe_load(lab.exec("m1", ["cat", f"{MANIFESTS}/kube-scheduler.yaml"], check=True).stdout)
    pod["spec"]["containers"][0]["env"] = [{"name": "SOMETHING", "value": PLANTED["in an environment"]}]
    write(lab, "m1", "/root/kube-scheduler.yaml", yaml.safe_dump(pod))
    lab.exec("m1", ["sh", "-c", f"mv /root/kube-*.yaml {MANIFESTS}/"], check=True)
    write(lab, "m1", f"{MANIFESTS}/.secret.yaml", SECRET)
    lab.exec("m1", ["cp", "/etc/kubernetes/admin.conf", f"{MANIFESTS}/.admin.conf"], check=True)
    write(lab, "m1", "/var/log/kubelet.log", LOG, ">>")
    newest = "ls -t /var/log/pods/kube-system_etcd-m1_*/etcd/*.log | head -n 1"  # seldom the highest number
    write(lab, "m1", lab.exec("m1", ["sh", "-c", newest], check=True).stdout.strip(), LOG, ">>")
    base = f"/var/lib/etcd-runbook/{RUN}/commands/RestoreAside.do.1.0"
    write(lab, "m1", f"{base}.intent", '{"action": "etcdutl snapshot restore"}\n')
    write(lab, "m1", f"{base}.err", f"Error: disk full\npassword={PLANTED['a password in what a restore printed']}\n")
    write(lab, "m1", f"{base}.rc", "1\n")


@pytest.fixture
def desk(lab: Lab, tmp_path: Path) -> Iterator[Desk]:
    """A responder; what was planted is taken away again."""
    made = Desk(lab, tmp_path)
    made.write_plan()
    yield made
    if lab.host_pid("m3") is None:
        lab.boot("m3")
    back = (
        f"rm -rf {MANIFESTS}/.secret.yaml {MANIFESTS}/.admin.conf /var/lib/etcd-runbook/{RUN} /etc/kubernetes/enc.yaml"
    )
    lab.exec("m1", ["sh", "-c", f"[ ! -d /root/manifests ] || mv /root/manifests/*.yaml {MANIFESTS}/; {back}"])
    lab.exec("m2", ["sh", "-c", f"[ ! -f /root/etcd.yaml ] || mv /root/etcd.yaml {MANIFESTS}/"])


def changed(lab: Lab) -> str:
    """What a question may not alter: files by name, size and time, but what the cluster itself writes."""
    text = "cd / && find etc/kubernetes var/lib/etcd-runbook root -printf '%p %s %T@ %m\\n' | sort"
    return lab.exec("m1", ["sh", "-c", text], check=True).stdout


def diagnosed(lab: Lab, desk: Desk, name: str) -> tuple[dict[str, str], str]:
    """The archive's files, and all that was printed; in time, and without a change on the first host."""
    before, began = changed(lab), time.monotonic()
    done = desk.runbook("diagnose", desk.plan, "-o", desk.home / f"{name}.tar.zst")
    seconds = time.monotonic() - began
    print(f"\ndiagnose, {name}: {seconds:.1f} s")
    assert seconds < 60
    assert changed(lab) == before, "a question changed something"
    with zstandard.open(desk.home / f"{name}.tar.zst", "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        files = {m.name.removeprefix(f"{name}/"): tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]
    return files, done.stdout + done.stderr


def test_healthy(lab: Lab, desk: Desk) -> None:
    files, said = diagnosed(lab, desk, "healthy")
    assert "Missing:       nothing\n" in said
    assert "Masked:        nothing was found to mask\n" in said
    for host in ("m1", "m2", "m3"):
        assert re.search(rf"\n{host} +Ready ", files[f"hosts/{host}/kubernetes.txt"])
        assert "gitVersion" in files[f"hosts/{host}/kubernetes.txt"]
        assert "readyz check passed" in files[f"hosts/{host}/kubernetes.txt"]
        assert files[f"hosts/{host}/etcd-status.txt"].count(":2379 |") == 3
        assert files[f"hosts/{host}/etcd-members.txt"].count(" started ") == 3
        assert "[no output]" in files[f"hosts/{host}/etcd-alarms.txt"]
        assert "is not configured" in files[f"hosts/{host}/encryption.txt"]


def test_half_dead_and_full_of_secrets(lab: Lab, desk: Desk) -> None:
    plant(lab, desk)
    lab.crash("m3")
    lab.exec("m2", ["sh", "-c", f"mv {MANIFESTS}/etcd.yaml /root/"], check=True)
    # m2's etcd is given its grace, and m1 an election or two, before it knows that it is alone
    eventually("m1 has no leader", lambda: "no leader" in desk.etcdctl("m1", "endpoint", "status", "-w", "json"), 60)
    files, said = diagnosed(lab, desk, "half dead")
    everything = "\n".join(files.values()) + said
    for kind, secret in PLANTED.items():
        assert secret not in everything, kind
        assert b64(secret) not in everything, kind
    conf = lab.exec("m1", ["cat", "/etc/kubernetes/admin.conf"], check=True).stdout
    key = re.search(r"client-key-data: (\S+)", conf)
    assert key
    assert key[1][:60] not in everything
    assert "PRIVATE KEY--" not in everything

    plan = load(desk.plan)
    for node in plan.nodes[:2]:
        for topic in topics(Target(plan, Binding(), node)):
            assert files[f"hosts/{node.name}/{topic.name}.txt"].startswith("# command:    "), topic.name
    assert [name for name in files if "/m3/" in name] == ["hosts/m3/no-answer.txt"]
    m1 = {name.split("/")[-1]: text for name, text in files.items() if "/m1/" in name}
    for name, words in {
        "etcd-log.txt": ["this line is harmless", '"msg":"', "a private key"],
        "kubelet-log.txt": ["this line is harmless", "https://ops:•••@10.0.1.10:2379/"],
        "manifests.txt": ["--initial-advertise-peer-urls=https://10.0.1.10:2380", "name: SOMETHING", "kind: Secret"],
        "encryption.txt": ["aescbc", "name: key1", "identity"],
        "restore.txt": ["RestoreAside.do.1.0", "Error: disk full", "its exit code: 1"],
        "etcd-status.txt": ["https://10.0.1.10:2379", "no leader"],
        "etcd-members.txt": ["context deadline exceeded", '"peerURLs":["https://10.0.1.12:2380"]'],
        "versions.txt": ["etcdutl version: 3."],
        "listeners.txt": [":2380"],
        "containers.txt": ["kube-apiserver"],
        "kubernetes.txt": ["/dev/null get --raw /readyz?verbose"],
    }.items():
        for word in words:
            assert word in m1[name], (name, word)
    assert "etcd" in files["hosts/m2/etcd-log.txt"], "an exited container's log"
    assert "Exited" in files["hosts/m2/containers.txt"]

    manifest = json.loads(files["MANIFEST.json"])
    assert {h: told["answered"] for h, told in manifest["hosts"].items()} == {"m1": True, "m2": True, "m3": False}
    assert manifest["masked"]["private key"] >= 3
    assert manifest["masked"]["Secret data"] == 1
    assert "m3" in said
    assert "2 of 3 hosts" in said

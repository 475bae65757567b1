"""The rendered CronJob, its containers run by hand on a host with a real etcd: saved, proven, stored, pruned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
import zstandard

from runbook.lab import Lab
from runbook.planfile import load_backup
from runbook.snapshots.schedule import render
from runbook.x509 import certificate
from tests.lab.kit import Desk
from tests.lab.podkit import Pod, image_with_runbook

pytestmark = pytest.mark.lab
STORE = "/mnt/backups"
STEPS = ["save", "hand-over", "status", "verify", "push"]


@pytest.fixture
def identity() -> Any:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def pod(fresh_lab: Callable[..., Lab], identity: Any, tmp_path: Path) -> Pod:
    """The pod of a plan as a user writes it, as it is rendered for the etcd that the host really has."""
    lab = fresh_lab(nodes=1)
    m1 = lab.nodes[0]
    version = lab.exec(m1.name, ["etcdctl", "version"], check=True).stdout.split()[2]
    plan = {
        "store": {"url": f"file://{STORE}"},
        "encrypt": {"recipients": [str(identity.to_public())]},
        "keep": {"last": 2, "daily": 0, "weekly": 0, "monthly": 0},
        "schedule": {"image": "runbook:test", "etcdImage": f"registry.k8s.io/etcd:{version}-0"},
        "nodes": [{"name": m1.name, "host": m1.ip, "peerURLs": [f"https://{m1.ip}:2380"]}],
    }
    file = tmp_path / "backup.yaml"
    document = {"apiVersion": "runbook/v1", "kind": "EtcdBackup", "metadata": {"name": "lab"}, "spec": plan}
    file.write_text(yaml.safe_dump(document))
    config, cronjob = yaml.safe_load_all(render(load_backup(file)[0], "cronjob"))
    made = Pod(lab, m1.name, config, cronjob, image_with_runbook(lab, m1.name))
    user = made.spec["securityContext"]["runAsUser"]
    lab.exec(m1.name, ["install", "-d", "-m", "700", "-o", str(user), STORE], check=True)
    made.begin()
    return made


def stored(pod: Pod) -> list[str]:
    return pod.lab.exec(pod.host, ["ls", "-A", STORE], check=True).stdout.split()


def test_by_hand_from_etcd_to_the_store(pod: Pod, identity: Any, tmp_path: Path) -> None:
    desk = Desk(pod.lab, tmp_path)
    desk.put("era", "kept")
    assert list(pod.containers) == STEPS
    before = desk.revision(pod.host)
    said = {}
    for step in STEPS:
        done = pod.run(step)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"
        said[step] = done.stdout
    assert json.loads(said["status"])["revision"] >= before
    name, beside = sorted(stored(pod), key=len)
    assert beside == f"{name}.json"
    sidecar = json.loads(pod.lab.exec(pod.host, ["cat", f"{STORE}/{beside}"], check=True).stdout)
    assert sidecar["cluster"] == "lab"
    assert sidecar["verified"]
    assert sidecar["revision"] >= before
    assert sidecar["member"] == pod.host
    assert sidecar["etcd"] == desk.etcdctl(pod.host, "version").split()[2]
    pem = desk.lab.exec(pod.host, ["cat", "/etc/kubernetes/pki/etcd/ca.crt"], check=True).stdout
    assert sidecar["fingerprints"]["etcd/ca.crt"] == certificate(pem).fingerprint
    assert sidecar["stored"]["recipients"] == [str(identity.to_public())]
    modes = pod.lab.exec(pod.host, ["stat", "-c", "%a %u", f"{STORE}/{name}"], check=True).stdout
    assert modes == "600 65532\n"
    work = pod.lab.exec(pod.host, ["stat", "-c", "%a %u %g %n", f"{pod.home}/work/snapshot.db"], check=True).stdout
    assert work.startswith("640 0 65532 ")
    sealed = pod.lab.exec_bytes(pod.host, ["cat", f"{STORE}/{name}"]).stdout
    assert b"era" not in sealed
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(pyrage.decrypt(sealed, [identity]))
    assert hashlib.sha256(plain).hexdigest() == sidecar["sha256"]
    assert b"era" in plain


def test_old_ones_go_and_a_failed_push_lets_none_go(pod: Pod) -> None:
    for _ in range(3):
        pod.begin()
        assert not [step for step in STEPS if pod.run(step).returncode]
    kept = stored(pod)
    assert len([name for name in kept if name.endswith(".json")]) == 2
    assert len(kept) == 4
    pod.begin()
    assert not [step for step in STEPS[:-1] if pod.run(step).returncode]
    pod.lab.exec(pod.host, ["chmod", "500", STORE], check=True)
    pod.containers["push"]["args"][0] += "echo pruned\n"
    done = pod.run("push")
    assert done.returncode not in (0, 1)
    assert "Permission denied" in done.stderr
    assert "pruned" not in done.stdout
    assert stored(pod) == kept


def test_what_is_damaged_is_not_stored(pod: Pod) -> None:
    """Even then etcd's own tool reads it; what tells is the checksum at the end of the file."""
    assert not [step for step in STEPS[:2] if pod.run(step).returncode]
    flip = "f=$1/work/snapshot.db; printf '\\377' | dd of=$f bs=1 conv=notrunc seek=$(($(stat -c %s $f) - 5000)) 2>&1"
    pod.lab.exec(pod.host, ["sh", "-euc", flip, "sh", pod.home], check=True)
    assert pod.run("status").returncode == 0
    done = pod.run("verify")
    assert done.returncode == 3
    assert "sha256" in done.stderr.lower() or "checksum" in done.stderr.lower()
    assert pod.run("push").returncode == 3  # it would not be stored, even if it came so far
    assert stored(pod) == []


def test_the_rights_are_the_least_that_do(pod: Pod) -> None:
    """Without root the key cannot be read, without the hand-over the snapshot cannot; root has no other right."""
    user = pod.spec["securityContext"]["runAsUser"]
    refused = pod.run("save", runAsUser=user)
    assert refused.returncode != 0
    assert "permission denied" in refused.stderr
    assert pod.run("save").returncode == 0
    assert pod.run("status").returncode != 0
    assert pod.run("hand-over").returncode == 0
    assert pod.run("status").returncode == 0
    pod.containers["hand-over"]["command"] = ["sh", "-c", "grep CapEff /proc/self/status; touch /etc/x /tmp/x"]
    done = pod.run("hand-over")
    assert done.stdout == "CapEff:\t0000000000000000\n"
    assert done.stderr.count("Read-only file system") == 2


def test_a_store_that_is_not_mounted_is_not_made(pod: Pod) -> None:
    pod.lab.exec(pod.host, ["rmdir", STORE], check=True)
    assert not [step for step in STEPS[:-1] if pod.run(step).returncode]
    assert pod.run("push").returncode != 0
    assert pod.lab.exec(pod.host, ["test", "-e", STORE]).returncode == 1


def test_nothing_is_left_where_the_pod_was(pod: Pod) -> None:
    look = ["find", "/var", "/tmp", "/run", "/work", "-name", "snapshot.db*"]
    assert not [step for step in STEPS if pod.run(step).returncode]
    assert pod.lab.exec(pod.host, look).stdout == f"{pod.home}/work/snapshot.db\n"
    pod.end()
    assert pod.lab.exec(pod.host, look).stdout == ""

"""`runbook snapshot save` and its kin on a real control plane, with everything that goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook.lab import Lab
from runbook.snapshots.content import read
from runbook.snapshots.metrics import read as read_metrics
from tests.lab.conftest import eventually, make_whole
from tests.lab.kit import Desk

pytestmark = pytest.mark.lab
WORKSPACE = "/var/lib/etcd-runbook/snapshots"


class Keeper(Desk):
    """A responder with a backup plan."""

    @property
    def backup(self) -> Path:
        return self.home / "backup.yaml"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def identity(self) -> Path:
        return self.home / "identity.txt"

    def write_backup(self, **changes: Any) -> Path:
        import pyrage

        identity = pyrage.x25519.Identity.generate()
        self.identity.write_text(f"{identity}\n")
        nodes = [{"name": h.name, "host": h.ip, "peerURLs": [f"https://{h.ip}:2380"]} for h in self.lab.nodes]
        spec: dict[str, Any] = {
            "store": {"url": f"file://{self.store}"},
            "encrypt": {"recipients": [str(identity.to_public())]},
            "nodes": nodes,
            "ssh": {"identityFile": str(self.lab.identity), "knownHostsFile": str(self.lab.known_hosts)},
        }
        spec |= changes
        document = {"apiVersion": "runbook/v1", "kind": "EtcdBackup", "metadata": {"name": "test"}, "spec": spec}
        self.backup.write_text(yaml.safe_dump(document, sort_keys=False))
        return self.backup

    def save(self, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.runbook("snapshot", "save", self.backup, "--output", "json", code=code)

    def saved(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.save().stdout)
        return document

    def listed(self) -> dict[str, Any]:
        done = self.runbook("snapshot", "list", self.backup, "--output", "json")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def stored(self) -> list[str]:
        return sorted(os.listdir(self.store))

    def left_on_hosts(self) -> dict[str, list[str]]:
        """What lies where snapshots are taken, but for the lock and who had it last."""
        found = {}
        for host in self.lab.nodes:
            names = self.lab.exec(host.name, ["sh", "-c", f"ls -A {WORKSPACE} 2>/dev/null"]).stdout.split()
            found[host.name] = [n for n in names if n not in ("lock", "who")]
        return found

    def nothing_left(self) -> None:
        assert not any(self.left_on_hosts().values())
        assert all(not self.lab.exec(h.name, ["pgrep", "-f", "snapshot save"]).stdout.strip() for h in self.lab.nodes)


@pytest.fixture
def desk(lab: Lab, tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(lab, tmp_path)
    keeper.store.mkdir(mode=0o700)
    keeper.write_backup()
    yield keeper
    keeper.nothing_left()


def leader(desk: Keeper) -> str:
    for host in desk.lab.nodes:
        status = json.loads(desk.etcdctl(host.name, "endpoint", "status", "-w", "json"))[0]["Status"]
        if status["leader"] == status["header"]["member_id"]:
            return host.name
    raise AssertionError("no leader")


def test_it_is_taken_proven_sealed_and_told_of(desk: Keeper) -> None:
    told = desk.saved()
    assert desk.stored() == [told["name"], told["name"] + ".json"]
    assert told["member"] != leader(desk)
    assert told["verified"]
    assert told["name"].startswith("test-")
    assert told["name"].endswith(".db.zst.age")
    assert all(os.stat(desk.store / n).st_mode & 0o077 == 0 for n in desk.stored())
    assert b"kubernetes" not in (desk.store / told["name"]).read_bytes()
    plain = desk.home / "plain.db"
    asked = desk.runbook(
        "snapshot", "fetch", f"file://{desk.store}?latest=verified", "-o", plain, "--identity-file", desk.identity
    )
    assert str(plain) in asked.stdout
    assert plain.stat().st_mode & 0o777 == 0o600
    content = read(plain)
    assert content.revision == told["revision"]
    kinds = {k: n for k, n in content.kinds.items() if k != "other"}
    assert kinds == told["kinds"]
    assert content.cluster_version.rpartition(".")[0] in told["etcd"]
    assert {m.name for m in content.members} == {h.name for h in desk.lab.nodes}
    assert set(told["fingerprints"]) == {"etcd/ca.crt", "ca.crt", "front-proxy-ca.crt"}
    assert told["kubernetes"].startswith("v1.")


def test_the_list_says_what_is_there_the_newest_good_one_first(desk: Keeper) -> None:
    first, second = desk.saved(), desk.saved()
    (desk.store / "foreign.txt").write_text("not ours")
    (desk.store / f"{first['name']}.json").unlink()
    document = desk.listed()
    assert document["newest"] == second["name"]
    assert [s["name"] for s in document["snapshots"]] == [second["name"], first["name"]]
    assert [s["good"] for s in document["snapshots"]] == [True, False]
    assert document["foreign"] == ["foreign.txt"]
    text = desk.runbook("snapshot", "list", desk.backup).stdout
    assert text.splitlines()[1].startswith("+")
    assert "has no sidecar" in text


def test_old_ones_go_as_the_plan_says(desk: Keeper) -> None:
    desk.write_backup(keep={"last": 2, "daily": 0, "weekly": 0, "monthly": 0})
    (desk.store / "foreign-20200101t000000z-abcd.db").write_text("not ours")
    names = [desk.saved()["name"] for _ in range(3)]
    assert [n for n in names if n in desk.stored()] == names[1:]
    assert "foreign-20200101t000000z-abcd.db" in desk.stored()
    desk.write_backup(keep={"last": 1, "daily": 0, "weekly": 0, "monthly": 0})
    before = desk.stored()
    dry = desk.runbook("snapshot", "prune", desk.backup, "--dry-run")
    assert names[1] in dry.stdout
    assert desk.stored() == before
    desk.runbook("snapshot", "prune", desk.backup, code=2)
    assert desk.stored() == before
    desk.runbook("snapshot", "prune", desk.backup, "--yes")
    assert [n for n in names if n in desk.stored()] == names[2:]


def test_a_host_that_is_away_is_told_of_and_another_one_serves(desk: Keeper) -> None:
    follower = next(h.name for h in desk.lab.nodes if h.name != leader(desk))
    desk.lab.unplug(follower)
    done = desk.save()
    told = json.loads(done.stdout)
    assert told["member"] != follower
    assert any(w.startswith(f"{follower}: ") for w in told["warnings"])
    desk.lab.plug(follower)


def test_nobody_answers(desk: Keeper) -> None:
    for host in desk.lab.nodes:
        desk.lab.unplug(host.name)
    done = desk.save(code=3)
    assert "no member of test can give a snapshot" in done.stderr
    for host in desk.lab.nodes:
        assert f"{host.name} ({host.ip}): " in done.stderr
        desk.lab.plug(host.name)
    assert desk.stored() == []


def test_without_a_quorum_nothing_is_taken(desk: Keeper) -> None:
    for host in desk.lab.nodes[:2]:
        desk.lab.crash(host.name)
    done = desk.save(code=3)
    assert "it is not healthy" in done.stderr
    make_whole(desk.lab)
    assert desk.stored() == []


def test_an_expired_certificate_is_named_with_its_renewal(desk: Keeper) -> None:
    crt = "/etc/kubernetes/pki/etcd/server.crt"
    old = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=x"
    for host in desk.lab.nodes:
        text = f"cp -a {crt} {crt}.kept && {old} -not_before 20200101000000Z -not_after 20210101000000Z -out {crt}"
        done = desk.lab.exec(host.name, ["sh", "-c", text])
        if done.returncode:  # an openssl before 3.4 has no such options
            _expire_by_library(desk.lab, host.name, crt)
    try:
        done_ = desk.save(code=3)
    finally:
        for host in desk.lab.nodes:
            desk.lab.exec(host.name, ["sh", "-c", f"mv {crt}.kept {crt}"], check=True)
    assert "has expired on 2021-01-01" in done_.stderr
    assert "kubeadm certs renew etcd-server" in done_.stderr
    assert desk.stored() == []


def _expire_by_library(lab: Lab, host: str, path: str) -> None:
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    made = made.not_valid_after(datetime(2021, 1, 1, tzinfo=UTC))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    lab.exec(host, ["sh", "-c", 'printf %s "$1" > "$2"', "sh", pem, path], check=True)


def test_a_restore_that_is_under_way_is_not_saved(desk: Keeper) -> None:
    lock = '{"run": "prod-20260101t000000z-abcd", "holder": "ops@desk", "since": "2026-01-01T00:00:00Z"}'
    text = f"printf '%s\\n' '{lock}' > /var/lib/etcd-runbook.lock"
    desk.lab.exec("m2", ["sh", "-c", text], check=True)
    done = desk.save(code=6)
    desk.lab.exec("m2", ["rm", "/var/lib/etcd-runbook.lock"], check=True)
    assert "is held by the run prod-20260101t000000z-abcd, of ops@desk" in done.stderr
    assert desk.stored() == []


def test_the_store_is_asked_before_any_host(desk: Keeper) -> None:
    desk.store.rmdir()
    done = desk.save(code=3)
    assert "make the directory, or mount it" in done.stderr
    assert "asking" not in done.stderr
    desk.store.mkdir(mode=0o700)


@pytest.mark.parametrize(("options", "says"), [("ro", "Read-only file system"), ("size=256k", "No space left")])
def test_a_store_that_takes_nothing_is_found_out_before_any_host_has_work(
    desk: Keeper, options: str, says: str
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(desk.store)], check=True)
    try:
        done = desk.save(code=3)
        assert desk.stored() == []
    finally:
        subprocess.run(["umount", str(desk.store)], check=True)
    assert f"cannot write into file://{desk.store}: {says}" in done.stderr
    assert "asking" not in done.stderr


@pytest.mark.parametrize(("options", "says"), [("ro", "Read-only file system"), ("size=256k", "No space left")])
def test_a_node_that_takes_nothing_is_found_out_before_any_host_has_work(desk: Keeper, options: str, says: str) -> None:
    desk.write_backup(store={"url": "host://m3/var/lib/backups"})
    text = f"mkdir -p /var/lib/backups && mount -t tmpfs -o {options} none /var/lib/backups"
    desk.lab.exec("m3", ["sh", "-c", text], check=True)
    try:
        done = desk.save(code=3)
        assert desk.lab.exec("m3", ["ls", "-A", "/var/lib/backups"], check=True).stdout == ""
    finally:
        desk.lab.exec("m3", ["sh", "-c", "umount /var/lib/backups && rm -r /var/lib/backups"], check=True)
    assert "cannot write into host://m3/var/lib/backups: " in done.stderr
    assert says in done.stderr
    assert "asking" not in done.stderr


def test_a_full_disk_on_the_host(desk: Keeper) -> None:
    """A disk of 1 MiB in the workspace's place, on every host."""
    for host in desk.lab.nodes:
        text = f"mkdir -p {WORKSPACE} && mount -t tmpfs -o size=1m tmpfs {WORKSPACE}"
        desk.lab.exec(host.name, ["sh", "-c", text], check=True)
    done = desk.save(code=3)
    for host in desk.lab.nodes:
        desk.lab.exec(host.name, ["umount", WORKSPACE], check=True)
    assert "MiB are free in" in done.stderr
    assert desk.stored() == []


SLOW = """\
#!/bin/sh
case "$*" in *"snapshot save"*) sleep 4 ;; esac
exec /usr/bin/env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin etcdctl "$@"
"""


@pytest.fixture
def slow(desk: Keeper) -> Keeper:
    """Hosts whose etcdctl takes four seconds more for a snapshot."""
    for host in desk.lab.nodes:
        text = 'printf %s "$1" > /var/lib/slow-etcdctl && chmod 755 /var/lib/slow-etcdctl'
        desk.lab.exec(host.name, ["sh", "-c", text, "sh", SLOW], check=True)
    desk.write_backup(tools={"etcdctl": "/var/lib/slow-etcdctl"})
    return desk


def taking(desk: Keeper) -> bool:
    return any(any(n.endswith(".taking") for n in names) for names in desk.left_on_hosts().values())


def test_two_at_once(slow: Keeper) -> None:
    first = slow.popen("snapshot", "save", slow.backup)
    eventually("it is taken", lambda: taking(slow))
    second = slow.save(code=6)
    assert "another snapshot is being taken here" in second.stderr
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert len(slow.stored()) == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whoever_is_killed_leaves_nothing_on_the_host(slow: Keeper, how: signal.Signals) -> None:
    process = slow.popen("snapshot", "save", slow.backup)
    eventually("it is taken", lambda: taking(slow))
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode in (-how, 130)
    eventually("it is gone from the hosts", lambda: not any(slow.left_on_hosts().values()), within=15)
    assert [n for n in slow.stored() if not n.endswith(".part")] == []


def test_what_a_power_cut_leaves_goes_with_the_next_one(desk: Keeper) -> None:
    for host in desk.lab.nodes:
        text = f"mkdir -p {WORKSPACE}/test-1.taking && echo secret > {WORKSPACE}/test-1.taking/snapshot.db"
        desk.lab.exec(host.name, ["sh", "-c", text], check=True)
    member = desk.saved()["member"]
    assert desk.left_on_hosts()[member] == []
    for host in desk.lab.nodes:
        desk.lab.exec(host.name, ["sh", "-c", f"rm -rf {WORKSPACE}/*.taking"], check=True)


def test_the_host_dies_while_it_sends(slow: Keeper) -> None:
    process = slow.popen("snapshot", "save", slow.backup)
    eventually("it is taken", lambda: taking(slow))
    member = next(n for n, names in slow.left_on_hosts().items() if names)
    slow.lab.crash(member)
    _, err = process.communicate(timeout=120)
    make_whole(slow.lab)
    assert process.returncode == 3, err
    assert "no snapshot was stored" in err
    assert [n for n in slow.stored() if not n.endswith(".part")] == []
    slow.lab.exec(member, ["sh", "-c", f"rm -rf {WORKSPACE}/*.taking"], check=True)


NOWHERE = {"etcdctl": "/nowhere/etcdctl", "etcdutl": "/nowhere/etcdutl"}


@pytest.fixture
def toolbox(desk: Keeper) -> Path:
    """A directory with both programs, of a responder whose hosts have none, as kubeadm leaves them."""
    home = desk.home / "tools"
    home.mkdir()
    for name in ("etcdctl", "etcdutl"):
        own = desk.lab.exec("m1", ["sh", "-c", f"command -v {name}"], check=True).stdout.strip()
        (home / name).write_bytes(desk.lab.exec_bytes("m1", ["cat", own]).stdout)
        (home / name).chmod(0o755)
    desk.write_backup(tools=NOWHERE | {"upload": "tools"})
    return home


def test_hosts_without_etcds_programs_are_brought_them(desk: Keeper, toolbox: Path) -> None:
    desk.write_backup(tools=NOWHERE)
    done = desk.save(code=3)
    assert "it has no /nowhere/etcdctl and no /nowhere/etcdutl" in done.stderr
    assert "spec.tools.upload" in done.stderr
    desk.write_backup(tools=NOWHERE | {"upload": "tools"})
    told = desk.saved()
    assert told["warnings"] == []
    assert told["kinds"]["nodes"] == len(desk.lab.nodes)
    assert told["revision"] > 0
    desk.nothing_left()


def test_what_is_to_be_brought_is_not_there_or_does_not_run_there(desk: Keeper, toolbox: Path) -> None:
    (toolbox / "etcdutl").write_text("#!/bin/sh\necho not of this kind >&2\nexit 126\n")
    done = desk.save(code=3)
    assert "the etcdutl that was brought does not run here: not of this kind" in done.stderr
    desk.nothing_left()
    (toolbox / "etcdutl").unlink()
    done = desk.save(code=3)
    assert f"spec.tools.upload: {toolbox}/etcdutl: No such file or directory" in done.stderr
    assert "asking" not in done.stderr
    assert desk.stored() == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_whoever_is_killed_while_it_brings_them_leaves_nothing(
    desk: Keeper, toolbox: Path, how: signal.Signals
) -> None:
    with (toolbox / "etcdctl").open("ab") as file:
        file.truncate(1 << 30)  # a program may have anything behind its end
    process = desk.popen("snapshot", "save", desk.backup)
    eventually("it is brought", lambda: taking(desk))
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode in (-how, 130)
    eventually("it is gone from the hosts", lambda: not any(desk.left_on_hosts().values()), within=15)
    assert desk.stored() == []


def test_a_failure_that_no_alert_hears_of_is_told_too(desk: Keeper) -> None:
    desk.write_backup(
        metrics=str(desk.home / "gone"), nodes=[{"name": "m1", "host": "m9", "peerURLs": ["https://m9:2380"]}]
    )
    done = desk.save(code=3)
    assert "no member of test can give a snapshot" in done.stderr
    assert f"warning: no alert hears of this: spec.metrics, {desk.home / 'gone'}: No such file" in done.stderr


def test_metrics_are_written_also_where_it_fails(desk: Keeper) -> None:
    metrics = desk.home / "metrics"
    metrics.mkdir()
    desk.write_backup(metrics=str(metrics))
    told = desk.saved()
    text = (metrics / "runbook_snapshot_test.prom").read_text()
    assert f'runbook_snapshot_revision{{cluster="test"}} {told["revision"]}\n' in text
    assert 'runbook_snapshot_last_run_success{cluster="test"} 1\n' in text
    fresh = read_metrics(metrics / "runbook_snapshot_test.prom")["age_seconds"]
    time.sleep(1.1)
    for host in desk.lab.nodes:
        desk.lab.unplug(host.name)
    desk.save(code=3)
    for host in desk.lab.nodes:
        desk.lab.plug(host.name)
    after = (metrics / "runbook_snapshot_test.prom").read_text()
    assert 'runbook_snapshot_last_run_success{cluster="test"} 0\n' in after
    assert f'runbook_snapshot_revision{{cluster="test"}} {told["revision"]}\n' in after
    assert read_metrics(metrics / "runbook_snapshot_test.prom")["age_seconds"] > fresh + 1


def test_a_directory_of_a_node_is_a_store_too(desk: Keeper) -> None:
    desk.write_backup(store={"url": "host://m3/var/lib/backups"})
    done = desk.save(code=3)
    assert "mkdir -m 700 /var/lib/backups" in done.stderr
    desk.lab.exec("m3", ["mkdir", "-m", "700", "/var/lib/backups"], check=True)
    try:
        told = desk.saved()
        there = desk.lab.exec("m3", ["ls", "-lA", "/var/lib/backups"], check=True).stdout
        assert told["name"] in there
        assert f"{told['name']}.json" in there
        assert ".part" not in there
        assert all(line.startswith("-rw-------") for line in there.splitlines() if told["name"] in line)
        assert desk.listed()["newest"] == told["name"]
        first = told["name"]
        desk.write_backup(
            store={"url": "host://m3/var/lib/backups"}, keep={"last": 1, "daily": 0, "weekly": 0, "monthly": 0}
        )
        second = desk.saved()
        assert first in second["pruned"]
        assert [s["name"] for s in desk.listed()["snapshots"]] == [second["name"]]
    finally:
        desk.lab.exec("m3", ["rm", "-rf", "/var/lib/backups"], check=True)


def test_a_damaged_snapshot_is_found_out_wherever_it_lies(desk: Keeper) -> None:
    told = desk.saved()
    url = f"file://{desk.store}/{told['name']}"
    good = desk.runbook("snapshot", "verify", url, "--identity-file", desk.identity)
    assert "its sidecar says the same" in good.stdout
    path = desk.store / told["name"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    desk.runbook("snapshot", "verify", url, "--identity-file", desk.identity, code=3)
    path.write_bytes(data[:-100])
    desk.runbook("snapshot", "verify", url, "--identity-file", desk.identity, code=3)
    assert not desk.listed()["snapshots"][0]["good"]
    missing = desk.runbook("snapshot", "verify", url, code=3)
    assert "no identity was given" in missing.stderr


def test_a_plain_file_is_pushed_once_it_is_proven(desk: Keeper) -> None:
    desk.lab.snapshot(desk.snapshot)
    made = json.loads(desk.runbook("snapshot", "push", desk.snapshot, desk.backup, "--output", "json").stdout)
    assert desk.listed()["newest"] == made["name"]
    again = desk.home / "again.db"
    desk.runbook(
        "snapshot", "fetch", f"file://{desk.store}/{made['name']}", "-o", again, "--identity-file", desk.identity
    )
    assert again.read_bytes() == desk.snapshot.read_bytes()
    desk.runbook("snapshot", "fetch", f"file://{desk.store}/{made['name']}", "-o", again, code=2)
    data = bytearray(desk.snapshot.read_bytes())
    data[5000] ^= 1
    desk.snapshot.write_bytes(data)
    before = desk.stored()
    refused = desk.runbook("snapshot", "push", desk.snapshot, desk.backup, code=3)
    assert "its checksum is wrong" in refused.stderr
    assert desk.stored() == before

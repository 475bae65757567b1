"""``runbook init`` as it is typed: what is refused before anything is asked, what is written, the exit codes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click.testing
import pytest
import yaml
from click.testing import CliRunner

from runbook import hosts as real_hosts
from runbook import planfile
from runbook.cli import cli
from runbook.errors import bare
from runbook.plan import Place
from runbook.step import Target
from runbook.transport import Claim
from tests.unit.checks_world import DB
from tests.unit.init_world import Machine, Machines, cluster
from tests.unit.store_kit import PUBLIC, Shelf

ALL = [w for ip in ("10.0.1.10", "10.0.1.11", "10.0.1.12") for w in ("--host", f"root@{ip}")]


class Desk:
    """A responder: machines that answer, files, and what was asked."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.machines = cluster()
        self.asked: list[Target] = []
        self.key, self.known, self.out = home / "key", home / "known_hosts", home / "plan.yaml"
        self.key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        self.known.touch()
        shutil.copy(DB, home / "etcd.db")
        (home / "etcd.db").chmod(0o600)
        monkeypatch.setattr(real_hosts, "connect", self.connect)
        monkeypatch.chdir(home)

    def connect(self, targets: Sequence[Target], claim: Claim) -> Machines:
        assert claim == Claim(0)
        self.asked = list(targets)
        by_host = {m.ip: m for m in self.machines}
        return Machines({t.name: by_host.get(t.node.host, Machine("x", up=False)) for t in targets})

    def init(self, *args: str, code: int = 0) -> click.testing.Result:
        files = ["--identity-file", str(self.key), "--known-hosts-file", str(self.known)]
        done = CliRunner().invoke(cli, ["init", *args, *files])
        assert done.exit_code == code, done.output
        return done


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_the_plan_is_printed_and_nothing_else(desk: Desk) -> None:
    done = desk.init(*ALL, "--snapshot", "etcd.db")
    plan, warnings = planfile.read(done.stdout.encode(), Path("plan.yaml"))
    assert not warnings
    assert [n.name for n in plan.nodes] == ["m1", "m2", "m3"]
    assert plan.snapshot.path == desk.home / "etcd.db"
    assert plan.snapshot.sha256 == hashlib.sha256(DB.read_bytes()).hexdigest()
    assert {(n.ssh.user, n.ssh.port, n.ssh.identity_file, n.ssh.known_hosts_file) for n in plan.nodes} == {
        ("root", 22, desk.key, desk.known)
    }
    assert "runbook preview --check plan.yaml" in done.stderr
    assert "warning" not in done.stderr


def test_the_plan_goes_to_a_file_once(desk: Desk) -> None:
    done = desk.init(*ALL, "--snapshot", "etcd.db", "-o", "plan.yaml")
    assert planfile.load(desk.out).name == "kubernetes"
    assert "apiVersion" not in done.stdout
    assert "runbook run plan.yaml" in done.stdout
    before = desk.out.read_text()
    desk.asked = []
    again = desk.init(*ALL, "-o", "plan.yaml", code=2)
    assert "is not written over" in again.stderr
    assert "Type next:     runbook init --host root@10.0.1.10 --host" in again.stderr
    assert "-o plan.yaml --force   # writes over it" in again.stderr
    assert (desk.asked, desk.out.read_text()) == ([], before)
    desk.init(*ALL, "-o", "plan.yaml", "--force")
    assert planfile.load(desk.out).snapshot.source != "file://" + str(desk.home / "etcd.db")
    assert sorted(p.name for p in desk.home.iterdir()) == ["etcd.db", "key", "known_hosts", "plan.yaml"]


def test_a_file_that_comes_meanwhile_is_not_written_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile = desk.connect

    def connect(targets: Sequence[Target], claim: Claim) -> Machines:
        desk.out.write_text("another's")
        return meanwhile(targets, claim)

    monkeypatch.setattr(real_hosts, "connect", connect)
    done = desk.init(*ALL, "-o", "plan.yaml", code=2)
    assert "came into being just now" in done.stderr
    assert "kind: EtcdRestore" in done.stdout, "the hosts may not answer a second time"
    assert "-o plan-2.yaml   # asks the hosts again" in done.stderr
    assert desk.out.read_text() == "another's"


def test_a_plan_that_cannot_be_written_is_printed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    done = desk.init(*ALL, "-o", "plan.yaml", code=2)
    assert "-o plan.yaml: it cannot be written: No space left on device" in done.stderr
    assert "What it means: the plan that was made is printed, and stands in no file" in done.stderr
    assert "kind: EtcdRestore" in done.stdout
    assert sorted(p.name for p in desk.home.iterdir()) == ["etcd.db", "key", "known_hosts"]


def test_a_directory_that_may_not_be_written_is_told_before_a_host_is_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access  # root may write everywhere
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != desk.home and access(path, mode))
    told = desk.init(*ALL, "-o", "plan.yaml", code=2).stderr
    assert f"-o plan.yaml: nothing can be written into {desk.home}" in told
    assert f"Type next:     ls -ld {desk.home}; df -h {desk.home}" in told
    assert "-o FILE" in told
    assert desk.asked == []


def test_a_strange_file_name_stays_in_its_comment(desk: Desk) -> None:
    desk.init(*ALL, "-o", "a\nb: c.yaml")
    assert planfile.load(Path("a\nb: c.yaml")).name == "kubernetes"


def test_json_has_plan_and_warnings(desk: Desk) -> None:
    done = desk.init(*ALL[:4], "--output", "json")
    document = json.loads(done.stdout)
    assert document["plan"] == yaml.safe_load(document["text"])
    assert document["exit_code"] == 0
    assert document["file"] is None
    assert any("DANGER: member m3" in w for w in document["warnings"])
    assert any("no --snapshot was given" in w for w in document["warnings"])


def test_json_of_a_refusal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["runbook", "init", "--output", "json"])
    done = desk.init("--host", "10.0.1.99", "--output", "json", code=3)
    assert json.loads(done.stdout)["exit_code"] == 3


def test_a_member_that_is_missing_is_the_next_command(desk: Desk) -> None:
    told = desk.init(*ALL[:4], "--snapshot", "etcd.db", "-o", "plan.yaml").stdout
    assert "runbook init --host root@10.0.1.10 --host root@10.0.1.11 --host root@10.0.1.12" in told
    assert "--snapshot etcd.db -o plan.yaml --force" in told


def test_a_dead_host_may_be_left_out(desk: Desk) -> None:
    desk.machines[2].up = False
    for m in desk.machines:
        m.living = ("m1", "m2")
    done = desk.init(*ALL, "--snapshot", "etcd.db", "-o", "plan.yaml")
    assert "Type next:     runbook preview --check plan.yaml --without m3   # every check" in done.stdout
    assert "runbook run plan.yaml --without m3" in done.stdout
    assert "warning: m3 (10.0.1.12) did not answer: no answer within 10 s" in done.stderr
    assert [n.name for n in planfile.load(desk.out).nodes] == ["m1", "m2", "m3"]
    assert "#   runbook preview --check plan.yaml --without m3\n" in desk.out.read_text()
    assert "#   runbook run plan.yaml --without m3" in desk.out.read_text()
    desk.machines[1].up = False
    told = desk.init(*ALL, "--snapshot", "etcd.db", "-o", "plan.yaml", "--force").stdout
    assert "runbook run plan.yaml" in told
    assert "--without" not in told, "a run goes on without a minority only"


def test_without_a_snapshot_the_placeholder_is_valid_and_told(desk: Desk) -> None:
    desk.machines[1].backups = "1775743200 12582912 /opt/backup/etcd.db\n"
    done = desk.init(*ALL, "-o", "plan.yaml")
    assert "--snapshot host://m2/opt/backup/etcd.db" in done.stderr
    assert CliRunner().invoke(cli, ["validate", "plan.yaml"]).exit_code == 0
    shown = CliRunner().invoke(cli, ["preview", "plan.yaml"])
    assert "name-the-snapshot-here.db is not there yet" in shown.output


@pytest.mark.parametrize("node", ["m2", "10.0.1.11"])
def test_a_snapshot_on_a_host_by_its_member_or_its_address(desk: Desk, node: str) -> None:
    desk.machines[1].dead = 4000
    desk.machines[1].lies = {"/opt/backup/etcd.db": "0 0 600 root root 483360 regular file"}
    done = desk.init(*ALL, "--snapshot", f"host://{node}/opt/backup/etcd.db")
    plan, _ = planfile.read(done.stdout.encode(), Path("plan.yaml"))
    assert (plan.snapshot.node, str(plan.snapshot.path)) == ("m2", "/opt/backup/etcd.db")
    assert "snapshot 4000 + bump" in done.stdout
    unproven = "/opt/backup/etcd.db on m2: its checksum was not compared: `runbook preview --check` does that"
    assert f"warning: {unproven}" in done.stderr
    desk.machines[1].dead = None
    done = desk.init(*ALL, "--snapshot", f"host://{node}/opt/backup/etcd.db")
    assert "nor was its checksum compared" in done.stderr


@pytest.mark.parametrize(
    ("stat", "fault", "folder"),
    [
        ("-", "m1 (10.0.1.10) has no such file", "/nosuch"),
        ("0 0 755 root root 4096 directory", "on m1 it is no file but: directory", "/nosuch/x.db"),
        ("0 0 600 root root 0 regular empty file", "on m1 it is empty: the backup failed when it was", "/nosuch"),
    ],
)
def test_a_snapshot_that_is_not_on_that_host(desk: Desk, stat: str, fault: str, folder: str) -> None:
    """No plan is written for it: the restore would only say the same, later."""
    desk.machines[0].lies = {"/nosuch/x.db": stat}
    desk.machines[1].backups = "1775743200 12582912 /opt/backup/etcd.db\n"
    done = desk.init(*ALL, "--snapshot", "host://m1/nosuch/x.db", "-o", "plan.yaml", code=2)
    assert f"--snapshot host://m1/nosuch/x.db: {fault}" in done.stderr
    assert "What is true:  no host is changed, and no plan was written" in done.stderr
    assert "files that may be snapshots were seen at host://m2/opt/backup/etcd.db" in done.stderr
    login = f"-i {desk.key} -o UserKnownHostsFile={desk.known}"
    assert f"Type next:     ssh {login} root@10.0.1.10 ls -l {folder}   " in done.stderr
    assert "--snapshot host://m2/opt/backup/etcd.db -o plan.yaml" in done.stderr
    assert not desk.out.exists()


def test_a_host_that_cannot_say_whether_the_snapshot_is_there(desk: Desk) -> None:
    desk.machines[0].lies = {"/mnt/x.db": "stat: Killed"}
    done = desk.init(*ALL, "--snapshot", "host://m1/mnt/x.db")
    assert "its revision was not asked, or not told" in done.stderr


def test_a_raw_database_is_written_and_told(desk: Desk) -> None:
    raw = desk.home / "db"
    raw.write_bytes(DB.read_bytes()[:-32])
    raw.chmod(0o600)
    done = desk.init(*ALL, "--snapshot", "db")
    assert "allowMissingTrailer" in done.stderr
    assert not planfile.read(done.stdout.encode(), Path("p"))[0].snapshot.allow_missing_trailer


def test_a_snapshot_in_a_store(desk: Desk) -> None:
    """Its sidecar tells the revision; which one is the latest changes, so that its sum is none for the plan."""
    shelf = Shelf(desk.home / "store")
    told = shelf.put(recipients=(PUBLIC,), now=datetime.now(UTC), revision=4_000_000_000)
    done = desk.init(*ALL, "--snapshot", f"{shelf.url}?latest=verified")
    plan, warnings = planfile.read(done.stdout.encode(), Path("p"))
    assert plan.snapshot.store == Place(shelf.url)
    assert plan.snapshot.sha256 is None
    assert not warnings
    assert "warning" not in done.stderr
    assert f"# now it is {told.name}, of prod" in done.stdout
    assert f"# encrypted to {PUBLIC}" in done.stdout
    assert "snapshot 4000000000 + bump" in done.stdout
    done = desk.init(*ALL, "--snapshot", f"{shelf.url}/{told.name}")
    plan, _ = planfile.read(done.stdout.encode(), Path("p"))
    assert (plan.snapshot.sha256, plan.snapshot.source) == (told.sha256, f"{shelf.url}/{told.name}")


@pytest.mark.parametrize("url", ["file:///no/store?latest=verified", "host://m2/opt/backup?latest=verified"])
def test_a_store_that_says_nothing_keeps_nobody_from_a_plan(desk: Desk, url: str) -> None:
    done = desk.init(*ALL, "--snapshot", url)
    assert planfile.read(done.stdout.encode(), Path("p"))[0].snapshot.source == url
    assert f"{url} was not looked into: " in done.stderr


def test_the_snapshot_tells_its_members(desk: Desk) -> None:
    from runbook.discovery.snapshots import members

    assert [(w.name, w.peer_urls) for w in members(desk.home / "etcd.db")] != []
    assert members(desk.home / "key") == ()


def test_users_and_ports_of_single_hosts(desk: Desk) -> None:
    hosts = ["--host", "ops@10.0.1.10", "--host", "ops@10.0.1.11:2222", "--host", "10.0.1.12"]
    done = desk.init(*hosts, "--jump", "ann@bastion:22")
    nodes = planfile.read(done.stdout.encode(), Path("p"))[0].nodes
    assert [(n.ssh.user, n.ssh.port) for n in nodes] == [("ops", 22), ("ops", 2222), ("root", 22)]
    assert {n.ssh.jump for n in nodes} == {"ann@bastion:22"}


def test_a_host_that_stands_there_twice_is_asked_once(desk: Desk) -> None:
    done = desk.init(*ALL, "--host", "ops@10.0.1.10")
    assert [t.name for t in desk.asked] == ["10.0.1.10", "10.0.1.11", "10.0.1.12"]
    assert "warning: --host ops@10.0.1.10 stands there twice: it is asked once" in done.stderr


def test_what_hosts_say_and_no_plan_can_hold(desk: Desk) -> None:
    desk.machines[1].files = {
        k: (v or "").replace("--name=m2", "--name=m2=x,y") for k, v in desk.machines[1].files.items()
    }
    done = desk.init(*ALL, "-o", "plan.yaml", code=3)
    assert "what the hosts say makes no valid plan" in done.stderr
    assert "spec.nodes[1].name" in done.stderr
    assert not desk.out.exists()
    known = f"--identity-file {desk.key} --known-hosts-file {desk.known} -o plan.yaml --force"
    assert f"Type next:     runbook init {' '.join(ALL)} {known}   # after mending it there, or" in done.stderr


def test_a_manifest_that_lies_aside_is_put_back_by_the_next_command(desk: Desk) -> None:
    aside = base64.b64encode((desk.machines[0].files.pop("etcd.yaml") or "").encode()).decode()
    desk.machines[0].more = ["stray /root/aside/etcd.yaml", f"stray-text {aside}"]
    told = desk.init(*ALL, "--snapshot", "etcd.db", "-o", "plan.yaml").stdout.partition("Type next:")[2]
    first = told.splitlines()[0]
    assert " root@10.0.1.10 " in first
    assert (
        "/root/aside/etcd.yaml /etc/kubernetes/manifests/.etcd.yaml.part /etc/kubernetes/manifests/etcd.yaml" in first
    )
    assert told.index(first) < told.index("runbook preview --check plan.yaml")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--host", "root@"], "it should be HOST"),
        (["--host", "a b"], "holds white space"),
        (["--host", "10.0.1"], "no IPv4 address"),
        (["--host", "x y@10.0.1.10"], "holds white space"),
        ([*ALL, "--snapshot", "none.db"], "none.db: it is not there"),
        ([*ALL, "--snapshot", "."], "is a directory"),
        ([*ALL, "--snapshot", "sftp://a/b"], "fetch the file first"),
        ([*ALL, "--snapshot", "s3://backups/prod"], "names no snapshot"),
        ([*ALL, "--snapshot", "s3://backups/prod?latest"], "and only latest=verified is known"),
        ([*ALL, "--snapshot", "etcd.db.part"], ".part"),
        ([*ALL, "--snapshot", "host://m1/../x"], "goes up with .."),
        ([*ALL, "--snapshot", "host://m9/x.db"], "m9 is none of the hosts: m1, m2, m3"),
        ([*ALL, "--jump", "a,b"], "more than one jump host"),
        ([*ALL, "-o", "."], "this is a directory"),
        ([*ALL, "-o", "no/plan.yaml"], "there is no directory"),
        ([*ALL, "--identity-file", "nothing"], "--identity-file nothing: No such file"),
        ([*ALL, "--identity-file", "etcd.db"], "--identity-file etcd.db: it is no private key"),
        ([*ALL, "--identity-file", "key.pub"], "--identity-file key.pub: it is no private key"),
        ([], "Missing option '--host'"),
    ],
)
def test_bad_usage(desk: Desk, args: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.home / "etcd.db.part").touch()
    (desk.home / "key.pub").write_text("ssh-ed25519 AAAA ann")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    files = [] if "--identity-file" in args else ["--identity-file", str(desk.key)]
    done = CliRunner().invoke(cli, ["init", *args, *files])
    assert done.exit_code == 2, done.output
    assert told in done.stderr


@pytest.mark.parametrize(
    ("args", "next_"),
    [
        ([*ALL, "--snapshot", "none.db"], "ls -l {home}"),
        ([*ALL, "--snapshot", "no/such/none.db"], "ls -l {home}"),
        ([*ALL, "--snapshot", "{home}"], "ls -l {home}"),
        ([*ALL, "--snapshot", "s3://a/b"], "runbook init {all} --identity-file {home}/key --snapshot FILE"),
        ([*ALL, "--snapshot", "ftp://a/b"], "runbook init {all} --identity-file {home}/key --snapshot FILE"),
        ([*ALL, "--identity-file", "no/key"], "ls -l {home}"),
        ([*ALL, "--identity-file", "etcd.db"], "ls -l {home}"),
        (["--host", "root@10.0.1.10,10.0.1.11,root@10.0.1.12"], "runbook init {all} --identity-file {home}/key"),
        ([*ALL[:2], "--host", "root@"], "runbook init --host root@10.0.1.10 --host HOST --identity-file {home}/key"),
        ([*ALL, "--jump", "a,b"], "runbook init --help"),
        ([*ALL, "-o", "."], "runbook init {all} --identity-file {home}/key -o plan.yaml"),
        ([*ALL, "-o", "no/such/plan.yaml"], "mkdir -p {home}/no/such"),
        ([*ALL, "-o", "etcd.db/plan.yaml"], "runbook init {all} --identity-file {home}/key -o plan.yaml"),
        ([*ALL, "-o", "etcd.db"], "runbook init {all} --identity-file {home}/key -o etcd.db --force"),
        (
            [*ALL, "--snapshot", "host://m9/x.db"],
            "runbook init {all} --identity-file {home}/key --snapshot host://m1/x.db",
        ),
    ],
)
def test_bad_usage_ends_with_what_it_means_and_what_to_type(desk: Desk, args: list[str], next_: str) -> None:
    files = [] if "--identity-file" in args else ["--identity-file", str(desk.key)]
    words = [w.replace("{home}", str(desk.home)) for w in args]
    told = CliRunner().invoke(cli, ["init", *words, *files]).stderr
    assert "\nWhat is true:  no" in told
    assert "\nWhat it means: " in told
    typed = bare(told.partition("\nType next:     ")[2].splitlines()[0]).rstrip()
    assert typed == next_.format(home=desk.home, all=" ".join(ALL))


def test_a_public_key_may_have_its_other_half_in_an_agent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    desk.key = desk.home / "key.pub"
    desk.key.write_text("ssh-ed25519 AAAA ann")
    desk.init(*ALL, "--snapshot", "etcd.db")


def test_a_snapshot_that_is_damaged_is_refused(desk: Desk) -> None:
    whole = DB.read_bytes()
    (desk.home / "etcd.db").write_bytes(whole[:5000] + b"!" + whole[5001:])
    assert "checksum is wrong" in desk.init(*ALL, "--snapshot", "etcd.db", code=3).stderr


def test_no_host_answers(desk: Desk) -> None:
    done = desk.init("--host", "10.0.1.99", code=3)
    assert "no host could be asked" in done.stderr
    assert "Type next:" in done.stderr
    assert done.stdout == ""


def test_no_host_answers_and_the_snapshot_is_on_one_of_them(desk: Desk) -> None:
    """Nobody knows then what they are called: that none answers is what is wrong."""
    snapshot = ("--snapshot", "host://m2/opt/etcd.db")
    for machine in desk.machines:
        machine.up = False
    done = desk.init(*ALL, *snapshot, code=3)
    for told in ("no host could be asked", "no answer within 10 s", "What is true:", "What it means:", "Type next:"):
        assert told in done.stderr
    desk.machines[0].up = True
    done = desk.init(*ALL, *snapshot, code=2)
    assert "m2 is none of the hosts: m1; not known are the names of 10.0.1.11, 10.0.1.12: no answer" in done.stderr

"""The checks' shell texts, run by a real ``sh`` on real files: what they print is what the judges read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from runbook import x509
from runbook.checks import certificates, disk, etcd, kubelets, locks, manifests, mounts, peers, reach, tools, verify
from runbook.checks import snapshot as snapshot_check
from runbook.checks.survey import run_here
from runbook.checks.words import script
from runbook.plan import Snapshot
from runbook.shape import ParseError
from runbook.step import Command, Result
from tests.unit.checks_world import DB, NODES, PLAN, four, hash_json, status_json


def sh(text: str, *words: str | Path, path: str = "") -> Result:
    """Run a script here, as a host would."""
    command = script(text, *map(str, words))
    if path:
        env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        done = subprocess.run(command.words(), capture_output=True, text=True, env=env, check=False)
        return Result(done.returncode, done.stdout, done.stderr)
    return run_here(command)


def test_manifests_are_read_whole_with_odd_names(tmp_path: Path) -> None:
    for name, text in four(NODES[1]).items():
        (tmp_path / name).write_text(text or "")
    odd = "a b\n-rf $(touch owned)'\".yaml"
    (tmp_path / odd).write_text("x")
    (tmp_path / "-n").write_text("")
    (tmp_path / ".hidden.yaml").write_text("kind: Pod")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link.yaml").symlink_to("etcd.yaml")
    result = sh(manifests.READ, tmp_path)
    assert result.ok
    found = manifests.files(result.out)
    assert set(found) == {*four(NODES[1]), odd, "-n", "dir", "dangling", "link.yaml"}
    assert found["etcd.yaml"].text == four(NODES[1])["etcd.yaml"]
    assert found["link.yaml"].pod == found["etcd.yaml"].pod
    assert {n: f.kind for n, f in found.items() if f.kind != "file"} == {"dir": "directory", "dangling": "other"}
    assert not (tmp_path / "owned").exists()


def test_manifests_that_are_not_there(tmp_path: Path) -> None:
    assert sh(manifests.READ, tmp_path / "none").code == 3
    assert manifests.files(sh(manifests.READ, tmp_path).out) == {}


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_peers_of_a_manifest_are_asked(tmp_path: Path, quote: str) -> None:
    """Those of the plan are not; a quoted flag is a flag."""
    urls = {name: f"https://10.0.1.{10 + at}:2380" for at, name in enumerate(("m1", "m2", "m3", "m4"))}
    flag = "--initial-cluster=" + ",".join(f"{name}={url}" for name, url in urls.items())
    (tmp_path / "etcd.yaml").write_text(
        f"    - etcd\n    - --initial-cluster-state=existing\n    - {quote}{flag}{quote}\n"
    )
    tool = tmp_path / "etcdctl"
    tool.write_text("#!/bin/sh\ncase $* in *--endpoints=https://10.0.1.12:2379*) ;; *) exit 1 ;; esac\n")
    tool.chmod(0o755)
    result = sh(peers.LOOK, tmp_path / "etcd.yaml", f"{urls['m1']} {urls['m2']}", tool)
    assert result.out.splitlines() == [f"living m3 {urls['m3']}", f"silent m4 {urls['m4']}"]
    assert sh(peers.LOOK, tmp_path / "none", "", tool) == Result(0)


def test_a_mount_point_inside_a_member(tmp_path: Path) -> None:
    """Also where the way to it is a symbolic link."""
    (tmp_path / "etcd/member/wal").mkdir(parents=True)
    (tmp_path / "link").symlink_to("etcd")
    inside = f"mount -t tmpfs none {tmp_path}/etcd/member/wal && " + 'exec "$@"'
    for place in ("etcd", "link"):
        words = ("unshare", "-m", "sh", "-c", inside, "sh", "sh", "-c", mounts.LOOK, "x", str(tmp_path / place))
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert f"inside {tmp_path}/etcd/member/wal" in done.stdout.splitlines(), done.stderr


def test_missing_tools_are_named() -> None:
    assert sh(tools.MISSING, "sh", "no-such|cat", "/bin/sh").out == ""
    assert sh(tools.MISSING, "no-such", "a|b", "/no/such", "sh").out.split() == ["no-such", "a|b", "/no/such"]


@pytest.mark.parametrize("kind", ["node", "worker"])
def test_gnu_tools_have_the_options(kind: str) -> None:
    assert sh(tools.OPTIONS, kind).out == ""


def test_other_tools_lack_the_options(tmp_path: Path) -> None:
    for name in ("mv", "cp", "sync", "chown", "chmod"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'BusyBox: usage' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    said = sh(tools.OPTIONS, "node", path=str(tmp_path)).out.splitlines()
    assert said == ["mv -T", "cp -a", "sync FILE", "chown --reference", "chmod --reference"]


def damage(plan: Snapshot, path: Path) -> str:
    """What the judge says of a file on a host's disk."""
    result = sh(snapshot_check.READ, path)
    if not result.ok:
        return result.err.strip()
    facts = dict(line.split(" ", 1) for line in result.out.splitlines() if " " in line)
    return snapshot_check._damage(type(PLAN)("p", plan, NODES), facts)


def test_a_snapshot_on_a_host(tmp_path: Path) -> None:
    there = Snapshot("host://m1/x", Path("/x"), node="m1")
    whole = DB.read_bytes()
    file = tmp_path / "a b; $(id).db"
    file.write_bytes(whole)
    assert damage(there, file) == ""
    digest = hashlib.sha256(whole).hexdigest()
    assert damage(Snapshot("", Path("/x"), "m1", digest.upper()), file) == ""
    assert "the plan says" in damage(Snapshot("", Path("/x"), "m1", "0" * 64), file)
    cases = {
        "its checksum is wrong": whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
        "its checksum is wrong ": whole[:-1] + bytes([whole[-1] ^ 1]),
        "no checksum at its end": whole[:-32],
        "cut short": whole[:-1],
        "it is empty": b"",
        "no etcd snapshot": b"x" * len(whole),
    }
    for text, content in cases.items():
        file.write_bytes(content)
        assert text.strip() in damage(there, file)
    file.write_bytes(whole[:-32])
    assert damage(Snapshot("", Path("/x"), "m1", None, allow_missing_trailer=True), file) == ""
    assert damage(there, tmp_path) == "there is no such file"
    assert damage(there, tmp_path / "none") == "there is no such file"


def test_a_snapshot_on_a_host_that_is_still_being_written(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    file.write_bytes(DB.read_bytes())
    (tmp_path / "openssl").write_text(f'#!/bin/sh\nprintf x >> {file}\nexec /usr/bin/openssl "$@"\n')
    (tmp_path / "openssl").chmod(0o755)
    result = sh(snapshot_check.READ, file, path=str(tmp_path))
    assert (result.code, "written to while it was read" in result.err) == (3, True)


def test_without_openssl_sha256sum_serves(tmp_path: Path) -> None:
    (tmp_path / "openssl").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "openssl").chmod(0o755)
    assert sh(snapshot_check.READ, DB, path=str(tmp_path)).out == sh(snapshot_check.READ, DB).out


def test_room_is_that_of_the_nearest_parent(tmp_path: Path) -> None:
    lines = sh(disk.ROOM, tmp_path / "not/yet/there", tmp_path, "/").out.splitlines()
    assert len(lines) == 3
    assert all(len(line.split()) == 6 for line in lines)
    assert lines[0].split()[0] == lines[1].split()[0] == str(tmp_path.stat().st_dev)
    stats = os.statvfs(tmp_path)
    assert int(lines[0].split()[2]) == stats.f_blocks
    assert int(lines[0].split()[4]) == stats.f_files


KEY = "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n"
PUB = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A CA, a public key, and a kubeconfig with a certificate in it."""
    (tmp_path / "etcd").mkdir()
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
    names = ["-subj", "/CN=m1", "-addext", "subjectAltName=DNS:m1,IP:10.0.1.10,IP:fd00::1"]
    files = ["-keyout", str(tmp_path / "k.key"), "-out", str(tmp_path / "etcd/ca.crt")]
    subprocess.run([*new, *names, *files], check=True, capture_output=True)
    (tmp_path / "sa.pub").write_text("# a comment\r\n" + PUB.replace("\n", "\r\n"))
    pem = (tmp_path / "etcd/ca.crt").read_bytes()
    secret = base64.b64encode(b"PRIVATE").decode()
    (tmp_path / "admin.conf").write_text(
        f"- user:\n    client-certificate-data: {base64.b64encode(pem).decode()}\n    client-key-data: {secret}\n"
    )
    (tmp_path / "broken.crt").write_text("nothing")
    (tmp_path / "sa.key").write_text(f"# a comment\n{KEY}")
    (tmp_path / "both.crt").write_text(f"{KEY}Subject: m1\n{pem.decode()}")
    return tmp_path


def test_certificates_are_read_and_keys_are_not(pki: Path) -> None:
    names = ["etcd/ca.crt", "sa.pub", "sa.key", "admin.conf", "broken.crt", "both.crt", "none.crt"]
    result = sh(certificates.READ, *(pki / n for n in names))
    assert result.ok
    assert "PRIVATE" not in result.out
    assert "c2VjcmV0" not in result.out
    assert "UFJJVkFURQ" not in result.out
    seen = certificates.seen(result.out)
    cert = x509.certificate(seen.pem(str(pki / "etcd/ca.crt")))
    assert [certificates._address(n) or n for n in cert.names] == [
        "m1",
        certificates._address("10.0.1.10"),
        certificates._address("fd00::1"),
    ]
    assert 8 <= (cert.not_after - seen.now).days <= 9
    assert seen.sum(str(pki / "sa.pub")) == hashlib.sha256(PUB.rstrip().encode()).hexdigest()
    assert seen.sum(str(pki / "sa.key")) == hashlib.sha256(KEY.encode()).hexdigest()
    assert x509.certificate(seen.pem(str(pki / "admin.conf"))).fingerprint == cert.fingerprint
    assert x509.certificate(seen.pem(str(pki / "both.crt"))).fingerprint == cert.fingerprint
    assert seen.sum(str(pki / "both.crt")) == seen.sum(str(pki / "etcd/ca.crt")), "the key in it is no part of it"
    assert seen.texts[str(pki / "none.crt")] is None
    with pytest.raises(ParseError):
        x509.certificate(seen.pem(str(pki / "broken.crt")))


def test_a_data_directory_and_what_is_left_in_it(tmp_path: Path) -> None:
    data = tmp_path / "etcd"
    (data / "member").mkdir(parents=True)
    (data / ".prod-20260401t000000z-ffff.old").mkdir()
    link = tmp_path / "link"
    link.symlink_to(data)
    one, two, none, file = mounts._directories(sh(mounts.LOOK, data, link, "", tmp_path / "none", "/etc/hostname").out)
    assert one.facts == {"directory": str(data.stat().st_dev), "member": str(data.stat().st_dev)}
    assert ".prod-20260401t000000z-ffff.old" in one.hidden
    assert two.facts["link"] == str(data)
    assert none.facts == {}
    assert "other" in file.facts
    (data / "member").rmdir()
    (data / "member").symlink_to("nowhere")
    assert "member-link" in mounts._directories(sh(mounts.LOOK, data).out)[0].facts


def test_a_lock_and_its_holders_last_sign_of_life(tmp_path: Path) -> None:
    lock, workspace = tmp_path / "lock", tmp_path / "work"
    assert locks.holder(sh(locks.READ, lock, workspace).out) is None
    lock.write_text(json.dumps({"run": "prod-20260401t000000z-ffff", "holder": "ada@desk", "since": "x"}) + "\n")
    seen = locks.holder(sh(locks.READ, lock, workspace).out)
    assert seen
    assert (seen.run, seen.holder, seen.life, seen.ago) == ("prod-20260401t000000z-ffff", "ada@desk", "", None)
    commands = workspace / seen.run / "commands"
    commands.mkdir(parents=True)
    (commands / "1.rc").write_text("0")
    for path, at in ((workspace / seen.run, 900), (commands, 950), (commands / "1.rc", 1000)):
        os.utime(path, (at, at))
    seen = locks.holder(sh(locks.READ, lock, workspace).out)
    assert seen
    assert seen.life == "1970-01-01T00:16:40Z"
    lock.write_text(json.dumps({"run": seen.run, "holder": "ada@desk", "since": "x", "dir": f"{workspace}/{seen.run}"}))
    elsewhere = locks.holder(sh(locks.READ, lock, "/var/lib/etcd-runbook").out)
    assert elsewhere
    assert (elsewhere.life, elsewhere.workspace) == ("1970-01-01T00:16:40Z", str(workspace))
    for odd in ("", "garbage", '{"run": "../../etc"}', '{"run": 3}', '{"run": "a", "dir": "/etc"}'):
        lock.write_text(odd)
        seen = locks.holder(sh(locks.READ, lock, workspace).out)
        assert seen is not None


def test_owners_and_names(tmp_path: Path) -> None:
    assert sh(kubelets.OWNER, "root", "root").out == ""
    assert sh(kubelets.OWNER, "no-such-user", "no-such-group").out == "user no-such-user\ngroup no-such-group\n"
    assert sh(reach.RESOLVE, "localhost").out == ""
    (tmp_path / "getent").write_text('#!/bin/sh\n[ "$2" = known ]\n')  # no question leaves this machine
    (tmp_path / "getent").chmod(0o755)
    assert sh(reach.RESOLVE, "known", "no-such", path=str(tmp_path)).out == "no-such\n"


def test_an_object_is_only_said_to_be_there() -> None:
    assert sh(verify.THERE, "echo", "the secret").out == "there\n"
    gone = sh(verify.THERE, "sh", "-c", "echo the secret; echo NotFound >&2; exit 3")
    assert (gone.code, gone.out, gone.err) == (1, "", "NotFound\n")


def test_hashes_are_asked_at_the_members_present_revision(tmp_path: Path) -> None:
    tool = tmp_path / "etcdctl"
    tool.write_text(
        f"#!/bin/sh\ncase $* in\n*status*) echo '{status_json(PLAN, ['m1'])}' ;;\n"
        f"*'--rev 4711 '*) echo '{hash_json(PLAN)}' ;;\n*) exit 9 ;;\nesac\n"
    )
    tool.chmod(0o755)
    assert sh(etcd.HASHES, "--cluster", tool, "--endpoints=x").out.strip() == hash_json(PLAN)
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert sh(etcd.HASHES, "--cluster", tool).code == 3


def test_a_local_check_that_outlives_its_time_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its own children are ended too."""
    marker = tmp_path / "alive"
    began = time.monotonic()
    text = 'sh -c "sleep 3; : > $0" "$1" & wait'
    assert run_here(Command(("sh", "-c", text, "sh", str(marker)), 0.5)).code == 124
    assert time.monotonic() - began < 2.5, "nor is a child waited for that holds the pipes"
    time.sleep(3.5)
    assert not marker.exists()

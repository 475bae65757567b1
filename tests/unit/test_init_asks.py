"""``init``'s scripts by a real ``sh``, on crafted directories in the place of a host's; and what is made of answers."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest

from runbook import kube
from runbook.checks import manifests
from runbook.discovery import asks
from runbook.discovery.asks import Backup, Looked, Stat
from runbook.step import Result
from tests.unit.checks_world import DB, NODES, four

ETCD = four(NODES[0])["etcd.yaml"] or ""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's root directory, as far as it is looked at."""
    for name in ("etc/kubernetes/manifests", "var/lib/kubelet", "root", "tmp", "proc", "usr/local/bin"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def sh(root: Path, text: str, *words: str) -> Result:
    """The script as it is, with the absolute paths of the host below ``root``."""
    text = re.sub(r"(?<=[ =])(?=/(etc|var/lib/kubelet|root|tmp|proc|opt|usr/local/bin)/)", str(root), text)
    done = subprocess.run(["sh", "-c", text, "runbook", *words], capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def look(root: Path, signs: str = "") -> Looked:
    found = asks.looked(sh(root, asks.LOOK + manifests.READ, signs, f"{root}/etc/kubernetes/manifests"))
    assert found
    return found


def test_the_manifests_are_read_where_the_kubelet_is_told(host: Path) -> None:
    (host / "var/lib/kubelet/config.yaml").write_text(f'kind: X\nstaticPodPath: "{host}/pods"  # moved\n')
    (host / "pods").mkdir()
    (host / "pods/etcd.yaml").write_text(ETCD)
    found = look(host)
    assert found.words["manifests"] == f"{host}/pods"
    assert found.words["config"] == f"{host}/var/lib/kubelet/config.yaml"
    pod = found.files["etcd.yaml"].pod
    assert pod
    assert pod.flag("name") == "m1"


def test_the_running_kubelets_own_words_come_first(host: Path) -> None:
    (host / "proc/77").mkdir()
    (host / "proc/77/comm").write_text("kubelet\n")
    (host / "other.yaml").write_text(f"staticPodPath: {host}/pods/\n")
    (host / "proc/77/cmdline").write_text(f"/usr/bin/kubelet\0--config={host}/other.yaml\0--v=2\0")
    (host / "proc/9").mkdir()
    assert look(host).words["manifests"] == f"{host}/pods"


def test_without_any_config_kubeadms_own_place_is_looked_at(host: Path) -> None:
    found = look(host)
    assert found.words["manifests"] == f"{host}/etc/kubernetes/manifests"
    assert "config" not in found.words
    assert not found.files
    (host / "etc/kubernetes/manifests").rmdir()
    assert look(host).unread


def test_a_kubelet_that_has_no_static_pods(host: Path) -> None:
    (host / "var/lib/kubelet/config.yaml").write_text("kind: KubeletConfiguration\n")
    assert look(host).words["no-static-pods"].endswith("config.yaml")


def test_the_clusters_name_without_its_key(host: Path) -> None:
    text = "apiVersion: v1\nclusters:\n- cluster:\n    server: https://x:6443\n  name: eu-1\ncontexts:\n- context: {}\n"
    text += "  name: admin\nusers:\n- user:\n    client-key-data: S3CRET\n"
    (host / "etc/kubernetes/admin.conf").write_text(text)
    result = sh(host, asks.LOOK + manifests.READ, "", str(host))
    assert "S3CRET" not in result.out
    found = asks.looked(result)
    assert found
    assert (found.words["cluster"], found.words["kubeconfig"]) == ("eu-1", f"{host}/etc/kubernetes/admin.conf")


def test_manifests_that_somebody_put_aside_and_signs_of_others(host: Path) -> None:
    assert look(host).stray is None
    (host / "tmp/saved").mkdir()
    (host / "tmp/saved/etcd.yaml").write_text(ETCD)
    found = look(host, f"{host}/root|{host}/nothing")
    assert found.words["stray"] == f"{host}/tmp/saved/etcd.yaml"
    assert found.many["sign"] == (f"{host}/root",)
    assert found.stray
    assert found.stray.flag("name") == "m1"
    (host / "etc/kubernetes/manifests/etcd.yaml").write_text(ETCD)
    assert "stray" not in look(host).words


@pytest.mark.parametrize("out", ["", "garbage", "uid 0\n", "\x00\x01== manifests\n", "== manifests\n"])
def test_what_is_no_answer(out: str) -> None:
    assert asks.looked(Result(0, out)) is None


def test_a_manifest_put_aside_that_is_none() -> None:
    for text in ("é", "!!", base64.b64encode(b"kind: Pad").decode(), base64.b64encode(b"\xff").decode()):
        found = asks.looked(Result(0, f"uid 0\nstray-text {text}\n== manifests\n"))
        assert found
        assert found.stray is None


def test_a_listing_that_was_cut_off_is_told() -> None:
    found = asks.looked(Result(0, "uid 0\nuid 1\n== manifests\nfile Zm9v\x1b[31m !!\n"))
    assert found
    assert found.words["uid"] == "0"
    assert "could not be read" in found.unread
    assert "\x1b" not in found.unread


def test_who_owns_what(tmp_path: Path) -> None:
    paths = (str(tmp_path), f"{tmp_path}/none", str(DB))
    found = asks.stats(paths, sh(tmp_path, asks.STAT, *paths))
    own = tmp_path.stat()
    here, none, db = (found[p] for p in paths)
    assert here
    assert db
    assert none is None
    assert (here.uid, here.gid, here.kind) == (own.st_uid, own.st_gid, "directory")
    assert (db.mode, db.size, db.kind) == ("600", DB.stat().st_size, "regular file")


def test_lines_that_are_no_stat_are_left_out() -> None:
    result = Result(0, "0 0 700 r r 5 directory\nrubbish\n-\n")
    assert asks.stats(("/a", "/b", "/c"), result) == {"/a": Stat(0, 0, "700", "r", "r", 5, "directory"), "/c": None}


def test_the_newest_snapshots(tmp_path: Path) -> None:
    for number in range(5):
        file = tmp_path / f"etcd {number}.db"
        file.write_bytes(bytes(20_000))
        subprocess.run(["touch", "-d", f"@{1000 + number}", file], check=True)
    (tmp_path / "small.db").touch()
    (tmp_path / "newest.db.part").write_bytes(bytes(20_000))
    found = list(asks.backups(sh(tmp_path, asks.BACKUPS, f"{tmp_path}", "/no/such/directory")))
    assert found == [Backup(f"{tmp_path}/etcd {n}.db", 20_000, 1000 + n) for n in (4, 3, 2)]


def test_a_database_names_its_members(tmp_path: Path) -> None:
    result = sh(tmp_path, asks.NAMED, str(DB))
    members = [w for line in result.out.splitlines() if (w := asks.written(line))]
    assert members
    assert all(url.startswith("http") for w in members for url in w.peer_urls)
    assert sh(tmp_path, asks.NAMED, "/no/such/file").out == ""


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"id":1,"peerURLs":["https://x:2380"]}', '{"name":"m1","peerURLs":[]}', '{"name":3}']
)
def test_members_without_a_name_or_a_place(text: str) -> None:
    assert asks.written(text) is None


def test_names_of_secrets() -> None:
    key = base64.b64encode(b"/registry/secrets/default/known").decode()
    text = json.dumps({"header": {}, "kvs": [{"key": key, "create_revision": 30, "mod_revision": 31}]})
    assert asks.secret_names(Result(0, text), "/registry") == {"default/known": 30}
    for bad in ("", "[]", '{"kvs": [{"key": "é"}]}', '{"kvs": [{"key": "!"}]}', '{"kvs": 3}'):
        assert asks.secret_names(Result(0, bad), "/registry") == {}


def test_any_etcdctl_is_the_hosts_own_or_the_containers(tmp_path: Path) -> None:
    crictl = tmp_path / "crictl"
    kubeadms = "*io.kubernetes.pod.namespace=kube-system*"
    ps = f'case $* in ps*{kubeadms}) cat "$0.ids"; exit ;; ps*) echo another; exit ;; esac'
    crictl.write_text(f'#!/bin/sh\n{ps}\necho "$*"\n')
    crictl.chmod(0o755)
    own = tmp_path / "own"
    own.write_text('#!/bin/sh\necho "own $*"\n')
    text = f'PATH="{tmp_path}:$PATH"\n{kube.ANY_ETCDCTL}'
    (tmp_path / "crictl.ids").write_text("abc\ndef\n")
    words = ("--endpoints=x", "member", "list")
    assert sh(tmp_path, text, "own", *words).out == "exec abc etcdctl --endpoints=x member list\n"
    own.chmod(0o755)
    assert sh(tmp_path, text, "own", *words).out == "own --endpoints=x member list\n"
    (tmp_path / "crictl.ids").write_text("")
    none = sh(tmp_path, text, "no-such-etcdctl", "member", "list")
    assert (none.code, none.out) == (127, "")

"""Bad plans: each error at its line and column, in exactly these words, and all of them at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runbook.planfile import PlanErrors, read, validate

GOOD = """\
apiVersion: runbook/v1
kind: EtcdRestore
metadata:
  name: prod
spec:
  snapshot:
    from: file:///srv/etcd.db
  nodes:
    - name: m1
      host: cp1
      peerURLs: ["https://10.0.1.10:2380"]
    - name: m2
      host: cp2
      peerURLs: ["https://10.0.1.11:2380"]
    - name: m3
      host: cp3
      peerURLs: ["https://10.0.1.12:2380"]
"""
END = GOOD.count("\n") + 1
"""The line after the last one of GOOD."""


def errors(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PlanErrors) as caught:
        read(data, Path("p.yaml"))
    assert caught.value.code == 2
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return str(caught.value).split("\n")


def test_the_base_is_good() -> None:
    assert read(GOOD.encode(), Path("p.yaml"))[1] == ()


NAME = "letters, digits, . _ - (first a letter or digit)"
URL = "https://HOST:PORT or http://HOST:PORT, nothing after it"
PATH = "an absolute path without .., //, trailing / or special characters, such as /var/lib/etcd"
LOCAL = "a path: absolute, ~/…, or relative to the plan file, without .."
FROM = (
    "file:///path, a path relative to the plan file, host://NODE/path, or a store's URL (s3://, gs://, az://, "
    "file:///, host://NODE/) that ends with a snapshot's name, with ?latest=verified or with ?at=TIME"
)
GO = "Go's syntax, above 0 and at most 24h: 90s, 1h30m, 500ms"
HOST = "a host name or an IP address"

CHANGED = [  # what in GOOD, becomes what, and the error
    ("name: prod", "name: prod\n  tikcet: x",
     "5:3: metadata.tikcet: unknown key; allowed: name, ticket; did you mean ticket?"),
    ("name: prod", "name: Prod_1",
     '4:9: metadata.name: found "Prod_1", which is not a DNS label; allowed: a DNS label: a-z, 0-9 and -'
     ' inside, at most'
     " 40 characters"),
    ("name: prod", "name:", "4:8: metadata.name: found nothing; allowed: a DNS label: a-z, 0-9 and - inside, at most"
     " 40 characters; give a value, or take the key out"),
    ("name: prod", "name: [prod]", "4:9: metadata.name: found a list of 1; allowed: a DNS label: a-z, 0-9 and - inside,"
     " at most 40 characters"),
    ("name: prod", "name: prod\n  name: other",
     "5:3: metadata.name: this key stands here twice, first at line 4, column 3; keep one of them"),
    ("  name: prod", "  name: prod\n  ticket: |\n    a\n    b\n",
     '5:11: metadata.ticket: found "a\\nb\\n", which is more than one line, or holds a control character;'
     " allowed: one line of text, at most 500 characters"),
    ("kind: EtcdRestore", "kind: EtcdRestor",
     '2:7: kind: found "EtcdRestor"; allowed: EtcdRestore, EtcdBackup; did you mean EtcdRestore?'),
    ("kind: EtcdRestore", "kind: EtcdBackup",
     '2:7: kind: found "EtcdBackup", which is for runbook snapshot save; allowed here: EtcdRestore'),
    ("apiVersion: runbook/v1", "apiVersion: v1", '1:13: apiVersion: found "v1"; allowed: runbook/v1'),
    ("apiVersion: runbook/v1\n", "", "1:1: apiVersion: this key is missing; it is required: The version of this"
     " format"),
    ("file:///srv/etcd.db", "sftp://bucket/etcd.db",
     f'7:11: spec.snapshot.from: found "sftp://bucket/etcd.db", which is in a store (sftp://) that runbook does not'
     f" read; fetch the file first; allowed: {FROM}"),
    ("file:///srv/etcd.db", "azblob://bucket/etcd.db",
     f'7:11: spec.snapshot.from: found "azblob://bucket/etcd.db", which is in a store (azblob://) that runbook does not'
     f" read; write az://; allowed: {FROM}"),
    ("file:///srv/etcd.db", "s3://bucket/prod",
     f'7:11: spec.snapshot.from: found "s3://bucket/prod", which names no snapshot: it ends with a name (….db,'
     f" ….db.zst.age), or with ?latest=verified or ?at=TIME; allowed: {FROM}"),
    ("file:///srv/etcd.db", "s3://bucket/prod?newest",
     f'7:11: spec.snapshot.from: found "s3://bucket/prod?newest", which has the option newest, which is neither latest'
     f" nor at; allowed: {FROM}"),
    ("file:///srv/etcd.db", "s3://bucket/prod?latest=any",
     f'7:11: spec.snapshot.from: found "s3://bucket/prod?latest=any", which has latest=any, and only latest=verified is'
     f" known; allowed: {FROM}"),
    ("file:///srv/etcd.db", "s3://bucket?at=2026-04-09T14:00:00",
     f'7:11: spec.snapshot.from: found "s3://bucket?at=2026-04-09T14:00:00", which has at=2026-04-09T14:00:00, which is'
     f" no time as 2026-04-09T14:00:00Z; it ends with Z (UTC), or an offset as +02:00; allowed: {FROM}"),
    ("file:///srv/etcd.db", "s3://bucket?latest=verified&at=2026-04-09T14:00:00Z",
     f'7:11: spec.snapshot.from: found "s3://bucket?latest=verified&at=2026-04-09T14:00:00Z", which has latest= and'
     f" at=, and only one of them can be meant; allowed: {FROM}"),
    ("file:///srv/etcd.db", "s3://KEY:SECRET@bucket/etcd.db",
     f'7:11: spec.snapshot.from: found "s3://…@bucket/etcd.db", which holds a login or a port; credentials'
     f" come from the environment, and another server from store.endpoint; allowed: {FROM}"),
    ("file:///srv/etcd.db", "host://m4/srv?latest=verified",
     '7:11: spec.snapshot.from: found the node "m4", which the plan does not have; allowed: m1, m2, m3; did you'
     ' mean m1?'),
    ("file:///srv/etcd.db", "file:///srv/etcd.db\n    store: {region: eu-1}",
     '8:21: spec.snapshot.store.region: region is for object stores, and from is "file:///srv/etcd.db"; leave it out'),
    ("file:///srv/etcd.db", "s3://bucket/etcd.db\n    store: {url: s3://bucket}",
     '8:13: spec.snapshot.store.url: unknown key; allowed: endpoint, region'),
    ("file:///srv/etcd.db", "s3://bucket/etcd.db\n    store: {endpoint: nowhere}",
     '8:23: spec.snapshot.store.endpoint: found "nowhere", which is not http:// or https:// and a host; allowed:'
     ' https://HOST:PORT or http://HOST:PORT; "" for none'),
    ("file:///srv/etcd.db", "host://m4/etcd.db",
     '7:11: spec.snapshot.from: found the node "m4", which the plan does not have; allowed: m1, m2, m3; did you'
     ' mean m1?'),
    ("file:///srv/etcd.db", "../etcd.db",
     f'7:11: spec.snapshot.from: found "../etcd.db", which goes up with ..; allowed: {FROM}'),
    ("file:///srv/etcd.db", "etcd.db.part",
     '7:11: spec.snapshot.from: found "etcd.db.part", which is an unfinished download (.part); take one that is'
     f" complete; allowed: {FROM}"),
    ("file:///srv/etcd.db", "file://srv/etcd.db",
     '7:11: spec.snapshot.from: found "file://srv/etcd.db", which has a host, or a relative path; write file:///path'
     f" with three /; allowed: {FROM}"),
    ("name: m2", "name: m1",
     '12:13: spec.nodes[1].name: found "m1" again, as in spec.nodes[0].name; each member needs a name of its own'),
    ("name: m2", "name: m,2", f'12:13: spec.nodes[1].name: found "m,2", which holds the character ,; allowed: {NAME}'),
    ("name: m2", "name: m=2", f'12:13: spec.nodes[1].name: found "m=2", which holds the character =; allowed: {NAME}'),
    ("name: m2", 'name: "-m"', f'12:13: spec.nodes[1].name: found "-m", which begins with -, as an option of a command'
     f" does; allowed: {NAME}"),
    ("name: m2", "name: all", '12:13: spec.nodes[1].name: found "all", which has a meaning of its own in'
     f" verify.checks[].on; allowed: {NAME}"),
    ("name: m2", 'name: "m2\\n"', f'12:13: spec.nodes[1].name: found "m2\\n", which holds white space or a control'
     f" character (U+000A); allowed: {NAME}"),
    ("host: cp2", "host: ops@cp2",
     f'13:13: spec.nodes[1].host: found "ops@cp2", which names a user; that goes to ssh.user; allowed: {HOST}'),
    ("host: cp2", "host: cp2:22",
     f'13:13: spec.nodes[1].host: found "cp2:22", which names a port; that goes to ssh.port; allowed: {HOST}'),
    ("host: cp2", "host: -oProxyCommand=x", '13:13: spec.nodes[1].host: found "-oProxyCommand=x", which begins with -,'
     f" as an option of a command does; allowed: {HOST}"),
    ("host: cp2", "host: CP1",
     '13:13: spec.nodes[1].host: found "CP1" again, as in spec.nodes[0].host; each node is a host of its own'),
    ("host: cp2", "host: 10.0.1",
     f'13:13: spec.nodes[1].host: found "10.0.1", which ends in a number and yet is no IPv4 address; allowed: {HOST}'),
    ("10.0.1.11:2380", "10.0.1.11:2380/", '14:18: spec.nodes[1].peerURLs[0]: found "https://10.0.1.11:2380/",'
     ' which ends'
     f" with /, which etcd refuses; leave that out; allowed: {URL}"),
    ("https://10.0.1.11:2380", "10.0.1.11:2380",
     f'14:18: spec.nodes[1].peerURLs[0]: found "10.0.1.11:2380", which is not http:// or https://; allowed: {URL}'),
    ("10.0.1.11:2380", "10.0.1.11",
     f'14:18: spec.nodes[1].peerURLs[0]: found "https://10.0.1.11", which has no host and port; allowed: {URL}'),
    ("10.0.1.11:2380", "u@10.0.1.11:2380",
     f'14:18: spec.nodes[1].peerURLs[0]: found "https://u@10.0.1.11:2380", which names a user; allowed: {URL}'),
    ("10.0.1.11:2380", "10.0.1.11:2380?x",
     f'14:18: spec.nodes[1].peerURLs[0]: found "https://10.0.1.11:2380?x", which goes on after the port with ?x;'
     f" allowed: {URL}"),
    ("10.0.1.11:2380", "10.0.1.11:70000",
     f'14:18: spec.nodes[1].peerURLs[0]: found "https://10.0.1.11:70000", which has the port 70000; allowed: {URL}'),
    ("10.0.1.11:2380", "0.0.0.0:2380", '14:18: spec.nodes[1].peerURLs[0]: found "https://0.0.0.0:2380", which has an'
     f" address that no other member can reach; allowed: {URL}"),
    ("10.0.1.11:2380", "10.0.1.11:2379",
     '14:18: spec.nodes[1].peerURLs[0]: found "https://10.0.1.11:2379 (clientURLs by default)" again, as in'
     " spec.nodes[1].peerURLs[0]; two listeners cannot share a host and port"),
    ('["https://10.0.1.11:2380"]', "https://10.0.1.11:2380",
     '14:17: spec.nodes[1].peerURLs: found "https://10.0.1.11:2380"; allowed: a list; write [https://10.0.1.11:2380]'
     " for a list of one"),
    ('["https://10.0.1.11:2380"]', "[]", "14:17: spec.nodes[1].peerURLs: found an empty list; at least 1 is needed"),
    ('["https://10.0.1.11:2380"]', '["https://a:1", "https://a:1"]',
     '14:33: spec.nodes[1].peerURLs[1]: found "https://a:1" a second time; once is enough'),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "error"), CHANGED)
def test_one_mistake_is_one_error(old: str, new: str, error: str) -> None:
    assert old in GOOD
    assert errors(GOOD.replace(old, new, 1)) == [f"p.yaml:{error}"]


def test_a_typo_in_a_required_key_is_two_errors() -> None:
    """The one too many, and the one that is missing."""
    assert errors(GOOD.replace("name: prod", "nmae: prod")) == [
        "p.yaml:4:3: metadata.name: this key is missing; it is required: A DNS label: names the run, its"
        " directories and"
        " its token",
        "p.yaml:4:3: metadata.nmae: unknown key; allowed: name, ticket; did you mean name?",
    ]


def test_a_missing_key_is_told_where_it_belongs() -> None:
    assert errors(GOOD.replace("      host: cp2\n", "")) == [
        "p.yaml:12:7: spec.nodes[1].host: this key is missing; it is required: SSH destination: host name or address,"
        " or a Host of ~/.ssh/config"
    ]


def test_a_url_of_two_nodes() -> None:
    found = errors(GOOD.replace("10.0.1.11", "10.0.1.10"))
    assert found[0] == (
        'p.yaml:14:18: spec.nodes[1].peerURLs[0]: found "https://10.0.1.10:2379 (clientURLs by default)" again, as in'
        " spec.nodes[0].peerURLs[0]; two listeners cannot share a host and port"
    )
    assert '"https://10.0.1.10:2380" again' in found[1]


ADDED = [  # what stands below spec at the end of GOOD, and the error
    ("sssh: {user: x}", "0:3: spec.sssh: unknown key; allowed: snapshot, cluster, nodes, workers, ssh, tools, paths,"
     " restore, timeouts, verify; did you mean ssh?"),
    ("dataDir: /d", "0:3: spec.dataDir: unknown key; allowed: snapshot, cluster, nodes, workers, ssh, tools, paths,"
     " restore, timeouts, verify; dataDir belongs to spec.nodes[].paths or spec.paths"),
    ("ssh: {port: 022}", '0:15: spec.ssh.port: found "022"; allowed: a whole number from 1 to 65535; write 22'),
    ('ssh: {port: "22"}',
     '0:15: spec.ssh.port: found "22"; allowed: a whole number from 1 to 65535; write it without quotes'),
    ("ssh: {port: 0}", '0:15: spec.ssh.port: found "0"; allowed: a whole number from 1 to 65535'),
    ("ssh: {port: 65536}", '0:15: spec.ssh.port: found "65536"; allowed: a whole number from 1 to 65535'),
    ("ssh: {sudo: atuo}", '0:15: spec.ssh.sudo: found "atuo"; allowed: auto, always, never; did you mean auto?'),
    ("ssh: {sudo: no}", '0:15: spec.ssh.sudo: found "no"; allowed: auto, always, never'),
    ("ssh: {user: -l}", f'0:15: spec.ssh.user: found "-l", which begins with -, as an option of a command does;'
     f" allowed: {NAME}, at most 64"),
    ("ssh: {jump: a@b@c}", '0:15: spec.ssh.jump: found "a@b@c", which has a user that holds the character @;'
     " allowed: [user@]host[:port]"),
    ("ssh: {jump: -J}", '0:15: spec.ssh.jump: found "-J", which begins with -, as an option of a command does;'
     " allowed: [user@]host[:port]"),
    ("ssh: {identityFile: ../key}", '0:23: spec.ssh.identityFile: found "../key", which goes up with ..;'
     f' allowed: {LOCAL}; "" for none'),
    ("ssh: {connectTimeout: 10}", f'0:25: spec.ssh.connectTimeout: found "10", which has no unit; write 10s for'
     ' seconds;'
     f" allowed: {GO}"),
    ("ssh:", "0:7: spec.ssh: found nothing; allowed: a mapping with the keys user, port, identityFile, knownHostsFile,"
     " jump, sudo, connectTimeout; give a value, or take the key out"),
    ("timeouts: {stop: 0s}", f'0:20: spec.timeouts.stop: found "0s", which is no time at all; allowed: {GO}'),
    ("timeouts: {stop: 25h}", f'0:20: spec.timeouts.stop: found "25h", which is more than a day; allowed: {GO}'),
    ("timeouts: {stop: 1:30}", f'0:20: spec.timeouts.stop: found "1:30", which is not a duration; allowed: {GO}'),
    ("timeouts: {stop: -5s}", f'0:20: spec.timeouts.stop: found "-5s", which is not a duration; allowed: {GO}'),
    ("paths: {dataDir: var/lib/etcd}",
     f'0:20: spec.paths.dataDir: found "var/lib/etcd", which is not absolute; allowed: {PATH}'),
    ("paths: {dataDir: /var/lib/../etcd}",
     f'0:20: spec.paths.dataDir: found "/var/lib/../etcd", which goes up with ..; allowed: {PATH}'),
    ("paths: {dataDir: /data/etcd/}",
     f'0:20: spec.paths.dataDir: found "/data/etcd/", which ends with /; leave that out; allowed: {PATH}'),
    ("paths: {dataDir: //data}", f'0:20: spec.paths.dataDir: found "//data", which holds //; allowed: {PATH}'),
    ("paths: {dataDir: /}", f'0:20: spec.paths.dataDir: found "/", which is the root directory; allowed: {PATH}'),
    ("paths: {dataDir: /a;b}", f'0:20: spec.paths.dataDir: found "/a;b", which holds the character ;; allowed: {PATH}'),
    ("paths: {dataDir: $HOME}", f'0:20: spec.paths.dataDir: found "$HOME", which is not absolute; allowed: {PATH}'),
    ("paths: {dataDir: /var/lib}", '0:20: spec.paths.dataDir: found "/var/lib", a directory of the system; allowed: a'
     " directory of its own below it"),
    ("paths: {dataDir: /proc/etcd}",
     '0:20: spec.paths.dataDir: found "/proc/etcd", which is the kernel\'s; allowed: a directory on a disk'),
    ("paths: {workspace: /tmp/runs}", '0:22: spec.paths.workspace: found "/tmp/runs", which a reboot empties, parked'
     " manifests and all; allowed: a directory on a disk"),
    ("paths: {workspace: /var/lib/etcd/runs}", "0:22: spec.paths.workspace: workspace (/var/lib/etcd/runs) lies in"
     " dataDir (/var/lib/etcd); each needs a place of its own"),
    ("paths: {workspace: /var/lib/etcd-runbook.lock}", '0:22: spec.paths.workspace: found "/var/lib/etcd-runbook.lock";'
     " /var/lib/etcd-runbook.lock is the lock that all runs share"),
    ("paths: {walDir: /var/lib/etcd}", "0:19: spec.paths.walDir: walDir (/var/lib/etcd) is the same as dataDir"
     " (/var/lib/etcd); each needs a place of its own"),
    ("paths: {walDir: /var/lib/etcd/wal}", "0:19: spec.paths.walDir: walDir (/var/lib/etcd/wal) lies in dataDir"
     " (/var/lib/etcd); each needs a place of its own"),
    ("paths: {dataDir: /etc/kubernetes/manifests}", "0:20: spec.paths.dataDir: dataDir (/etc/kubernetes/manifests) is"
     " the same as manifests (/etc/kubernetes/manifests); each needs a place of its own"),
    ("paths: {manifests: /var/lib/etcd/m}", "0:22: spec.paths.manifests: dataDir (/var/lib/etcd) holds manifests"
     " (/var/lib/etcd/m); each needs a place of its own"),
    ("paths: {etcdCA: /etc/kubernetes/manifests/ca.crt}", "0:19: spec.paths.etcdCA: etcdCA"
     " (/etc/kubernetes/manifests/ca.crt) lies in manifests (/etc/kubernetes/manifests); each needs a place of"
     " its own"),
    ("cluster: {bumpRevision: 0}", "0:27: spec.cluster.bumpRevision: found 0 with markCompacted: true; etcdutl takes"
     " both or neither: a bump above 0, or markCompacted: false"),
    ("cluster: {markCompacted: false}", "0:28: spec.cluster.markCompacted: found false with bumpRevision: 1000000000;"
     " etcdutl takes both or neither: true, or bumpRevision: 0"),
    ("cluster: {markCompacted: yes}",
     '0:28: spec.cluster.markCompacted: found "yes"; allowed: true or false; write true, without quotes'),
    ("cluster: {bumpRevision: -1}", '0:27: spec.cluster.bumpRevision: found "-1"; allowed: a whole number from 0 to'
     " 4611686018427387904"),
    ("cluster: {bumpRevision: 1_000_000}", '0:27: spec.cluster.bumpRevision: found "1_000_000"; allowed: a whole number'
     " from 0 to 4611686018427387904; write 1000000"),
    ("cluster: {bumpRevision: 1e9}", '0:27: spec.cluster.bumpRevision: found "1e9"; allowed: a whole number from 0 to'
     " 4611686018427387904"),
    ("cluster: {token: $USER}", f'0:20: spec.cluster.token: found "$USER", which holds a $ that is not $RUN;'
     f" allowed: {NAME}, at most 128, with $RUN for the run id"),
    ("cluster: {token: 'a,b=c'}", f'0:20: spec.cluster.token: found "a,b=c", which holds the character ,;'
     f" allowed: {NAME}, at most 128, with $RUN for the run id"),
    ("tools: {etcdctl: ./etcdctl}", '0:20: spec.tools.etcdctl: found "./etcdctl", which is a relative path; allowed: a'
     " name on PATH (letters, digits, . _ + -), or an absolute path"),
    ("tools: {etcdctl: --help}", '0:20: spec.tools.etcdctl: found "--help", which begins with -, as an option of a'
     " command does; allowed: a name on PATH (letters, digits, . _ + -), or an absolute path"),
    ("restore: {owner: etcd}",
     '0:20: spec.restore.owner: found "etcd", which is not user:group; allowed: keep, or user:group by name or number'),
    ("restore: {owner: '-R:x'}", '0:20: spec.restore.owner: found "-R:x", which has a name that begins with -, as an'
     " option of a command does; allowed: keep, or user:group by name or number"),
    ("workers: [w1, w1]", '0:17: spec.workers[1]: found "w1" again, as in spec.workers[0]; each worker stands'
     ' here once'),
    ("workers: [cp1]", '0:13: spec.workers[0]: found "cp1", which is a node (spec.nodes[0].host); list workers only'),
    ("workers: [{host: m2}]",
     '0:20: spec.workers[0].host: found "m2", which is a node (spec.nodes[1].name); list workers only'),
    ("verify: {secrets: [known]}",
     '0:22: spec.verify.secrets[0]: found "known", which is not namespace/name; allowed: namespace/name'),
    ("verify: {rbac: [clusterroles/x]}", '0:19: spec.verify.rbac[0]: found "clusterroles/x", which has an unknown kind'
     " (did you mean clusterrole?); allowed: clusterrole/NAME, clusterrolebinding/NAME, role/NAMESPACE/NAME,"
     " rolebinding/NAMESPACE/NAME"),
    ("verify: {rbac: [role/x]}", '0:19: spec.verify.rbac[0]: found "role/x", which is not role/namespace/name; allowed:'
     " clusterrole/NAME, clusterrolebinding/NAME, role/NAMESPACE/NAME, rolebinding/NAMESPACE/NAME"),
    ("verify: {checks: [{name: a, on: m4, run: x}]}",
     '0:35: spec.verify.checks[0].on: found "m4"; allowed: local, all, m1, m2, m3; did you mean m1?'),
    ("verify: {checks: [{name: a, run: x}, {name: a, run: y}]}", '0:47: spec.verify.checks[1].name: found "a" again, as'
     " in spec.verify.checks[0].name; each check needs a name of its own"),
    ("verify: {checks: [{name: a, run: ' '}]}", '0:36: spec.verify.checks[0].run: found " ", which is empty; allowed:'
     " shell text, at most 8192 characters"),
    ("verify: {pods: 'true'}",
     '0:18: spec.verify.pods: found "true"; allowed: true or false; write true, without quotes'),
    ("tools: !!python/object/apply:os.system {}",
     '0:10: spec.tools: found the tag "tag:yaml.org,2002:python/object/apply:os.system"; a plan has no tags: take it'
     " out"),
    ("tools: {<<: {}}", "0:11: spec.tools: found the merge key <<; a plan has none: write the keys out"),
    ("tools: {[a]: b}", "0:11: spec.tools: found a list or mapping as a key; keys are plain words"),
    ("? {a: b}\n  : c", "0:5: spec: found a list or mapping as a key; keys are plain words"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error"), ADDED)
def test_one_mistake_more(text: str, error: str) -> None:
    assert errors(GOOD + f"  {text}\n") == [f"p.yaml:{END}{error.removeprefix('0')}"]


def test_all_errors_come_at_once_in_the_file_s_order() -> None:
    text = GOOD.replace("prod", "PROD").replace("host: cp2", "host: -cp2").replace("name: m3", "name: m1")
    found = errors(text + "  ssh: {port: x}\n  paths: {walDir: /etc}\n  nodse: 1\n  cluster: {bumpRevision: 0}\n")
    places = [line.split(": ")[1] for line in found]
    assert places == [
        "metadata.name", "spec.nodes[1].host", "spec.nodes[2].name", "spec.ssh.port", "spec.paths.walDir",
        "spec.nodse", "spec.cluster.bumpRevision",
    ]  # fmt: skip


def test_a_node_s_own_paths_are_checked_with_the_plan_s() -> None:
    text = (
        GOOD.replace("host: cp2\n", "host: cp2\n      paths: {dataDir: /data/wal}\n") + "  paths: {walDir: /data/wal}\n"
    )
    assert errors(text) == [
        "p.yaml:14:24: spec.nodes[1].paths.dataDir: walDir (/data/wal) is the same as dataDir (/data/wal); each needs a"
        " place of its own"
    ]


NOT_YAML: list[tuple[bytes, str]] = [
    (b"", "1:1: the file is empty; it must hold a plan: apiVersion, kind, metadata, spec"),
    (b"# only a comment\n", "1:1: the file is empty; it must hold a plan: apiVersion, kind, metadata, spec"),
    (b"- a\n", "1:1: found a list; a plan is a mapping: apiVersion, kind, metadata, spec"),
    (b"\n  text\n", '2:3: found "text"; a plan is a mapping: apiVersion, kind, metadata, spec'),
    (b"a: b\n---\nc: d\n", "2:1: a second document begins here; a plan is one document in one file"),
    (b"a: b\nc: \xff\n", "2:4: byte 0xff is not UTF-8; a plan is UTF-8 text"),
    ("ä: ö\nü: ".encode() + b"\xc3\n", "2:4: byte 0xc3 is not UTF-8; a plan is UTF-8 text"),
    ("a: b".encode("utf-16"), "1:1: byte 0xff is not UTF-8; a plan is UTF-8 text"),
    (b"a: b\nc: d\0\n", "2:5: found the control character U+0000; a plan is printable text"),
    (b"\x1b[2J: x\n", "1:1: found the control character U+001B; a plan is printable text"),
    (
        b"a" * (1 << 20) + b"b",
        "1:1: the file has more than 1,048,576 bytes; no plan is that large: is it the snapshot?",
    ),
    (b"a: *b\n", "1:4: a: the alias *b has no anchor before it"),
    (b"a: &b [*b]\n", "1:8: a[0]: the alias *b stands inside its own anchor, without end"),
    (b"a: " + b"[" * 60 + b"]" * 60, "1:27: nested more than 24 deep; no plan is"),
]


@pytest.mark.parametrize(("data", "error"), NOT_YAML)
def test_what_is_no_plan_at_all(data: bytes, error: str) -> None:
    assert errors(data) == [f"p.yaml:{error}"]


@pytest.mark.parametrize(
    ("data", "position"),
    [
        (b"a: b\nc: [d\n", "3:1"),
        (b"a: b\n\tc: d\n", "2:1"),
        (b"a: 'b\n", "2:1"),
        (b"a: b: c\n", "1:5"),
        (b"a: @b", "1:4"),
    ],
)
def test_broken_yaml_is_placed(data: bytes, position: str) -> None:
    [line] = errors(data)
    assert line.startswith(f"p.yaml:{position}: this is not YAML: ")


def test_aliases_serve_until_they_explode() -> None:
    text = GOOD.replace("host: cp1\n", "host: cp1\n      ssh: &s {user: ops}\n").replace(
        "host: cp2\n", "host: cp2\n      ssh: *s\n"
    )
    plan, _ = read(text.encode(), Path("p.yaml"))
    assert [n.ssh.user for n in plan.nodes] == ["ops", "ops", "root"]
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    started = time.monotonic()
    [line] = errors(bomb)
    assert "more than 20,000 values" in line
    assert time.monotonic() - started < 2


def test_depth_by_aliases() -> None:
    """Each line is shallow, and stands on the one before."""
    tower = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))
    assert "nested more than 24 deep" in errors(tower)[0]


def test_a_byte_order_mark_moves_nothing() -> None:
    text = "\ufeff" + GOOD.replace("apiVersion: runbook/v1", "apiVersion: v1")
    assert errors(text)[0].startswith("p.yaml:1:13: apiVersion")


def test_yaml_1_1_has_no_say() -> None:
    text = GOOD.replace("name: m1", "name: no").replace("name: m2", "name: 2026-04-09").replace("name: m3", "name: 1e3")
    text += "  verify: {checks: [{name: yes, on: no, run: off}]}\n"
    plan, _ = read(text.encode(), Path("p.yaml"))
    assert [n.name for n in plan.nodes] == ["no", "2026-04-09", "1e3"]
    assert (plan.verify.checks[0].name, plan.verify.checks[0].on, plan.verify.checks[0].run) == ("yes", "no", "off")


def test_files(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert [str(p) for p in validate(missing)] == [f"{missing}:1:1: there is no such file"]
    assert [str(p) for p in validate(tmp_path)] == [f"{tmp_path}:1:1: this is a directory; name the plan file in it"]
    odd = tmp_path / "a\nb.yaml"
    assert "\n" not in str(validate(odd)[0])
    assert "a\\nb.yaml:1:1: " in str(validate(odd)[0])
    assert "cannot be read" in str(validate(Path("a\0b"))[0])
    large = tmp_path / "large.yaml"
    large.touch()
    os.truncate(large, 1 << 40)
    assert "is it the snapshot?" in str(validate(large)[0])


def test_warnings_come_with_the_errors() -> None:
    text = GOOD.replace("prod", "PROD") + "  timeouts: {stop: 1s}\n"
    with pytest.raises(PlanErrors) as caught:
        read(text.encode(), Path("p.yaml"))
    assert [p.path for p in caught.value.problems] == ["metadata.name"]
    assert [p.path for p in caught.value.warnings] == ["spec.timeouts.stop"]


def test_nothing_of_the_plan_reaches_the_terminal_raw() -> None:
    [line] = errors(GOOD.replace("host: cp2", 'host: "\\e[31m\\u202Eevil"'))
    assert line.isprintable()
    assert "\\x1b[31m\\u202eevil" in line

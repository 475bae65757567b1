"""The parsers, on real output and on nonsense: typed data or a ParseError, never anything else."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook import parse, x509
from runbook.parse import ParseError
from tests.unit.checks_world import certificate

SAMPLES = Path(__file__).parent / "samples"
ETCD = ("3.5.16", "3.6.5")


def sample(name: str) -> str:
    return (SAMPLES / name).read_text()


# --- etcd ---


@pytest.mark.parametrize("etcd", ETCD)
def test_endpoint_status(etcd: str) -> None:
    seen = parse.endpoint_status(sample(f"etcd-{etcd}-restored-endpoint-status.json"))
    assert [s.endpoint for s in seen] == [f"http://127.0.0.1:2379{i}" for i in (2, 3, 1)]
    assert {s.cluster_id for s in seen} == {18055997876533442449}  # above 2^63: unsigned
    assert {s.revision for s in seen} == {1000000051}
    assert {s.leader for s in seen} == {17934701000206477813}
    assert {s.version for s in seen} == {etcd}
    assert all(s.raft_index > 0 and s.raft_term == 2 and s.db_size > 0 and not s.is_learner for s in seen)
    assert all(s.errors == () for s in seen)


@pytest.mark.parametrize("etcd", ETCD)
def test_endpoint_status_without_a_quorum(etcd: str) -> None:
    (seen,) = parse.endpoint_status(sample(f"etcd-{etcd}-noquorum-endpoint-status.json"))
    assert seen.leader == 0
    assert seen.errors == ("etcdserver: no leader",)
    assert seen.revision == 1000000051


@pytest.mark.parametrize("etcd", ETCD)
def test_endpoint_status_tells_alarms_and_who_answers(etcd: str) -> None:
    (full,) = parse.endpoint_status(sample(f"etcd-{etcd}-nospace-endpoint-status.json"))
    assert full.errors == ("memberID:13668033151171901709 alarm:NOSPACE",)
    assert len(parse.endpoint_status(sample(f"etcd-{etcd}-onedown-endpoint-status.json"))) == 2
    assert parse.endpoint_status("[]") == ()


@pytest.mark.parametrize(("etcd", "at"), [("3.5.16", None), ("3.6.5", 20)])
def test_hashkv(etcd: str, at: int | None) -> None:
    seen = parse.hashkv(sample(f"etcd-{etcd}-hashkv.json"))
    assert {(s.hash, s.revision, s.compact_revision, s.hash_revision) for s in seen} == {(657143564, 51, -1, at)}
    assert len({s.member_id for s in seen}) == 3


@pytest.mark.parametrize("etcd", ETCD)
def test_alarms(etcd: str) -> None:
    assert parse.alarms(sample(f"etcd-{etcd}-alarm-empty.json")) == ()
    assert parse.alarms(sample(f"etcd-{etcd}-alarm-nospace.json")) == (parse.Alarm(13668033151171901709, "NOSPACE"),)


def test_snapshot_status() -> None:
    old = parse.snapshot_status(sample("etcd-3.5.16-snapshot-status.json"))
    new = parse.snapshot_status(sample("etcd-3.6.5-snapshot-status.json"))
    assert (old.revision, old.total_key, old.version) == (51, 58, None)  # 3.5 counts all buckets' entries
    assert (new.revision, new.total_key, new.version) == (51, 50, "3.6.0")
    assert old.total_size == new.total_size == 24576


@pytest.mark.parametrize("etcd", ETCD)
@pytest.mark.parametrize(("when", "token"), [("", "tok1"), ("restored-", "newtok")])
def test_ids_are_computed_as_etcd_computes_them(etcd: str, when: str, token: str) -> None:
    seen = parse.member_list(sample(f"etcd-{etcd}-{when}member-list.json"))
    ids = parse.member_ids({m.name: m.peer_urls for m in seen.members}, token)
    assert ids == {m.name: m.id for m in seen.members}
    assert parse.cluster_id(ids.values()) == seen.cluster_id


def test_ids_depend_on_token_and_urls_and_not_on_their_order() -> None:
    urls = ["https://a:2380", "https://b:2380"]
    one = parse.member_ids({"m": urls}, "t")
    assert one == parse.member_ids({"m": urls[::-1]}, "t")
    assert one != parse.member_ids({"m": urls}, "t2")
    assert one != parse.member_ids({"m": urls[:1]}, "t")
    assert parse.cluster_id([1, 2]) == parse.cluster_id([2, 1]) != parse.cluster_id([1, 3])


@pytest.mark.parametrize("etcd", ETCD)
@pytest.mark.parametrize("tool", ["etcdctl", "etcdutl"])
def test_version(etcd: str, tool: str) -> None:
    assert parse.version(sample(f"etcd-{etcd}-{tool}-version.txt")) == tuple(map(int, etcd.split(".")))


def test_a_member_that_never_started_and_a_learner() -> None:
    text = '{"header":{"cluster_id":1},"members":[{"ID":7,"peerURLs":["https://x:2380"],"isLearner":true}]}'
    (member,) = parse.member_list(text).members
    assert (member.name, member.client_urls, member.is_learner) == ("", (), True)


# --- crictl and kubectl ---


def test_containers() -> None:
    seen = parse.containers(sample("crictl-ps.json"))
    assert [(c.name, c.namespace, c.pod, c.state, c.running) for c in seen] == [
        ("etcd", "kube-system", "etcd-m1", "CONTAINER_RUNNING", True),
        ("etcd", "kube-system", "etcd-m1", "CONTAINER_EXITED", False),
        ("etcd-exporter", "monitoring", "etcd-exporter-x", "CONTAINER_CREATED", True),
        ("web", "default", "web-0", "CONTAINER_UNKNOWN", True),
        ("bare", "", "", "CONTAINER_RUNNING", True),
    ]
    assert [c.attempt for c in seen] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("text", ['{"containers": []}', '{"containers": null}'])
def test_no_containers(text: str) -> None:
    assert parse.containers(text) == ()


@pytest.mark.parametrize("text", ["{}", "[]", '{"items": []}', '{"containers": {}}', ""])
def test_what_is_no_list_of_containers_is_not_read_as_an_empty_one(text: str) -> None:
    with pytest.raises(ParseError):
        parse.containers(text)


def test_sandboxes() -> None:
    """A label or a name with "etcd" in it makes no control-plane pod of another."""
    seen = parse.sandboxes(sample("crictl-pods.json"))
    assert [(s.pod, s.namespace, s.component, s.state, s.ready) for s in seen] == [
        ("etcd-m1", "kube-system", "etcd", "SANDBOX_READY", True),
        ("etcd-m1", "kube-system", "etcd", "SANDBOX_NOTREADY", False),
        ("etcd-backup-29339520-x7k2p", "kube-system", "", "SANDBOX_READY", True),
        ("kube-apiserver-m1", "kube-system", "kube-apiserver", "SANDBOX_NOTREADY", False),
        ("etcd-m1", "monitoring", "", "SANDBOX_READY", True),
    ]
    assert parse.sandboxes('{"items": []}') == parse.sandboxes('{"items": null}') == ()
    (odd,) = parse.sandboxes('{"items": [{"id": "1", "state": "SANDBOX_WHATEVER"}]}')
    assert odd.ready, "whatever is not known to be stopped may start a container"


@pytest.mark.parametrize("text", ["{}", "[]", '{"containers": []}', '{"items": {}}', "", '{"items": [{"id": "1"}]}'])
def test_what_is_no_list_of_sandboxes_is_not_read_as_an_empty_one(text: str) -> None:
    with pytest.raises(ParseError):
        parse.sandboxes(text)


def test_nodes() -> None:
    seen = parse.nodes(sample("kube-1.32-nodes.json"))
    assert [(n.name, n.ready, n.why, n.control_plane) for n in seen] == [
        ("m1", True, "", True),
        ("m2", True, "", True),
        ("m3", True, "", True),
        ("w1", False, "NodeStatusUnknown", False),
    ]
    assert seen[0].addresses == ("10.0.1.10", "m1")


def test_pods() -> None:
    seen = {p.name: p for p in parse.pods(sample("kube-1.32-pods.json"))}
    assert len(seen) == 14
    assert (seen["etcd-m1"].phase, seen["etcd-m1"].ready, seen["etcd-m1"].node) == ("Running", True, "m1")
    web = seen["web-0"]
    assert (web.waiting, web.restarts, web.ready, web.deleting) == ("CrashLoopBackOff", 7, False, False)
    assert seen["old-0"].deleting


def test_readyz() -> None:
    assert parse.readyz(sample("kubectl-1.32.4-readyz.err")) == ("etcd", "poststarthook/rbac/bootstrap-roles")
    assert parse.readyz("[+]ping ok\n[-]etcd failed: reason withheld\n") == ("etcd",)
    assert parse.readyz("[+]ping ok\n[+]etcd ok\nreadyz check passed\n") == ()
    assert parse.readyz("ok") == ()
    with pytest.raises(ParseError, match="refused"):
        parse.readyz(sample("kubectl-1.32.4-refused.err"))


# --- manifests ---


def test_etcd_manifest() -> None:
    pod = parse.manifest(sample("kubeadm-1.30-etcd-m2.yaml"))
    assert (pod.name, pod.namespace, pod.container) == ("etcd", "kube-system", "etcd")
    assert pod.flag("name") == "m2"
    assert pod.urls("initial-advertise-peer-urls") == ("https://10.0.1.11:2380",)
    assert (pod.data_dir, pod.wal_dir) == ("/var/lib/etcd", "")
    assert pod.volumes["etcd-data"] == ("/var/lib/etcd", "DirectoryOrCreate")
    assert pod.on_host("/etc/kubernetes/pki/etcd/server.crt") == "/etc/kubernetes/pki/etcd/server.crt"
    assert pod.on_host("/nowhere") is None
    assert pod.main.program == "etcd"
    assert pod.runs("etcd")
    assert not pod.runs("kube-apiserver")
    assert pod.user is None
    assert pod.version.startswith("3.5.")


def test_apiserver_manifest() -> None:
    pod = parse.manifest(sample("kubeadm-1.30-kube-apiserver-m1.yaml"))
    assert pod.flag("secure-port") == "6443"
    assert pod.urls("etcd-servers") == ("https://127.0.0.1:2379",)
    assert pod.runs("kube-apiserver")
    assert not pod.runs("etcd")  # though its flags are full of the word


POD = """
kind: Pod
metadata: {name: e}
spec:
  securityContext: {runAsUser: 1001}
  containers:
  - name: e
    image: "registry.example:5000/x/etcd:v3.5.16-0@sha256:00"
    command: [/usr/local/bin/etcd, --data-dir, /data/member-of, -name=m9, --force-new-cluster, --wal-dir=/wal/in]
    args: ["--name=last", --quiet]
    volumeMounts:
    - {mountPath: /data/, name: data, subPath: sub}
    - {mountPath: /wal, name: wal}
    - {mountPath: /, name: root}
  volumes:
  - {name: data, hostPath: {path: /srv/etcd/}}
  - {name: wal, emptyDir: {}}
  - {name: root, hostPath: {path: /}}
"""


def test_manifest_in_other_spellings() -> None:
    pod = parse.manifest(POD)
    assert pod.namespace == "default"
    assert pod.flags == {
        "data-dir": "/data/member-of",
        "name": "last",
        "force-new-cluster": "true",
        "wal-dir": "/wal/in",
        "quiet": "true",
    }
    assert pod.data_dir == "/srv/etcd/sub/member-of"
    assert pod.wal_dir is None  # an emptyDir: no path of the host
    assert pod.on_host("/etc/x") == "/etc/x"
    assert pod.user == 1001
    assert pod.version == "3.5.16-0"
    assert pod.runs("etcd")  # by its command, whatever its name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "object was expected"),
        ("a: [", "not YAML"),
        ("kind: ConfigMap\nmetadata: {name: x}", "not Pod"),
        ("kind: Pod\nmetadata: {name: x}\nspec: {containers: []}", "without containers"),
        ("kind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: [1]}]}", "text was expected"),
        ("kind: Pod\n---\nkind: Pod\n", "not YAML"),
        ("\x00", "not YAML"),
        ("? [a]\n: b", "not YAML"),
    ],
)
def test_no_manifest(text: str, says: str) -> None:
    with pytest.raises(ParseError, match=says):
        parse.manifest(text)


# --- certificates ---


def test_certificate() -> None:
    """As another reader of it, openssl, sees it."""
    text = certificate("DNS:localhost, DNS:m1, IP Address:10.0.1.10, IP Address:::1")
    cert = x509.certificate(f"Certificate:\n  some words\n{text}{certificate()}")
    assert cert.names == ("localhost", "m1", "10.0.1.10", "::1")
    argv = ["openssl", "x509", "-noout", "-subject", "-fingerprint", "-sha256", "-enddate"]
    seen = subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout
    assert cert.fingerprint == seen.split("Fingerprint=")[1].split()[0].replace(":", "").lower()
    assert f"{cert.not_after:%H:%M:%S %Y} GMT" in seen
    assert cert.not_before < datetime.now(UTC) < cert.not_after
    assert (cert.subject, cert.issuer) == ("CN=m1", "CN=ca")
    assert x509.certificate(certificate()).names == ()


PEM = certificate()


@pytest.mark.parametrize(
    "bad", ["", "Could not read certificate", PEM.replace("MII", "MIZ"), PEM[:140], "\0", "é" + PEM[30:]]
)
def test_no_certificate(bad: str) -> None:
    with pytest.raises(ParseError):
        x509.certificate(bad)


# --- nonsense ---

PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "containers": (parse.containers, "crictl-ps.json"),
    "sandboxes": (parse.sandboxes, "crictl-pods.json"),
    "endpoint_status": (parse.endpoint_status, "etcd-3.6.5-endpoint-status.json"),
    "hashkv": (parse.hashkv, "etcd-3.6.5-hashkv.json"),
    "member_list": (parse.member_list, "etcd-3.5.16-member-list.json"),
    "alarms": (parse.alarms, "etcd-3.5.16-alarm-nospace.json"),
    "snapshot_status": (parse.snapshot_status, "etcd-3.6.5-snapshot-status.json"),
    "nodes": (parse.nodes, "kube-1.32-nodes.json"),
    "pods": (parse.pods, "kube-1.32-pods.json"),
    "manifest": (parse.manifest, "kubeadm-1.30-etcd-m1.yaml"),
}
TEXTS: dict[str, tuple[Callable[[str], Any], str]] = {
    **PARSERS,
    "readyz": (parse.readyz, "kubectl-1.32.4-readyz.err"),
    "version": (parse.version, "etcd-3.5.16-etcdctl-version.txt"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def total(parser: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(ParseError):
        parser(text)


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text(name: str, text: str) -> None:
    total(TEXTS[name][0], text)


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_output(name: str, data: st.DataObject) -> None:
    """Real output, cut or with a piece of it replaced: a lost connection, another version."""
    parser, file = TEXTS[name]
    text = sample(file)
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    total(parser, text[:start] + data.draw(st.text(max_size=5)) + text[stop:])
    total(parser, text[:start])


def _spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a document: its container and its key there."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [spot for k in keys for spot in [(value, k), *_spots(value[k])]]


@pytest.mark.parametrize("name", [n for n in PARSERS if n != "manifest"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_another_shape(name: str, data: st.DataObject) -> None:
    """Valid JSON with one value replaced by another: another program's, or a later version's."""
    parser, file = PARSERS[name]
    value = json.loads(sample(file))
    spots = _spots(value)
    container, key = spots[data.draw(st.integers(0, len(spots) - 1))]
    container[key] = data.draw(JSON)
    total(parser, json.dumps(value))


@pytest.mark.parametrize("name", PARSERS)
def test_deep_nesting_and_huge_numbers(name: str) -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"hash": ' + "9" * 5000 + "}", "1e999", "NaN"):
        with pytest.raises(ParseError):
            PARSERS[name][0](text)


def test_numbers_of_more_than_64_bits_are_refused() -> None:
    good = sample("etcd-3.5.16-snapshot-status.json")
    for bad in (str(2**64), "-1", "1.0", '"x"', "true", "null"):
        with pytest.raises(ParseError, match="revision"):
            parse.snapshot_status(good.replace('"revision":51', f'"revision":{bad}'))
    assert parse.snapshot_status(good.replace('"revision":51', '"revision":"51"')).revision == 51

"""Good plans: the examples, the defaults, what each key becomes, and what a resume may change."""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from runbook.plan import Cluster, Node, OwnCheck, Paths, Place, Plan, Ssh, Timeouts, Tools, Verify
from runbook.planfile import load, load_backup, load_with_warnings, pinned_differences, read, validate
from runbook.planfile.build import FIELDS
from runbook.planfile.shape import resolved, schema
from runbook.planfile.words import FORMATS

ROOT = Path(__file__).parents[2]
PLANS = sorted((ROOT / "plans").glob("*.yaml"))

MINIMAL = """\
apiVersion: runbook/v1
kind: EtcdRestore
metadata: {name: prod}
spec:
  snapshot: {from: etcd.db}
  nodes:
    - name: m1
      host: cp1
      peerURLs: ["https://10.0.1.10:2380"]
"""


def plan(text: str = MINIMAL, file: str = "/plans/prod.yaml", base: Path | None = None) -> Plan:
    return read(text.encode(), Path(file), base=base)[0]


def with_spec(**spec: Any) -> str:
    data = yaml.safe_load(MINIMAL)
    data["spec"].update(spec)
    return yaml.safe_dump(data)


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.name)
def test_the_examples_are_valid(path: Path) -> None:
    assert validate(path) == ()
    one = load_backup(path)[0] if "backup" in path.name else load(path)
    assert one.file == path
    assert one.text == path.read_bytes()


def test_the_examples_are_there() -> None:
    assert {p.name for p in PLANS} >= {"ha.yaml", "single-node.yaml", "lab-ha.yaml", "lab-single.yaml"}


def test_the_lab_plan() -> None:
    one = load(ROOT / "plans" / "lab-ha.yaml")
    assert one.initial_cluster == ("m1=https://10.0.1.10:2380,m2=https://10.0.1.11:2380,m3=https://10.0.1.12:2380")
    assert one.node("m3").client_urls == ("https://10.0.1.12:2379",)
    assert one.node("m3").ssh.identity_file == Path("/run/runbook-lab/default/id_ed25519")


def test_the_ha_example_shows_every_key() -> None:
    root = yaml.compose((ROOT / "plans" / "ha.yaml").read_text())
    seen: set[str] = set()

    def visit(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                seen.add(key.value)
                visit(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                visit(item)

    assert root is not None
    visit(root)
    assert {key for key, _, _ in every_key()} <= seen


def test_defaults_are_the_dataclasses() -> None:
    one = plan()
    home = Path("~/.ssh/known_hosts").expanduser()
    ssh = Ssh(known_hosts_file=home)
    assert one == Plan(
        name="prod",
        snapshot=one.snapshot,
        nodes=(Node("m1", "cp1", ("https://10.0.1.10:2380",), ("https://10.0.1.10:2379",), ssh, Paths()),),
    )
    assert (one.cluster, one.tools, one.timeouts, one.verify) == (Cluster(), Tools(), Timeouts(), Verify())
    assert (one.snapshot.source, one.snapshot.path) == ("etcd.db", Path("/plans/etcd.db"))
    assert (one.snapshot.sha256, one.snapshot.node, one.snapshot.allow_missing_trailer) == (None, None, False)


def every_key() -> list[tuple[str, str, dict[str, Any]]]:
    """Each key of the schema, with its place and its own part of it."""
    found: list[tuple[str, str, dict[str, Any]]] = []

    def visit(part: dict[str, Any], where: str) -> None:
        real = dict(resolved(part))
        for key, below in real.get("properties", {}).items():
            found.append((key, f"{where}.{key}", below))
            visit(below, f"{where}.{key}")
        if "items" in real:
            visit(real["items"], f"{where}[]")

    visit(dict(schema()), "")
    return found


def filled(part: dict[str, Any]) -> Any:
    """The defaults that the schema speaks of, put in full."""
    real = resolved(part)
    if real.get("type") == "object":
        optional = set(real["properties"]) - set(real.get("required", ()))
        return {key: filled(real["properties"][key]) for key in optional if key != "clientURLs"}
    return part.get("default", real.get("default"))


def test_the_schema_s_defaults_are_the_program_s() -> None:
    spec = dict(resolved(dict(schema()))["properties"]["spec"])
    explicit = {key: value for key, value in filled(spec).items() if key not in ("snapshot", "nodes")}
    assert explicit["timeouts"]["restore"] == "30m"
    data = yaml.safe_load(MINIMAL)
    data["metadata"]["ticket"] = ""
    data["spec"]["snapshot"].update(filled({"$ref": "#/$defs/snapshot"}))
    data["spec"].update(explicit)
    assert plan(yaml.safe_dump(data)) == plan()


def test_the_schema_says_what_each_key_is() -> None:
    Draft202012Validator.check_schema(schema())
    keys = every_key()
    assert len(keys) > 50
    for key, where, part in keys:
        says = part.get("description") or resolved(part).get("description", "")
        assert says, where
        known = "default" in part or "default" in resolved(part)
        assert known or "Required." in says or "Default: " in says, f"{where}: neither default nor required"
        assert not (known and "Required." in says and key != "snapshot"), where


def test_the_schema_is_closed_and_its_formats_known() -> None:
    def visit(part: Any) -> None:
        if isinstance(part, dict):
            if "properties" in part:
                assert part["additionalProperties"] is False
                assert set(part.get("required", ())) <= set(part["properties"])
            if part.get("type") == "string":
                assert part["format"] in FORMATS
            for below in part.values():
                visit(below)
        elif isinstance(part, list):
            for below in part:
                visit(below)

    visit(dict(schema()))


def test_the_schema_comes_with_the_package() -> None:
    text = importlib.resources.files("runbook").joinpath("schemas/plan.schema.json").read_text()
    assert json.loads(text) == json.loads((ROOT / "schemas" / "plan.schema.json").read_text())


def test_every_field_has_a_key() -> None:
    """Each of the dataclasses' fields can be said in a plan, but for those that are worked out."""
    keys = {key for key, _, _ in every_key()}
    names = {field: key for key, field in FIELDS.items()}
    for kind in (Ssh, Tools, Paths, Timeouts, Cluster, Verify, OwnCheck, Node):
        for field in fields(kind):
            assert names.get(field.name, field.name) in keys, f"{kind.__name__}.{field.name}"


def test_everything_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/responder")
    text = """\
apiVersion: runbook/v1
kind: EtcdRestore
metadata: {name: "123", ticket: no}
spec:
  snapshot: {from: "host://m2/opt/backup/etcd.db", sha256: 12345678$}
  cluster: {token: restore-$RUN, bumpRevision: 5}
  nodes:
  - {name: m1, host: 10.0.0.1, peerURLs: ["https://[fd00::1]:2380", "https://m1.internal:2380"]}
  - {name: m2, host: "fd00::2", peerURLs: ["https://10.0.0.2:2380"], clientURLs: ["https://10.0.0.2:4001"],
     ssh: {user: ops, port: 2222, jump: "", identityFile: ""}, paths: {dataDir: /data/etcd, walDir: /wal}}
  - {name: m3, host: cp_3, peerURLs: ["https://10.0.0.3:2380"]}
  workers: [w1, {host: w2, ssh: {sudo: always}}]
  ssh: {user: admin, identityFile: ~/.ssh/k, knownHostsFile: known, jump: "a@[fd00::9]:2200", connectTimeout: 1500ms}
  tools: {etcdutl: /opt/etcdutl, upload: bin}
  paths: {workspace: /data/runs}
  restore: {owner: "etcd:0"}
  timeouts: {stop: 1m30s, restore: 1.5h}
  verify:
    nodesReady: false
    rbac: [ClusterRole/system:node, Role/kube-system/x]
    checks: [{name: answers, on: m3, run: "a\\n\\tb"}, {name: other, run: true, within: 5s}]
"""
    one = plan(text.replace("12345678$", "12345678" * 8))  # digits alone, and yet a text
    assert (one.name, one.ticket, one.cluster.token, one.owner) == ("123", "no", "restore-$RUN", "etcd:0")
    assert (one.snapshot.node, one.snapshot.path) == ("m2", Path("/opt/backup/etcd.db"))
    assert one.snapshot.sha256 == "12345678" * 8
    m1, m2, m3 = one.nodes
    assert m1.client_urls == ("https://[fd00::1]:2379", "https://m1.internal:2379")
    assert m2.client_urls == ("https://10.0.0.2:4001",)
    assert m1.ssh == Ssh(
        "admin", 22, Path("/home/responder/.ssh/k"), Path("/plans/known"), "a@[fd00::9]:2200", "auto", 1.5
    )
    assert m2.ssh == Ssh("ops", 2222, None, Path("/plans/known"), None, "auto", 1.5)
    assert m2.paths == Paths(data_dir="/data/etcd", wal_dir="/wal", workspace="/data/runs")
    assert m3.paths == Paths(workspace="/data/runs")
    assert [(w.name, w.ssh.sudo, w.paths.workspace) for w in one.workers] == [
        ("w1", "auto", "/data/runs"),
        ("w2", "always", "/data/runs"),
    ]
    assert one.tools == Tools("etcdctl", "/opt/etcdutl", Path("/plans/bin"))
    assert one.timeouts == Timeouts(stop=90.0, restore=5400.0)
    assert one.verify.rbac == ("clusterrole/system:node", "role/kube-system/x")
    assert one.verify.checks == (OwnCheck("answers", "m3", "a\n\tb", 60.0), OwnCheck("other", "local", "true", 5.0))
    assert not one.verify.nodes_ready


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("file:///srv/my%20backup.db", "/srv/my backup.db"),
        ("/srv/etcd.db", "/srv/etcd.db"),
        ("backups/etcd 2026-04-09T14:00.db", "/plans/backups/etcd 2026-04-09T14:00.db"),
        ("./etcd.db", "/plans/etcd.db"),
        ("~/etcd.db", str(Path.home() / "etcd.db")),
    ],
)
def test_snapshots_of_this_machine(source: str, path: str) -> None:
    assert plan(with_spec(snapshot={"from": source})).snapshot.path == Path(path)


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("s3://bucket/prod?latest=verified", "s3://bucket/prod"),
        ("s3://bucket?at=2026-04-09T14:00:00+02:00", "s3://bucket"),
        ("gs://bucket/etcd.db", "gs://bucket"),
        ("az://container/prod/a.db.zst.age", "az://container/prod"),
        ("file:///srv/my%20backups/?latest=verified", "file:///srv/my%20backups"),
        ("file:///srv/a.db.age", "file:///srv"),
        ("host://m1/opt/backup?latest=verified", "host://m1/opt/backup"),
        ("host://m1/opt/backup/a.db.zst", "host://m1/opt/backup"),
    ],
)
def test_snapshots_of_stores(source: str, url: str) -> None:
    """Of such a one no path is known before it is fetched, and no node holds a file that could be sent as it lies."""
    one = plan(with_spec(snapshot={"from": source, "identityFile": "keys.txt"})).snapshot
    assert (one.store, one.node, one.name, one.fetched) == (Place(url), None, "", False)
    assert not one.path.exists()
    assert one.shown == one.sent == source
    assert one.identity_file == Path("/plans/keys.txt")


def test_how_a_store_is_reached() -> None:
    store = {"endpoint": "http://10.0.0.9:9000", "region": "eu-1"}
    one = plan(with_spec(snapshot={"from": "s3://bucket/etcd.db", "store": store}))
    assert one.snapshot.store == Place("s3://bucket", "http://10.0.0.9:9000", "eu-1")


@pytest.mark.parametrize("source", ["/srv/etcd.db", "file:///srv/etcd.db", "host://m1/srv/etcd.db", "a.db.zst.age"])
def test_plain_files_are_no_stores(source: str) -> None:
    assert plan(with_spec(snapshot={"from": source})).snapshot.store is None


def test_what_was_fetched_is_no_part_of_the_plan() -> None:
    """Digest and pins speak of what was written; else a preview could not be compared with its run."""
    one = plan(with_spec(snapshot={"from": "s3://bucket/prod?latest=verified"}))
    mine = replace(one.snapshot, path=Path("/proc/1/fd/3"), name="a.db.zst")
    other = replace(one, snapshot=mine)
    assert (mine.fetched, mine.shown, mine.sent) == (True, "s3://bucket/prod/a.db.zst", "/proc/1/fd/3")
    assert other.digest() == one.digest()
    assert pinned_differences(one, other) == []
    assert other.as_written() == one


def test_a_digest_in_capitals_is_the_same_digest() -> None:
    assert plan(with_spec(snapshot={"from": "x", "sha256": "AB" * 32})).snapshot.sha256 == "ab" * 32


def test_a_copy_of_a_plan_is_read_as_the_original() -> None:
    assert plan(file="/runs/x/plan.yaml", base=Path("/plans")).snapshot.path == Path("/plans/etcd.db")
    assert plan(file="/runs/x/plan.yaml", base=Path("/plans")) == plan()


def test_relative_plan_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.yaml").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    one, warnings = load_with_warnings(Path("p.yaml"))
    assert one.snapshot.path == tmp_path / "etcd.db"
    assert warnings == ()


THREE = [
    {"name": f"m{n}", "host": f"cp{n}", "peerURLs": [f"https://10.0.1.1{n}:2380"], "ssh": {"user": "ops"}}
    for n in range(3)
]


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"ssh": {"user": "x"}, "timeouts": {"stop": "90s"}, "verify": {"pods": False, "secrets": ["a/b"]}}, []),
        ({"nodes": [{**n, "host": f"10.0.0.{i}", "ssh": {"port": 2}} for i, n in enumerate(THREE)]}, []),
        ({"workers": [{"host": "w1", "ssh": {"user": "y"}}]}, []),
        ({"workers": []}, ["spec.workers"]),
        ({"workers": ["w2"]}, ["spec.workers[0].host"]),
        ({"snapshot": {"from": "host://m1/x.db"}}, ["spec.snapshot.from"]),
        ({"snapshot": {"from": "etcd.db", "sha256": "0" * 64}}, ["spec.snapshot.sha256"]),
        ({"snapshot": {"from": "etcd.db", "identityFile": "k"}}, []),
        ({"snapshot": {"from": "s3://bucket/x.db"}}, ["spec.snapshot.from"]),
        ({"cluster": {"bumpRevision": 7}}, ["spec.cluster.bumpRevision"]),
        ({"nodes": THREE[:1]}, ["spec.nodes"]),
        ({"nodes": [THREE[1], THREE[0], THREE[2]]}, None),
        ({"nodes": [*THREE[:2], {**THREE[2], "peerURLs": ["https://a:2380"]}]},
         ["spec.nodes[2].peerURLs", "spec.nodes[2].clientURLs"]),
        ({"nodes": [*THREE[:2], {**THREE[2], "paths": {"dataDir": "/d"}}]}, ["spec.nodes[2].paths.dataDir"]),
        ({"paths": {"walDir": "/wal", "etcdCA": "/ca"}}, ["spec.paths.walDir", "spec.paths.etcdCA"]),
        ({"restore": {"owner": "a:b"}}, ["spec.restore.owner"]),
        ({"tools": {"upload": "bin"}}, ["spec.tools.upload"]),
    ],
)  # fmt: skip
def test_what_a_resume_may_not_change(change: dict[str, Any], keys: list[str] | None) -> None:
    before: dict[str, Any] = {"nodes": THREE, "workers": ["w1"]}
    old, new = plan(with_spec(**before)), plan(with_spec(**{**before, **change}))
    found = pinned_differences(old, new)
    assert (found == keys) if keys is not None else found


def test_how_a_store_is_reached_may_change_during_a_run_but_not_which_one_it_is() -> None:
    old = plan(with_spec(snapshot={"from": "s3://bucket/a?latest=verified"}))
    options = {"store": {"endpoint": "http://10.0.0.9:9000", "region": "eu-1"}, "identityFile": "other"}
    new = plan(with_spec(snapshot={"from": "s3://bucket/a?latest=verified", **options}))
    assert pinned_differences(old, new) == []
    new = plan(with_spec(snapshot={"from": "s3://bucket/b?latest=verified", **options}))
    assert pinned_differences(old, new) == ["spec.snapshot.from"]
    assert pinned_differences(old, old) == []


def test_names_and_tickets_are_pinned() -> None:
    other = replace(plan(), name="other", ticket="x")
    assert pinned_differences(plan(), other) == ["metadata.name", "metadata.ticket"]


WARNED = [
    ({"nodes": THREE[:2]}, "spec.nodes", "2 nodes, an even number"),
    ({"cluster": {"markCompacted": False, "bumpRevision": 0}}, "spec.cluster.markCompacted", "watches"),
    ({"cluster": {"token": "fixed"}}, "spec.cluster.token", "$RUN"),
    ({"snapshot": {"from": "x", "identityFile": "k"}}, "spec.snapshot.identityFile", "nothing is decrypted"),
    ({"snapshot": {"from": "x", "allowMissingTrailer": True}}, "spec.snapshot.allowMissingTrailer", "nothing proves"),
    ({"snapshot": {"from": "x", "allowMissingTrailer": True, "sha256": "0" * 64}},
     "spec.snapshot.allowMissingTrailer", "sha256 alone"),
    ({"timeouts": {"stop": "29s"}}, "spec.timeouts.stop", "30 s"),
    ({"ssh": {"user": "ops", "sudo": "never"}}, "spec.ssh.sudo", "root's rights"),
    ({"nodes": [*THREE[:2], {**THREE[2], "peerURLs": ["http://a:2380"]}]}, "spec.nodes[2].peerURLs[0]", "typo"),
    ({"nodes": [*THREE[:2], {**THREE[2], "peerURLs": ["https://127.0.0.1:2380"]}]},
     "spec.nodes[2].peerURLs[0]", "loopback"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "path", "says"), WARNED)
def test_warnings(change: dict[str, Any], path: str, says: str) -> None:
    text = with_spec(**change)
    _, warnings = read(text.encode(), Path("p.yaml"))
    assert [w.path for w in warnings] == [path]
    assert says in warnings[0].message
    assert str(warnings[0]).startswith(f"p.yaml:{warnings[0].line}:{warnings[0].column}: warning: {path}: ")
    assert text.splitlines()[warnings[0].line - 1].strip()


def test_validating_is_cheap() -> None:
    """No module of the heavy ones; and well under the 0.4 s of CPU that the whole command may take."""
    code = (
        "import resource, sys; from pathlib import Path; from runbook.planfile import validate\n"
        "assert not validate(Path(sys.argv[1]))\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "heavy = {'fabric', 'paramiko', 'structlog', 'rich', 'asyncio', 'transitions'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    argv = [sys.executable, "-c", code, str(ROOT / "plans" / "ha.yaml")]
    best = min(float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout) for _ in range(2))
    assert best < 1.0  # a machine under load may be slow; the figure itself is the bench's

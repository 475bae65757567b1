"""Plans of the kind EtcdBackup: their schema, their errors, what they become."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from runbook.backup import KEEP, Backup, Place, Schedule
from runbook.plan import Timeouts, Tools
from runbook.planfile import PlanErrors, load, load_backup, validate
from runbook.planfile.shape import BACKUP, schema
from runbook.planfile.words import FORMATS
from runbook.snapshots.keep import Keep

ROOT = Path(__file__).parents[2]
KEY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
MINIMAL = f"""\
apiVersion: runbook/v1
kind: EtcdBackup
metadata: {{name: prod}}
spec:
  store: {{url: "s3://bucket/prod"}}
  encrypt: {{recipients: [{KEY}]}}
  nodes:
    - name: m1
      host: cp1
      peerURLs: ["https://10.0.1.10:2380"]
"""


def written(tmp_path: Path, text: str = MINIMAL) -> Path:
    path = tmp_path / "backup.yaml"
    path.write_text(text)
    return path


def changed(tmp_path: Path, **spec: Any) -> Path:
    data = yaml.safe_load(MINIMAL)
    data["spec"].update(spec)
    return written(tmp_path, yaml.safe_dump(data, sort_keys=False))


def told(path: Path) -> list[str]:
    return [f"{'warning: ' if p.warning else ''}{p.path}: {p.message}" for p in validate(path)]


def test_defaults_are_the_dataclasses(tmp_path: Path) -> None:
    one, hints = load_backup(written(tmp_path))
    assert hints == ()
    assert one == Backup("prod", Place("s3://bucket/prod"), one.hosts, recipients=(KEY,))
    assert (one.keep, one.schedule, one.hosts.tools) == (KEEP, Schedule(), Tools())
    assert one.hosts.timeouts == Timeouts(command=60.0, restore=1800.0)
    assert [n.client_urls for n in one.hosts.nodes] == [("https://10.0.1.10:2379",)]
    assert one.hosts.snapshot.source == "s3://bucket/prod"


def test_everything_given() -> None:
    one, hints = load_backup(ROOT / "plans" / "backup.yaml")
    assert hints == ()
    assert one.store == Place("s3://example-backups/prod-eu1", "", "eu-central-1", "aws:kms", "")
    assert one.keep == Keep(28, 0, 14, 8, 6)
    assert one.schedule.when == "0 */6 * * *"
    assert (one.schedule.deadline, one.schedule.secret) == (1800.0, "runbook-store")
    assert one.metrics == Path("/var/lib/node_exporter/textfile_collector")
    assert len(one.hosts.nodes) == 3


def test_the_example_shows_every_key() -> None:
    data = yaml.safe_load((ROOT / "plans" / "backup.yaml").read_text())["spec"]
    parts = schema(BACKUP)
    assert set(data) == set(parts["properties"]["spec"]["properties"])
    for key in ("store", "keep", "schedule"):
        assert set(data[key]) == set(parts["$defs"][key]["properties"]), key


def test_the_schema_is_good_closed_and_its_formats_known() -> None:
    Draft202012Validator.check_schema(schema(BACKUP))

    def visit(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("type") == "object":
                assert part["additionalProperties"] is False
            if isinstance(form := part.get("format"), str):
                assert form in FORMATS
            for below in part.values():
                visit(below)
        elif isinstance(part, list):
            for below in part:
                visit(below)

    visit(schema(BACKUP))


@pytest.mark.parametrize("name", ["node", "ssh", "paths", "duration", "url"])
def test_what_both_kinds_have_is_the_same(name: str) -> None:
    assert schema(BACKUP)["$defs"][name] == schema()["$defs"][name]


def test_each_kind_is_for_its_own_commands(tmp_path: Path) -> None:
    restore = ROOT / "plans" / "single-node.yaml"
    with pytest.raises(PlanErrors, match='found "EtcdRestore", which is for runbook preview, run; allowed here: EtcdB'):
        load_backup(restore)
    with pytest.raises(PlanErrors, match='found "EtcdBackup", which is for runbook snapshot save; allowed here: Etcd'):
        load(written(tmp_path))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"store": {"url": "s3://bucket", "kmsKey": "abc"}}, "spec.store.kmsKey: a key is given without"),
    ({"store": {"url": "gs://bucket", "serverSideEncryption": "AES256"}}, "spec.store.serverSideEncryption: this is"),
    ({"store": {"url": "file:///srv/x", "region": "eu"}}, "spec.store.region: region is for object stores"),
    ({"store": {"url": "s3://key:secret@bucket/x"}}, 'spec.store.url: found "s3://…@bucket/x", which holds a'),
    ({"store": {"url": "s3://bucket/../x"}}, "spec.store.url: found"),
    ({"store": {"url": "s3://bucket/x?latest=verified"}}, "spec.store.url: found"),
    ({"store": {"url": "ftp://bucket/x"}}, "spec.store.url: found"),
    ({"store": {"url": "/srv/backups"}}, "spec.store.url: found"),
    ({"store": {"url": "file://srv/backups"}}, "spec.store.url: found"),
    ({"store": {"url": "s3://b/x"}}, "spec.store.url: found"),
    ({"store": {"url": "s3://bkt/x", "endpoint": "localhost:9000"}}, "spec.store.endpoint: found"),
    ({"store": {}}, "spec.store.url: this key is missing"),
    ({"encrypt": {"recipients": ["AGE-SECRET-KEY-1QQQ"]}}, "spec.encrypt.recipients[0]: found"),
    ({"encrypt": {"recipients": ["age1abc"]}}, "spec.encrypt.recipients[0]: found"),
    ({"keep": {"last": 0, "daily": 0, "weekly": 0, "monthly": 0}}, "spec.keep: found 0 everywhere"),
    ({"keep": {"last": -1}}, "spec.keep.last: found"),
    ({"keep": {"lasts": 1}}, "spec.keep.lasts: unknown key; allowed: last, hourly"),
    ({"schedule": {"pace": "slow"}}, "spec.schedule.pace: found"),
    ({"schedule": {"cron": "every day"}}, "spec.schedule.cron: found"),
    ({"schedule": {"image": "Not An Image"}}, "spec.schedule.image: found"),
    ({"tools": {"uploads": "/opt"}}, "spec.tools.uploads: unknown key"),
    ({"tools": {"upload": ["x"]}}, "spec.tools.upload: found"),
    ({"paths": {"dataDir": "/etc"}}, "spec.paths.dataDir: found"),
    ({"snapshot": {"from": "x"}}, "spec.snapshot: unknown key; allowed: store"),
]


@pytest.mark.parametrize(("spec", "says"), WRONG, ids=[says[:40] for _, says in WRONG])
def test_one_mistake_is_one_error(tmp_path: Path, spec: dict[str, Any], says: str) -> None:
    found = told(changed(tmp_path, **spec))
    assert len(found) == 1
    assert found[0].startswith(says)


def test_tools_are_brought_from_beside_the_plan(tmp_path: Path) -> None:
    assert load_backup(changed(tmp_path, tools={"upload": "bin"}))[0].hosts.tools.upload == tmp_path / "bin"
    assert load_backup(changed(tmp_path))[0].hosts.tools.upload is None


def test_no_secret_is_repeated(tmp_path: Path) -> None:
    [said] = told(changed(tmp_path, encrypt={"recipients": ["AGE-SECRET-KEY-1" + "Q" * 58]}))
    assert "stands in no plan" in said
    assert "QQ" not in said


@pytest.mark.parametrize(
    "secret",
    [
        "AGE-SECRET-KEY-1" + "Q" * 58,
        "age-secret-key-1" + "q" * 58,
        "AGE-SECRET-KEY-PQ-1" + "Q" * 58,
        f"{KEY} AGE-SECRET-KEY-1" + "Q" * 10,
        "ssh-ed25519 AAAA AGE-SECRET-KEY-1QQQ",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nQQQQ\n-----END OPENSSH PRIVATE KEY-----",
    ],
)
@pytest.mark.parametrize(
    "encrypt",
    [
        lambda key: {"recipients": [key]},
        lambda key: {"recipients": [key, key]},
        lambda key: {"recipients": key},
        lambda key: {"recipients": {key: ""}},
        lambda key: {key: ""},
    ],
)
def test_no_secret_is_repeated_wherever_it_stands(tmp_path: Path, secret: str, encrypt: Any) -> None:
    found = "\n".join(told(changed(tmp_path, encrypt=encrypt(secret))))
    assert "spec.encrypt" in found
    assert "QQ" not in found.upper()


OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKFPkKd+alFxGBjZNywntJW+oktrBdfpwmpWQpHakuVJ"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (KEY.replace("ql3z7", "ql3z8"), "has a wrong checksum"),
        (KEY.replace("hjy", "jhy"), "has a wrong checksum"),
        ("ssh-ed25519 AAAA", "is no SSH key that can be read"),
        (OTHER[:-4], "is no SSH key that can be read"),
        ("ssh-rsa AAAAB3NzaC1yc2E=", "is no SSH key that can be read"),
    ],
)
def test_a_key_that_the_encrypting_library_refuses_is_told_with_its_place(tmp_path: Path, key: str, says: str) -> None:
    path = changed(tmp_path, encrypt={"recipients": [KEY, OTHER, key]})
    [said] = [str(problem) for problem in validate(path)]
    line = next(at for at, text in enumerate(path.read_text().splitlines(), 1) if text.strip() == f"- {key}")
    assert said.startswith(f'{path}:{line}:7: spec.encrypt.recipients[2]: found "{key[:12]}')
    assert f", which {says}" in said
    assert "allowed: age1… (58 characters after it), or an SSH public key" in said
    assert "age-keygen -y" in said


def test_a_restore_plan_needs_nothing_of_what_encrypts() -> None:
    plans = ["plans/ha.yaml", "plans/lab-ha.yaml"]
    ask = "import sys; from pathlib import Path; from runbook.planfile import validate; "
    ask += f"[validate(Path(p)) for p in {plans}]; print([m for m in sys.modules if 'pyrage' in m or 'sealing' in m])"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_store_on_a_node_that_is_not_there(tmp_path: Path) -> None:
    found = told(changed(tmp_path, store={"url": "host://m9/srv"}))
    assert found[0].startswith('spec.store.url: found the node "m9", which the plan does not have; allowed: m1')


def test_a_store_on_the_cluster_is_warned_of(tmp_path: Path) -> None:
    [said] = told(changed(tmp_path, store={"url": "host://m1/srv/backups"}))
    assert said.startswith("warning: spec.store.url: on a node of the cluster itself")


def test_a_store_that_all_can_read_is_warned_of(tmp_path: Path) -> None:
    [said] = told(changed(tmp_path, encrypt={"recipients": []}))
    assert said.startswith("warning: spec.encrypt.recipients: none: whoever may read the store has every Secret")

"""Encryption at rest: the names that a host tells of its configuration, and what is judged by them."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.checks import Severity, encryption, manifests
from runbook.checks.encryption import configurations
from runbook.checks.words import script
from runbook.step import Result, Target
from tests.unit.bolt_kit import History
from tests.unit.checks_world import PLAN, Change, manifest, says, where
from tests.unit.test_checks_content import POD, of, planned

OK, WARNS, BLOCKS = Severity.OK, Severity.WARNS, Severity.BLOCKS
ENC = "/etc/kubernetes/enc/config.yaml"
MOUNT = "    - mountPath: /etc/kubernetes/enc\n      name: enc\n    - mountPath: /etc/ssl/certs"
VOLUME = "  - hostPath:\n      path: /srv/enc\n    name: enc\n  - hostPath:\n      path: /etc/ssl/certs"
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
CONFIG = f"""# the keys of 2026
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources:
      - secrets
      - "*.apps"
    providers:
      - aescbc:
          keys:
            - name: key2   # the newest
              secret: {SECRET}
            - secret: "{SECRET}"
              name: 'key1'
      - kms:
          apiVersion: v2
          name: vault
          endpoint: unix:///run/kms/vault.sock
          timeout: 3s
      - identity: {{}}
"""
TAKEN = [("aescbc", ["key2", "key1"]), ("kms", ["vault"]), ("identity", [])]


def encrypted(text: str) -> str:
    """An API server's manifest that names the configuration."""
    for old, new in (
        ("    - --etcd-servers=", f"    - --encryption-provider-config={ENC}\n    - --etcd-servers="),
        ("    - mountPath: /etc/ssl/certs", MOUNT),
        ("  - hostPath:\n      path: /etc/ssl/certs", VOLUME),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    return text


def with_config(names: str) -> list[Change]:
    """All hosts have the manifest; m2's file is taken apart to these lines, the others' are in order."""
    good = "file /srv/enc/config.yaml\nform\nprovider aescbc\nname key1\nname key2\nprovider identity\n"

    def manifests_of(n: Target, result: Result) -> Result:
        lines = []
        for line in result.out.splitlines():
            kind, name, body = (*line.split(), "")[:3]
            if base64.b64decode(name) == b"kube-apiserver.yaml":
                body = base64.b64encode(encrypted(base64.b64decode(body).decode()).encode()).decode()
            lines.append(f"{kind} {name} {body}")
        return Result(0, "\n".join(lines) + "\n")

    return [
        where(manifests.READ, manifests_of, on=""),
        where(encryption.NAMES, says(good), on=""),
        where(encryption.NAMES, says(names)),
    ]


HELD = [
    (2, b"/registry/secrets/a/1", b"k8s:enc:aescbc:v1:key1:xx"),
    (3, b"/registry/configmaps/a/1", b"k8s:enc:aescbc:v1:key2:xx"),
]
KMS = [*HELD, (4, b"/registry/secrets/a/2", b"k8s:enc:kms:v2:vault:xx")]
PLAIN = [*HELD, (5, b"/registry/secrets/a/3", b"{}")]
HEAD = "file /srv/enc/config.yaml\nform\n"
BOTH = f"{HEAD}provider aescbc\nname key1\nname key2\n"
PLUGIN = f"{BOTH}provider kms\nversion v2\nname vault\nsocket /etc/kubernetes/enc/kms.sock\nprovider identity\n"


@pytest.mark.parametrize(
    ("names", "held", "severity", "words"),
    [
        (f"{BOTH}provider identity\n", HELD, OK, "has the keys of aescbc key1 (1 secrets), aescbc key2 (1 configmaps)"),
        (f"{HEAD}provider aescbc\nname key1\n", HELD, BLOCKS, "aescbc key2 (1 configmaps); /srv/enc/config.yaml has"),
        (f"{HEAD}provider aesgcm\nname key1\nname key2\n", HELD, BLOCKS, "aescbc key1"),
        (f"{HEAD}provider identity\n", HELD, BLOCKS, "has identity"),
        (BOTH.replace("/srv", "/etc"), HELD, BLOCKS, "there is no such file"),
        ("", HELD, BLOCKS, "there is no such file"),
        (f"{BOTH}unknown\n", HELD, WARNS, "cannot be taken apart"),
        ("file /srv/enc/config.yaml\nprovider aescbc\nname key1\nname key2\n", HELD, WARNS, "cannot be taken apart"),
        (HEAD, HELD, WARNS, "cannot be taken apart"),
        (f"{BOTH}", PLAIN, WARNS, "1 Secrets of the snapshot are not encrypted"),
        (f"{BOTH}provider identity\n", KMS, BLOCKS, "kms v2 vault (1 secrets)"),
        (PLUGIN, KMS, WARNS, "KMS plugin vault at /etc/kubernetes/enc/kms.sock (no socket is there on the host: /srv/"),
        (f"{PLUGIN}there /srv/enc/kms.sock\n", KMS, WARNS, "the KMS plugin vault at /etc/kubernetes/enc/kms.sock"),
        (PLUGIN.replace("version v2\n", ""), KMS, BLOCKS, "kms v2 vault"),
        (PLUGIN, HELD, OK, "has the keys of"),
    ],
)  # fmt: skip
def test_the_keys_of_the_snapshot_on_one_host(
    tmp_path: Path, names: str, held: History, severity: Severity, words: str
) -> None:
    found = {f.host: f for f in of("Encryption", *with_config(names), plan=planned(tmp_path, held))}
    assert (found["m2"].severity, words in found["m2"].saw) == (severity, True), found["m2"]
    assert bool(found["m2"].do) == (severity is not OK)


def test_hosts_without_any_configuration(tmp_path: Path) -> None:
    found = of("Encryption", plan=planned(tmp_path, HELD))
    assert {(f.host, f.severity) for f in found} == {(h, BLOCKS) for h in ("m1", "m2", "m3")}
    assert "has no --encryption-provider-config" in found[0].saw
    assert {f.severity for f in of("Encryption", plan=planned(tmp_path, [(2, POD, b"v")]))} == {OK}


def taken(tmp_path: Path, config: str, edit: Callable[[str], str] = lambda text: text) -> Result:
    """What the script prints of this configuration, on a host whose manifest is edited so."""
    there = tmp_path / "enc"
    there.mkdir(exist_ok=True)
    (there / "config.yaml").write_text(config)
    text = encrypted(manifest(PLAN.nodes[0], "kube-apiserver")).replace("/srv/enc", str(there))
    (tmp_path / "kube-apiserver.yaml").write_text(edit(text))
    done = subprocess.run(script(encryption.NAMES, str(tmp_path)).words(), capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def as_json(text: str) -> str:
    return json.dumps(yaml.safe_load(text))


EDITS: dict[str, Callable[[str], str]] = {
    "as kubeadm writes it": lambda text: text,
    "in quotes": lambda text: text.replace(
        f"--encryption-provider-config={ENC}", f'"--encryption-provider-config={ENC}"'
    ),
    "in two words": lambda text: text.replace(f"config={ENC}", f"config\n    - {ENC}"),
    "JSON": as_json,
    "JSON in lines": lambda text: json.dumps(json.loads(as_json(text)), indent=1),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("form", ["YAML", "JSON", "JSON in lines"])
def test_names_are_taken_from_every_form(tmp_path: Path, edit: str, form: str) -> None:
    config = {
        "YAML": CONFIG,
        "JSON": as_json(CONFIG),
        "JSON in lines": json.dumps(json.loads(as_json(CONFIG)), indent=2),
    }
    result = taken(tmp_path, config[form], EDITS[edit])
    assert (result.code, result.err) == (0, "")
    (names,) = [n for path, n in configurations(result.out).items() if path == f"{tmp_path}/enc/config.yaml"]
    assert [(p.kind, p.names) for p in names.providers] == TAKEN
    assert (names.providers[1].version, names.providers[1].socket) == ("v2", "/run/kms/vault.sock")
    assert (names.known, names.odd) == (True, False)
    assert SECRET not in result.out


def test_a_socket_that_is_there(tmp_path: Path) -> None:
    config = CONFIG.replace("unix:///run/kms/vault.sock", "unix:///etc/kubernetes/enc/k.sock")
    (tmp_path / "enc").mkdir()
    place = tmp_path / "enc/k.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        assert f"there {place}" in taken(tmp_path, config).out.splitlines()
    place.unlink()
    assert "there /" not in taken(tmp_path, config).out


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.replace(f"secret: {SECRET}", f"secret: |\n                {SECRET}"),
        CONFIG.replace(f"secret: {SECRET}", f"secret: &s {SECRET}").replace(f'"{SECRET}"', "*s"),
        CONFIG.replace("name: key2", f"name: {SECRET}"),
    ],
    ids=["block", "anchor", "a secret for a name"],
)
def test_what_is_not_understood_is_said(tmp_path: Path, config: str) -> None:
    result = taken(tmp_path, config)
    assert configurations(result.out)[f"{tmp_path}/enc/config.yaml"].odd
    assert SECRET not in result.out


def test_no_file_and_no_flag(tmp_path: Path) -> None:
    assert taken(tmp_path, CONFIG, lambda text: text.replace("config=/etc/kubernetes/enc", "config=/nowhere")).out == ""
    plain = manifest(PLAN.nodes[0], "kube-apiserver")
    assert taken(tmp_path, CONFIG, lambda _: plain).out == ""
    (tmp_path / "kube-apiserver.yaml").unlink()
    done = subprocess.run(script(encryption.NAMES, str(tmp_path)).words(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


LINES = (
    "- secret: {}",
    "secret: '{}'",
    '{{"secret":"{}","name":"k"}}',
    "secret: >-\n  {}",
    "# {}",
    "name: k",
    "aescbc: {{keys: [{{secret: {}, name: k}}]}}",
    "secret: {} # name",
    "? secret\n: {}",
    "- {}",
    "secret:\n  {}",
    "secret: [{}]",
    "kms: {{endpoint: 'tcp://{}', name: k}}",
)
SECRETS = st.binary(min_size=16, max_size=32).map(lambda b: base64.b64encode(b"\xff\xee" + b).decode())


@given(
    secrets=st.lists(SECRETS, min_size=1, max_size=3),
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_no_secret_comes_over(tmp_path_factory: pytest.TempPathFactory, secrets: list[str], lines: list[str]) -> None:
    """Whatever the file looks like: what follows ``secret`` stays on the host."""
    text = "".join(line.format(secrets[i % len(secrets)]) + "\n" for i, line in enumerate(lines))
    out = taken(tmp_path_factory.mktemp("enc"), f"kind: EncryptionConfiguration\n{text}").out
    assert not any(secret in out or secret.rstrip("=") in out for secret in secrets)

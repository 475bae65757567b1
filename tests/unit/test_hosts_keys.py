"""known_hosts as OpenSSH reads it, and addresses as the plan gives them."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runbook.hosts.address import Address
from runbook.hosts.keys import fingerprint, is_private_key, known_keys
from runbook.plan import Ssh

ED = base64.b64encode(b"ed25519 key").decode()
RSA = base64.b64encode(b"rsa key").decode()
OTHER = base64.b64encode(b"another key").decode()


def keys(tmp_path: Path, text: str, host: str = "m1", port: int = 22) -> list[str]:
    file = tmp_path / "known_hosts"
    file.write_text(text)
    found = known_keys(file, host, port)
    return [base64.b64encode(blob).decode() for _, blob in found.keys if found.accepts(blob)]


@pytest.mark.parametrize(
    ("line", "host", "port", "expected"),
    [
        (f"m1 ssh-ed25519 {ED}", "m1", 22, [ED]),
        (f"m1 ssh-ed25519 {ED} a comment", "M1", 22, [ED]),
        (f"m1,10.0.1.10 ssh-ed25519 {ED}", "10.0.1.10", 22, [ED]),
        (f"m1 ssh-ed25519 {ED}", "m1", 2222, []),
        (f"[m1]:2222 ssh-ed25519 {ED}", "m1", 2222, [ED]),
        (f"[m1]:2222 ssh-ed25519 {ED}", "m1", 22, []),
        (f"*.internal,!bad.internal ssh-ed25519 {ED}", "cp1.internal", 22, [ED]),
        (f"*.internal,!bad.internal ssh-ed25519 {ED}", "bad.internal", 22, []),
        (f"10.0.1.1? ssh-ed25519 {ED}", "10.0.1.12", 22, [ED]),
        (f"m1 ssh-rsa {RSA}\nm1 ssh-ed25519 {ED}\nm1 ssh-ed25519 {OTHER}", "m1", 22, [RSA, ED, OTHER]),
        (f"@revoked m1 ssh-ed25519 {ED}\nm1 ssh-ed25519 {ED}\nm1 ssh-rsa {RSA}", "m1", 22, [RSA]),
        (f"@cert-authority m1 ssh-ed25519 {ED}", "m1", 22, []),
        (f"# m1 ssh-ed25519 {ED}\n\nm1 ssh-ed25519\nm1 ssh-ed25519 no=base64!\n|1|x ssh-ed25519 {ED}", "m1", 22, []),
    ],
)
def test_lines(tmp_path: Path, line: str, host: str, port: int, expected: list[str]) -> None:
    assert keys(tmp_path, line + "\n", host, port) == expected


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_hashed_entries_and_fingerprints_agree_with_openssh(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    kind, blob, *_ = (tmp_path / "k.pub").read_text().split()
    file = tmp_path / "known_hosts"
    file.write_text(f"cp1.internal {kind} {blob}\n[cp1.internal]:2222 {kind} {blob}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "cp1" not in file.read_text()
    for host, port, count in (("cp1.internal", 22, 1), ("cp1.internal", 2222, 1), ("cp2.internal", 22, 0)):
        assert len(known_keys(file, host, port).keys) == count
    said = subprocess.run(["ssh-keygen", "-lf", str(tmp_path / "k.pub")], capture_output=True, text=True, check=True)
    assert fingerprint(base64.b64decode(blob)) == said.stdout.split()[1]


def test_the_algorithms_to_ask_for_are_those_that_can_be_compared(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"m1 ssh-rsa {RSA}\nm1 ecdsa-sha2-nistp256 {ED}\n")
    assert known_keys(file, "m1", 22).algorithms == ("rsa-sha2-512", "rsa-sha2-256", "ecdsa-sha2-nistp256")


@pytest.mark.parametrize(
    ("word", "user", "host", "port"),
    [
        ("bastion.internal", None, "bastion.internal", None),
        ("ops@bastion:2200", "ops", "bastion", 2200),
        ("ops@[fe80::1]:2200", "ops", "fe80::1", 2200),
        ("[::1]", None, "::1", None),
        ("::1", None, "::1", None),
    ],
)
def test_jump_hosts(word: str, user: str | None, host: str, port: int | None) -> None:
    hop = Address.to("m1", "cp1", Ssh(jump="x", known_hosts_file=Path("/k"))).hop(word)
    assert (hop.user, hop.host, hop.port, hop.jump, hop.known_hosts_file) == (user, host, port, "", "/k")


@pytest.mark.parametrize(
    ("user", "sudo", "elevates"),
    [("root", "auto", False), ("ops", "auto", True), ("root", "always", True), ("ops", "never", False)],
)
def test_sudo(user: str, sudo: str, elevates: bool) -> None:
    address = Address("m1", "cp1", user=user, sudo=sudo)
    assert address.elevates is elevates
    assert Address.from_json(address.to_json()) == address


def test_importing_the_package_does_not_import_fabric() -> None:
    code = "import runbook.hosts, sys; sys.exit(any(m in sys.modules for m in ('fabric', 'paramiko', 'invoke')))"
    root = str(Path(__file__).resolve().parents[2])
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", True),
        ("-----BEGIN RSA PRIVATE KEY-----\r\nAAAA\r\n", True),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", True),
        ("Bag Attributes\n    friendlyName: ann\n-----BEGIN PRIVATE KEY-----\n", True),
        ("-----BEGIN CERTIFICATE-----\n", False),
        ("ssh-ed25519 AAAA ann\n", False),
        ("", False),
    ],
)
def test_what_a_private_key_looks_like(tmp_path: Path, text: str, is_one: bool) -> None:
    (tmp_path / "key").write_bytes(text.encode())
    assert is_private_key(tmp_path / "key") is is_one

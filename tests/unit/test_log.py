"""The debug log: what may never stand in it, where it is, and that it costs nothing until it is opened."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook import log
from runbook.step import Command, Secret

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx7\nq9w8e7r6\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJrdWJlIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    log.close_log()


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"before {KEY} after", "MIIEowIBAAKCAQEAx7"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEcutoff", "MIIEcutoff"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNz\\n-----END OPENSSH PRIVATE KEY-----", "b3BlbnNz"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----", "lQOYBF"),
        ("Authorization: Bearer abc.def-ghi_123", "abc.def-ghi_123"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        (f"it said {JWT} and left", JWT),
        ("token: s3cr3tv4lue", "s3cr3tv4lue"),
        ('{"token": "s3cr3t v4lue"}', "s3cr3t v4lue"),
        ('{\\"password\\": \\"s3cr3tv4lue\\"}', "s3cr3tv4lue"),
        ("password='two words'", "two words"),
        ("ETCDCTL_PASSWORD=hunter22", "hunter22"),
        ("client-key-data: LS0tLS1CRUdJTg==", "LS0tLS1CRUdJTg"),
        ("etcdctl --user root:hunter22 get /", "hunter22"),
        ("kubectl --token hunter22x get nodes", "hunter22x"),
        ("https://ops:hunter22@10.0.1.10:2379/health", "hunter22"),
        ("kubeadm join --token abcdef.0123456789abcdef", "0123456789abcdef"),
        ("joined with abcdef.0123456789abcdef there", "0123456789abcdef"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI"),
        ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_secrets_are_redacted(text: str, hidden: str) -> None:
    once = log.redact(text)
    assert hidden not in once
    assert log.MASK in once
    assert hidden not in log.redact(once)


@pytest.mark.parametrize(
    "text",
    [
        "m1 in the run prod-20260409t140000z-0001",
        "etcdutl snapshot restore --initial-cluster-token prod-20260409t140000z-0001 --name m1",
        "https://10.0.1.10:2379 is healthy",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "Secret default/known can be read",
        "sha256 " + "ab" * 32,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert log.redact(text) == text


def test_values_are_redacted_at_every_depth() -> None:
    line = {
        "argv": Command(("etcdctl", Secret("hunter22"))).argv,
        "nested": [{"password": ["hunter22"], "why": "token=hunter22"}],
        "raw": b"Bearer hunter22x",
        "error": ValueError("password: hunter22"),
        "seconds": 1.5,
        "code": None,
    }
    cleaned = log.clean(line)
    assert "hunter22" not in json.dumps(cleaned)
    assert isinstance(cleaned, dict)
    assert cleaned["seconds"] == 1.5
    assert cleaned["code"] is None


def test_lines_are_json_private_and_appended(tmp_path: Path) -> None:
    path = tmp_path / "debug.log"
    old = os.umask(0)
    try:
        logger = log.open_log(path)
    finally:
        os.umask(old)
    logger.debug("asked", host="m1", argv=("sh", Secret("hunter22")), said=f"x {KEY}")
    try:
        raise ValueError("token: hunter22")
    except ValueError:
        logger.error("failed", exc_info=True)
    log.open_log(path).info("again")
    log.logger().info("through the module")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["asked", "failed", "again", "through the module"]
    assert lines[0]["level"] == "debug"
    assert lines[0]["host"] == "m1"
    assert lines[0]["at"].endswith("Z")
    assert "Traceback" in lines[1]["exception"]
    assert "hunter22" not in path.read_text()
    assert "MIIE" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    logger = log.open_log(tmp_path / "debug.log")
    log.close_log()
    logger.info("after its end")
    log.logger().error("nowhere")
    logger = log.open_log(tmp_path / "debug.log")
    monkeypatch.setattr(os, "write", full)
    logger.info("no room")


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "debug.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        log.open_log(tmp_path / "debug.log")


def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, runbook.log as log; log.logger().info('x'); assert 'structlog' not in sys.modules;"
        f"log.open_log(pathlib.Path({str(tmp_path / 'debug.log')!r})).info('x');"
        "assert 'structlog' in sys.modules and 'rich' not in sys.modules; import rich.text"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)

"""What a bucket refuses, and what cannot be meant: told in one line with what to do, and no secret in it."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.backup import Place
from runbook.snapshots.store_objects import Objects
from tests.stores.conftest import Site
from tests.stores.kit import NAME, everything, pieces, told
from tests.stores.servers import BUCKET, S3, Azure, free_port
from tests.stores.signing import azure_token
from tests.stores.wire import wire


def test_a_bucket_that_is_not_there(bucket: Site) -> None:
    assert bucket.server
    store = Objects(bucket.server.place("p", "no-such-bucket"))
    works = everything(store)
    del works["remove"]  # what is not there need not be removed: a provider that does not tell is no trouble
    for what, work in works.items():
        text = told(work)
        assert "there is no such bucket" in text, what
        assert "correct the URL" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_SECRET_ACCESS_KEY", "not-this-secret-0123456789"), ("AWS_ACCESS_KEY_ID", "AKIDNOBODY")],
)
def test_a_wrong_key(aws: Site, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert aws.server
    if not aws.server.proves_keys:
        pytest.skip("moto, which is here instead of versitygw because there is no Go, does not look at keys")
    monkeypatch.setenv(name, value)
    for what, work in everything(aws.open()).items():
        text = told(work)
        assert "does not know these credentials" in text, what
        assert value not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_STORAGE_ACCOUNT_KEY", "bm90IHRoaXMgc2VjcmV0"),
        ("AZURE_STORAGE_SAS_TOKEN", "sv=2023-11-03&sp=rwl&sr=c&se=2040-01-01T00:00:00Z&sig=bm90IHRoaXMgc2ln"),
    ],
)
def test_a_wrong_key_of_azure(azure: Site, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv(name, value)
    for what, work in everything(azure.open()).items():
        text = told(work)
        assert "does not know these credentials" in text or "access is denied" in text, what
        assert value[-12:] not in text


def test_a_key_that_is_none(azure: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "this is no base64!")
    text = told(azure.open)
    assert "base64" in text
    assert "this is" not in text
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    assert "no storage account is named; set AZURE_STORAGE_ACCOUNT_NAME" in told(azure.open)


def test_who_may_not(azure: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that allows to list and to read, and nothing else."""
    assert isinstance(azure.server, Azure)
    azure.foreign("old.db", b"old")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    token = azure_token(azure.server.account, BUCKET, "rl")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    store = azure.open()
    assert b"".join(store.read("old.db")) == b"old"
    works = everything(store)
    for work in (works["write"], works["write much"], lambda: store.remove("old.db")):
        text = told(work)
        assert "access is denied" in text
        assert token[-20:] not in text
    assert [entry.name for entry in store.entries()] == ["old.db"]


def test_no_credentials(aws: Site, monkeypatch: pytest.MonkeyPatch, soon: None) -> None:
    """Nor a machine that has a role."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "Missing AccessKeyId; look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in told(aws.open)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for work in everything(aws.open()).values():
        begun = time.monotonic()
        text = told(work)
        assert "no credentials were found" in text
        assert "aws configure export-credentials" in text
        assert time.monotonic() - begun < 15


def test_keys_of_a_profile(aws: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the aws command has it."""
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    for name in keys:
        monkeypatch.delenv(name)
    lines = "".join(f"{name.lower()} = {value}\n" for name, value in keys.items())
    (tmp_path / "aws-credentials").write_text(f"[backup]\n{lines}[default]\naws_access_key_id = no\n")
    (tmp_path / "aws-config").write_text("[profile backup]\nregion = us-east-1\n[profile sso]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_PROFILE", "backup")
    aws.open().write(NAME, [b"x"])
    monkeypatch.setenv("AWS_PROFILE", "sso")
    assert "the profile sso has no keys" in told(aws.open)
    (tmp_path / "aws-credentials").write_text("aws_secret_access_key = SECRET-TEXT\n")
    text = told(aws.open)
    assert "cannot be read as AWS' tools write it" in text
    assert "SECRET-TEXT" not in text


def test_the_bucket_is_elsewhere(aws: Site) -> None:
    assert aws.server
    if not aws.server.proves_keys:
        pytest.skip("moto takes any region")
    for work in everything(Objects(replace(aws.place(), region="eu-central-1"))).values():
        assert "in another region (AuthorizationHeaderMalformed)" in told(work)


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///x", "http://x/y", "s3://key:secret@bucket/x", "s3://bucket/x?secret=1", ""]
)
def test_no_place(url: str) -> None:
    text = told(lambda: Objects(Place(url)))
    assert "s3://BUCKET/PREFIX" in text
    assert "secret@" not in text


@pytest.mark.parametrize("url", ["gs://bucket/x", "az://bucket/x"])
def test_encryption_is_s3s(url: str) -> None:
    assert "are S3's" in told(lambda: Objects(Place(url, server_side="AES256")))


@pytest.mark.parametrize("size", [1, 20])
def test_encryption_is_asked_for(aws: Site, size: int) -> None:
    """As the request on the wire says."""
    assert aws.server
    with wire(aws.server.port) as one:
        key = "arn:aws:kms:us-east-1:1:key/k"
        place = replace(aws.place(), endpoint=f"http://127.0.0.1:{one.port}", server_side="aws:kms", kms_key=key)
        Objects(place).write(NAME, pieces(size))
        assert b"x-amz-server-side-encryption: aws:kms\r\n" in one.sent
        assert b"x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:us-east-1:1:key/k\r\n" in one.sent
        one.sent.clear()
        Objects(replace(place, server_side="AES256", kms_key="")).write("b.db", pieces(size))
        assert b"x-amz-server-side-encryption: AES256\r\n" in one.sent


def test_nobody_listens(bucket: Site, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    place = replace(bucket.place(), endpoint=bucket.place().endpoint.replace(str(bucket.server.port), str(free_port())))  # type: ignore[union-attr]
    works = everything(Objects(place))
    for what in ("list", "read", "write much"):
        begun, work = time.monotonic(), works[what]
        text = told(work)
        assert "it does not answer" in text, what
        assert "is the endpoint right" in text
        assert time.monotonic() - begun < 10


def test_a_certificate_of_ones_own(aws: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, soon: None) -> None:
    """Its authority is named by AWS_CA_BUNDLE, as for AWS' own tools; without it, nothing is sent."""
    assert aws.server
    if not aws.server.proves_keys:
        pytest.skip("moto is not started with TLS")
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    new = ["-newkey", "rsa:2048", "-nodes", "-keyout"]
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for argv in (
        ["req", "-x509", *new, "ca.key", "-subj", "/CN=ours", "-out", "ca.pem"],
        ["req", *new, "key.pem", "-subj", "/CN=store", "-out", "asked.pem"],
        ["x509", "-req", "-in", "asked.pem", "-out", "cert.pem", "-extfile", "names", *authority],
    ):
        subprocess.run(["openssl", *argv], cwd=tmp_path, check=True, capture_output=True)
    server = S3(tmp_path)
    (tmp_path / "s3" / BUCKET).mkdir(parents=True)
    [argv] = server.commands()
    at = argv.index("posix")
    tls = [*argv[:at], "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"), *argv[at:]]
    process = subprocess.Popen(tls, env={**os.environ, **server.settings()}, stdout=subprocess.DEVNULL)
    try:
        place = Place(f"s3://{BUCKET}/p", endpoint=f"https://127.0.0.1:{server.port}")
        assert "certificate" in told(Objects(place).entries)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        store = Objects(place)
        store.write(NAME, pieces(20))
        assert [entry.size for entry in store.entries()] == [20 << 20]
        monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
        assert "AWS_CA_BUNDLE names /nowhere.pem" in told(lambda: Objects(place))
    finally:
        process.kill()
        process.wait(30)

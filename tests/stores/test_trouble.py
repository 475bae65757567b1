"""What goes wrong with a bucket: told in one line with what to do, in time, and nothing half is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.backup import Place
from runbook.snapshots import store_objects
from runbook.snapshots.store_objects import Objects
from runbook.snapshots.stores import AlreadyThere, NotThere, Store, StoreTrouble
from tests.stores.conftest import Site, access
from tests.stores.servers import BUCKET, KINDS, S3, Azure, Server, free_port
from tests.stores.signing import Refused, azure_token
from tests.stores.wire import wire

NAME = "prod-eu1-20260409t140000z-3f2a.db"


def pieces(count: int, pause: float = 0.0) -> Iterator[bytes]:
    for _ in range(count):
        time.sleep(pause)
        yield os.urandom(1 << 20)


def everything(store: Store) -> dict[str, Callable[[], Any]]:
    """What a store can do."""
    return {
        "list": store.entries,
        "read": lambda: list(store.read(NAME)),
        "write": lambda: store.write(NAME, [b"x"]),
        "write much": lambda: store.write(NAME, pieces(20)),
        "write over": lambda: store.write(NAME, [b"x"], over=True),
        "remove": lambda: store.remove(NAME),
    }


def told(work: Callable[[], Any]) -> str:
    """What it raises, in one line."""
    with pytest.raises(StoreTrouble) as caught:
        work()
    assert not isinstance(caught.value, NotThere)
    assert caught.value.do
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    assert caught.value.__cause__ is None  # which could show what the library knows, the request among it
    return text


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same patience, shorter."""
    monkeypatch.setattr(store_objects, "FIRST", timedelta(seconds=0.5))
    monkeypatch.setattr(store_objects, "PATIENCE", timedelta(seconds=3))
    monkeypatch.setattr(store_objects, "SILENCE", timedelta(seconds=2))


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


ENDS = pytest.mark.parametrize(
    ("own", "how"), [*((kind, "killed") for kind in KINDS), ("s3", "frozen")], indirect=["own"]
)


def hit(server: Server, how: str) -> None:
    """The server's end."""
    if how == "killed":
        server.kill()
    else:
        server.freeze()


@ENDS
def test_the_server_vanishes_in_an_upload(own: Site, soon: None, how: str) -> None:
    """It is told in time; once the server is there again, there is no object, and what was begun can be done again."""
    server, store = own.server, own.open()
    assert server

    def source() -> Iterator[bytes]:
        yield from pieces(30)
        hit(server, how)
        yield from pieces(30)

    begun = time.monotonic()
    text = told(lambda: store.write(NAME, source()))
    assert "it does not answer" in text
    assert time.monotonic() - begun < 45
    if how == "killed":
        server.start()
        with contextlib.suppress(Refused):  # Azurite forgets what it was told in the last seconds
            server.make_bucket()
    else:
        server.freeze(False)
    again = own.open()
    assert again.entries() == []
    again.write(NAME, pieces(20))
    assert [entry.size for entry in again.entries()] == [20 << 20]


@ENDS
def test_the_server_vanishes_while_it_is_read(own: Site, soon: None, how: str) -> None:
    server, store = own.server, own.open()
    assert server
    store.write(NAME, pieces(60))
    had, begun, reading = 0, time.monotonic(), iter(store.read(NAME))
    while had < 10 << 20:
        had += len(next(reading))
    hit(server, how)
    rest: list[int] = []
    assert "it does not answer" in told(lambda: rest.extend(map(len, reading)))
    assert had + sum(rest) < 60 << 20
    assert time.monotonic() - begun < 30


def test_a_server_that_is_back_in_time_is_waited_for(own: Site) -> None:
    """An upload and a read go on where they were."""
    server, store = own.server, own.open()
    assert server
    data = [os.urandom(1 << 20) for _ in range(60)]

    def away() -> None:
        server.stop()
        threading.Timer(1.5, server.start).start()

    def source() -> Iterator[bytes]:
        for number, piece in enumerate(data):
            if number == 30:
                away()
            yield piece

    store.write(NAME, source())
    had = bytearray()
    for piece in store.read(NAME):
        if len(had) < 10 << 20 <= len(had) + len(piece):
            away()
        had += piece
    assert had == b"".join(data)


def test_a_connection_that_breaks_again_and_again(aws: Site) -> None:
    """Each time something came, so it goes on; and what comes is the file."""
    assert aws.server
    data = [os.urandom(1 << 20) for _ in range(40)]
    aws.open().write(NAME, data)
    with wire(aws.server.port) as one:
        one.broken_times(12, 3 << 20)
        store = Objects(replace(aws.place(), endpoint=f"http://127.0.0.1:{one.port}"))
        assert b"".join(store.read(NAME)) == b"".join(data)
        assert one.breaks == 0


def test_a_link_that_is_lost_in_an_upload(aws: Site, soon: None) -> None:
    """The server lives on: no object is there, though the parts stay, for nobody could tell it."""
    assert aws.server
    with wire(aws.server.port) as one:
        one.cut_up = 20 << 20
        store = Objects(replace(aws.place(), endpoint=f"http://127.0.0.1:{one.port}"))
        assert "it does not answer" in told(lambda: store.write(NAME, pieces(60)))
    assert aws.open().entries() == []


def test_it_is_written_over_while_it_is_read(bucket: Site) -> None:
    """The second half of another file is never given for its own."""
    store = bucket.open()
    store.write(NAME, pieces(60))
    reading = iter(store.read(NAME))
    had = len(next(reading))
    store.write(NAME, [b"y"] * 10, over=True)
    try:
        for piece in reading:
            had += len(piece)
    except StoreTrouble as error:
        assert "another" in str(error) or "ended after" in str(error) or "no " in str(error)  # noqa: PT017 - either is right
    else:
        assert had == 60 << 20


def test_a_store_that_has_less_than_was_sent(bucket: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    store, head = bucket.open(), obstore.head
    for count in (1, 20):
        monkeypatch.setattr(obstore, "head", lambda *a: {**head(*a), "size": head(*a)["size"] - 1})
        text = told(lambda n=count: store.write(NAME, pieces(n)))  # type: ignore[misc]
        assert f"of {count << 20} bytes that were sent, the store has {(count << 20) - 1}; it was removed" in text
        monkeypatch.undo()
        access(bucket.server, monkeypatch, bucket.room)  # type: ignore[arg-type]
        assert bucket.open().entries() == []


def test_somebody_else_was_there_in_between(bucket: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is theirs stays."""
    import obstore

    store, put = bucket.open(), obstore.put

    def two(*args: Any, **options: Any) -> Any:
        done = put(*args, **options)
        bucket.foreign(NAME, b"theirs")
        return done

    monkeypatch.setattr(obstore, "put", two)
    with pytest.raises(AlreadyThere):
        store.write(NAME, pieces(20))
    assert b"".join(store.read(NAME)) == b"theirs"


WRITER = """
import os, sys, time
from runbook.backup import Place
from runbook.snapshots.store_objects import Objects
def slow():
    for _ in range(int(sys.argv[3])):
        yield os.urandom(1 << 20)
    print("begun", flush=True)
    time.sleep(float(sys.argv[4]))
    yield os.urandom(1 << 20)
try:
    Objects(Place(sys.argv[1], endpoint=sys.argv[2])).write("a.db", slow())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
print("done")
"""


@pytest.mark.parametrize("size", [0, 40])
def test_ctrl_c_leaves_nothing(bucket: Site, size: int) -> None:
    place = bucket.place()
    argv = [sys.executable, "-c", WRITER, place.url, place.endpoint, str(size), "60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "begun\n"
        begun = time.monotonic()
        writer.send_signal(signal.SIGINT)
        assert writer.wait(30) == 130
        assert time.monotonic() - begun < 5
    assert bucket.open().entries() == []
    assert bucket.left() == []


@pytest.mark.parametrize("own", ["s3"], indirect=True)
def test_ctrl_c_is_heard_while_the_server_says_nothing(own: Site) -> None:
    place = own.place()
    argv = [sys.executable, "-c", WRITER, place.url, place.endpoint, "40", "0.5"]
    assert own.server
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "begun\n"
        own.server.freeze()
        time.sleep(1.5)
        begun = time.monotonic()
        writer.send_signal(signal.SIGINT)
        assert writer.wait(40) == 130
        assert time.monotonic() - begun < 15


def test_a_certificate_of_ones_own(aws: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, soon: None) -> None:
    """Its authority is named by AWS_CA_BUNDLE, as for AWS' own tools; without it, nothing is sent."""
    assert aws.server
    if not aws.server.proves_keys:
        pytest.skip("moto is not started with TLS")
    new = ["-newkey", "rsa:2048", "-nodes", "-keyout"]
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for argv in (
        ["req", "-x509", *new, "ca.key", "-subj", "/CN=ours", "-out", "ca.pem"],
        ["req", *new, "key.pem", "-subj", "/CN=store", "-out", "asked.pem"],
        ["x509", "-req", "-in", "asked.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        + ["-extfile", "names", "-out", "cert.pem"],
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

"""Servers, links and we ourselves vanish half-way: told in time, and nothing half is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from runbook.snapshots import silence
from runbook.snapshots.store_objects import Objects
from runbook.snapshots.stores import AlreadyThere, StoreTrouble
from tests.stores.conftest import Site, access
from tests.stores.kit import NAME, pieces, told
from tests.stores.servers import KINDS, Server
from tests.stores.signing import Refused
from tests.stores.wire import wire

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
def test_who_waits_for_a_server_that_vanished_is_told_so(
    own: Site, soon: None, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "FIRST", 1.0)
    lines: list[str] = []
    server = own.server
    assert server
    store = Objects(own.place(), lines.append)

    def source() -> Iterator[bytes]:
        yield from pieces(30)
        time.sleep(2.5)  # which is no silence of the store
        assert lines == []
        hit(server, how)
        yield from pieces(30)

    told(lambda: store.write(NAME, source()))
    assert lines[0].startswith(f"{store.url}: has confirmed nothing for 1")
    assert lines[0].endswith(" s; waiting, 10 s at most")
    assert 2 <= len(lines) <= 5


@ENDS
def test_who_reads_from_a_server_that_vanished_is_told_so(
    own: Site, soon: None, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "FIRST", 1.0)
    lines: list[str] = []
    assert own.server
    store = Objects(own.place(), lines.append)
    store.write(NAME, pieces(60))
    reading = iter(store.read(NAME))
    next(reading)
    time.sleep(2)
    assert lines == []
    hit(own.server, how)
    told(lambda: list(reading))
    assert lines[0].startswith(f"{store.url}: has ")
    assert " for 1" in lines[0]
    assert 1 <= len(lines) <= 4


@pytest.mark.parametrize("own", ["s3"], indirect=True)
def test_the_word_is_on_standard_error_and_the_document_stays_one(own: Site) -> None:
    place = own.place()
    argv = [sys.executable, "-m", "runbook.cli", "snapshot", "list", place.url, "--endpoint", place.endpoint]
    assert own.server
    own.server.freeze()
    pipe = subprocess.PIPE
    with subprocess.Popen([*argv, "--output", "json"], stdout=pipe, stderr=pipe, text=True) as lists:
        assert lists.stderr
        line = lists.stderr.readline()
        own.server.freeze(False)
        out, err = lists.communicate(timeout=30)
    assert line == f"{place.url}: has not answered for 15 s; waiting, 30 s at most\n"
    assert err == ""
    assert json.loads(out)["snapshots"] == []
    assert lists.returncode == 0


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
    if not server.keeps:
        pytest.skip("moto, which is here instead of versitygw because there is no Go, has it all in memory")
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

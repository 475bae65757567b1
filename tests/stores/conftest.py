"""Each kind of store, started once for all tests; where its server cannot be had, its tests are skipped and say why."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbook.backup import Place
from runbook.lab.errors import Missing
from runbook.snapshots.store_files import Files
from runbook.snapshots.store_objects import Objects
from runbook.snapshots.stores import Store
from tests.stores.servers import KINDS, Server, running


@dataclass
class Site:
    """A place of its own for one test, in a store of some kind."""

    kind: str
    server: Server | None
    room: Path
    prefix: str

    def open(self, end: str = "") -> Store:
        """The store there; ``end`` is what the URL has after the prefix."""
        if self.server is None:
            return Files(self.room)
        return Objects(self.place(end))

    def place(self, end: str = "") -> Place:
        assert self.server
        return self.server.place(self.prefix + end)

    def foreign(self, name: str, data: bytes) -> None:
        """A file that another program made there; with slashes, in a deeper prefix."""
        if self.server is None:
            (self.room / name).parent.mkdir(parents=True, exist_ok=True)
            (self.room / name).write_bytes(data)
        else:
            self.server.put(f"{self.prefix}/{name}", data)

    def left(self) -> list[str]:
        """What is there and should not be: uploads that were begun and not ended, or the files of such writers."""
        if self.server is None:
            return sorted(name for name in os.listdir(self.room) if name.startswith("."))
        return [key for key in self.server.unfinished() if key.startswith(self.prefix)]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server | str]]:
    """Those that were started, or why not; filled as they are asked for."""
    with ExitStack() as stack:
        found: dict[str, Server | str] = {}

        class Started(dict[str, "Server | str"]):
            def __missing__(self, kind: str) -> Server | str:
                try:
                    self[kind] = stack.enter_context(running(kind, tmp_path_factory.mktemp(kind)))
                except Missing as missing:
                    self[kind] = str(missing)
                return self[kind]

        found = Started()
        yield found


def access(server: Server, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The environment has this server's credentials, and none that whoever runs the tests has."""
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "aws-credentials"))
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # this machine is nobody's instance
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)


def site_of(kind: str, servers: dict[str, Server | str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A site of that kind; skips."""
    server = None if kind == "file" else servers[kind]
    if isinstance(server, str):
        pytest.skip(server)
    if server:
        access(server, monkeypatch, tmp_path)
    (tmp_path / "store").mkdir()
    return Site(kind, server, tmp_path / "store", f"deep/{secrets.token_hex(4)}")


@pytest.fixture(params=["file", *KINDS])
def site(
    request: pytest.FixtureRequest,
    servers: dict[str, Server | str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Site:
    """Every kind of store."""
    return site_of(request.param, servers, monkeypatch, tmp_path)


@pytest.fixture(params=list(KINDS))
def bucket(
    request: pytest.FixtureRequest,
    servers: dict[str, Server | str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Site:
    """Every kind of object store."""
    return site_of(request.param, servers, monkeypatch, tmp_path)


@pytest.fixture
def aws(servers: dict[str, Server | str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """S3 alone."""
    return site_of("s3", servers, monkeypatch, tmp_path)


@pytest.fixture
def azure(servers: dict[str, Server | str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """Azure alone."""
    return site_of("az", servers, monkeypatch, tmp_path)


@pytest.fixture(params=list(KINDS))
def own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """A server of this test's own, to be killed."""
    try:
        with running(request.param, tmp_path) as server:
            access(server, monkeypatch, tmp_path)
            yield Site(request.param, server, tmp_path, "deep/own")
            server.freeze(False)
    except Missing as missing:
        pytest.skip(str(missing))

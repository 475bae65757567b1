"""Large uploads through the system's ``ssh``: what it is trusted with, and that nothing of it is left."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from runbook.hosts import client, errands, transfer, wrapper
from runbook.hosts.connection import Link
from runbook.hosts.transfer import Delivery
from runbook.step import Result, Upload
from runbook.transport import Claim
from tests.lab import hosts_kit, test_hosts_upload
from tests.lab.hosts_kit import RUN_DIR, Bench, Witness, meanwhile
from tests.lab.test_hosts_upload import DEST, large_sha, one, there, wait_for_half

pytestmark = pytest.mark.lab
bench = hosts_kit.bench
quiet_lab = hosts_kit.quiet_lab
large = test_hosts_upload.large


def children() -> list[str]:
    """The names of this process's children, dead ones too, that are ``ssh`` or an interpreter."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if int(rest.split()[1]) == os.getpid() and name.startswith(("ssh", "python")):
            found.append(name)
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    assert children() == [], "from an earlier test"


@pytest.fixture
def by_interpreter(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts to which the other way was taken."""
    taken: list[str] = []
    real = transfer.by_process

    def by_process(link: Link, what: Delivery, stop: threading.Event) -> Result:
        taken.append(what.target.name)
        return real(link, what, stop)

    monkeypatch.setattr(transfer, "by_process", by_process)
    return taken


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes some seconds, also on a fast machine."""
    splice = os.splice

    def slower(source: int, to: int, count: int, *, flags: int) -> int:
        time.sleep(0.005)
        return splice(source, to, min(count, 1 << 17), flags=flags)

    monkeypatch.setattr(os, "splice", slower)


def upload(path: Path) -> Upload:
    return Upload(DEST, large_sha(path), source=str(path))


# --- who is asked to send it ----------------------------------------------------------------------------------------


def test_an_old_server_behind_a_banner_and_an_alias(
    bench: Bench, large: Path, by_interpreter: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.sshd(2222, "Ciphers aes256-ctr", "Banner /etc/passwd")
    (tmp_path / "known hosts").write_text(f"the-alias {bench.host_key()}\n")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(
        f"Host behind\n HostName 10.0.1.10\n Port 2222\n HostKeyAlias the-alias\n IdentityFile {bench.lab.identity}\n"
        " RemoteCommand false\n RequestTTY force\n LocalCommand false\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    known = tmp_path / "known hosts"
    target = bench.target("m1", "behind", port=None, identity_file=None, known_hosts_file=known)
    result = bench.fleet(target).act({"m1": [upload(large)]}, bench.key(), Witness())["m1"]
    assert result.ok, result
    assert "proven" in result.err
    assert (by_interpreter, children(), there(bench)) == ([], [], ["it's the file"])


def test_without_an_ssh_on_the_path(
    bench: Bench, large: Path, by_interpreter: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = bench.connect()
    what = upload(large)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        result = fleet.act({"m1": [what]}, bench.key(), Witness())["m1"]
    assert result.ok, result
    assert by_interpreter == ["m1"]


@pytest.mark.parametrize(
    "text",
    [
        "echo 'Permission denied (publickey).' >&2; exit 255",
        "echo 'command-line: line 0: Bad configuration option' >&2; exit 255",
        "exit 0",
        "cat >/dev/null",
        "not a program",
    ],
)
def test_an_ssh_that_cannot_start_it(
    bench: Bench,
    large: Path,
    by_interpreter: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{text}\n" if " program" not in text else text)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(errands, "START", 1.0)
    result = bench.connect().act({"m1": [upload(large)]}, bench.key(), Witness())["m1"]
    assert result.ok, result
    assert (by_interpreter, children(), there(bench)) == (["m1"], [], ["it's the file"])


def test_a_jump_host_is_not_for_it(bench: Bench, large: Path, by_interpreter: list[str]) -> None:
    fleet = bench.connect("m2", jump="root@10.0.1.10")
    assert fleet.act({"m2": [upload(large)]}, bench.key(), Witness())["m2"].ok
    assert by_interpreter == ["m2"]


def test_another_host_key_and_an_unknown_one_are_refused_in_our_words(
    bench: Bench, large: Path, by_interpreter: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bench.host_key("m2")
    known = tmp_path / "known hosts"
    home = tmp_path / ".ssh"
    home.mkdir()
    (home / "config").write_text("Host *\n StrictHostKeyChecking no\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for line, words in ((f"10.0.1.10 {other}\n", "THE HOST KEY HAS CHANGED"), (f"m2 {other}\n", "is not known")):
        known.write_text(line)
        fleet = bench.connect(known_hosts_file=known)
        result = fleet.act({"m1": [upload(large)]}, bench.key(), Witness())["m1"]
        assert result.unknown
        assert words in result.err
        assert "nothing was started" in result.err
        assert known.read_text() == line, "nothing is added"
    assert (by_interpreter, children(), there(bench)) == (["m1", "m1"], [], [])


def test_a_host_key_that_changes_meanwhile_ends_it(
    bench: Bench, large: Path, by_interpreter: list[str], tmp_path: Path, slow: None
) -> None:
    mine, other = (bench.host_key(name).split()[1] for name in ("m1", "m2"))
    known = tmp_path / "known"
    known.write_text(f"10.0.1.10 ssh-ed25519 {mine}\n")
    fleet = bench.connect(known_hosts_file=known)
    begun = time.monotonic()
    cut: list[int] = []

    def change() -> None:
        known.write_text(f"10.0.1.10 ssh-ed25519 {other}\n")
        cut.extend(bench.sessions())
        bench.cut()

    with meanwhile(0, lambda: wait_for_half(bench), change):
        result = fleet.act({"m1": [upload(large)]}, bench.key(), Witness())["m1"]
    assert cut, "there was nothing left to cut"
    assert result.unknown, (result, cut)
    assert "verification failed" in result.err.lower()
    assert time.monotonic() - begun < 30, "not tried until its time is over"
    assert by_interpreter == []


# --- what may happen on the way -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["shorter", "touched", "replaced"])
def test_a_source_that_changes_meanwhile(
    bench: Bench, large: Path, by_interpreter: list[str], tmp_path: Path, slow: None, change: str
) -> None:
    source = tmp_path / "source"
    shutil.copyfile(large, source)
    what = Upload(DEST, large_sha(large), source=str(source))

    def changed() -> None:
        if change == "shorter":
            os.truncate(source, 100_000)
        elif change == "touched":
            os.utime(source)
        else:
            shutil.copy2(source, tmp_path / "new")
            (tmp_path / "new").replace(source)

    with meanwhile(0, lambda: wait_for_half(bench), changed):
        result = one(bench, what)
    assert result.code == 1
    assert "changed while it was sent" in result.err
    assert bench.connect().settle(["m1"], 20)["m1"].ok
    assert (by_interpreter, children(), there(bench)) == ([], [], [])


def test_a_link_that_dies_for_a_while(
    bench: Bench, large: Path, by_interpreter: list[str], slow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapper, "STALL", 3)
    fleet = bench.connect(connect_timeout=2.0)
    begun: list[float] = []
    ended: list[float] = []

    def pull() -> None:
        bench.lab.unplug("m1")
        begun.append(time.monotonic())
        while "ssh" in children():
            time.sleep(0.05)
        ended.append(time.monotonic())
        bench.lab.plug("m1")

    with meanwhile(0, lambda: wait_for_half(bench), pull):
        result = fleet.act({"m1": [upload(large)]}, bench.key(), Witness())["m1"]
    assert result.ok, result
    assert ended[0] - begun[0] < 12
    assert (by_interpreter, there(bench)) == ([], ["it's the file"])


def test_a_link_that_is_dropped_is_made_again(bench: Bench, large: Path, by_interpreter: list[str], slow: None) -> None:
    fleet = bench.connect(user="ops")
    with meanwhile(0, lambda: wait_for_half(bench), fleet._links["m1"].drop):
        result = fleet.act({"m1": [upload(large)]}, bench.key(), Witness())["m1"]
    assert result.ok, result
    assert (by_interpreter, children(), there(bench)) == ([], [], ["it's the file"])


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(
    bench: Bench, large: Path, by_interpreter: list[str], slow: None
) -> None:
    fleet, what, left = bench.connect("m1", "m2"), upload(large), []

    def interrupt() -> None:
        left.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with (
        pytest.raises(KeyboardInterrupt),
        meanwhile(0, lambda: wait_for_half(bench), interrupt),
    ):
        fleet.act({h: [what] for h in ("m1", "m2")}, bench.key(), Witness())
    assert time.monotonic() - left[0] < 2
    while children() and time.monotonic() - left[0] < 4:
        time.sleep(0.05)
    assert children() == []
    assert [r.code for r in fleet.settle(["m1", "m2"], 20).values()] == [0, 0]
    assert (by_interpreter, there(bench), there(bench, "m2")) == ([], [], [])


def test_an_interruption_before_it_was_opened(bench: Bench, large: Path) -> None:
    fleet, stop = bench.connect(), threading.Event()
    stop.set()
    link, what = fleet._links["m1"], upload(large)
    order = Delivery(
        link.address, DEST, what.sha256, 0o600, 60, RUN_DIR, "prod-1", Claim(1), bench.key(), "{}", path=str(large)
    )
    result = client.by_client(link, order, stop)
    assert result is not None
    assert result.unknown
    assert (children(), there(bench)) == ([], [])


def test_a_full_disk(bench: Bench, large: Path, by_interpreter: list[str]) -> None:
    bench.sh(f"mkdir {RUN_DIR}/small; mount -t tmpfs -o size=4m tmpfs {RUN_DIR}/small")
    try:
        result = one(bench, Upload(f"{RUN_DIR}/small/f", large_sha(large), source=str(large)))
        assert result.code == 1
        assert "No space left on device" in result.err
        assert (by_interpreter, bench.sh(f"ls -A {RUN_DIR}/small")) == ([], "")
    finally:
        bench.sh(f"umount {RUN_DIR}/small")

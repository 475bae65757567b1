"""Uploads over real SSH: complete and proven, or not there at all."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from runbook.hosts import client, transfer, wrapper
from runbook.step import Command, Result, Upload
from runbook.transport import Claim
from tests.lab import hosts_kit
from tests.lab.hosts_kit import RUN_DIR, Bench, Witness, do, meanwhile

pytestmark = pytest.mark.lab
bench = hosts_kit.bench
quiet_lab = hosts_kit.quiet_lab
DEST = f"{RUN_DIR}/it's the file"
SMALL = os.urandom(300_000)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 MiB: enough to be cut in the middle, and above the size that gets a process of its own."""
    path = tmp_path_factory.mktemp("large") / "the snapshot.db"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    return path


def large_sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(params=["ssh", "interpreter"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two processes that send large files, and not the other."""

    def never(*_: object) -> Result:
        raise AssertionError("it was to go through ssh")

    if request.param == "ssh":
        monkeypatch.setattr(transfer, "by_process", never)
    else:
        monkeypatch.setattr(client, "by_client", lambda *_: None)
    return str(request.param)


def there(bench: Bench, host: str = "m1") -> list[str]:
    """Everything that an upload could have left beside the wrapper's own files, and a file's own note of its proof."""
    names = bench.sh(f"ls -A {RUN_DIR}", host).splitlines()
    notes = [f"{n}.proven" for n in names]
    return [n for n in names if n not in ("commands", "epoch", "epoch.lock", "lock", "running", *notes)]


def one(bench: Bench, upload: Upload, user: str = "ops", host: str = "m1") -> Result:
    return bench.connect(host, user=user).act({host: [upload]}, bench.key(), Witness())[host]


def test_small_ones_to_all_hosts_as_any_user(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_bytes(SMALL)
    fleet = bench.connect("m1", "m2", "m3", user="ops")
    uploads = [
        Upload(DEST, sha(SMALL), content=SMALL, mode=0o640),
        Upload(f"{RUN_DIR}/b", sha(SMALL), source=str(file)),
    ]
    results = fleet.act(dict.fromkeys(("m1", "m2", "m3"), uploads), bench.key(), Witness())
    assert all(r.ok and "proven" in r.err for r in results.values()), results
    for host in ("m1", "m2", "m3"):
        assert there(bench, host) == ["b", "it's the file"]
        assert bench.sh(f'stat -c "%a %U %s" "{DEST}"; sha256sum <{RUN_DIR}/b', host).split()[:4] == [
            "640",
            "root",
            "300000",
            sha(SMALL),
        ]


@pytest.mark.parametrize("content", [b"", b"x"])
def test_tiny_ones(bench: Bench, content: bytes) -> None:
    assert one(bench, Upload(DEST, sha(content), content=content)).ok
    assert bench.sh(f'cat "{DEST}"') == content.decode()


@pytest.mark.parametrize("user", ["root", "ops"])
def test_a_large_one_goes_by_processes_and_is_not_sent_twice(bench: Bench, large: Path, way: str, user: str) -> None:
    fleet = bench.connect("m1", "m2", user=user)
    upload = Upload(DEST, large_sha(large), source=str(large))
    results = fleet.act({h: [upload] for h in ("m1", "m2")}, bench.key(), Witness())
    assert all(r.ok and "proven" in r.err for r in results.values()), results
    assert bench.sh(f'sha256sum <"{DEST}"', "m2").split()[0] == upload.sha256
    again = fleet.act({h: [upload] for h in ("m1", "m2")}, bench.key(), Witness())
    assert all(r.ok and "nothing was sent" in r.err for r in again.values()), again
    assert there(bench) == ["it's the file"]


def test_after_a_hosts_own_copy_the_next_command_is_really_run(bench: Bench) -> None:
    """The copy's script must leave the shell as it found it: one that has ended with 0 is no answer."""
    bench.sh("head -c 100000 /dev/urandom > /root/t/own.db")
    sum_ = bench.sh("sha256sum < /root/t/own.db").split()[0]
    fleet = bench.connect(user="ops")
    for number in range(20):
        upload = Upload(f"{RUN_DIR}/{number}.db", sum_, source="/root/t/own.db", source_node="m1")
        result = fleet.act({"m1": [upload, do(f"echo {number} >>/root/t/ran")]}, bench.key(), Witness())["m1"]
        assert result.ok, result
        missing = Command(("test", "-e", "/nowhere"), changes=False)
        assert fleet.ask({"m1": [missing]})["m1"][0].code == 1
    assert bench.sh("wc -l < /root/t/ran").strip() == "20"


def refused(bench: Bench, upload: Upload, seen: str) -> None:
    result = one(bench, upload)
    assert result.code == 1
    assert "sha256 mismatch" in result.err
    assert seen in result.err
    assert "has itself the sha256" in result.err
    assert there(bench) == []


def test_a_mismatch_leaves_nothing_and_says_where_the_fault_is(bench: Bench, large: Path, way: str) -> None:
    refused(bench, Upload(DEST, "0" * 64, source=str(large)), large_sha(large))


def test_a_mismatch_of_a_small_one_too(bench: Bench) -> None:
    refused(bench, Upload(DEST, "0" * 64, content=SMALL), sha(SMALL))


def wait_for_half(bench: Bench) -> None:
    """Until the host has received a good part of the large file."""
    # asked in one loop there: to start a shell for each look takes too long on a busy machine
    much = f"[ $(stat -c %s {RUN_DIR}/*.part 2>/dev/null || echo 0) -gt 20000000 ]"
    look = f"for i in $(seq 600); do {much} && exit 0; sleep 0.05; done; exit 1"
    assert bench.lab.exec("m1", ["sh", "-c", look]).returncode == 0, "nothing came"


def test_a_connection_cut_in_the_middle_is_made_again_and_the_file_comes(bench: Bench, large: Path, way: str) -> None:
    with meanwhile(0, lambda: wait_for_half(bench), bench.cut):
        result = one(bench, Upload(DEST, large_sha(large), source=str(large)))
    assert result.ok, result
    assert there(bench) == ["it's the file"]
    assert bench.sh(f'sha256sum <"{DEST}"').split()[0] == large_sha(large)


def test_an_interpreter_killed_in_the_middle_leaves_nothing(
    bench: Bench, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "by_client", lambda *_: None)
    fleet, results = bench.connect(user="ops"), []
    link = fleet._links["m1"]
    upload = Upload(DEST, large_sha(large), source=str(large))
    thread = threading.Thread(target=lambda: results.append(fleet.act({"m1": [upload]}, bench.key(), Witness())["m1"]))
    thread.start()
    wait_for_half(bench)
    link.drop()
    thread.join(10)
    assert results[0].unknown
    assert fleet.settle(["m1"], 20)["m1"].ok
    assert there(bench) == []


@pytest.mark.parametrize("limit", [1 << 20, 1 << 40], ids=["ssh", "channel"])
def test_a_pulled_cable_leaves_nothing_once_the_host_notices(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    large: Path,
    limit: int,
) -> None:
    monkeypatch.setattr(wrapper, "STALL", 2)
    monkeypatch.setattr(transfer, "LARGE", limit)  # both ways are of this process, where the patch holds
    fleet = bench.connect(connect_timeout=2.0)
    upload = Upload(DEST, large_sha(large), source=str(large), timeout=5)
    with meanwhile(0, lambda: wait_for_half(bench), lambda: bench.lab.unplug("m1")):
        monkeypatch.setattr("runbook.hosts.errands.MARGIN", 1.0)
        result = fleet.act({"m1": [upload]}, bench.key(), Witness())["m1"]
    assert result.unknown
    until = time.monotonic() + 15
    while there(bench) and time.monotonic() < until:
        time.sleep(0.2)
    assert there(bench) == [], "without any connection the host cleans up by itself"
    bench.lab.plug("m1")
    assert fleet.settle(["m1"], 20)["m1"].ok


@pytest.mark.parametrize("way", ["client.by_client", "transfer.by_process"])
def test_the_senders_end_with_their_parent(bench: Bench, large: Path, way: str) -> None:
    """The parent dies without a word: its end of the senders' standard input closes."""
    import signal
    import subprocess
    import sys

    fleet = bench.connect()
    target = fleet._targets["m1"]
    what = transfer.Delivery(
        fleet._links["m1"].address,
        DEST,
        large_sha(large),
        0o600,
        60,
        target.run_dir,
        "prod-1",
        Claim(1),
        "k.0",
        "{}",
        (),
        str(large),
    )
    code = (
        "import sys, threading; sys.path.insert(0, sys.argv[1]); from runbook.hosts import client, transfer;"
        "what = transfer.Delivery.from_json(sys.argv[2]); from runbook.hosts.connection import Link;"
        f"{way}(Link(what.target), what, threading.Event())"
    )
    root = str(Path(__file__).resolve().parents[2])
    parent = subprocess.Popen([sys.executable, "-c", code, root, what.to_json()])
    wait_for_half(bench)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    limit = time.monotonic() + 10
    while (there(bench) or bench.sessions()) and time.monotonic() < limit:
        time.sleep(0.1)
    assert (there(bench), bench.sessions()) == ([], [])


def test_from_one_nodes_disk_to_another_and_to_itself(bench: Bench, large: Path) -> None:
    fleet = bench.connect("m1", "m2", "m3", user="ops")
    first = Upload(f"{RUN_DIR}/source", large_sha(large), source=str(large))
    assert fleet.act({"m1": [first]}, bench.key(), Witness())["m1"].ok
    upload = Upload(DEST, large_sha(large), source=f"{RUN_DIR}/source", source_node="m1")
    results = fleet.act({h: [upload] for h in ("m1", "m2", "m3")}, bench.key(), Witness())
    assert all(r.ok and "proven" in r.err for r in results.values()), results
    for host in ("m1", "m2", "m3"):
        assert bench.sh(f'sha256sum <"{DEST}"', host).split()[0] == large_sha(large)
    none = Upload(DEST, sha(SMALL), source=f"{RUN_DIR}/none", source_node="m1")
    results = fleet.act({h: [none] for h in ("m1", "m2")}, bench.key(), Witness())
    assert [r.code for r in results.values()] == [1, 1]
    assert all("none" in r.err and "No such file" in r.err for r in results.values()), results
    unknown = Upload(DEST, sha(SMALL), source="/x", source_node="m9")
    assert "no host m9" in fleet.act({"m2": [unknown]}, bench.key(), Witness())["m2"].err


def test_a_source_that_is_missing_or_changes(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = one(bench, Upload(DEST, sha(SMALL), source=str(tmp_path / "none")))
    assert (result.code, "cannot read" in result.err) == (1, True)
    file = tmp_path / "grows"
    file.write_bytes(os.urandom(20_000_000))
    chunks = transfer.LocalFile.chunks

    def growing(self: transfer.LocalFile, size: int) -> object:
        for number, chunk in enumerate(chunks(self, size)):
            if number == 3:
                os.truncate(file, 10_000_000)
            yield chunk

    monkeypatch.setattr(transfer.LocalFile, "chunks", growing)
    result = one(bench, Upload(DEST, sha(SMALL), source=str(file)))
    assert result.code == 1
    assert "changed while it was sent" in result.err
    assert bench.connect().settle(["m1"], 10)["m1"].ok
    assert there(bench) == []


def test_a_full_disk_is_named_and_leaves_nothing(bench: Bench) -> None:
    bench.sh(f"mkdir {RUN_DIR}/small; mount -t tmpfs -o size=4m tmpfs {RUN_DIR}/small")
    try:
        data = os.urandom(20_000_000)
        result = one(bench, Upload(f"{RUN_DIR}/small/f", sha(data), content=data))
        assert result.code == 1
        assert "No space left on device" in result.err
        assert "cannot write" in result.err
        assert bench.sh(f"ls -A {RUN_DIR}/small") == ""
    finally:
        bench.sh(f"umount {RUN_DIR}/small")


def test_uploads_are_refused_as_commands_are(bench: Bench) -> None:
    bench.connect(epoch=5).settle(["m1"], 0)
    upload = Upload(DEST, sha(SMALL), content=SMALL)
    assert one(bench, upload).code == 97
    bench.sh('echo \'{"run": "prod-2"}\' >/var/lib/etcd-runbook.lock')
    fleet = bench.connect(epoch=6)
    assert fleet.act({"m1": [upload]}, bench.key(), Witness())["m1"].code == 98
    bench.sh(f"rm -rf {RUN_DIR}")
    assert fleet.act({"m1": [upload]}, bench.key(), Witness())["m1"].code == 95

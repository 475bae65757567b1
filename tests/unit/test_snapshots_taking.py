"""The script that takes a snapshot on a host, run here, with stand-ins for etcd's programs."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runbook.hosts import wrapper
from runbook.hosts.frames import Frames
from runbook.snapshots.taking import TAKE
from runbook.snapshots.tools import Tool

WORD = "0123456789abcdef"
DATA = os.urandom(200_000)
ETCDCTL = """\
#!/bin/sh
[ "$1" != version ] || exit 0
sleep "{sleep}"
[ -z "{fails}" ] || {{ echo "Error: {fails}"; exit 1; }}
for last; do :; done
cp {data} "$last"
"""


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


class Host:
    """A directory as a host's workspace."""

    def __init__(self, room: Path, sleep: float = 0, fails: str = "") -> None:
        self.room, self.lock, self.dir = room, room / "host.lock", room / "snapshots"
        (room / "data").write_bytes(DATA)
        text = ETCDCTL.format(sleep=sleep, fails=fails, data=room / "data")
        self.etcdctl = program(room / "etcdctl", text)
        self.etcdutl = program(room / "etcdutl", "#!/bin/sh\necho '{\"revision\": 7}'\n")

    def begin(self, beat: str = "1", need: str = "0", stall: str = "60", bring: str = "") -> subprocess.Popen[bytes]:
        own = self.dir / "a.taking"
        programs = [f"{own}/etcdutl", f"{own}/etcdctl"] if bring else [self.etcdutl, self.etcdctl]
        words = [str(self.dir), own.name, str(self.lock), need, "60", beat, stall, programs[0], bring, programs[1]]
        text = wrapper.streaming(WORD, words, TAKE)
        shell = ["/bin/sh", "-c", wrapper.streaming_shell(False, len(text))]
        process = subprocess.Popen(
            ["env", "--default-signal=HUP", *shell],  # sshd's child ignores none; one of nohup's would
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin
        process.stdin.write(text)
        process.stdin.flush()
        return process

    def left(self) -> list[str]:
        names = os.listdir(self.dir) if self.dir.exists() else []
        return sorted(n for n in names if n not in ("lock", "who"))


def ended(process: subprocess.Popen[bytes]) -> tuple[list[str], bytes, list[bytes], list[bytes]]:
    """The frames' names, what followed the last one, and what stood before each on either stream."""
    out, err = process.communicate(b"go\n", timeout=30)
    seen = []
    for data in (out, err):
        frames = Frames(WORD, 1 << 20)
        frames.feed(data)
        seen.append(frames)
    names = [[p.name for p in frames.pieces] for frames in seen]
    assert names[0] == names[1], "a mark stands on both streams, or none is ever seen"
    bodies = [[p.body for p in frames.pieces] for frames in seen]
    return names[0], seen[0].rest(), bodies[0], bodies[1]


def test_signs_of_life_and_then_the_snapshot(tmp_path: Path) -> None:
    host = Host(tmp_path, sleep=2.5)
    names, rest, out, _ = ended(host.begin())
    assert names[0] == "start"
    assert names[1:-1].count("beat") >= 2
    assert set(names[1:-1]) == {"beat"}
    assert names[-1] == "saved"
    assert b'"revision": 7' in out[-1]
    assert hashlib.sha256(rest).digest() == hashlib.sha256(DATA).digest()
    assert host.left() == []


@pytest.mark.parametrize("sleep", [0.0, 0.95, 1.0, 1.05])
def test_no_sign_of_life_is_cut_in_two(tmp_path: Path, sleep: float) -> None:
    for _ in range(3):
        names, rest, _, _ = ended(Host(tmp_path, sleep=sleep).begin())
        assert names[-1] == "saved"
        assert rest == DATA


def test_what_etcdctl_says_is_told(tmp_path: Path) -> None:
    host = Host(tmp_path, fails="context deadline exceeded")
    names, _, out, err = ended(host.begin())
    assert names[-1] == "failed"
    assert b"context deadline exceeded" in out[-1]
    assert b"ended with 1" in err[-1]
    assert host.left() == []


def test_a_lock_of_a_run(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.lock.write_text('{"run": "x"}')
    names, _, out, _ = ended(host.begin())
    assert names[-1] == "restored"
    assert b'{"run": "x"}' in out[-1]
    assert host.left() == []


def test_no_room(tmp_path: Path) -> None:
    host = Host(tmp_path)
    names, _, _, err = ended(host.begin(need=str(1 << 60)))
    assert names[-1] == "full"
    assert b"MiB are free in" in err[-1]
    assert host.left() == []


def test_a_second_one_is_told_and_takes_nothing_from_the_first(tmp_path: Path) -> None:
    host = Host(tmp_path, sleep=2)
    first = host.begin()
    deadline = time.monotonic() + 10
    while host.left() != ["a.taking"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    names, _, out, _ = ended(Host(tmp_path, sleep=2).begin())
    assert names[-1] == "busy"
    assert b"since 20" in out[-1]
    names, rest, _, _ = ended(first)
    assert names[-1] == "saved"
    assert rest == DATA


@pytest.mark.parametrize("delay", range(0, 20, 4))
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_all_away(tmp_path: Path, how: signal.Signals, delay: int) -> None:
    """At whatever moment, some of them between the begin of something beside and the taking down of its number."""
    host = Host(tmp_path, sleep=20)
    process = host.begin()
    deadline = time.monotonic() + 10
    while host.left() != ["a.taking"]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay / 1000)
    process.send_signal(how)
    process.communicate(timeout=10)
    assert host.left() == []


def test_whoever_leaves_is_noticed_while_etcd_still_saves(tmp_path: Path) -> None:
    """Both ends of the connection's pipes are closed, as sshd closes them."""
    host = Host(tmp_path, sleep=20)
    process = host.begin()
    assert process.stdin
    assert process.stdout
    assert process.stderr
    deadline = time.monotonic() + 10
    while host.left() != ["a.taking"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    process.wait(timeout=10)
    assert host.left() == []


@pytest.mark.parametrize("says", [b"", b"go\n"])
def test_whoever_takes_nothing_more_is_given_up(tmp_path: Path, says: bytes) -> None:
    """As after a cable was pulled: the connection stands, and nobody reads."""
    host = Host(tmp_path)
    (tmp_path / "data").write_bytes(os.urandom(4_000_000))
    process = host.begin(stall="1")
    assert process.stdin
    process.stdin.write(says)
    process.stdin.flush()
    process.wait(timeout=20)
    assert host.left() == []
    process.communicate(timeout=5)


def test_whoever_is_slow_is_waited_for(tmp_path: Path) -> None:
    host = Host(tmp_path)
    data = os.urandom(8_000_000)
    (tmp_path / "data").write_bytes(data)
    process = host.begin(stall="4")
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"go\n")
    process.stdin.flush()
    came, begun = b"", time.monotonic()
    while piece := os.read(process.stdout.fileno(), 65536):
        came += piece
        time.sleep(0.06)
    assert time.monotonic() - begun > 6
    assert came.endswith(data)
    process.communicate(timeout=10)
    assert host.left() == []


def test_what_was_left_by_who_had_no_time_is_removed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (host.dir / "old.taking").mkdir(parents=True)
    (host.dir / "old.taking" / "snapshot.db").write_text("secret")
    names, _, _, _ = ended(host.begin())
    assert names[-1] == "saved"
    assert host.left() == []


def brought(host: Host) -> tuple[str, dict[str, bytes]]:
    """Both programs, to be brought along: what the script is told of them, and what they are."""
    tools = {name: Path(getattr(host, name)).read_bytes() for name in ("etcdctl", "etcdutl")}
    return " ".join(f"{n}:{len(d)}:{hashlib.sha256(d).hexdigest()}" for n, d in tools.items()), tools


def until(process: subprocess.Popen[bytes], mark: bytes) -> bytes:
    """What it says on standard output, until that has come."""
    assert process.stdout
    said = b""
    while mark not in said:
        piece = os.read(process.stdout.fileno(), 65536)
        assert piece, said
        said += piece
    return said


def feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin
    process.stdin.write(data)
    process.stdin.flush()


def test_programs_that_are_brought_take_it_and_stay_until_whoever_sent_them_leaves(tmp_path: Path) -> None:
    host = Host(tmp_path)
    words, tools = brought(host)
    process = host.begin(bring=words)
    for name, data in tools.items():
        until(process, f"{WORD} bring {name}\n".encode())
        feed(process, data)
    until(process, f"{WORD} saved {len(DATA)}\n".encode())
    feed(process, b"go\n")
    came = until(process, DATA[-64:])
    assert came.endswith(DATA[-64:])
    assert (host.dir / "a.taking" / "etcdctl").stat().st_mode & 0o777 == 0o700
    process.communicate(timeout=10)
    assert host.left() == []


def test_of_a_program_that_is_being_replaced_no_more_is_sent_than_was_told(tmp_path: Path) -> None:
    """More would stand before the next word; less would be waited for, and the host be blamed."""
    path = tmp_path / "etcdctl"
    tool = Tool("etcdctl", path, 10, "")
    path.write_bytes(b"x" * 14)
    assert b"".join(tool.chunks(4)) == b"x" * 10
    path.write_bytes(b"x" * 9)
    with pytest.raises(OSError, match="shorter"):
        list(tool.chunks(4))


def test_a_program_that_was_damaged_on_the_way_is_not_run(tmp_path: Path) -> None:
    host = Host(tmp_path)
    words, tools = brought(host)
    process = host.begin(bring=words)
    until(process, b"bring etcdctl\n")
    feed(process, tools["etcdctl"][:-1] + b"!")
    _, err = process.communicate(timeout=10)
    assert b"etcdctl did not come whole" in err
    assert host.left() == []


def test_a_program_that_does_not_run_there_is_told_of(tmp_path: Path) -> None:
    host = Host(tmp_path)
    program(tmp_path / "etcdctl", "#!/bin/sh\necho not of this kind\nexit 126\n")
    words, tools = brought(host)
    process = host.begin(bring=words)
    until(process, b"bring etcdctl\n")
    feed(process, tools["etcdctl"])
    _, err = process.communicate(timeout=10)
    assert b"the etcdctl that was brought does not run here: not of this kind" in err
    assert host.left() == []


@pytest.mark.parametrize("leaves", [True, False])
def test_whoever_brings_no_more_of_it_is_given_up(tmp_path: Path, leaves: bool) -> None:
    host = Host(tmp_path)
    words, tools = brought(host)
    process = host.begin(bring=words, stall="1")
    until(process, b"bring etcdctl\n")
    feed(process, tools["etcdctl"][:10])
    if leaves:
        process.communicate(timeout=10)
    process.wait(timeout=20)
    assert host.left() == []
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


@pytest.mark.parametrize("shell", [name for name in ("dash", "bash") if shutil.which(name)])
def test_a_shell_beside_that_a_signal_ends_takes_nothing_away(tmp_path: Path, shell: str) -> None:
    """One that bash has only just forked has its parent's traps yet: what it would remove is not its own."""
    begun, ends, _ = TAKE.partition("trap 'exit 1' HUP INT TERM PIPE\n")
    beside = 'mkdir "$own"; : >"$own/kept"; (end 2>/dev/null); echo "$(ls "$own")"\n'
    words = [str(tmp_path / "snapshots"), "a.taking", str(tmp_path / "no.lock"), "0", "60", "1", "60", "u", "", "c"]
    text = wrapper.streaming(WORD, words, begun + ends + beside)
    done = subprocess.run([shell, "-s"], input=text, capture_output=True, check=True, timeout=10)
    assert b"\nkept\n" in done.stdout
    assert sorted(os.listdir(tmp_path / "snapshots")) == ["lock"]

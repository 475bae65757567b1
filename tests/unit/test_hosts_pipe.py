"""A program behind three pipes, with a shell in the place of ``ssh``: what comes, what breaks, what is left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runbook.hosts import pipe
from runbook.hosts.address import Address
from runbook.hosts.connection import Link
from runbook.hosts.login import Again, Unreachable
from runbook.hosts.pipe import NoStart, Pipe
from runbook.hosts.session import Ended, Lost, Silent

WORD = "ab" * 16
FRAME = f"frame() {{ printf '\\n{WORD} %s %s\\n' $1 $2; printf '\\n{WORD} %s %s\\n' $1 $2 >&2; }}; "
Opener = Callable[..., Pipe]


@pytest.fixture
def link() -> Link:
    return Link(Address("m1", "m1", connect_timeout=0.5))


@pytest.fixture
def opened(link: Link) -> Iterator[Opener]:
    """Opens pipes to shells; in the end none of them runs, and the link knows of none."""
    made: list[Pipe] = []

    def make(text: str, *, began: bool = False) -> Pipe:
        event = threading.Event()
        if began:
            event.set()
        made.append(Pipe(link, ["sh", "-c", FRAME + text], WORD, 1000, event))
        return made[-1]

    yield make
    for one in made:
        assert one._child.returncode is not None
    assert link._helpers == []


def test_answers_come_framed_and_the_end_has_its_code(opened: Opener) -> None:
    with opened("echo noise; frame start 0; read x; echo $x; echo err >&2; frame end 7; exit 3") as session:
        assert session.next(5).name == "start"
        session.send(b"hello\n")
        frame = session.next(5)
        assert (frame.name, frame.code, frame.out, frame.err) == ("end", "7", b"hello\n", b"err\n")
        with pytest.raises(Ended) as ended:
            session.next(5)
        assert ended.value.code == 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(5_000_000))
    return path


@pytest.mark.parametrize("trouble", ["none", "no splice", "small pipe", "slow reader"])
def test_a_file_arrives_whole(
    opened: Opener, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "no splice":
        calls = iter([0, 1])
        splice = os.splice

        def once(*args: int, **flags: int) -> int:
            if next(calls):
                raise OSError(errno.EINVAL, "no pages here")
            return splice(*args, **flags)

        monkeypatch.setattr(os, "splice", once)
    if trouble == "small pipe":
        monkeypatch.setattr(pipe, "SIZE", 1 << 40)  # the kernel refuses as much
    reader = "sleep 0.3; cat" if trouble == "slow reader" else "cat"
    with opened(f"frame start 0; {reader} >{tmp_path}/copy; frame end 0") as session, file.open("rb", 0) as source:
        session.next(5)
        assert session.pour(source, 5_000_000, 5)
        session.finish()
        assert session.next(5).name == "end"
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()


def test_a_file_that_ends_too_early(opened: Opener, file: Path) -> None:
    with opened("frame start 0; cat >/dev/null") as session, file.open("rb", 0) as source:
        session.next(5)
        with pytest.raises(EOFError):
            session.pour(source, 5_000_001, 5)


def test_a_program_that_takes_nothing_and_one_that_has_ended(opened: Opener, file: Path) -> None:
    with opened("frame start 0; sleep 60") as session, file.open("rb", 0) as source:
        session.next(5)
        begun = time.monotonic()
        with pytest.raises(Silent, match="took no data"):
            session.pour(source, 5_000_000, 0.5)
        with pytest.raises(Silent, match="no answer"):
            session.next(0.2)
        assert time.monotonic() - begun < 3
    with opened("frame start 0; exec <&-; sleep 0.2; frame end 1") as session, file.open("rb", 0) as source:
        session.next(5)
        assert not session.pour(source, 5_000_000, 5)
        assert session.next(5).code == "1", "the answer is still heard"


@pytest.mark.parametrize(
    "text", ["echo no >&2; exit 255", "exit 1", "kill -9 $$", "sleep 60", "exec >&- 2>&-; sleep 1"]
)
def test_what_never_began_is_for_another_way(opened: Opener, text: str) -> None:
    with opened(text) as session:
        session.send(b"script")
        with pytest.raises(NoStart):
            session.next(0.2)


def test_a_program_that_is_not_there(link: Link) -> None:
    with pytest.raises(NoStart, match="No such file"), Pipe(link, ["/none/ssh"], WORD, 9, threading.Event()):
        pass


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("Connection refused", Again.LATER),
        ("Host key verification failed.", Again.NEVER),
        ("root@m1: Permission denied (publickey).", Again.NEVER),
    ],
)
def test_what_once_began_is_tried_again_unless_refused(opened: Opener, said: str, again: Again) -> None:
    with pytest.raises(Unreachable, match="m1") as error, opened(f"echo '{said}' >&2; exit 255", began=True) as session:
        session.next(5)
    assert error.value.again is again
    assert said.rstrip(".") in str(error.value)


def test_a_connection_that_breaks_and_a_link_that_is_dropped(opened: Opener, link: Link) -> None:
    with opened("frame start 0; echo 'Timeout, server m1 not responding.' >&2; exit 255") as session:
        session.next(5)
        with pytest.raises(Lost, match="not responding"):
            session.next(5)
    with opened("frame start 0; exec sleep 60") as session:
        session.next(5)
        timer = threading.Timer(0.2, link.drop)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(Lost):
            session.next(20)
        assert time.monotonic() - begun < 3


def test_leaving_early_ends_it_and_leaving_late_lets_it_end(opened: Opener, tmp_path: Path) -> None:
    begun = time.monotonic()
    session = opened(f"frame start 0; cat; touch {tmp_path}/seen")
    session.__enter__().next(5)
    session.__exit__(ValueError, ValueError(), None)
    assert time.monotonic() - begun < 2
    time.sleep(0.1)
    assert not (tmp_path / "seen").exists(), "it did not see the end of its input as if all had come"
    with opened("frame start 0; cat >/dev/null; exit 5") as session:
        session.next(5)
    assert session._child.returncode == 5


def test_ctrl_c_does_not_reach_it(opened: Opener) -> None:
    with opened("ps -o sid= -p $$; frame start 0; cat") as session:
        session.next(5)
        shown = subprocess.run(
            ["ps", "-o", "sid=", "-p", str(session._child.pid)], capture_output=True, text=True, check=True
        )
        assert int(shown.stdout) == session._child.pid

"""Ctrl-C may come at any moment: the journal stays whole, and has every line that was begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from runbook import journal
from runbook.errors import Halted
from runbook.journal import Journal, read

SOURCE = journal.__file__


def once(real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """The call, interrupted the first time: before it has done anything, or when it has."""
    left = [True]

    def call(*args: Any) -> Any:
        if left and not after:
            left.clear()
            raise KeyboardInterrupt
        result = real(*args)
        if left:
            left.clear()
            raise KeyboardInterrupt
        return result

    return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["write", "fsync", "ftruncate", "lseek"])
def test_an_interrupt_in_a_call_leaves_the_line_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    path = tmp_path / "journal.jsonl"
    book = Journal(path)
    book.append("run", {"run": "r-1"})
    monkeypatch.setattr(os, name, once(getattr(os, name), after=after))
    with pytest.raises(KeyboardInterrupt):
        book.append("end", {"code": 0}, host="m1")
    book.append("state", {"from": "outage", "to": "halted", "why": "interrupted"})
    assert read(path)[0] == book.lines
    assert [line["event"] for line in book.lines] == ["run", "end", "state"]
    book.close()


def test_half_a_line_is_never_built_upon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted again and again, until it gives the line up: what is half on the disk is not before the next."""
    path = tmp_path / "journal.jsonl"
    book = Journal(path)
    book.append("run", {"run": "r-1"})
    real = os.write

    def half(fd: int, data: bytes) -> int:
        real(fd, bytes(data[:10]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(KeyboardInterrupt):
            book.append("end", {"code": 0})
    book.append("state", {"from": "outage", "to": "halted"})
    assert read(path)[0] == book.lines
    assert [line["event"] for line in book.lines] == ["run", "state"]
    assert book.size == path.stat().st_size
    assert book.tail(0) == path.read_bytes()
    book.close()


def test_an_interrupt_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    book = Journal(path)
    errors = iter((KeyboardInterrupt(), OSError(28, "No space left on device")))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(next(errors)))
        with pytest.raises(Halted, match="No space left"):
            book.append("begin")
    assert (book.lines, path.read_bytes()) == ([], b"")
    book.close()


class At:
    """Raises KeyboardInterrupt at the n-th instruction of the journal's own code, once."""

    def __init__(self, moment: int) -> None:
        self.left, self.raised = moment, False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename != SOURCE or self.raised:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.left -= 1
            if self.left < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


def interrupted(path: Path, moment: int) -> tuple[Journal, bool]:
    """A journal whose second line was interrupted at that instruction; whether it was reached."""
    path.unlink(missing_ok=True)
    book = Journal(path)
    book.append("run", {"run": "r-1"})
    at = At(moment)
    sys.settrace(at)
    try:
        book.append("end", {"code": 0, "said": "gone"}, host="m1")
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return book, at.raised


@pytest.mark.skipif(sys.gettrace() is not None, reason="something traces already")
def test_an_interrupt_at_any_instruction(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    kept = []
    for moment in range(100_000):
        book, reached = interrupted(path, moment)
        on_disk = len(read(path)[0])
        kept.append(on_disk == 2)
        book.append("state", {"from": "outage", "to": "halted"})
        book.close()
        lines = read(path)[0]
        assert lines == book.lines, moment
        assert len(lines) == on_disk + 1, f"{moment}: a line that was there is gone"
        if not reached:
            break
    assert moment > 200
    first = kept.index(True)
    assert all(kept[first:]), "from its first byte on the line is kept"


def test_a_closed_journal_takes_no_line(tmp_path: Path) -> None:
    """A thread that is still at work on a host comes late: its line must not go where the number leads now."""
    book = Journal(tmp_path / "journal.jsonl")
    book.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    with pytest.raises(Halted):
        book.append("end")
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b""


WRITER = """
import signal, sys, threading
from pathlib import Path
from runbook.journal import Journal

book = Journal(Path(sys.argv[1]))

def once(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, once)

def work():
    while not over.is_set():
        book.append("end", {"code": 0}, host="thread")

over = threading.Event()
thread = threading.Thread(target=work)
thread.start()
try:
    try:
        print("ready", flush=True)
        while True:
            book.append("begin", {"action": "x" * 200})
    except KeyboardInterrupt:
        book.append("state", {"from": "outage", "to": "halted", "why": "interrupted"})
finally:
    over.set()
    thread.join()
    book.close()
"""


def test_a_real_signal_at_any_moment(tmp_path: Path) -> None:
    for turn in range(12):
        path = tmp_path / f"{turn}.jsonl"
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            threading.Event().wait(0.01 + turn * 0.0037)
            process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            if process.poll() is None:
                process.kill()
                pytest.fail("it hangs")
        assert process.returncode == 0
        lines = read(path)[0]
        assert [line for line in lines if line["event"] == "state"]
        assert path.read_bytes().endswith(b"\n")

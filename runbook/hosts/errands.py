"""What one host is asked or told, from the connection to the result; nothing here raises for a host's sake."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from runbook.hosts import wrapper
from runbook.hosts.connection import Link
from runbook.hosts.login import Again, Unreachable
from runbook.hosts.session import Dialogue, Ended, Frame, Lost, Opening, Session, Silent
from runbook.shape import CUT
from runbook.step import Command, Result, Secret

CAP = 4 * 1024 * 1024
"""So many bytes of a read-only command's output, and of its errors, are kept."""
LARGE = 64 * 1024 * 1024
"""The same for a question whose answer may be large (``Command.large``): all nodes or pods of a large cluster."""
START = 30.0
"""Seconds for sudo and a shell to start; a directory service may be slow."""
GAP = 30.0
"""Seconds of silence after which a host that should show signs of life is given up, and asked anew."""
MARGIN = 15.0
"""Seconds added to a command's own timeout, which the host itself keeps."""
AWAY = 60.0
"""Seconds for which a host that was lost is looked for, where its command's time is not over sooner: a machine may
start anew in that, and a dead one must not hold an outage up for longer. Whoever resumes finds what runs there."""
ENDED = (124, 137, 143)
"""Exit codes of a command that outlived its time, and was ended for it."""
NO_SHELL = 127
"""The code of what was never run, where the program that stood in a shell's place ended with 0."""
LOST = "killed or lost on the host before it could record its exit"

Streaming = Callable[[Dialogue], None]


def nonce() -> str:
    """A word that no output can hold by chance or by design."""
    return secrets.token_hex(16)


def ask(link: Link, commands: Sequence[Command]) -> tuple[Result, ...]:
    """Run read-only commands in one exec.

    What was answered before a connection died counts; the rest is asked once more.
    """
    results: list[Result] = []
    why = ""
    for _ in (1, 2):
        try:
            _ask(link, commands[len(results) :], results)
            break
        except Unreachable as error:
            why = str(error)
            break
        except Ended as error:
            if not results:
                return tuple(Result(error.code or NO_SHELL, err=refusal(link, error)) for _ in commands)
            why = f"{link.address.label}: the shell ended with {error.code}: {error.said}"
            break
        except Lost as error:
            link.drop()
            why = f"{link.address.label}: {error}"
            if isinstance(error, Silent):
                break
    return (*results, *(Result(None, err=why) for _ in commands[len(results) :]))


def _ask(link: Link, commands: Sequence[Command], results: list[Result]) -> None:
    word = nonce()
    cap = LARGE if any(command.large for command in commands) else CAP
    with Session(link, wrapper.shell(link.address.elevates), word, cap) as session:
        session.send(wrapper.ask(word, commands))
        session.next(START)
        for command in commands:
            began = time.monotonic()
            frame = session.next(wrapper.limit(command.timeout) + MARGIN)
            results.append(_result(frame, time.monotonic() - began, command.timeout))
        # what had to be ended may have left something behind that still prints, and anybody's own text as well
        if not any(command.stray for command in commands) and not any(result.code in ENDED for result in results):
            session.leave()


def _result(frame: Frame, seconds: float, timeout: float) -> Result:
    """A frame's result; a program that SIGTERM did not end in time gives 124 as well."""
    code = int(frame.code) if frame.code.isdecimal() else None
    # GNU timeout gives 137 then, BusyBox's gives 143 for any
    if code in (137, 143) and seconds >= wrapper.limit(timeout):
        code = 124
    out, err = (
        body.decode(errors="replace") + (f"\n{CUT} {dropped} bytes more]" if dropped else "")
        for body, dropped in ((frame.out, frame.out_dropped), (frame.err, frame.err_dropped))
    )
    return Result(code, out, err, seconds)


def refusal(link: Link, ended: Ended) -> str:
    """Why there was no shell to run anything in."""
    address = link.address
    if address.elevates and "sudo" in ended.said:
        return (
            f"{address.label}: sudo refused, nothing was run: {ended.said}; let {address.user} run commands without a "
            f"password (NOPASSWD: ALL in /etc/sudoers.d), or log in as root"
        )
    return f"{address.label}: no shell there, nothing was run (exit code {ended.code}): {ended.said}"


def bare(link: Link, command: Command) -> Result:
    """Run a changing command without the wrapper: once, and unknown when the connection dies."""
    word = nonce()
    began = time.monotonic()
    try:
        with Session(link, wrapper.shell(link.address.elevates), word, CAP, again=False) as session:
            session.send(wrapper.bare(word, command))
            try:
                session.next(START)
            except Ended as error:
                return Result(error.code or NO_SHELL, err=refusal(link, error))
            frame = session.next(wrapper.limit(command.timeout) + wrapper.KILL + MARGIN)
            return scrubbed(command, _result(frame, time.monotonic() - began, command.timeout))
    except Unreachable as error:
        return Result(None, err=f"{error}; nothing was started")
    except (Lost, Ended) as error:
        link.drop()
        return Result(None, err=f"{link.address.label}: {error}; whether the command ran is not known")


def scrubbed(command: Command, result: Result) -> Result:
    """The result without the command's secrets, should the program have repeated them."""
    out, err = result.out, result.err
    for word in command.argv:
        if isinstance(word, Secret) and len(word.value) > 3:
            out, err = out.replace(word.value, str(word)), err.replace(word.value, str(word))
    return replace(result, out=out, err=err)


class Cut(Lost):
    """The host gave an upload up for want of data, and has removed what it had."""


class Errand:
    """A guarded script on one host, which finds out how it ended even when connections die meanwhile.

    The script must be one of :class:`runbook.hosts.wrapper.Guarded`: they can be sent again, because the host knows by
    the key what was started.
    """

    doubt = "the command may have run, or may still run there"

    def __init__(self, link: Link, timeout: float, stop: threading.Event, opens: Opening = Session) -> None:
        self._link = link
        self._stop = stop
        self._opens = opens
        self._timeout = timeout
        self._began = time.monotonic()
        self._until = self._began + wrapper.limit(timeout) + wrapper.KILL + MARGIN
        self.started = False
        """A script was handed over, at least in part: something may be under way on the host."""
        self._lost = 0.0
        """When the host was last seen to be lost, having answered before; 0 while it answers."""

    def run(
        self, script: Callable[[str], bytes], where: str, stream: Streaming | None = None, gap: float = GAP
    ) -> Result:
        """Send the script until its end is known, the time is over, or the host has been away for too long.

        ``where`` names its output's file on the host. ``gap`` is the silence after which it is sent again.
        """
        pause = 0.2
        while True:
            try:
                return self._converse(script, where, stream, gap)
            except Unreachable as error:
                why = str(error)
                if not self.started:
                    return Result(None, err=f"{why}; nothing was started")
                if error.again is Again.NEVER:
                    break
            except Lost as error:
                self._link.drop()
                why = f"{self._link.address.label}: {error}"
            now = time.monotonic()
            if not self._lost:
                self._lost = now
                self._link.lost(why)
            if self._stop.is_set() or now + pause > min(self._until, self._lost + AWAY):
                break
            self._stop.wait(pause)
            pause = min(3.0, pause * 1.6)
        return Result(None, err=f"{why}; {self.doubt}", seconds=self._seconds)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _left(self) -> float:
        return max(0.5, self._until - time.monotonic())

    def _converse(self, script: Callable[[str], bytes], where: str, stream: Streaming | None, gap: float) -> Result:
        word = nonce()
        text = script(word)
        elevates = self._link.address.elevates
        shell = wrapper.streaming_shell(elevates, len(text)) if stream else wrapper.shell(elevates)
        with self._opens(self._link, shell, word, wrapper.TAIL * 2) as session:
            if self._stop.is_set():  # whoever left before this was open could not cut it
                raise Lost("interrupted")
            self.started = True
            session.send(text)
            try:
                session.next(min(START, self._left()))
            except Ended as error:
                return Result(error.code or NO_SHELL, err=refusal(self._link, error), seconds=self._seconds)
            self._lost = 0.0
            try:
                frame = self._end(session, gap)
                if stream and frame.name == "go":
                    stream(session)
                    frame = self._end(session, gap)
            except Ended as error:
                said = f"the wrapper's shell ended with {error.code}: {error.said}"
                return Result(None, err=f"{self._link.address.label}: {said}", seconds=self._seconds)
            if not stream:
                session.leave()
        return self._judge(frame, where)

    def _end(self, session: Dialogue, gap: float) -> Frame:
        """The frame after the signs of life."""
        while True:
            frame = session.next(min(gap, self._left()))
            if frame.name != "beat":
                return frame
            if time.monotonic() > self._until:
                raise Silent("the command outlives its deadline")

    def _judge(self, frame: Frame, where: str) -> Result:
        if frame.code == "cut":
            raise Cut(frame.err.decode(errors="replace").strip())
        kept = replace(frame, out=_tail(frame.out, f"{where}.out"), err=_tail(frame.err, f"{where}.err"))
        result = _result(kept, self._seconds, self._timeout)
        if frame.code == "lost":
            return replace(result, err=f"{self._link.address.label}: {LOST}\n{result.err}".rstrip())
        return result


def _tail(body: bytes, where: str) -> bytes:
    """The last part of a long output, and where the rest is."""
    if len(body) <= wrapper.TAIL:
        return body
    return f"[the beginning is cut; all of it is on the host in {where}]\n".encode() + body[-wrapper.TAIL :]

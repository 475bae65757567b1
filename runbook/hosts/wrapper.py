"""How the scripts that run on the hosts are put together from constant texts (``texts``) and quoted words.

A script travels through the shell's standard input, never in a command line: login shells differ in their quoting, and
sudo writes command lines into the host's log, secrets included. It is one compound command, so that a script cut off
half-way is a syntax error and never a shorter command. It runs in a subshell, which takes with it all that it has set
and opened, and cannot read what follows: so one shell takes one script after the other. Where the subshell dies, so
does the shell, for nobody would hear of it else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from runbook.hosts.texts import GUARD, KEEP, PRELUDE, READ, RECEIVE, RUN, RUNNER, SETTLE
from runbook.step import Command
from runbook.transport import LOCK, Claim, Copy

TAIL = 64 * 1024
"""So many bytes of a changing command's output and errors come back; all of it stays on the host."""
BEAT = 5
"""Seconds between two signs of life while a command runs."""
STALL = 15
"""Seconds without a byte after which a host gives an upload up."""
KILL = 5
"""Seconds between SIGTERM and SIGKILL for a changing command that outlives its timeout."""
WAIT = 3
"""Seconds for which a start waits for the flock, which a waiter may hold for a moment."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,199}")
_COMMENTS = re.compile(r"^[ \t]*#.*\n", re.MULTILINE)


def checked_key(key: str) -> str:
    """The key of a command, which names its files; ValueError where it is no plain file name."""
    if not _KEY.fullmatch(key) or key.endswith((".intent", ".out", ".err", ".rc", ".new")):
        raise ValueError(f"{key!r} cannot name a command's files")
    return key


def quote(words: Sequence[str]) -> bytes:
    """Words for a shell, exactly as they are; ValueError where one holds NUL, which no program can be given."""
    if any("\0" in word for word in words):
        raise ValueError("a word of a command holds a NUL byte")
    return b" ".join(shlex.quote(word).encode("utf-8", "surrogateescape") for word in words)


def shell(elevates: bool) -> str:
    """What the login shell is given, whichever it is: a shell that takes its script from standard input."""
    return f"exec {'sudo -n ' if elevates else ''}env LC_ALL=C /bin/sh -s"


def streaming_shell(elevates: bool, size: int) -> str:
    """The same where data follows the script, of which ``size`` bytes are then read, and not one more.

    Where ``dd`` does not know ``fullblock`` it takes byte by byte.
    """
    sudo = "sudo -n " if elevates else ""
    whole = "if dd if=/dev/null count=0 iflag=fullblock 2>/dev/null; then dd bs=%d count=1 iflag=fullblock 2>/dev/null"
    read = f"{whole % size}; else dd bs=1 count={size} 2>/dev/null; fi"
    return f"exec {sudo}env LC_ALL=C /bin/sh -c 'eval \"$({read})\"'"


def _script(nonce: str, words: Sequence[str], *texts: str, lines: bytes = b"") -> bytes:
    """``texts`` are ours, and lose their comments; ``lines`` have quoted words of the plan, and lose nothing."""
    return b"{ (\n" + _body(nonce, words, texts, lines) + b") </dev/null || exit\n}\n"


def streaming(nonce: str, words: Sequence[str], *texts: str) -> bytes:
    """A script that reads what follows it; its shell is its own, and ends with it."""
    return b"{\n" + _body(nonce, words, texts) + b"}\n"


def _body(nonce: str, words: Sequence[str], texts: Sequence[str], lines: bytes = b"") -> bytes:
    own = _COMMENTS.sub("", PRELUDE + "".join(texts)).encode()
    return b"set -- " + quote([nonce, *words]) + own + lines + b"exit 0\n"


def ask(nonce: str, commands: Sequence[Command]) -> bytes:
    """All read-only commands of a host, one after the other; the frames have their numbers and exit codes."""
    lines = [b"%s; frame %d $?\n" % (_limited(c, kill=2), n) for n, c in enumerate(commands)]
    return _script(nonce, (), lines=b"".join(lines))


def bare(nonce: str, command: Command) -> bytes:
    """One changing command without the wrapper; the frame's name is ``end``."""
    return _script(nonce, (), lines=b"%s; frame end $?\n" % _limited(command, kill=KILL))


def _limited(command: Command, kill: int) -> bytes:
    return quote(["timeout", "-k", str(kill), str(limit(command.timeout)), *command.words()])


def limit(timeout: float) -> int:
    """Whole seconds for ``timeout``, of which every implementation understands them; 0 would mean none."""
    return max(1, -int(-timeout // 1))


def _guard(run_dir: str, run: str, claim: Claim, void: Sequence[str]) -> list[str]:
    known = " ".join(claim.known)
    return [run_dir, run, str(claim.epoch), claim.owner, known, LOCK, " ".join(checked_key(key) for key in void)]


def _numbers(wait: int) -> str:
    return f"beat={BEAT} wait={wait} tail={TAIL}\n"


class Guarded:
    """Scripts that respect the run's flock, its epoch and the host's lock, for one host of one run."""

    def __init__(self, run_dir: str, run: str, claim: Claim, void: Sequence[str] = ()) -> None:
        self._guard = _guard(run_dir, run, claim, void)

    def run(self, nonce: str, key: str, intent: str, command: Command) -> bytes:
        """Start a changing command detached, or find it again; wait for its end; frame ``end`` with its code."""
        words = [checked_key(key), intent, RUNNER, str(limit(command.timeout)), str(KILL), *command.words()]
        return _script(nonce, [*self._guard, *words], _numbers(WAIT), GUARD, RUN)

    def settle(self, nonce: str, wait: float) -> bytes:
        """Wait for the flock, then claim the run."""
        return _script(nonce, self._guard, _numbers(max(0, -int(-wait // 1))), GUARD, SETTLE)

    def keep(self, nonce: str, copies: Sequence[Copy]) -> bytes:
        """Write pieces of files into the run's directory; frame ``end`` with 0, 94 (not so long), 95, 96 or 97."""
        pieces = [(c.name, str(c.offset), c.data.decode("utf-8", "surrogateescape")) for c in copies]
        words = [word for piece in pieces for word in piece]
        return _script(nonce, [*self._guard, *words], _numbers(WAIT), GUARD, KEEP)

    def receive(
        self,
        nonce: str,
        key: str,
        intent: str,
        dest: str,
        size: int,
        sha256: str,
        mode: int,
        origin: str,
        timeout: float,
        inline: str | None = None,
    ) -> bytes:
        """Receive a file of so many bytes after the frame ``go``.

        ``origin`` is a file of this host to take instead; ``inline`` is a small file itself, as a word of the script.
        """
        words = [
            checked_key(key),
            intent,
            dest,
            str(size),
            sha256,
            f"{mode:04o}",
            origin,
            str(limit(timeout)),
            str(STALL),
            *([] if inline is None else [inline]),
        ]
        kind = _script if origin or inline is not None else streaming
        return kind(nonce, [*self._guard, *words], _numbers(WAIT), GUARD, RECEIVE)


def read(nonce: str, path: str) -> bytes:
    """Send a file of this host: a frame ``size`` with its bytes, then the bytes themselves on standard output."""
    return streaming(nonce, [path], READ)

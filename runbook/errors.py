"""Errors that a responder sees: each says what is true, what it means, and what to do next.

Exit codes are the contract's: 1 the program's own error, 2 bad usage or plan, 3 a check said no and no host is
changed, 4 halted part-way, 6 another run holds a host, 7 restored but not verified, 130 interrupted.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

NOTE = "   # "
"""Between a command to type and a word on it; a shell takes the word for a comment."""


def command(words: Sequence[str], options: Mapping[str, str]) -> str:
    """A command to type: its words, and each option that has a value."""
    return shlex.join([*words, *(word for option, value in options.items() if value for word in (option, value))])


def bare(command: str) -> str:
    """The command without its note, for programs."""
    return command.partition(NOTE)[0]


def lined(commands: Sequence[str]) -> list[str]:
    """Commands with their notes below each other."""
    width = min(80, max((len(bare(c)) for c in commands if NOTE in c), default=0))
    return [f"{bare(c):{width}}{c[len(bare(c)) :]}" if NOTE in c else c for c in commands]


def closing(true: str, means: str, next: Sequence[str]) -> list[str]:
    """The three closing sentences, a line or more each; an empty one is left out."""
    told = (("What is true:", true), ("What it means:", means), ("Type next:", "\n".join(lined(next))))
    return [f"{label:15}" + text.replace("\n", "\n" + " " * 15) for label, text in told if text]


class RunbookError(Exception):
    """The base: ``code`` is the exit code, ``true``, ``means`` and ``next`` are the three closing sentences."""

    code = 1

    def __init__(
        self, message: str, *, true: str = "", means: str = "", next: Sequence[str] = (), by_hand: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.true = true
        self.means = means
        self.next = tuple(next)
        self.by_hand = tuple(by_hand)
        """Where the program itself cannot go on: what a person types on the hosts."""
        self.told = False
        """Whether the result, with this error, has already been written to standard output."""

    def __str__(self) -> str:
        by_hand = ["By hand:       " + "\n               ".join(self.by_hand)] if self.by_hand else []
        return "\n".join([self.message, *closing(self.true, self.means, self.next), *by_hand])

    def document(self) -> dict[str, object]:
        """The error for programs: the commands without their notes."""
        next_ = [bare(command) for command in self.next]
        told = {"exit_code": self.code, "error": self.message, "true": self.true, "means": self.means, "next": next_}
        return told | ({"by_hand": list(self.by_hand)} if self.by_hand else {})


class UsageError(RunbookError):
    """Bad usage, an invalid plan, a digest that does not match, or nobody there to confirm."""

    code = 2


class Refused(RunbookError):
    """A check said no, or preparing failed and was undone: no host is changed."""

    code = 3


class Halted(RunbookError):
    """Stopped part-way: it can be resumed or rolled back."""

    code = 4


class Held(RunbookError):
    """Another run, or another process with this run, holds a host or the run's directory."""

    code = 6


class Unverified(RunbookError):
    """Restored and serving, but a check of the VERIFY phase failed."""

    code = 7


class Interrupted(RunbookError):
    """A person or the system asked the program to stop."""

    code = 130

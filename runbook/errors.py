"""Errors that a responder sees: each says what is true, what it means, and what to do next.

Exit codes are the contract's: 1 the program's own error, 2 bad usage or plan, 3 a check said no and no host is
changed, 4 halted part-way, 6 another run holds a host, 7 restored but not verified, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence


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
        lines = [self.message]
        if self.true:
            lines.append(f"What is true:  {self.true}")
        if self.means:
            lines.append(f"What it means: {self.means}")
        if self.next:
            lines.append("Type next:     " + "\n               ".join(self.next))
        if self.by_hand:
            lines.append("By hand:       " + "\n               ".join(self.by_hand))
        return "\n".join(lines)


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

"""The lab's errors: where, what was found, what to do; each with the exit code of the contract."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do it; exit 1."""

    code = 1


class LabUsageError(LabError):
    """The lab was asked for what makes no sense now: not up, up already, no such host; exit 2."""

    code = 2


class Missing(Exception):
    """Something that the lab needs is missing and cannot be brought; the message says what and what to do."""

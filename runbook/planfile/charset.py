"""What a single word of a plan may be made of."""

from __future__ import annotations

import re
from collections.abc import Callable

_SECRET = re.compile(
    r"(?i:(?<=AGE-SECRET-KEY-)[A-Z0-9-]+|(?<=PRIVATE KEY-----).+)|(?<=://)[^/@\s]*:[^/@\s]*(?=@)", re.DOTALL
)
"""A secret identity, age's or SSH's; a login with its password."""
_IDENTITY = re.compile(r"AGE-SECRET-KEY-|PRIVATE KEY-----", re.IGNORECASE)


def holds_identity(text: str) -> bool:
    """Whether what was given for a public key is, or has in it, the secret one."""
    return _IDENTITY.search(text) is not None


def masked(text: str) -> str:
    """What was typed, without what is secret in it: it is shown, and may end in somebody's ticket."""
    return _SECRET.sub("…", text)


Check = Callable[[str], str]
"""Gives "" for a good value, else what is wrong with it, as it reads after the value itself."""


def strange(text: str, good: str) -> str:
    """The first character that is not of the class ``good``, named."""
    found = re.search(f"[^{good}]", text)
    if found is None:
        return ""
    char = found.group()
    if char.isspace() or not char.isprintable():
        return f"holds white space or a control character (U+{ord(char):04X})"
    return f"holds the character {char}"


def word(good: str, longest: int, first: str = "A-Za-z0-9") -> Check:
    """A check for words of the characters ``good`` (as in a regex class), the first of ``first``, never an option."""

    def fault(text: str) -> str:
        if not text:
            return "is empty"
        if len(text) > longest:
            return f"has {len(text)} characters, more than {longest}"
        if text.startswith("-"):
            return "begins with -, as an option of a command does"
        if odd := strange(text, good):
            return odd
        return "" if re.match(f"[{first}]", text) else f"begins with {text[0]}"

    return fault


USER = word(r"A-Za-z0-9._\-", 64, "A-Za-z0-9_")
"""A login or group name, or its number."""
MEMBER = word(r"A-Za-z0-9._\-", 253)
"""An etcd member's name, free of what ``--initial-cluster`` gives a meaning: , and =."""

"""The one place that says what a secret looks like: for journals, debug logs, findings, and archives for strangers.

Pure: text in, text out. ``redact`` for a text, ``masked`` where it is to be told what was found. What has the form of a
secret goes (private keys, tokens, cloud keys, credentials in URLs), and what has the name of one (``password: …``); the
values of Secret objects and of containers' environments go whole (``blocks``). Names, addresses, paths, flags and
hashes stay: without them nobody can help.
"""

from __future__ import annotations

import re
from collections import Counter

from runbook.redaction.blocks import by_line, only_text
from runbook.redaction.forms import MASK, NAMED, by_form, harmless

__all__ = ["MASK", "NAMED", "harmless", "masked", "redact"]

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def redact(text: str) -> str:
    """The text without private keys, tokens and passwords, as far as they can be told by their form or their name."""
    return _masked(text, Counter())


def masked(text: str) -> tuple[str, Counter[str]]:
    """The same for strangers' eyes, without lines that are no text at all; and how many of each kind were masked.

    Colours go first, and DOS' line ends: either could stand between a name and what would tell it.
    """
    found: Counter[str] = Counter()
    plain = _COLOURS.sub("", text.replace("\r\n", "\n")) if "\r" in text or "\x1b" in text else text
    return only_text(_masked(plain, found), found), found


def _masked(text: str, found: Counter[str]) -> str:
    return by_line(by_form(text, found), found)

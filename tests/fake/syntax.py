"""The words of the small shell: how a text is cut into tokens, and what each word is made of."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\\\n)|(?P<newline>\n)|(?P<op>&&|\|\||;|2>&1|>&2)|(?P<redirect>2>|>)"""
    r"""|(?P<word>(?:"(?:[^"\\]|\\.)*"|'[^']*'|\$\(\([^()]*\)\)|\$\([^()]*\)|[^\s;&|<>"'])+)"""
)
PIECE = re.compile(r'\$\(\([^()]*\)\)|\$\([^()]*\)|"(?:[^"\\]|\\.)*"|\'[^\']*\'|(?:(?!\$\()[^"\'])+', re.S)
PARAMETER = re.compile(
    r"\\(?P<escaped>[\"\\$])|\$\(\((?P<sum>[^()]*)\)\)|\$\((?P<sub>[^()]*)\)"
    r"|\$(?P<name>\w+)|\$\{(?P<braced>[^}]*)\}",
    re.S,
)


class Unsupported(Exception):
    """The text uses shell that this interpreter does not know: extend it, or simplify the script."""


@functools.cache
def tokens(text: str) -> tuple[str, ...]:
    """Words, operators and newlines (as ``;``)."""
    found: list[str] = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise Unsupported(text[at : at + 40])
        at = match.end()
        if match["newline"]:
            found.append(";")
        elif not match["space"]:
            found.append(match[0])
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Parameter:
    """``$name``, with what is cut off it (``%/*``, ``##*/``) or stands in for it (``:-``)."""

    name: str
    cut: str = ""
    fallback: tuple[str | Parameter | Captured | Sum, ...] = ()


@dataclass(frozen=True, slots=True)
class Captured:
    """``$(…)``."""

    text: str


@dataclass(frozen=True, slots=True)
class Sum:
    """``$((…))``: names and numbers with ``+`` and ``-`` between them."""

    words: tuple[str, ...]


Part = str | Parameter | Captured | Sum


@dataclass(frozen=True, slots=True)
class Word:
    """One word. ``fields``: it is an unquoted ``$…`` alone, and falls into as many words as its value has."""

    parts: tuple[Part, ...]
    globbing: bool = False
    all: bool = False
    constant: str | None = None
    fields: bool = False


def _parts(text: str) -> list[Part]:
    found: list[Part] = []
    at = 0
    for match in PARAMETER.finditer(text):
        if match.start() > at:
            found.append(text[at : match.start()])
        at = match.end()
        if match["escaped"]:
            found.append(match["escaped"])
        elif match["sum"] is not None:
            found.append(Sum(tuple(re.findall(r"\w+|[-+]", match["sum"]))))
        elif match["sub"] is not None:
            found.append(Captured(match["sub"]))
        elif match["name"]:
            found.append(Parameter(match["name"]))
        else:
            found.append(_braced(match["braced"]))
    if at < len(text):
        found.append(text[at:])
    return found


def _braced(text: str) -> Parameter:
    name = re.match(r"\w+", text)
    if not name:
        raise Unsupported(text)
    rest = text[name.end() :]
    if rest.startswith(":-"):
        return Parameter(name[0], fallback=tuple(_parts(rest[2:])) or ("",))
    if rest not in ("", "%/*", "##*/"):
        raise Unsupported(text)
    return Parameter(name[0], cut=rest)


@functools.cache
def word_of(raw: str) -> Word:
    """What one word of a text is made of."""
    if raw == '"$@"':
        return Word((), all=True)
    if "`" in raw:
        raise Unsupported(raw)
    parts: list[Part] = []
    globbing = False
    for piece in PIECE.findall(raw):
        if piece[0] == "'":
            parts.append(piece[1:-1])
        elif piece[0] == '"':
            parts += _parts(piece[1:-1])
        else:
            globbing = globbing or "*" in re.sub(r"\$\{[^}]*\}|\$\([^()]*\)", "", piece)
            parts += _parts(piece)
    constant = "".join(p for p in parts if isinstance(p, str)) if all(isinstance(p, str) for p in parts) else None
    fields = len(parts) == 1 and raw.startswith("$") and isinstance(parts[0], (Parameter, Captured))
    return Word(tuple(parts), globbing, constant=None if globbing else constant, fields=fields)

"""Typed looks into JSON and YAML of other programs: the one place that distrusts their shape.

Every function either returns what it promises or raises :class:`ParseError`, whatever it is given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_UINT64 = 2**64
CUT = "[cut here:"
"""What stands at the end of an answer of which not all was taken in."""


DEEP = 100
"""A manifest's own depth is some ten."""


class ParseError(ValueError):
    """A program's output is not what its documentation promises; the text says what was expected and what came."""


def from_json(text: str, what: str) -> Any:
    """The value of one JSON document; ``what`` names the program for the message."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        if CUT in text[-80:]:
            raise ParseError(
                f"{what}: the answer is longer than is taken in: {text[text.rindex(CUT) :].strip()}"
            ) from None
        raise ParseError(f"{what}: not JSON ({brief(e)}): {brief(text)}") from None


def from_yaml(text: str) -> Any:
    """One YAML document with all scalars as texts, which is total: no date or number can be malformed.

    libyaml reads ten times as fast, where it is, but would crash on what is nested too deep: its events tell how deep.
    """
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    depth = 0
    try:
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEP:
                raise ParseError(f"not YAML that anybody writes: nested more than {DEEP} deep")
        return yaml.load(text, loader)  # noqa: S506 - it makes texts, lists and dicts, nothing else
    except yaml.YAMLError as e:
        raise ParseError(f"not YAML: {brief(e)}") from None


def brief(thing: object, limit: int = 120) -> str:
    """One short line of it, for a message."""
    line = " ".join(str(thing).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


class Shape:
    """One object of a document, with the path to it for the message."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise ParseError(f"{path}: an object was expected, not {brief(repr(value))}")
        self._value: dict[Any, Any] = value
        self.path = path

    def _get(self, key: str) -> Any:
        return self._value.get(key)

    def __contains__(self, key: str) -> bool:
        return self._get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return (k for k in self._value if isinstance(k, str))

    def text(self, key: str, default: str | None = None) -> str:
        """A string; missing or null gives the default, or is an error where there is none."""
        value = self._get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise ParseError(f"{self.path}.{key}: a text was expected, not {brief(repr(value))}")
        return value

    def number(self, key: str, default: int | None = None, *, signed: bool = False) -> int:
        """A whole number of 64 bits, written as a number or (as Kubernetes' JSON of int64 does) as a string."""
        value = self._get(key)
        if value is None and default is not None:
            return default
        return number(value, f"{self.path}.{key}", signed=signed)

    def flag(self, key: str) -> bool:
        """A truth value; missing is false, as in Go's ``omitempty``. BaseLoader's YAML has it as text."""
        value = self._get(key)
        if value is None or value is False or value in ("false", ""):
            return False
        if value is True or value == "true":
            return True
        raise ParseError(f"{self.path}.{key}: true or false was expected, not {brief(repr(value))}")

    def child(self, key: str) -> Shape:
        """An object that must be there."""
        return Shape(self._get(key), f"{self.path}.{key}")

    def maybe(self, key: str) -> Shape:
        """An object, empty where it is missing or null (YAML's ``key:`` reads as the empty text)."""
        value = self._get(key)
        return Shape({} if value is None or value == "" else value, f"{self.path}.{key}")

    def children(self, key: str) -> list[Shape]:
        """A list of objects; missing or null is the empty list, as in Go's JSON."""
        return [Shape(v, f"{self.path}.{key}[{i}]") for i, v in enumerate(self._list(key))]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; missing or null is the empty list."""
        found = self._list(key)
        for i, v in enumerate(found):
            if not isinstance(v, str):
                raise ParseError(f"{self.path}.{key}[{i}]: a text was expected, not {brief(repr(v))}")
        return tuple(found)

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        if value is None or value == "":
            return []
        if not isinstance(value, list):
            raise ParseError(f"{self.path}.{key}: a list was expected, not {brief(repr(value))}")
        return value


def number(value: Any, path: str, *, signed: bool = False) -> int:
    """A whole number of 64 bits; ``signed`` allows it below zero."""
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.removeprefix("-").isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParseError(f"{path}: a whole number was expected, not {brief(repr(value))}")
    if value >= _UINT64 or value < (-_UINT64 // 2 if signed else 0):
        raise ParseError(f"{path}: {brief(value)} is no number of 64 bits")
    return value

"""The plan's shape: the JSON Schema, what each scalar is meant to be, and the schema's errors in plain words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from runbook.planfile.charset import masked
from runbook.planfile.problems import Where, nearest, shown
from runbook.planfile.tree import Fault, Scalar, Sequence, Tree, look_up, position
from runbook.planfile.words import FORMATS

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

Schema = Mapping[str, Any]


RESTORE, BACKUP = "EtcdRestore", "EtcdBackup"
KINDS = {RESTORE: "plan.schema.json", BACKUP: "backup.schema.json"}
"""The kinds of plans, each with its schema's file."""


@cache
def schema(kind: str = RESTORE) -> Schema:
    """The schema of one kind, as the package carries it."""
    text = resources.files("runbook").joinpath("schemas", KINDS[kind]).read_text("utf-8")
    loaded: Schema = json.loads(text)
    return loaded


def resolved(part: Schema, kind: str = RESTORE) -> Schema:
    """A part of that kind's schema with its ``$ref`` followed."""
    ref = part.get("$ref")
    return schema(kind)["$defs"][ref.rpartition("/")[2]] if ref else part


def _types(part: Schema) -> tuple[str, ...]:
    types = part.get("type", ())
    return (types,) if isinstance(types, str) else tuple(types)


def plain(node: Tree, part: Schema, kind: str = RESTORE) -> Any:
    """The tree as JSON values, each scalar as the schema means it: text stays text, whatever it looks like.

    A scalar that is not what the schema wants stays text, so that the schema's error is about it. Nothing after a key
    is None everywhere.
    """
    part = resolved(part, kind)
    if isinstance(node, Scalar):
        return _scalar(node, _types(part))
    if isinstance(node, Sequence):
        items = part.get("items", {})
        return [plain(item, items, kind) for item in node.items]
    known = part.get("properties", {})
    return {key: plain(value, known.get(key, {}), kind) for key, value in node.items.items()}


def _scalar(node: Scalar, types: tuple[str, ...]) -> str | int | bool | None:
    if not node.plain:
        return node.text
    if node.text in ("", "~", "null", "Null", "NULL"):
        return None
    if "integer" in types and re.fullmatch(r"0|-?[1-9][0-9]{0,30}", node.text):
        return int(node.text)
    if "boolean" in types and node.text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return node.text.lower() == "true"
    return node.text


@cache
def _validator(kind: str) -> Validator:
    """The validator; jsonschema is imported here, because only reading a plan needs it."""
    from jsonschema import Draft202012Validator, FormatChecker

    checker = FormatChecker(formats=())
    for name, known in FORMATS.items():
        checker.checkers[name] = (_checked(known.fault), (ValueError,))
    return Draft202012Validator(schema(kind), format_checker=checker)


def _checked(fault: Any) -> Any:
    def check(value: object) -> bool:
        if isinstance(value, str) and (wrong := fault(value)):
            raise ValueError(wrong)
        return True

    return check


def faults(tree: Tree, kind: str = RESTORE) -> tuple[dict[str, Any], list[Fault]]:
    """The plan as JSON values, and everything in it that its kind's schema does not allow."""
    data = plain(tree, schema(kind), kind)
    found: list[Fault] = []
    formats: set[Where] = set()
    patterns: list[Fault] = []
    for error in _validator(kind).iter_errors(data):
        where: Where = tuple(error.absolute_path)
        if error.validator == "format":
            formats.add(where)
        told = list(_told(error, where, tree, kind))
        (patterns if error.validator == "pattern" else found).extend(told)
    # A pattern stands in the schema for editors; our own check of the same value says more.
    return data, found + [p for p in patterns if p.where not in formats]


def _told(error: ValidationError, where: Where, tree: Tree, kind: str) -> Iterator[Fault]:
    """One schema error in our words; unknown and missing keys one by one."""
    part: Schema = error.schema if isinstance(error.schema, dict) else {}
    value: Any = error.instance
    if error.validator == "additionalProperties":
        for key in value:
            if key not in part["properties"]:
                at = (*where, key)
                yield Fault(position(tree, at, key=True), at, _unknown(key, part["properties"], kind))
    elif error.validator == "required":
        missing = next(k for k in part["required"] if error.message.startswith(repr(k)))
        says = {**resolved(part["properties"][missing], kind), **part["properties"][missing]}["description"]
        yield Fault(position(tree, where), (*where, missing), f"this key is missing; it is required: {_first(says)}")
    elif error.validator == "uniqueItems":
        seen: set[str] = set()
        for index, item in enumerate(value):
            if (text := json.dumps(item, sort_keys=True)) in seen:
                at = (*where, index)
                yield Fault(position(tree, at), at, f"found {_seen(look_up(tree, at))} a second time; once is enough")
            seen.add(text)
    else:
        yield Fault(position(tree, where), where, _value(error, part, look_up(tree, where)))


def _value(error: ValidationError, part: Schema, node: Tree | None) -> str:
    """What is wrong with one value."""
    found = f"found {_seen(node)}"
    if error.validator == "format":
        return f"{found}, which {error.cause}; allowed: {FORMATS[part['format']].allowed}"
    if error.validator == "minItems":
        return f"{found}; at least {part['minItems']} is needed"
    if error.validator in ("const", "enum"):
        choices = [part["const"]] if "const" in part else [c or '""' for c in part["enum"]]
        choices = list(KINDS) if choices[0] in KINDS else choices
        meant = nearest(error.instance, choices) if isinstance(error.instance, str) else ""
        hint = f"; did you mean {meant}?" if meant and len(choices) > 1 else ""
        return f"{found}; allowed: {', '.join(choices)}{hint}"
    return f"{found}; allowed: {_allowed(part)}{_hint(node, part)}"


def _seen(node: Tree | None) -> str:
    if isinstance(node, Scalar):
        if node.plain and _scalar(node, ()) is None:
            return "nothing"
        return shown(node.text)
    if isinstance(node, Sequence):
        return f"a list of {len(node.items)}" if node.items else "an empty list"
    keys = list(node.items) if node else []
    return f"a mapping with {', '.join(shown(k, 20) for k in keys[:3])}" if keys else "an empty mapping"


def _allowed(part: Schema) -> str:
    """What a part of the schema allows, by its type."""
    ways = []
    for kind in _types(part):
        if kind == "string":
            ways.append(FORMATS[part["format"]].allowed)
        elif kind == "integer":
            ways.append(f"a whole number from {part['minimum']} to {part['maximum']}")
        elif kind == "boolean":
            ways.append("true or false")
        elif kind == "array":
            ways.append("a list")
        else:
            ways.append(f"a mapping with the keys {', '.join(part['properties'])}")
    return ", or ".join(ways)


def _hint(node: Tree | None, part: Schema) -> str:
    """The way out of the usual traps."""
    types = _types(part)
    if not isinstance(node, Scalar):
        return ""
    if node.plain and _scalar(node, ()) is None:
        return "; give a value, or take the key out"
    if "integer" in types:
        digits = node.text.replace("_", "").replace(",", "")
        if not node.plain and digits.isdecimal():
            return "; write it without quotes"
        meant = str(int(digits)) if re.fullmatch("[0-9]{1,30}", digits) else ""
        if meant and meant != node.text and part["minimum"] <= int(meant) <= part["maximum"]:
            return f"; write {meant}"
    if "boolean" in types:
        for says, words in (("true", ("true", "yes", "on", "y")), ("false", ("false", "no", "off", "n"))):
            if node.text.lower() in words:
                return f"; write {says}, without quotes"
    if "array" in types and node.text:
        one = masked(node.text)
        return f"; write [{one}] for a list of one" if len(one) < 60 and one.isprintable() else ""
    return ""


def _unknown(key: str, known: Schema, kind: str) -> str:
    """An unknown key: the nearest known one, or where it belongs."""
    meant = nearest(key, known)
    places = _places(kind).get(key, [])
    if meant:
        hint = f"did you mean {meant}?"
    elif places:
        hint = f"{key} belongs to {' or '.join(places[:3])}"
    else:
        hint = ""
    return f"unknown key; allowed: {', '.join(known)}" + (f"; {hint}" if hint else "")


@cache
def _places(kind: str) -> dict[str, list[str]]:
    """For every known key, the mappings that have it, as people write them."""
    places: dict[str, list[str]] = {}

    def visit(part: Schema, where: str) -> None:
        part = resolved(part, kind)
        for key, below in part.get("properties", {}).items():
            places.setdefault(key, []).append(where or "the top")
            visit(below, f"{where}.{key}".lstrip("."))
        if "items" in part:
            visit(part["items"], f"{where}[]")

    visit(schema(kind), "")
    return places


def _first(text: str) -> str:
    return text.removesuffix(" Required.").rstrip(".")

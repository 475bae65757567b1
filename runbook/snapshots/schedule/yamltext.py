"""A Kubernetes object as YAML that a person reads: in its own order, scripts as blocks, comments that say why.

PyYAML writes no comments. So the text is written first, then read again for where each key stands, and the comments
are put in above their keys.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """No aliases, lists set in, and a text of several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def document(value: Mapping[str, Any], why: Mapping[str, str], head: str = "") -> str:
    """One YAML document. ``why`` has a comment by key: ``spec.jobTemplate``; an item of a list goes by its ``name``.

    Raises KeyError where there is no such key: then the comment speaks of what is not there.
    """
    text = yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    at = dict(_places(yaml.compose(text, Loader=yaml.SafeLoader)))
    missing = sorted(set(why) - set(at))
    if missing:
        raise KeyError(", ".join(missing))
    above = {at[path][0]: comment(words, at[path][1]) for path, words in why.items()}
    lines = [above.get(number, "") + line for number, line in enumerate(text.splitlines(keepends=True))]
    return (comment(head) if head else "") + "".join(lines)


def comment(words: str, indent: int = 0) -> str:
    """Whole comment lines; an empty line and one that begins with a blank stay as they are."""
    lines = [
        piece
        for line in words.splitlines()
        for piece in (
            [line]
            if not line or line[0] == " "
            else textwrap.wrap(line, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
        )
    ]
    return "".join(f"{' ' * indent}# {line}".rstrip() + "\n" for line in lines)


def _places(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """Where each key stands: its line and its column; an item of a list stands where its dash does."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            yield here, (key.start_mark.line, key.start_mark.column)
            yield from _places(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            name = _name(item)
            if name:
                here = f"{path}.{name}"
                yield here, (item.start_mark.line, item.start_mark.column - 2)
                yield from ((p, at) for p, at in _places(item, here) if p != f"{here}.name")


def _name(item: yaml.Node) -> str:
    pairs = item.value if isinstance(item, yaml.MappingNode) else []
    return next((str(value.value) for key, value in pairs if key.value in ("name", "alert")), "")

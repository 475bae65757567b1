"""YAML text → a tree that knows the line and column of every key and value.

Only what a plan needs of YAML: mappings with text keys, lists, scalars. Scalars stay text here: YAML 1.1 would read
the key ``on`` as True, the name ``no`` as False, ``022`` as 18 and a digest of digits as a number; what a scalar is
meant to be, the schema knows (``shape.plain``). Built from the parser's events, by hand and without recursion, so
that neither depth nor aliases can exhaust the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from runbook.planfile.problems import Where, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_NODES = 20_000
"""Values in a plan after every alias is put in full: far above any cluster, far below what hurts."""

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what YAML counts as the end of a line
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Spot:
    """A position; ``line`` and ``column`` count from 1, in characters."""

    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass
class Scalar:
    """One value. ``plain``: it stood without quotes. ``size`` counts values, ``height`` collections in each other."""

    at: Spot
    text: str
    plain: bool
    size: int = 1
    height: int = 0


@dataclass
class Sequence:
    """A list."""

    at: Spot
    items: list[Tree] = field(default_factory=list)
    size: int = 1
    height: int = 1


@dataclass
class Mapping:
    """Keys with the position of each, and their values."""

    at: Spot
    items: dict[str, Tree] = field(default_factory=dict)
    keys: dict[str, Spot] = field(default_factory=dict)
    size: int = 1
    height: int = 1


Tree = Scalar | Sequence | Mapping


@dataclass(frozen=True)
class Fault:
    """Something a plan's YAML may not hold."""

    at: Spot
    where: Where
    message: str


class Unreadable(Exception):
    """Nothing can be said about the rest of the file. ``fault`` says why and where."""

    def __init__(self, at: Spot, message: str, where: Where = ()) -> None:
        super().__init__(message)
        self.fault = Fault(at, where, message)


def parse(data: bytes) -> tuple[Mapping, list[Fault]]:
    """The tree of one YAML document, and the faults that leave the rest of it readable.

    Raises:
        Unreadable: it is no text, no YAML, more than one document, too large, or no mapping.
    """
    text = _decode(data)
    builder = _Builder(_end(text))
    try:
        for event in yaml.parse(text, Loader=Loader):
            builder.feed(event)
    except yaml.MarkedYAMLError as e:
        raise _broken(text, e) from None
    except yaml.YAMLError as e:
        raise Unreadable(Spot(), f"this is not YAML: {' '.join(str(e).split())}") from None
    if builder.root is None:
        raise Unreadable(Spot(), "the file is empty; it must hold a plan: apiVersion, kind, metadata, spec")
    if not isinstance(builder.root, Mapping):
        what = "a list" if isinstance(builder.root, Sequence) else shown(builder.root.text)
        raise Unreadable(builder.root.at, f"found {what}; a plan is a mapping: apiVersion, kind, metadata, spec")
    return builder.root, builder.faults


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Unreadable(
            Spot(), f"the file has more than {MAX_BYTES:,} bytes; no plan is that large: is it the snapshot?"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        good = data[: e.start].decode("utf-8", "replace")
        raise Unreadable(_position(good), f"byte 0x{data[e.start]:02x} is not UTF-8; a plan is UTF-8 text") from None
    if bad := _UNPRINTABLE.search(text):
        char = f"U+{ord(bad.group()):04X}"
        raise Unreadable(
            _position(text[: bad.start()]), f"found the control character {char}; a plan is printable text"
        )
    return text


def _broken(text: str, error: yaml.MarkedYAMLError) -> Unreadable:
    """A syntax error; where the parser ran past the end of the text, it is told at the end."""
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    at = _within(_spot(mark) if mark else Spot(), _end(text))
    context = error.context or ""
    if context and begun and mark and _spot(begun) != _spot(mark):
        context += f" that begins at {_spot(begun)}"
    says = ", ".join(filter(None, (context, error.problem)))
    return Unreadable(at, f"this is not YAML: {says}")


def _end(text: str) -> Spot:
    lines = _BREAK.split(text)
    return Spot(len(lines), len(lines[-1]) + 1)


def _within(at: Spot, end: Spot) -> Spot:
    """A place that the text has: after a last line without its end the parser counts one line more."""
    return end if at.line > end.line else at


def _position(before: str) -> Spot:
    return Spot(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _spot(mark: Any) -> Spot:
    return Spot(mark.line + 1, mark.column + 1)


@dataclass
class _Frame:
    """A collection being filled; ``key`` is the key that waits for its value, None where the value is dropped."""

    node: Mapping | Sequence
    anchor: str | None
    where: Where
    key: str | None = None
    wants_value: bool = False


class _Builder:
    """Takes the parser's events one by one; ``root`` is the document's value."""

    def __init__(self, end: Spot) -> None:
        self.root: Tree | None = None
        self._end = end
        self.faults: list[Fault] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Tree | None] = {}
        self._count = 0
        self._documents = 0

    def feed(self, event: yaml.Event) -> None:
        """One event; raises Unreadable where the rest cannot be read."""
        at = _within(_spot(event.start_mark) if event.start_mark else Spot(), self._end)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise Unreadable(at, "a second document begins here; a plan is one document in one file")
        elif isinstance(event, yaml.AliasEvent):
            self._value(self._alias(event.anchor or "", at), at)
        elif isinstance(event, yaml.ScalarEvent):
            self._tagless(event.tag, at)
            scalar = Scalar(at, event.value, plain=not event.style)
            if event.anchor:
                self._anchors[event.anchor] = scalar
            self._value(scalar, at)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event, at)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close()

    def _tagless(self, tag: str | None, at: Spot) -> None:
        if tag is not None:
            self.faults.append(Fault(at, self._here(), f"found the tag {shown(tag)}; a plan has no tags: take it out"))

    def _alias(self, name: str, at: Spot) -> Tree:
        if name not in self._anchors:
            raise Unreadable(at, f"the alias *{name} has no anchor before it", self._here())
        node = self._anchors[name]
        if node is None:
            raise Unreadable(at, f"the alias *{name} stands inside its own anchor, without end", self._here())
        return node

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, at: Spot) -> None:
        where = self._here()
        self._tagless(event.tag, at)
        self._shallow(1, at)
        node = Mapping(at) if isinstance(event, yaml.MappingStartEvent) else Sequence(at)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(node, event.anchor, where))

    def _shallow(self, height: int, at: Spot) -> None:
        if len(self._stack) + height > MAX_DEPTH:
            raise Unreadable(at, f"nested more than {MAX_DEPTH} deep; no plan is")

    def _close(self) -> None:
        frame = self._stack.pop()
        if frame.anchor:
            self._anchors[frame.anchor] = frame.node
        self._value(frame.node, frame.node.at, counted=frame.node.size - 1)

    def _value(self, node: Tree, at: Spot, counted: int = 0) -> None:
        """A finished node: the root, an item, a key or a key's value. ``counted``: of its size, what was counted."""
        self._count += node.size - counted
        if self._count > MAX_NODES:
            raise Unreadable(at, f"more than {MAX_NODES:,} values, every alias put in full; no plan has so many")
        if not self._stack:
            self.root = node
            return
        self._shallow(node.height, at)  # an alias may bring depth that its text does not show
        frame = self._stack[-1]
        frame.node.size += node.size
        frame.node.height = max(frame.node.height, node.height + 1)
        if isinstance(frame.node, Sequence):
            frame.node.items.append(node)
        elif frame.wants_value:
            if frame.key is not None:
                frame.node.items[frame.key] = node
            frame.wants_value = False
        else:
            frame.key = self._key(frame, node, at)
            frame.wants_value = True

    def _key(self, frame: _Frame, node: Tree, at: Spot) -> str | None:
        """The text of a key, None where its value must be dropped."""
        mapping = frame.node
        assert isinstance(mapping, Mapping)  # noqa: S101 - the only caller has just looked
        if not isinstance(node, Scalar):
            self.faults.append(Fault(at, frame.where, "found a list or mapping as a key; keys are plain words"))
            return None
        if node.plain and node.text == "<<":
            self.faults.append(Fault(at, frame.where, "found the merge key <<; a plan has none: write the keys out"))
            return None
        if node.text in mapping.keys:
            first = mapping.keys[node.text]
            self.faults.append(
                Fault(at, (*frame.where, node.text), f"this key stands here twice, first at {first}; keep one of them")
            )
            return None
        mapping.keys[node.text] = at
        return node.text

    def _here(self) -> Where:
        """Where the value that comes next will stand."""
        if not self._stack:
            return ()
        frame = self._stack[-1]
        if isinstance(frame.node, Sequence):
            return (*frame.where, len(frame.node.items))
        return (*frame.where, frame.key) if frame.wants_value and frame.key is not None else frame.where


def look_up(root: Tree, where: Where) -> Tree | None:
    """The value at that place, None where there is none."""
    node: Tree | None = root
    for part in where:
        if isinstance(node, Mapping) and isinstance(part, str):
            node = node.items.get(part)
        elif isinstance(node, Sequence) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
        else:
            return None
    return node


def position(root: Tree, where: Where, key: bool = False) -> Spot:
    """Where that value stands, or its key; the nearest thing around it where the file does not have it."""
    if key and where and isinstance(where[-1], str):
        around = look_up(root, where[:-1])
        if isinstance(around, Mapping) and where[-1] in around.keys:
            return around.keys[where[-1]]
    for length in range(len(where), 0, -1):
        if (node := look_up(root, where[:length])) is not None:
            return node.at
    return root.at

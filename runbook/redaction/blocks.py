"""What is told by its place: the values of Secret objects and environments, and secrets that span lines of YAML.

One pass over the lines. It does not parse: what a host has may be half a file, or YAML among the lines of a log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from runbook.redaction.forms import LINE_FORMS, MASK, NAME, NAME_HINTS, NAMED, OPTION, VALUE, Found, harmless, hidden

HINTS = (*NAME_HINTS, "auth", "data", "value", "-u", "login", "user", "ipmi", "@tcp(", "@unix(")
_KEY = r"""[ \t]*(?:-[ \t]+)*"""
_BEGUN = re.compile(_KEY)
_DATA = re.compile(rf"""({_KEY})(["']?)(?:data|stringData|binaryData)\2[ \t]*:[ \t]*(?:[&!]\S+[ \t]*)*(\{{?)(.*)""")
_PAIR = re.compile(r"""([ \t]*["']?[\w./-]+["']?[ \t]*:)[ \t]*(.*?)(,?)[ \t]*\Z""")
_VALUE = re.compile(rf"""({_KEY})((["']?)value\3[ \t]*:[ \t]*)(.*?)(,?)[ \t]*\Z""")
_SIBLING = re.compile(rf"""({_KEY})["']?(\w+)["']?[ \t]*:[ \t]*["']?([^"',\s]*)""")
_NAMED = rf"""(?i)({_KEY})(["']?[\w.-]*(?:{NAME})["']?(?:[ \t]*:(?=[ \t]|\Z)|[ \t]+=)[ \t]*)(.*)"""
_SCALAR = re.compile(r"[|>][-+\d]*[ \t]*(?:#.*)?")
_WHOLE = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:''|[^'])*')([ \t]*[,}\])]*[ \t]*(?:#.*)?)""")
_INNER = re.compile(r"""\s*(?:-\s|["']?[\w./-]+["']?\s*:(?:\s|\Z)|[{\[}\]])""")
_OPTION = rf"""(?i)[ \t]*-[ \t]+["']?--?{OPTION}["']?,?[ \t]*\Z"""
_ITEM = re.compile(r"([ \t]*-[ \t]+)(.*)")
_FLOW_KEY = r"""\\*["']?{}\\*["']?[ \t]*:[ \t]*"""
_FLOW_NAME = rf"""{_FLOW_KEY.format("name")}\\*["']?(?P<n>[\w.-]+)"""
_FLOW_VALUE = rf"(?P<v>{VALUE})"
_FLOW = rf"""(?P<pre>{_FLOW_NAME}\\*["']?[ \t]*,[ \t]*{_FLOW_KEY.format("value")}){_FLOW_VALUE}"""
_FLOW_BACK = rf"""(?P<pre>{_FLOW_KEY.format("value")}){_FLOW_VALUE}(?P<post>[ \t]*,[ \t]*{_FLOW_NAME})"""
_KNOWN = re.compile(
    r"(?:ETCD_[A-Z_]+|GO[A-Z]+|(?:HTTPS?|NO|https?|no)_(?:PROXY|proxy)|(?:NODE|POD|HOST)_?[A-Z]+|TZ|LANG|LC_ALL|PATH)"
)
"""Variables of an environment whose values tell no secret by themselves; all others are masked."""
FAR = 40
"""So many lines away the two halves of an environment's entry may stand."""
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\ufffd]")


def by_line(text: str, found: Found) -> str:
    """The text without what stands on its lines under the name of a secret, or in the place of one."""
    return "\n".join(_Lines(text.split("\n"), found).all())


def only_text(text: str, found: Found) -> str:
    """The text without lines that are none: a piece of a database, or of any other file that is not for reading."""
    return "\n".join(_readable(line, found) for line in text.split("\n"))


def _readable(line: str, found: Found) -> str:
    if line.isprintable() or len(odd := _NOT_TEXT.findall(line)) <= min(8, len(line) / 10):
        return line
    found["not text"] += 1
    return f"{MASK} (a line that is not text: {len(line)} characters, {len(odd)} of them not printable)"


class _Lines:
    """The pass. ``inside`` says that lines deeper than so many columns belong to a value, and how to treat them."""

    def __init__(self, lines: Sequence[str], found: Found) -> None:
        self.lines, self.found = lines, found
        self.out: list[str] = []
        self.inside: tuple[str, int] | None = None
        self.next_item = False

    def all(self) -> list[str]:
        for at, line in enumerate(self.lines):
            if self.inside and self._within(line, *self.inside):
                continue
            low = line.lower()
            if self.next_item or any(hint in low for hint in HINTS):
                line = self._inline(self._placed(at, line), low)
            self.out.append(line)
        return self.out

    def _inline(self, line: str, low: str) -> str:
        for form in LINE_FORMS:
            line = form.sub(line, low, self.found)
        if "value" in low and "name" in low:
            line = re.sub(_FLOW, lambda m: self._flow(m, ""), line)
            line = re.sub(_FLOW_BACK, lambda m: self._flow(m, m["post"]), line)
        return line

    def _flow(self, match: re.Match[str], post: str) -> str:
        if _known(match["n"]) or harmless(match["v"]):
            return match[0]
        self.found["environment value"] += 1
        return f"{match['pre']}{hidden(match['v'])}{post}"

    def _within(self, line: str, how: str, column: int) -> bool:
        """Whether the line belongs to the value that was begun above; it is then dealt with."""
        if not line.strip():
            self.out.append(line)
            return True
        if _indent(line) <= column:
            self.inside = None
            return False
        pair = _PAIR.fullmatch(line) if how == "data" else None
        if pair and not harmless(pair[2]):
            self.out.append(f"{pair[1]} {MASK}{pair[3]}")
            self.found["Secret data"] += 1
        elif pair:
            self.out.append(line)
        elif how == "rest" and _INNER.match(line):
            self.inside = None
            return False
        elif how == "scalar":
            self.out.append(" " * _indent(line) + MASK)
            self.inside = "block", column
        return True

    def _go_on(self, value: str, column: int) -> None:
        """Where a value that was masked on its line may go on below."""
        if not _WHOLE.fullmatch(value):
            self.inside = "block" if _SCALAR.fullmatch(value) else "rest", column

    def _placed(self, at: int, line: str) -> str:
        """The line, masked where its place tells that it is, or begins, a secret."""
        if self.next_item:
            self.next_item = False
            if (item := _ITEM.fullmatch(line)) and not harmless(item[2]):
                self.found["option"] += 1
                return f"{item[1]}{hidden(item[2])}"
        if data := _DATA.fullmatch(line):
            return self._data(data, line)
        if (value := _VALUE.fullmatch(line)) and (name := self._name(at, len(value[1]))):
            return self._environment(value, name, line)
        if re.fullmatch(_OPTION, line):
            self.next_item = True
        if named := re.fullmatch(_NAMED, line):
            return self._named(at, named, line)
        return line

    def _data(self, data: re.Match[str], line: str) -> str:
        if not data[4].strip():
            self.inside = "data", len(data[1])
            return line
        if data[3] and not harmless(data[4]):
            self.found["Secret data"] += 1
            return f"{line[: data.start(4)]}{MASK}}}"
        return line

    def _environment(self, value: re.Match[str], name: str, line: str) -> str:
        if _known(name) or harmless(value[4]):
            return line
        self.found["environment value"] += 1
        self._go_on(value[4], len(value[1]))
        return f"{value[1]}{value[2]}{hidden(value[4])}{value[5]}"

    def _name(self, at: int, column: int) -> str:
        """The ``name`` beside a ``value``, in the same item of a list; "" where there is none."""
        up = () if _item(self.lines[at]) else range(at - 1, max(-1, at - FAR), -1)
        for steps in (up, range(at + 1, min(len(self.lines), at + FAR))):
            for i in steps:
                line, own = self.lines[i], _column(self.lines[i])
                head = _item(line) and own <= column
                if line.strip() and (own < column or (head and i > at)):
                    break
                sibling = _SIBLING.match(line)
                if sibling and own == column and sibling[2] == "name":
                    return sibling[3] or "?"
                if head:
                    break
        return ""

    def _named(self, at: int, named: re.Match[str], line: str) -> str:
        rest, column = named[3], len(named[1])
        if _SCALAR.fullmatch(rest) or (not rest.strip() and self._continues(at, column)):
            self.found["named value"] += 1
            self.inside = "scalar", column
            return line
        if harmless(rest) or rest[0] in "{[":
            return line
        self.found["named value"] += 1
        if whole := _WHOLE.fullmatch(rest):
            return f"{named[1]}{named[2]}{hidden(whole[1])}{whole[2]}"
        self.inside = "rest", column
        return f"{named[1]}{named[2]}{MASK}"

    def _continues(self, at: int, column: int) -> bool:
        """Whether the value of a key with nothing behind it is a text on the lines below."""
        below = next((line for line in self.lines[at + 1 : at + 4] if line.strip()), "")
        return _indent(below) > column and not _INNER.match(below)


def _known(name: str) -> bool:
    return _KNOWN.fullmatch(name) is not None and not NAMED.search(name)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _column(line: str) -> int:
    """Where the line's key begins, behind the dashes of lists."""
    begun = _BEGUN.match(line)
    return len(begun[0]) if begun else 0


def _item(line: str) -> bool:
    return line.lstrip().startswith("- ")

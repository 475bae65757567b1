"""What is wrong with a plan, and where: one line a problem, as compilers do it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runbook.errors import UsageError
from runbook.planfile.charset import masked

Where = tuple[str | int, ...]
"""A place in a plan: keys and list indexes from the root, ``("spec", "nodes", 1, "host")``."""


@dataclass(frozen=True)
class Problem:
    """One error or warning. ``line`` and ``column`` count from 1; ``path`` is "" for the file as a whole."""

    file: str
    line: int
    column: int
    path: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        """``FILE:LINE:COLUMN: spec.nodes[1].host: what is wrong``, and ``warning:`` before a warning's path."""
        label = "warning: " if self.warning else ""
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {label}{path}{self.message}"


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems by position, each once."""
    return tuple(sorted(set(problems), key=lambda p: (p.line, p.column, p.path, p.message)))


class PlanErrors(UsageError):
    """The plan is invalid (exit code 2). The message is all ``problems``, one a line, in the file's order."""

    def __init__(self, problems: Iterable[Problem], warnings: Iterable[Problem] = ()) -> None:
        self.problems = in_order(problems)
        self.warnings = in_order(warnings)
        super().__init__("\n".join(map(str, self.problems)))


def file_name(path: Path) -> str:
    """The file as the person named it, kept on one line."""
    return "".join(c if c.isprintable() else _escape(c) for c in str(path))


def written(where: Where) -> str:
    """A place as people write it: ``spec.nodes[1].peerURLs[0]``; odd keys in quotes."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part.isascii():
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text


def shown(value: str, limit: int = 60) -> str:
    """A text of the plan in quotes, on one line, with nothing a terminal would act on, cut at ``limit`` characters.

    What is secret in it is not shown.
    """
    value = masked(value)
    cut = value if len(value) <= limit else value[: limit - 1] + "…"
    body = "".join(c if c.isprintable() and c not in '"\\' else _escape(c) for c in cut)
    return f'"{body}"'


def _escape(char: str) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    if char in named:
        return named[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that a typo most likely meant, "" where none is near enough.

    Distance: insertions, deletions, changes and swaps of neighbours, capitals apart; at most a third of the word.
    """
    best, least = "", len(word) + 1
    for candidate in known:
        allowed = max(1, max(len(word), len(candidate)) // 3)
        if abs(len(word) - len(candidate)) > allowed or len(word) > 64:
            continue
        steps = _distance(word.lower(), candidate.lower())
        if steps <= allowed and steps < least:
            best, least = candidate, steps
    return best


def _distance(a: str, b: str) -> int:
    """Optimal string alignment distance of two short words."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]

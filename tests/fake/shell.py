"""A small shell, enough for the texts in ``runbook/procedures/scripts``, that can be stopped inside each command.

A text is parsed once and run as generators: a program yields wherever a crash would leave another state behind. What a
program does is the business of ``Programs``, how a text is cut into words that of ``syntax.py``.
``tests/unit/test_fake_shell.py`` compares it with the real ``sh``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.fake.syntax import Captured, Parameter, Part, Sum, Unsupported, Word, tokens, word_of

Step = Generator[None, None, int]


class Programs(Protocol):
    """What runs a simple command: a generator too, so that it can be stopped inside."""

    def program(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """Run it; write to ``out`` and ``err``; return the exit code."""

    def glob(self, pattern: str) -> list[str]:
        """The paths that match."""

    def write(self, path: str, text: str) -> Step:
        """What a redirection writes; not 0 where it cannot."""


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Break(Exception):
    """Out of the loop."""


class _Continue(Exception):
    """On with the loop."""


class _Unset(Exception):
    """``set -u``."""


# Commands. ``tested``: the exit code is being looked at, so ``set -e`` does not end the shell there.


class _Node(Protocol):
    def run(self, shell: Shell, tested: bool) -> Step: ...


@dataclass(frozen=True, slots=True)
class _Simple:
    words: tuple[Word, ...]
    target: Word | None = None
    to_err: bool = False
    quiet_err: bool = False

    def run(self, shell: Shell, tested: bool) -> Step:
        argv: list[str] = []
        for word in self.words:
            if word.constant is not None:
                argv.append(word.constant)
            else:
                argv += shell.expand(word)
        builtin = BUILTINS.get(argv[0])
        if builtin:
            return builtin(shell, argv)
        out: list[str] = []
        err: list[str] = []
        target = shell.expand(self.target)[0] if self.target else ""
        code = yield from shell.programs.program(argv, out, err)
        if target and target != "/dev/null":
            written = yield from shell.programs.write(target, "".join(out))
            code = code or written
        elif not target:
            (shell.err if self.to_err else shell.out).extend(out)
        if not self.quiet_err:
            shell.err += err
        if code and shell.strict and not tested:
            raise _Exit(code)
        return code


@dataclass(frozen=True, slots=True)
class _Assign:
    name: str
    word: Word

    def run(self, shell: Shell, tested: bool) -> Step:
        yield from ()
        shell.captured = 0
        shell.names[self.name] = shell.join(self.word)
        if shell.captured and shell.strict and not tested:
            raise _Exit(shell.captured)
        return shell.captured


@dataclass(frozen=True, slots=True)
class _Block:
    nodes: tuple[_Node, ...]

    def run(self, shell: Shell, tested: bool) -> Step:
        code = 0
        for node in self.nodes:
            code = yield from node.run(shell, tested)
        return code


@dataclass(frozen=True, slots=True)
class _AndOr:
    nodes: tuple[_Node, ...]
    operators: tuple[str, ...]

    def run(self, shell: Shell, tested: bool) -> Step:
        code, last = 0, len(self.nodes) - 1
        for index, node in enumerate(self.nodes):
            if index and ((self.operators[index - 1] == "&&") != (code == 0)):
                continue
            code = yield from node.run(shell, tested or index < last)
        return code


@dataclass(frozen=True, slots=True)
class _If:
    condition: _Node
    then: _Node
    other: _Node | None

    def run(self, shell: Shell, tested: bool) -> Step:
        if (yield from self.condition.run(shell, True)) == 0:
            return (yield from self.then.run(shell, tested))
        if self.other:
            return (yield from self.other.run(shell, tested))
        return 0


@dataclass(frozen=True, slots=True)
class _For:
    name: str
    words: tuple[Word, ...]
    body: _Node

    def run(self, shell: Shell, tested: bool) -> Step:
        code = 0
        for value in [v for word in self.words for v in shell.expand(word)]:
            shell.names[self.name] = value
            try:
                code = yield from self.body.run(shell, tested)
            except _Continue:
                code = 0
            except _Break:
                return 0
        return code


@dataclass(frozen=True, slots=True)
class _While:
    condition: _Node
    body: _Node

    def run(self, shell: Shell, tested: bool) -> Step:
        code = 0
        while (yield from self.condition.run(shell, True)) == 0:
            try:
                code = yield from self.body.run(shell, tested)
            except _Continue:
                code = 0
            except _Break:
                return 0
        return code


class _Parser:
    """Recursive descent; newlines and semicolons are the same."""

    def __init__(self, text: str) -> None:
        self.tokens, self.at = tokens(text), 0

    def block(self, *ends: str) -> _Node:
        nodes: list[_Node] = []
        while True:
            while self._peek() == ";":
                self.at += 1
            if self._peek() in ends or not self._peek():
                return nodes[0] if len(nodes) == 1 else _Block(tuple(nodes))
            nodes.append(self._and_or())

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._peek()
        if wanted and token not in wanted:
            raise Unsupported(f"{token!r} where {' or '.join(wanted)} was expected")
        self.at += 1
        return token

    def _and_or(self) -> _Node:
        nodes, operators = [self._command()], []
        while self._peek() in ("&&", "||"):
            operators.append(self._take())
            while self._peek() == ";":
                self.at += 1
            nodes.append(self._command())
        return _AndOr(tuple(nodes), tuple(operators)) if operators else nodes[0]

    def _command(self) -> _Node:
        head = self._peek()
        if head == "if":
            return self._if()
        if head == "for":
            return self._for()
        if head == "while":
            return self._while()
        if head == "{":
            self._take()
            body = self.block("}")
            self._take("}")
            return body
        return self._simple()

    def _if(self) -> _Node:
        self._take("if")
        condition = self.block("then")
        self._take("then")
        then = self.block("else", "fi")
        other = None
        if self._take("else", "fi") == "else":
            other = self.block("fi")
            self._take("fi")
        return _If(condition, then, other)

    def _while(self) -> _Node:
        self._take("while")
        condition = self.block("do")
        self._take("do")
        body = self.block("done")
        self._take("done")
        return _While(condition, body)

    def _for(self) -> _Node:
        self._take("for")
        name = self._take()
        self._take("in")
        words = []
        while self._peek() != ";":
            words.append(word_of(self._take()))
        self._take(";")
        self._take("do")
        body = self.block("done")
        self._take("done")
        return _For(name, tuple(words), body)

    def _simple(self) -> _Node:
        words: list[str] = []
        target, to_err, quiet_err = None, False, False
        while self._peek() not in ("", ";", "&&", "||"):
            token = self._take()
            if token == ">":
                target = word_of(self._take())
            elif token == "2>":
                self._take("/dev/null")
                quiet_err = True
            elif token == "2>&1":
                quiet_err = True
            elif token == ">&2":
                to_err = True
            else:
                words.append(token)
        assigned = re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.S) if len(words) == 1 else None
        if assigned:
            return _Assign(assigned[1], word_of(assigned[2]))
        return _Simple(tuple(word_of(w) for w in words), target, to_err, quiet_err)


@functools.cache
def parse(text: str) -> _Node:
    """The text as a tree, made once."""
    parser = _Parser(text)
    tree = parser.block()
    if parser.at != len(parser.tokens):
        raise Unsupported(f"{parser.tokens[parser.at]!r} without its beginning")
    return tree


# Builtins.


def _set(shell: Shell, argv: list[str]) -> int:
    shell.strict, shell.careful = "e" in argv[1], "u" in argv[1]
    return 0


def _shift(shell: Shell, argv: list[str]) -> int:
    del shell.args[: int(argv[1]) if len(argv) > 1 else 1]
    return 0


def _exit(shell: Shell, argv: list[str]) -> int:
    raise _Exit(int(argv[1]))


def _loop(shell: Shell, argv: list[str]) -> int:
    raise _Continue if argv[0] == "continue" else _Break


def _colon(shell: Shell, argv: list[str]) -> int:
    return 0


BUILTINS = {"set": _set, "shift": _shift, "exit": _exit, "continue": _loop, "break": _loop, ":": _colon}


@dataclass(slots=True)
class Shell:
    """One run of one text."""

    text: str
    args: list[str]
    programs: Programs
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    careful: bool = False
    captured: int = 0
    """The exit code of the last ``$(…)``, which is an assignment's."""

    def run(self) -> Step:
        """Run to the end; yields where a crash would leave another state behind."""
        try:
            return (yield from parse(self.text).run(self, False))
        except _Exit as end:
            return end.code
        except _Unset as name:
            self.err.append(f"{name}: parameter not set\n")
            return 2

    def expand(self, word: Word) -> list[str]:
        """The fields that a word becomes: one, unless it globs, is ``"$@"`` or an unquoted value."""
        if word.all:
            return list(self.args)
        text = self.join(word)
        if word.fields:
            return text.split()
        return self.programs.glob(text) or [text] if word.globbing else [text]

    def join(self, word: Word) -> str:
        """Its value as one text, as in an assignment."""
        return word.constant if word.constant is not None else self._join(word.parts)

    def _join(self, parts: Sequence[Part]) -> str:
        return "".join([p if isinstance(p, str) else self._value(p) for p in parts])

    def _value(self, part: Parameter | Captured | Sum) -> str:
        if isinstance(part, Captured):
            return self._captured(part.text)
        if isinstance(part, Sum):
            return str(self._sum(part.words))
        value = self._variable(part.name)
        if part.fallback:
            return value or self._join(part.fallback)
        if value is None:
            if self.careful:
                raise _Unset(part.name)
            return ""
        if part.cut == "%/*":
            return value.rpartition("/")[0] if "/" in value else value
        return value.rpartition("/")[2] if part.cut else value

    def _sum(self, words: Sequence[str]) -> int:
        total, sign = 0, 1
        for each in words:
            if each in "+-":
                sign = 1 if each == "+" else -1
            else:
                total += sign * int(each if each.isdigit() else self.names[each])
        return total

    def _variable(self, name: str) -> str | None:
        if name.isdigit():
            return self.args[int(name) - 1] if int(name) <= len(self.args) else None
        return self.names.get(name)

    def _captured(self, text: str) -> str:
        inner = Shell(text, list(self.args), self.programs, names=dict(self.names))
        run = inner.run()
        try:
            while True:
                next(run)
        except StopIteration as end:
            self.captured = int(end.value)
        return "".join(inner.out).rstrip("\n")

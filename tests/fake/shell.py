"""A small shell, enough for the texts in ``runbook/procedures/scripts.py``, that can be stopped between commands.

``run`` is a generator: it yields before every simple command, so that its driver may crash the world there. What a
command does is the business of ``Programs``. ``tests/unit/test_fake_shell.py`` compares it with a real ``sh``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol

Step = Generator[None, None, int]

TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\\\n)|(?P<newline>\n)|(?P<op>&&|\|\||;|2>&1|>&2)|(?P<redirect>2>|>)"""
    r"""|(?P<word>(?:"(?:[^"\\]|\\.)*"|'[^']*'|\$\([^()]*\)|[^\s;&|<>"'])+)"""
)


class Programs(Protocol):
    """What runs a simple command: a generator too, so that long ones can be stopped inside."""

    def program(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """Run it; write to ``out`` and ``err``; return the exit code."""

    def glob(self, pattern: str) -> list[str]:
        """The paths that match."""

    def write(self, path: str, text: str) -> None:
        """What a redirection writes."""


class Unsupported(Exception):
    """The text uses shell that this interpreter does not know: extend it, or simplify the script."""


@dataclass
class _Env:
    args: list[str]
    names: dict[str, str] = field(default_factory=dict)


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@functools.cache
def tokens(text: str) -> list[str]:
    """Words, operators and newlines (as ``;``); not to be changed."""
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
    return found


class Shell:
    """One run of one text."""

    def __init__(self, text: str, args: list[str], programs: Programs) -> None:
        self.tokens = tokens(text)
        self.env = _Env(args)
        self.programs = programs
        self.out: list[str] = []
        self.err: list[str] = []
        self.strict = False

    def run(self) -> Step:
        """Run to the end; yields before each simple command."""
        try:
            code = yield from self._block(0, len(self.tokens))
        except _Exit as end:
            return end.code
        return code

    # Blocks. A block is a range of tokens; compound commands are found by matching their closing words.

    def _block(self, start: int, end: int, *, tested: bool = False) -> Step:
        at, code = start, 0
        while at < end:
            if self.tokens[at] == ";":
                at += 1
                continue
            stop = self._end_of_and_or(at, end)
            code = yield from self._and_or(at, stop, tested=tested)
            at = stop
        return code

    def _end_of_and_or(self, at: int, end: int) -> int:
        depth = 0
        while at < end:
            token = self.tokens[at]
            if token in ("if", "for", "while", "{"):
                depth += 1
            elif token in ("fi", "done", "}"):
                depth -= 1
            elif token == ";" and depth == 0 and self.tokens[at - 1] not in ("||", "&&"):
                return at
            at += 1
        return end

    def _and_or(self, start: int, end: int, *, tested: bool) -> Step:
        parts, operators, depth, first = [], [], 0, start
        for at in range(start, end):
            token = self.tokens[at]
            depth += token in ("if", "for", "while", "{")
            depth -= token in ("fi", "done", "}")
            if depth == 0 and token in ("&&", "||"):
                parts.append((first, at))
                operators.append(token)
                first = at + 1
        parts.append((first, end))
        code = 0
        for index, (a, b) in enumerate(parts):
            if index and ((operators[index - 1] == "&&") != (code == 0)):
                continue
            guarded = tested or index < len(parts) - 1
            code = yield from self._command(a, b, tested=guarded)
            if code and self.strict and not guarded:
                raise _Exit(code)
        return code

    def _command(self, start: int, end: int, *, tested: bool) -> Step:
        while start < end and self.tokens[start] == ";":
            start += 1
        head = self.tokens[start]
        if head == "if":
            return (yield from self._if(start, end, tested=tested))
        if head == "for":
            return (yield from self._for(start, end, tested=tested))
        if head == "{":
            return (yield from self._block(start + 1, self._closing(start, "{", "}"), tested=tested))
        return (yield from self._simple(self.tokens[start:end]))

    def _closing(self, start: int, opening: str, closing: str, *also: str) -> int:
        depth = 0
        for at in range(start, len(self.tokens)):
            token = self.tokens[at]
            depth += token == opening
            if depth == 1 and token in also:
                return at
            depth -= token == closing
            if depth == 0:
                return at
        raise Unsupported(f"{opening} without {closing}")

    def _if(self, start: int, end: int, *, tested: bool) -> Step:
        then = self._closing(start, "if", "fi", "then")
        other = self._closing(start, "if", "fi", "else")
        stop = self._closing(start, "if", "fi")
        condition = yield from self._block(start + 1, then, tested=True)
        if condition == 0:
            return (yield from self._block(then + 1, other, tested=tested))
        if other != stop:
            return (yield from self._block(other + 1, stop, tested=tested))
        return 0

    def _for(self, start: int, end: int, *, tested: bool) -> Step:
        name = self.tokens[start + 1]
        do, stop = self._closing(start, "for", "done", "do"), self._closing(start, "for", "done")
        values = [v for word in self.tokens[start + 3 : do] if word != ";" for v in self._expand(word)]
        code = 0
        for value in values:
            self.env.names[name] = value
            code = yield from self._block(do + 1, stop, tested=tested)
        return code

    # Simple commands and words.

    def _simple(self, words: list[str]) -> Step:
        target, quiet_err, argv = "", False, []
        at = 0
        while at < len(words):
            word = words[at]
            if word in (">", "2>"):
                path = self._expand(words[at + 1])[0]
                target, quiet_err = (path if word == ">" else target), quiet_err or word == "2>"
                at += 2
                continue
            if word in ("2>&1", ">&2"):
                quiet_err, at = word == "2>&1", at + 1
                continue
            argv += [word] if word in ("[", "]", "!") else self._expand(word)
            at += 1
        assigned = re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.S)
        if assigned and len(words) == 1:
            self.env.names[assigned[1]] = "".join(self._expand(assigned[2]))
            return 0
        if not argv:
            return 0
        yield
        return (yield from self._dispatch(argv, target, quiet_err))

    def _dispatch(self, argv: list[str], target: str, quiet_err: bool) -> Step:
        if argv[0] == "set":
            self.strict = "e" in argv[1]
            return 0
        if argv[0] == "shift":
            del self.env.args[: int(argv[1]) if len(argv) > 1 else 1]
            return 0
        if argv[0] == "exit":
            raise _Exit(int(argv[1]))
        if argv[0] == ":":
            return 0
        if argv[0] == "continue":
            raise Unsupported("continue")
        out: list[str] = []
        err: list[str] = []
        code = yield from self.programs.program(argv, out, err)
        if target and target != "/dev/null":
            self.programs.write(target, "".join(out))
        elif not target:
            self.out += out
        if not quiet_err:
            self.err += err
        return code

    def _expand(self, word: str) -> list[str]:
        if word == '"$@"':
            return list(self.env.args)
        pieces = re.findall(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|\$\([^()]*\)|[^"\'$]+|\$\w+|\$\{[^}]*\}', word)
        text, globbing = "", False
        for piece in pieces:
            if piece[0] == "'":
                text += piece[1:-1]
            elif piece[0] == '"':
                text += self._substitute(piece[1:-1])
            else:
                globbing = globbing or "*" in piece
                text += self._substitute(piece)
        return self.programs.glob(text) or [text] if globbing else [text]

    def _substitute(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match["escaped"]:
                return str(match["escaped"])
            if match["sub"]:
                return self._captured(match["sub"])
            name, _, fallback = (match["name"] or match["braced"]).partition(":-")
            if "%/*" in name:
                return self._variable(name.removesuffix("%/*")).rpartition("/")[0]
            return self._variable(name) or (self._substitute(fallback) if fallback else "")

        pattern = r"\\(?P<escaped>[\"\\$])|\$\((?P<sub>[^()]*)\)|\$(?P<name>\w+)|\$\{(?P<braced>[^}]*)\}"
        return re.sub(pattern, value, text)

    def _variable(self, name: str) -> str:
        if name.isdigit():
            index = int(name) - 1
            return self.env.args[index] if 0 <= index < len(self.env.args) else ""
        return self.env.names.get(name, "")

    def _captured(self, text: str) -> str:
        inner = Shell(text, list(self.env.args), self.programs)
        inner.env.names = dict(self.env.names)
        run = inner.run()
        try:
            while True:
                next(run)
        except StopIteration:
            return "".join(inner.out).rstrip("\n")

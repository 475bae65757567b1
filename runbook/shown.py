"""How commands are shown: quoted as a shell reads them, constant scripts by name, secrets masked."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from runbook.step import Action, Command, Secret, Upload

PLACEHOLDERS = ("$RUN", "$SHA256", "$HOLDER")
"""What a preview cannot know yet. They stand for harmless words, and so are shown unquoted."""


def quote(word: str | Secret) -> str:
    """One word as a shell reads it; ``shlex.split`` gives the word back. A secret is masked."""
    if isinstance(word, Secret):
        return str(word)
    rest = word
    for placeholder in PLACEHOLDERS:
        rest = rest.replace(placeholder, "")
    harmless = word and (not rest or shlex.quote(rest) == rest)
    return word if harmless else shlex.quote(word)


def constants(module: ModuleType) -> dict[str, str]:
    """The scripts of a module: its upper-case texts of more than one line; their names, by text."""
    return {
        value: name
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and "\n" in value
    }


class Scripts:
    """The names of long shell texts; ``used`` gathers those that were shown, by name, in the order of their use.

    ``names`` is by text. A long text that has no name there comes from the plan, and is numbered.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.names = dict(names)
        self.used: dict[str, str] = {}
        self.own: set[str] = set()

    def name(self, text: str) -> str:
        """The text's name; from now on it counts as used."""
        if text not in self.names:
            self.names[text] = f"PLAN-{len(self.own) + 1}"
            self.own.add(self.names[text])
        name = self.names[text]
        self.used[name] = text
        return name

    def argv(self, command: Command) -> list[str]:
        """The words for a program: scripts as ``<NAME>``, secrets masked."""
        return [f"<{self.name(str(w))}>" if self._long(w) else str(w) for w in command.argv]

    def line(self, command: Command) -> str:
        """The command as a shell would be given it, with scripts as ``<NAME>``."""
        return " ".join(f"<{self.name(str(w))}>" if self._long(w) else quote(w) for w in command.argv)

    @staticmethod
    def _long(word: str | Secret) -> bool:
        return isinstance(word, str) and "\n" in word


def upload_source(upload: Upload) -> str:
    """Where a file comes from, for people."""
    if upload.content is not None:
        return f"the plan's text, {len(upload.content)} bytes"
    where = f"{upload.source_node}:" if upload.source_node else ""
    return where + quote(upload.source)


def action_line(action: Action, scripts: Scripts) -> str:
    """One action on one line."""
    if isinstance(action, Upload):
        sum_, mode = action.sha256 or "unknown", f"{action.mode:04o}"
        return f"upload {upload_source(action)} → {quote(action.dest)} (sha256 {sum_}, mode {mode})"
    return scripts.line(action)


def grouped(lines: Iterable[tuple[str, str]]) -> list[tuple[tuple[str, ...], str]]:
    """Equal lines of several hosts as one: (hosts, line), in the order of their first appearance."""
    found: dict[str, list[str]] = {}
    for host, line in lines:
        found.setdefault(line, []).append(host)
    return [(tuple(hosts), line) for line, hosts in found.items()]


def in_order(by_host: Mapping[str, Sequence[str]]) -> list[tuple[tuple[str, ...], str]]:
    """Every host's lines in their order, equal ones at the same place of several hosts as one."""
    longest = max((len(lines) for lines in by_host.values()), default=0)
    found = []
    for i in range(longest):
        found += grouped((host, lines[i]) for host, lines in by_host.items() if i < len(lines))
    return found

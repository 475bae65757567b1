"""A host's file systems in memory, and the small programs that change them, each stoppable where the real one is.

What a power cut leaves: the content of a file that was not synced is torn. Names (what is in which directory, and whose
it is) are journalled in order, as ext4 and XFS do: a sync makes all changes up to the last of that file or directory
durable, and a cut may lose what came after, on each file system for itself.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.fake.shell import Step

TORN = "\0torn"

Program = Callable[[list[str], list[str], list[str]], Step]


@dataclass(eq=False, slots=True)
class Node:
    """A file, or a directory (without content). ``synced``: the content survives a power cut."""

    content: str | None
    owner: str = "root"
    synced: bool = True
    changed: int = 0
    inode: int = field(default_factory=itertools.count(1).__next__)
    birth: int = field(default_factory=itertools.count(1_775_000_000).__next__)


@dataclass(slots=True)
class _Change:
    """One change of names on one file system: what was there before, and which files and directories it concerns."""

    mount: str
    before: list[tuple[str, Node | None]] = field(default_factory=list)
    owners: list[tuple[Node, str]] = field(default_factory=list)
    concerns: list[Node] = field(default_factory=list)


class Files:
    """All nodes by absolute path. ``mounts`` are file systems of their own. ``version`` grows with every change."""

    def __init__(self, mounts: Iterable[str] = ()) -> None:
        self.nodes: dict[str, Node] = {"/": Node(None)}
        self.mounts = tuple(mounts)
        self.version = 0
        self.log: list[_Change] = []
        self.programs: dict[str, Program] = {
            "mkdir": self._mkdir,
            "install": self._mkdir,
            "mv": self._mv,
            "rm": self._rm,
            "rmdir": self._rmdir,
            "cp": self._cp,
            "cmp": self._cmp,
            "sync": self._sync,
            "touch": self._touch,
            "stat": self._stat,
            "ln": self._ln,
            "grep": self._grep,
            "find": self._find,
            "ls": self._ls,
            "cat": self._cat,
            "chown": self._chown,
            "test": self._test,
            "[": self._test,
        }

    # Plain access.

    def exists(self, path: str) -> bool:
        return path in self.nodes

    def is_dir(self, path: str) -> bool:
        node = self.nodes.get(path)
        return node is not None and node.content is None

    def read(self, path: str) -> str | None:
        """The content; None where there is no such file."""
        node = self.nodes.get(path)
        return node.content if node else None

    def below(self, path: str) -> list[str]:
        prefix = path + "/"
        return [p for p in self.nodes if p.startswith(prefix)]

    def children(self, path: str) -> list[str]:
        prefix, size = path + "/", len(path) + 1
        return [p for p in self.nodes if p.startswith(prefix) and "/" not in p[size:]]

    def glob(self, pattern: str) -> list[str]:
        """The paths that match, sorted; only the last part may hold a ``*``."""
        place, _, name = pattern.rpartition("/")
        hidden = name.startswith(".")
        found = (p for p in self.children(place) if hidden or not p.startswith(".", len(place) + 1))
        return sorted(p for p in found if fnmatch.fnmatchcase(p[len(place) + 1 :], name))

    def tree(self) -> dict[str, tuple[str | None, str]]:
        """Everything: content (None for a directory) and owner, by path."""
        return {path: (node.content, node.owner) for path, node in self.nodes.items()}

    # Changes. Hooks for what a host wants to know of them.

    def will_move(self, source: str, dest: str) -> None:
        """Called before every rename."""

    def will_drop(self, path: str) -> None:
        """Called before every removal."""

    def put(self, path: str, content: str, owner: str = "root", *, synced: bool = True) -> None:
        """Make or overwrite a file, with its directories."""
        self.make_dirs(path.rpartition("/")[0])
        self._place(path, Node(content, owner, synced))

    def make_dirs(self, path: str, owner: str = "root") -> None:
        if path and path not in self.nodes:
            self.make_dirs(path.rpartition("/")[0])
            self._place(path, Node(None, owner))

    def rename(self, source: str, dest: str) -> bool:
        """False where ``mv -T`` would fail: no source, no such place, or a destination in the way."""
        node, there = self.nodes.get(source), self.nodes.get(dest)
        if node is None or not self.is_dir(_parent(dest)) or dest.startswith(source + "/") or source == dest:
            return False
        if there and ((node.content is None) != (there.content is None) or self.below(dest)):
            return False
        self.will_move(source, dest)
        change = self._change(source, node)
        change.concerns.append(self.nodes[_parent(dest)])
        for path in [source, *self.below(source)]:
            new = dest + path[len(source) :]
            change.before += [(path, self.nodes[path]), (new, self.nodes.get(new))]
            self.nodes[new] = self.nodes.pop(path)
        return True

    def drop(self, path: str) -> None:
        if path in self.nodes:
            self.will_drop(path)
            node = self.nodes.pop(path)
            self._change(path, node).before.append((path, node))

    def own(self, path: str, owner: str) -> None:
        node = self.nodes[path]
        if node.owner != owner:
            self._change(path, node).owners.append((node, node.owner))
            node.owner = owner

    def _place(self, path: str, node: Node) -> None:
        self._change(path, node).before.append((path, self.nodes.get(path)))
        self.nodes[path] = node

    def _change(self, path: str, node: Node) -> _Change:
        self.version += 1
        change = _Change(self._mount(path))
        change.concerns.append(node)
        parent = self.nodes.get(_parent(path))
        if parent:
            change.concerns.append(parent)
            parent.changed = self.version
        node.changed = self.version
        self.log.append(change)
        return change

    def _mount(self, path: str) -> str:
        return next((m for m in self.mounts if path.startswith(m) and (path == m or path[len(m)] == "/")), "/")

    # Durability.

    def settled(self) -> None:
        """Everything there is now is durable."""
        self.log.clear()
        for node in self.nodes.values():
            node.synced = True

    def sync(self, path: str, *, whole: bool = False) -> None:
        """``fsync`` of a file or directory; ``whole``: of the file system that it is on."""
        node, mount = self.nodes[path], self._mount(path)
        self.version += 1
        node.synced = True
        if whole:
            for p, n in self.nodes.items():
                n.synced = n.synced or self._mount(p) == mount
        here = (i for i, c in enumerate(self.log) if c.mount == mount and (whole or node in c.concerns))
        last = max(here, default=-1)
        self.log = [c for i, c in enumerate(self.log) if i > last or c.mount != mount]

    def power_cut(self, forgetful: Callable[[str], bool] = lambda _: False) -> None:
        """Unsynced content is torn; a ``forgetful`` file system also loses all changes of names not made durable."""
        self.version += 1
        for change in reversed(self.log):
            if not forgetful(change.mount):
                continue
            for path, before in reversed(change.before):
                if before is None:
                    self.nodes.pop(path, None)
                else:
                    self.nodes[path] = before
            for node, owner in change.owners:
                node.owner = owner
        self.log.clear()
        for node in self.nodes.values():
            if not node.synced and node.content:
                node.content, node.synced = TORN, True

    # Programs. Each takes its words and returns an exit code; ``yield`` is where it can be stopped.

    def write(self, path: str, text: str) -> Step:
        """A redirection."""
        yield
        if not self.is_dir(_parent(path)) or self.is_dir(path):
            return 2
        self._place(path, Node(text, synced=False))
        return 0

    def _mkdir(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        for path in _operands(argv):
            if self.is_dir(path):
                continue
            yield
            if self.exists(path):
                err.append(f"mkdir: cannot create directory '{path}': File exists\n")
                return 1
            self.make_dirs(path)
        return 0

    def _mv(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        source, dest = argv[-2:]
        if argv[1] != "-T":
            raise AssertionError(f"mv must be given -T: {argv}")
        if not self.rename(source, dest):
            err.append(f"mv: cannot move '{source}' to '{dest}'\n")
            return 1
        return 0

    def _rm(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        flags = "".join(w for w in argv[1:] if w.startswith("-"))
        code = 0
        for path in _operands(argv):
            if (not self.exists(path) and "f" not in flags) or (self.is_dir(path) and "r" not in flags):
                err.append(f"rm: cannot remove '{path}'\n")
                code = 1
                continue
            for each in sorted([p for p in [path, *self.below(path)] if self.exists(p)], reverse=True):
                yield
                self.drop(each)
        return code

    def _rmdir(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        path = argv[-1]
        if self.below(path):
            err.append(f"rmdir: failed to remove '{path}': Directory not empty\n")
            return 0 if "--ignore-fail-on-non-empty" in argv else 1
        if not self.is_dir(path):
            err.append(f"rmdir: failed to remove '{path}'\n")
            return 1
        yield
        self.drop(path)
        return 0

    def _cp(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        source, dest = argv[-2:]
        content = self.read(source)
        if content is None or not self.is_dir(_parent(dest)):
            err.append(f"cp: cannot stat '{source}'\n")
            return 1
        owner = self.nodes[source].owner
        yield
        self._place(dest, Node(content[: len(content) // 2], owner, synced=False))
        yield
        self._place(dest, Node(content, owner, synced=False))
        return 0

    def _cmp(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        a, b = self.read(argv[-2]), self.read(argv[-1])
        if a is None or b is None:
            err.append(f"cmp: {argv[-2] if a is None else argv[-1]}: No such file or directory\n")
            return 2
        if a != b:
            out.append(f"{argv[-2]} {argv[-1]} differ: byte 1, line 1\n")
        return int(a != b)

    def _sync(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        code = 0
        for path in (word.rstrip("/") or "/" for word in _operands(argv)):
            if not self.exists(path):
                err.append(f"sync: error opening '{path}'\n")
                code = 1
                continue
            yield
            self.sync(path, whole=argv[1] == "-f")
        return code

    def _stat(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """``stat -c FORMAT -- PATH``, FORMAT of inode, size, birth, and the times of content and inode."""
        yield from ()
        node = self.nodes.get(argv[-1])
        if node is None:
            err.append(f"stat: cannot statx '{argv[-1]}': No such file or directory\n")
            return 1
        known = {"i": node.inode, "s": len(node.content or ""), "W": node.birth, "y": node.changed, "z": node.changed}
        out.append(re.sub("%(.)", lambda m: str(known[m[1]]), argv[2]) + "\n")
        return 0

    def _touch(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        path = argv[-1]
        if not self.is_dir(_parent(path)):
            err.append(f"touch: cannot touch '{path}'\n")
            return 1
        yield
        if self.exists(path):
            self.version += 1
            self.nodes[path].changed = self.version
        else:
            self._place(path, Node(""))
        return 0

    def _ln(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        source, dest = argv[-2:]
        if self.exists(dest) or self.read(source) is None:
            err.append(f"ln: failed to create hard link '{dest}'\n")
            return 1
        self._place(dest, self.nodes[source])
        return 0

    def _grep(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        text, wanted = self.read(argv[-1]), argv[-2]
        if text is None:
            err.append(f"grep: {argv[-1]}\n")
            return 2
        lines = text.splitlines()
        return int(not (wanted in lines if "x" in argv[1] else any(wanted in line for line in lines)))

    def _find(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """``find DIR -mindepth 1 -maxdepth 1 [! -name '.*' ! -name lost+found] -exec mv -t DEST -- {} +``."""
        argv = [word for word in argv if word != "-H"]
        dest = argv[argv.index("-t") + 1]
        if not self.exists(argv[1]):
            err.append(f"find: '{argv[1]}': No such file or directory\n")
            return 1
        code = 0
        for path in sorted(self.children(argv[1])):
            name = path.rpartition("/")[2]
            if "!" in argv and (name.startswith(".") or name == "lost+found"):
                continue
            yield
            if not self.is_dir(dest) or not self.rename(path, f"{dest}/{name}"):
                err.append(f"mv: cannot move '{path}' to '{dest}/{name}'\n")
                code = 1
        return code

    def _ls(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        return 0 if all(self.exists(path) for path in argv[1:]) else 2

    def _cat(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        text = self.read(argv[-1])
        if text is None:
            err.append(f"cat: {argv[-1]}: No such file or directory\n")
            return 1
        out.append(text)
        return 0

    def _chown(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        path = argv[-1]
        reference = next((w.removeprefix("--reference=") for w in argv if w.startswith("--reference=")), None)
        like = self.nodes.get(reference) if reference is not None else Node(None, argv[-2])
        if like is None or not self.exists(path):
            return 1
        for each in [path, *self.below(path)]:
            yield
            self.own(each, like.owner)
        return 0

    def _test(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        words = argv[1:-1] if argv[0] == "[" else argv[1:]
        negate = words[0] == "!"
        return int(self._true(words[1:] if negate else words) == negate)

    def _true(self, words: list[str]) -> bool:
        if len(words) == 3:
            if words[1] == "-nt":
                a, b = self.nodes.get(words[0]), self.nodes.get(words[2])
                return a is not None and (b is None or a.changed > b.changed)
            if words[1] in ("-gt", "-ge"):
                return int(words[0]) >= int(words[2]) + (words[1] == "-gt")
            return (words[0] == words[2]) == {"=": True, "!=": False}[words[1]]
        what, word = words
        if what in ("-n", "-z"):
            return bool(word) == (what == "-n")
        return {"-e": self.exists, "-d": self.is_dir}[what](word)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _operands(argv: list[str]) -> list[str]:
    """What stands behind the flags."""
    return argv[argv.index("--") + 1 :]

"""A host's file system in memory, and the small programs that change it, each stoppable where the real one is."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

from tests.fake.shell import Step

TORN = "\0torn"


@dataclass
class File:
    """``synced``: it survives a power cut; what is not synced is torn by one."""

    content: str
    owner: str = "root"
    synced: bool = False


class Files:
    """Files by absolute path; directories by path with their owner."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.dirs: dict[str, str] = {"/": "root"}

    # Plain access.

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.dirs

    def put(self, path: str, content: str, owner: str = "root", *, synced: bool = True) -> None:
        self.make_dirs(path.rpartition("/")[0])
        self.files[path] = File(content, owner, synced)

    def read(self, path: str) -> str | None:
        return self.files[path].content if path in self.files else None

    def make_dirs(self, path: str, owner: str = "root") -> None:
        while path and path not in self.dirs:
            self.dirs[path] = owner
            path = path.rpartition("/")[0]

    def below(self, path: str) -> list[str]:
        return [p for p in [*self.files, *self.dirs] if p.startswith(path + "/")]

    def children(self, path: str) -> list[str]:
        return [p for p in self.below(path) if "/" not in p[len(path) + 1 :]]

    def rename(self, source: str, dest: str) -> bool:
        """False where ``mv -T`` would fail: no source, or a destination directory that is not empty."""
        if not self.exists(source) or (dest in self.dirs and (self.below(dest) or source in self.files)):
            return False
        if dest.rpartition("/")[0] not in self.dirs:
            return False
        self.dirs.pop(dest, None)
        for path in [source, *self.below(source)]:
            there = dest + path[len(source) :]
            if path in self.files:
                self.files[there] = self.files.pop(path)
            else:
                self.dirs[there] = self.dirs.pop(path)
        return True

    def drop(self, path: str) -> None:
        self.files.pop(path, None)
        self.dirs.pop(path, None)

    def power_cut(self) -> None:
        """What was not synced is torn."""
        for file in self.files.values():
            if not file.synced:
                file.content, file.synced = TORN, True

    def glob(self, pattern: str) -> list[str]:
        return sorted(p for p in [*self.files, *self.dirs] if _matches(p, pattern))

    # Programs. Each takes its operands and returns an exit code; ``yield`` is where it can be stopped.

    def programs(self) -> dict[str, Callable[..., Step]]:
        return {
            "mkdir": self._mkdir,
            "install": self._mkdir,
            "mv": self._mv,
            "rm": self._rm,
            "rmdir": self._rmdir,
            "cp": self._cp,
            "cmp": self._cmp,
            "sync": self._sync,
            "touch": self._touch,
            "ln": self._ln,
            "grep": self._grep,
            "find": self._find,
            "ls": self._ls,
            "cat": self._cat,
            "chown": self._chown,
        }

    def _mkdir(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        for path in argv[argv.index("--") + 1 :]:
            self.make_dirs(path)
            yield
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
        for path in argv[argv.index("--") + 1 :]:
            found = sorted(self.below(path) + ([path] if self.exists(path) else []), reverse=True)
            if not found and argv[1] == "--":
                err.append(f"rm: cannot remove '{path}'\n")
                return 1
            for each in found:
                yield
                self.drop(each)
        return 0

    def _rmdir(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        path = argv[-1]
        if self.below(path):
            err.append(f"rmdir: failed to remove '{path}': Directory not empty\n")
            return 0 if "--ignore-fail-on-non-empty" in argv else 1
        self.dirs.pop(path, None)
        return 0

    def _cp(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        source, dest = argv[-2:]
        if source not in self.files or dest.rpartition("/")[0] not in self.dirs:
            err.append(f"cp: cannot stat '{source}'\n")
            return 1
        whole = self.files[source]
        self.files[dest] = File(whole.content[: len(whole.content) // 2], whole.owner)
        yield
        self.files[dest] = File(whole.content, whole.owner)
        return 0

    def _cmp(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        a, b = self.read(argv[-2]), self.read(argv[-1])
        if a is None or b is None:
            err.append(f"cmp: {argv[-2] if a is None else argv[-1]}: No such file or directory\n")
            return 2
        if a != b:
            out.append(f"{argv[-2]} {argv[-1]} differ: byte 1, line 1\n")
        return int(a != b)

    def _sync(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        for path in argv[argv.index("--") + 1 :]:
            if not self.exists(path):
                err.append(f"sync: error opening '{path}'\n")
                return 1
            for each, file in self.files.items():
                if argv[1] == "-f" or each == path:
                    file.synced = True
        return 0

    def _touch(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        if argv[-1].rpartition("/")[0] not in self.dirs:
            return 1
        self.files.setdefault(argv[-1], File("", synced=True))  # an empty file cannot be torn
        return 0

    def _ln(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        source, dest = argv[-2:]
        if self.exists(dest) or source not in self.files:
            return 1
        self.files[dest] = self.files[source]
        return 0

    def _grep(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        text = self.read(argv[-1])
        return 2 if text is None else int(argv[-2] not in text)

    def _find(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """``find DIR -mindepth 1 -maxdepth 1 [! -name .* ! -name lost+found] -exec mv -t DEST -- {} +``."""
        dest = argv[argv.index("-t") + 1]
        if argv[1] not in self.dirs:
            err.append(f"find: '{argv[1]}': No such file or directory\n")
            return 1
        for path in sorted(self.children(argv[1])):
            name = path.rpartition("/")[2]
            if "!" in argv and (name.startswith(".") or name == "lost+found"):
                continue
            yield
            if not self.rename(path, f"{dest}/{name}"):
                return 1
        return 0

    def _ls(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        return 0 if all(self.exists(path) for path in argv[1:]) else 2

    def _cat(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        text = self.read(argv[-1])
        if text is None:
            err.append(f"cat: {argv[-1]}: No such file or directory\n")
            return 1
        out.append(text)
        return 0

    def _chown(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        path = argv[-1]
        example = argv[2].removeprefix("--reference=")
        owner = self.files[example].owner if example in self.files else self.dirs.get(example)
        if owner is None or not self.exists(path):
            return 1
        for each in [path, *self.below(path)]:
            yield
            if each in self.files:
                self.files[each].owner = owner
            else:
                self.dirs[each] = owner
        return 0


def _matches(path: str, pattern: str) -> bool:
    a, b = path.split("/"), pattern.split("/")
    return len(a) == len(b) and all(
        fnmatch.fnmatchcase(x, y) and (y.startswith(".") or not x.startswith(".")) for x, y in zip(a, b, strict=True)
    )

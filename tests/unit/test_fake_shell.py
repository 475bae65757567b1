"""The fake's shell and file programs against the real ``sh``, on the real scripts, from many states of the disk.

Each script runs in a temporary directory with the real tools, and on the fake with the same tree: exit code, names and
contents must be the same. The states are enumerated, half-done ones and odd ones included.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from runbook.procedures import scripts
from tests.fake.files import Files
from tests.fake.shell import Shell, Step, parse
from tests.fake.syntax import Unsupported, tokens

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU tools")

Tree = Mapping[str, str | None]
"""Path below the root → content, or None for a directory."""

R = "run-1"
OTHER = '{"run": "other-1", "holder": "x", "since": "y"}\n'
MINE = '{"run": "run-1", "holder": "x", "since": "y"}\n'

TOOL = """#!/bin/sh
[ "$1 $2" = "snapshot status" ] || exit 9
[ -e "$3" ] || exit 1
echo '{"revision": 7}'
"""


STUBS = {
    "crictl": "",
    # What it does cannot be seen here, and on a busy machine it takes seconds; that it names what is there can.
    "sync": 'if [ "$1" = -f ]; then shift; fi; shift; for f; do [ -e "$f" ] || exit 1; done\n',
}


class FakeDisk(Files):
    """The fake's files with the few programs that the scripts need beside."""

    def program(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        own = {"echo": self._echo, "printf": self._printf, "date": self._date, "chmod": self._nothing}
        own |= {"command": self._no, "crictl": self._nothing, "sleep": self._nothing}
        if argv[0].endswith("/etcdutl"):
            return self._etcdutl(argv, out)
        known = self.programs.get(argv[0])
        return known(argv, out, err) if known else own[argv[0]](argv, out)

    def _echo(self, argv: list[str], out: list[str]) -> Step:
        yield from ()
        out.append(" ".join(argv[1:]) + "\n")
        return 0

    def _printf(self, argv: list[str], out: list[str]) -> Step:
        yield from ()
        out.append(argv[1].replace("\\n", "\n") % tuple(argv[2:]))
        return 0

    def _date(self, argv: list[str], out: list[str]) -> Step:
        yield from ()
        out.append("0\n" if argv[1] == "+%s" else "now\n")
        return 0

    def _nothing(self, argv: list[str], out: list[str]) -> Step:
        yield from ()
        return 0

    def _no(self, argv: list[str], out: list[str]) -> Step:
        yield from ()
        return 1

    def _etcdutl(self, argv: list[str], out: list[str]) -> Step:
        yield from ()
        if not self.exists(argv[3]):
            return 1
        out.append('{"revision": 7}\n')
        return 0


def really(root: Path, tree: Tree, text: str, words: list[str], shell: str) -> tuple[int, str, dict[str, str | None]]:
    """Run it with the real shell; exit code, output, and the tree afterwards."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, content in tree.items():
        place = root / path
        if content is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
    stub = root.parent / "bin"
    if not stub.exists():
        stub.mkdir()
        for name, script in STUBS.items():
            (stub / name).write_text(f"#!/bin/sh\n{script}")
            (stub / name).chmod(0o755)
    env = {"PATH": f"{stub}:{os.environ['PATH']}", "LC_ALL": "C"}
    done = subprocess.run(
        [shell, "-c", text, "runbook", *words], capture_output=True, text=True, env=env, timeout=20, check=False
    )
    after: dict[str, str | None] = {}
    for place in root.rglob("*"):
        name = str(place.relative_to(root))
        after[name] = None if place.is_dir() else place.read_text()
    return done.returncode, done.stdout, _without_inodes(after)


def _without_inodes(tree: Tree) -> dict[str, str | None]:
    """SWAP writes an inode and a birth time, which are others on every disk."""

    def marks(path: str, text: str | None) -> bool:
        words = (text or "").split()
        return path.rpartition("/")[2] in ("swapped", "swapped.part") and len(words) == 2 and words[0].isdigit()

    return {path: "an inode, a birth time" if marks(path, text) else text for path, text in tree.items()}


def on_the_fake(root: Path, tree: Tree, text: str, words: list[str]) -> tuple[int, str, dict[str, str | None]]:
    """The same on the fake."""
    disk = FakeDisk()
    disk.make_dirs(str(root))
    for path, content in tree.items():
        if content is None:
            disk.make_dirs(f"{root}/{path}")
        else:
            disk.put(f"{root}/{path}", content)
    shell = Shell(text, list(words), disk)
    run = shell.run()
    try:
        while True:
            next(run)
    except StopIteration as end:
        code = int(end.value)
    after = {p[len(str(root)) + 1 :]: n.content for p, n in disk.nodes.items() if p.startswith(f"{root}/")}
    return code, "".join(shell.out), _without_inodes(after)


def stamped(tree: dict[str, str | None]) -> dict[str, str | None]:
    """Without the time that a new lock holds."""
    return {p: c.split('"since"')[0] if c and '"since"' in c and "holder" in c else c for p, c in tree.items()}


def some(*choices: tuple[Tree, ...]) -> Iterator[dict[str, str | None]]:
    """Every combination of the choices, each of which is a set of alternative pieces of a tree."""
    for picked in itertools.product(*choices):
        yield {path: content for piece in picked for path, content in piece.items()}


NOTHING: Tree = {}


def present(path: str, content: str = "x") -> tuple[Tree, Tree]:
    return NOTHING, {path: content}


MANIFESTS = list(
    some(
        ({"m": None},),
        (NOTHING, {"m/etcd.yaml": "kind: Pod"}, {"m/etcd.yaml": "kind: Other"}),
        (NOTHING, {"s": None}, {"s/etcd.yaml": "kind: Pod"}),
        (NOTHING, {"s/.etcd.yaml": "kin"}),
        (NOTHING, {f"m/.etcd.yaml.{R}": "kin"}),
    )
)
LOCKS = list(
    some(
        ({".keep": ""},),
        (NOTHING, {"lock": OTHER}, {"lock": MINE}, {"lock": ""}),
        (NOTHING, {f"lock.{R}": MINE}, {f"lock.{R}": "{"}),
    )
)
RESTORES = list(
    some(
        ({"run": None, "data/member/snap/db": "old"},),
        (NOTHING, {"run/restored": "abc\n"}, {"run/.restored": "ab"}),
        (NOTHING, {f"data/.{R}.restoring/member/snap/db": "half"}, {f"data/.{R}.restoring": None}),
        (NOTHING, {f"data/.{R}.restored/member/snap/db": "new", f"data/.{R}.restored/member/wal/0.wal": "new"}),
        (NOTHING, {"wal/0.wal": "old", f"wal/.{R}.restoring/0.wal": "half"}, {f"wal/.{R}.restored/0.wal": "new"}),
    )
)
SWAPS = list(
    some(
        ({"run": None, "data": None, "wal/.keep": ""},),
        (NOTHING, {"data/member/snap/db": "in place", "data/member/wal/0.wal": "in place"}),
        (NOTHING, {f"data/.{R}.old": None}, {f"data/.{R}.old/member/snap/db": "aside"}),
        (NOTHING, {f"data/.{R}.restored/member/snap/db": "new"}),
        (NOTHING, {"run/old-aside": "", "run/had-member": ""}, {"run/old-aside": "", "run/swapped": ""}),
        (NOTHING, {"run/new-away": "", f"data/.{R}.discarded": None}),
        (NOTHING, {"wal/0.wal": "w", "wal/lost+found": None}, {f"wal/.{R}.old/0.wal": "o", "wal/1.wal": "n"}),
        (NOTHING, {f"wal/.{R}.restored/0.wal": "r"}),
    )
)
SNAPSHOTS = list(
    some(
        ({"bin/etcdutl": TOOL},),
        present("snapshot.db"),
        present("snapshot.json", "old"),
        present("snapshot.json.part", "o"),
        present("living.json", "before"),
    )
)

D, W, RUN = "{0}/data", "{0}/wal", "{0}/run"
NEW, WAL = f"{D}/.{R}.restoring/member", f"{W}/.{R}.restoring"
CASES: list[tuple[str, Sequence[Tree], list[str]]] = [
    *((name, MANIFESTS, ["{0}/m", "{0}/s", "etcd.yaml"]) for name in ("SAVE", "UNSAVE", "IN_PLACE", "UNCHANGED")),
    *((name, MANIFESTS, ["{0}/m", "{0}/s", "etcd.yaml", "other.yaml"]) for name in ("SAVE", "UNSAVE", "UNCHANGED")),
    ("STOP", MANIFESTS, ["{0}/m", "{0}/s", "9", "etcd"]),
    ("STOP", MANIFESTS, ["{0}/m", "{0}/s", "9", "other", "etcd"]),
    ("STOPPED", MANIFESTS, ["{0}/m", "{0}/s", "etcd"]),
    ("START", MANIFESTS, ["{0}/m", "{0}/s", R, "", "etcd"]),
    ("START", MANIFESTS, ["{0}/m", "{0}/s", R, "etcd", "other"]),
    ("START", MANIFESTS, ["{0}/m", "{0}/s", R, "other", "etcd"]),
    ("MAKE_DIR", LOCKS, ["{0}/place", "{0}/place/run", "{0}/place/run/commands"]),
    ("MAKE_DIR", LOCKS, ["{0}/tools"]),
    ("LOCK", LOCKS, ["{0}/lock", R, "ops@here", f"/ws/{R}"]),
    ("UNLOCK", LOCKS, ["{0}/lock", R]),
    *(("UNRESTORE", RESTORES, [RUN, D, wal, R]) for wal in ("", W)),
    *(("RESTORED", RESTORES, [RUN, D, wal, R, "abc"]) for wal in ("", W)),
    ("RESTORE", RESTORES, [RUN, D, "", R, "abc", "keep", "mkdir", "-p", "--", NEW]),
    (
        "RESTORE",
        [{**tree, "wal": None} for tree in RESTORES],
        [RUN, D, W, R, "abc", "keep", "mkdir", "-p", "--", NEW, WAL],
    ),
    ("RESTORE", RESTORES, [RUN, D, "", R, "abc", "keep", "ls", "/nowhere"]),
    ("RESTORE", RESTORES, [RUN, D, "", R, "abc", "keep", "mkdir", "-p", "--", D]),
    *((name, SWAPS, [D, wal, R, RUN]) for name in ("SWAP", "SWAP_BACK", "SWAPPED", "UNSWAPPED") for wal in ("", W)),
    ("SWEEP", SWAPS, [D, W, R, "{0}/ws/" + R]),
    ("SWEEP", [*RESTORES[:6], {f"ws/{R}/a": "1", "ws/other/b": "2"}], ["", "", R, "{0}/ws/" + R]),
    *((name, SWAPS[::9], [D, R, RUN]) for name in ("LATER", "KEPT")),
    ("FIGURES", SNAPSHOTS, ["{0}/bin/etcdutl", "{0}", "echo", "alive"]),
    ("FIGURES", SNAPSHOTS, ["{0}/bin/etcdutl", "{0}", "ls", "/nowhere"]),
    ("ABSENT", SNAPSHOTS, ["{0}/snapshot.db", "{0}/snapshot.json"]),
]
IDS = [f"{name}-{index}" for index, (name, *_) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "trees", "words"), CASES, ids=IDS)
def test_the_fake_does_what_the_real_shell_does(
    name: str, trees: Sequence[Tree], words: list[str], tmp_path: Path
) -> None:
    text = getattr(scripts, name)
    root = tmp_path / "root"
    there = [word.format(root) for word in words]
    step = max(1, len(trees) // 36)
    for tree in trees[::step]:
        real = really(root, tree, text, there, "sh")
        if name == "FIGURES":
            real = redo(root, tree, text, there)
        fake = on_the_fake(root, tree, text, there)
        assert fake[0] == real[0], f"{name} {tree}: exit code {fake[0]} on the fake, {real[0]} really"
        assert stamped(fake[2]) == stamped(real[2]), f"{name} {tree}"
        if name in ("STOPPED", "SWAPPED", "UNSWAPPED", "RESTORED", "ABSENT", "LATER", "KEPT"):
            assert fake[1] == real[1], f"{name} {tree}: what it says"


def redo(root: Path, tree: Tree, text: str, words: list[str]) -> tuple[int, str, dict[str, str | None]]:
    """Again, with a tool that may be executed."""
    tool = root.parent / "etcdutl"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    return really(root, tree, text, [str(tool), *words[1:]], "sh")


TEXTS = {name: text for name, text in vars(scripts).items() if name.isupper() and isinstance(text, str)}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_every_script_is_valid(name: str, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not on this machine")
    argv = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
    done = subprocess.run(argv, input=TEXTS[name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["LOCK", "SWAP", "SWAP_BACK", "SAVE", "STOP", "START", "RESTORE", "SWEEP"])
def test_a_script_that_changes_files_parses_here(name: str) -> None:
    assert parse(TEXTS[name]) is parse(TEXTS[name])


# The language, in small.

TEXTS_IN_SMALL = [
    "set -eu\nfalse\necho no",
    "set -e\nif false; then echo a; else echo b; fi\necho c",
    "set -e\n[ -e /nowhere ] || echo d\n[ -n '' ] && echo e\necho f",
    "set -e\n[ -n x ] && [ -n '' ]\necho g",
    'set -u\necho "$1" \'$1\' "a${2}b" ${3:-$1/x}',
    "set -u\necho $9",
    'x=$1\nshift 2\necho "$x" "$@"',
    'for f in "$@"; do\n  [ "$f" != b ] || continue\n  echo "$f"\ndone',
    'set -e\nfor f in "$@"; do [ "$f" = a ] || { echo "not a: $f"; exit 3; }; done',
    'x=/a/b/c\necho "${x%/*} ${x##*/}"',
    'echo "$(echo inner)"\necho err >&2',
    "set -e\nls /nowhere/*.wal > /dev/null 2>&1 || { echo none; exit 1; }",
    "set -eu\nif [ ! -e /nowhere ]; then\n  if [ -z '' ]; then echo deep; fi\nfi\nexit 4",
    ":\necho h",
    'for f in "$@"; do\n  while :; do\n    if [ "$f" = a ]; then break; fi\n    echo "$f"\n    break\n  done\ndone',
    'set -u\nn=3\nm=$(( n + 4 - 1 ))\necho "$m $(( m - 10 ))"',
    'set -e\nx=$(ls /nowhere) || x=none\necho "$x"\nx=$(ls /nowhere)\necho not here',
    'x="p  q"\nfor w in $x $(echo r s) "$x"; do echo "$w"; done',
    "set -e\n[ 3 -gt 2 ]\n[ 2 -ge 2 ]\n[ 1 -gt 1 ]\necho no",
    'while [ "$1" != b ]; do\n  echo "$1"\n  shift\ndone\necho "$1"',
]


@pytest.mark.parametrize("text", TEXTS_IN_SMALL)
def test_the_language(text: str, tmp_path: Path) -> None:
    words = ["a", "b", ""]
    real = really(tmp_path / "root", {}, text, words, "sh")
    text = text.replace("false", "[ -n '' ]")
    code, out, _ = on_the_fake(tmp_path / "root", {}, text, words)
    assert (code, out) == real[:2]


@pytest.mark.parametrize("text", ["echo `ls`", "a() { :; }", "case x in x) ;; esac", "if true", "until :; do :; done"])
def test_what_it_does_not_know_it_refuses(text: str, tmp_path: Path) -> None:
    with pytest.raises((Unsupported, KeyError, AssertionError)):
        on_the_fake(tmp_path, {}, text, [])


def test_a_text_is_cut_into_words() -> None:
    assert tokens('a "b c" > d || e\n') == ("a", '"b c"', ">", "d", "||", "e", ";")

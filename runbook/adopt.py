"""What the hosts hold of a run, for whoever takes it over: plan, journal, epoch, and the names of the commands begun.

Read-only. Which journal is then gone on with stands in ``lineage``, what the commands tell beyond it in ``evidence``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runbook.copies import JOURNAL
from runbook.errors import NOTE, Halted, UsageError, command
from runbook.journal import BROKEN, Line, scan
from runbook.plan import Paths
from runbook.shape import CUT
from runbook.step import Command, Result, Target
from runbook.transport import LOCK, Hosts

PLAN, SETTINGS = "plan.yaml", "plan.resumed.yaml"
LOOK = r"""
set -u
if [ -e "$1" ]; then printf 'lock '; head -c 4096 -- "$1" | base64 | tr -d '\n'; echo; fi
shift
for dir in "$@"; do
  for run in "$dir"/*/; do
    [ -f "${run}journal.jsonl" ] && printf 'run %s\n' "$(printf %s "${run%/}" | base64 | tr -d '\n')"
  done
done
exit 0
"""
"""lock, workspaces; read-only. What runs a host knows, in words that no name can break."""
LIST = r"""
set -u
cd -- "$1" || exit 1
[ ! -f epoch ] || { printf 'epoch '; head -n 1 epoch; }
for name in plan.yaml plan.resumed.yaml journal.jsonl; do
  [ ! -f "$name" ] || printf 'file %s %s\n' "$name" "$(stat -c %s -- "$name")"
done
grep -L -x -F '{"void": true}' commands/*.intent 2>/dev/null | sed 's|^commands/|command |'
exit 0
"""
"""run dir; read-only. Its epoch, its copies with their sizes, the intents of commands; a barred one was never begun."""
PIECE = r"""
set -u
cd -- "$1" || exit 1
tail -c "+$3" -- "$2" | head -c "$4" | base64 | tr -d '\n'
"""
"""run dir, file, its first byte's number, how many; read-only. What a host says in one answer is limited."""
STRIDE = 1024 * 1024
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9]{8}t[0-9]{6}z-[0-9a-f]{4}")
"""As ``runs.new_id`` makes them. It becomes a directory's name here, and a host may say anything."""
TIME = 60.0


@dataclass(frozen=True)
class Typed:
    """What a person typed after ``runbook adopt``: hosts, the ssh keys of a plan that it brings, workspace, run."""

    words: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    workspace: str = Paths().workspace
    run: str = ""

    def again(self, run: str, workspace: str = "") -> str:
        """The same command for this run."""
        workspace = workspace or self.workspace
        options = {
            "--identity-file": self.given.get("identityFile", ""),
            "--known-hosts-file": self.given.get("knownHostsFile", ""),
            "--jump": self.given.get("jump", ""),
            "--workspace": workspace if workspace != Paths().workspace else "",
            "--run": run,
        }
        return command(("runbook", "adopt", *(word for host in self.words for word in ("--host", host))), options)


@dataclass(frozen=True)
class Seen:
    """What a host knows of runs: which one its lock names ("": none), and their directories there."""

    lock: str = ""
    holder: str = ""
    dirs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """A host's copies, who claimed it last, and how much of its journal is valid.

    ``fault``: what is wrong with the line after. ``commands`` are the keys of the changing commands that were begun
    there. ``here``: not a host's, but this machine's own.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    epoch: int = 0
    owner: str = ""
    lines: tuple[Line, ...] = ()
    good: int = 0
    fault: str = ""
    commands: tuple[str, ...] = ()
    here: bool = False


def look(hosts: Hosts, targets: Sequence[Target], workspaces: Sequence[str]) -> dict[str, Seen | str]:
    """What each host knows of runs; a string is why it could not be asked."""
    ask = Command(("sh", "-c", LOOK, "runbook", LOCK, *workspaces), TIME, changes=False)
    answers = hosts.ask({t.name: [ask] for t in targets})
    return {name: _seen(results[0]) for name, results in answers.items()}


def _seen(result: Result) -> Seen | str:
    if bad := _bad(result):
        return bad
    lock: dict[str, object] = {}
    dirs = []
    for line in result.out.splitlines():
        kind, _, value = line.partition(" ")
        text = (_decoded(value) or b"").decode(errors="replace")
        if kind == "lock":
            lock = _json(text)
        elif kind == "run":
            dirs.append(text)
    run, directory = str(lock.get("run", "")), str(lock.get("dir", ""))
    if directory.startswith("/") and directory.endswith(f"/{run}"):
        dirs.append(directory)
    dirs = [d for d in dict.fromkeys(dirs) if RUN_ID.fullmatch(d.rpartition("/")[2])]
    return Seen(run if RUN_ID.fullmatch(run) else "", str(lock.get("holder", "")), tuple(dirs))


def _bad(result: Result) -> str:
    if not result.ok:
        return result.tail() or f"exit code {result.code}"
    return "its answer was too long, and cut" if CUT in result.out else ""


def _json(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def fetch(hosts: Hosts, dirs: Mapping[str, str]) -> dict[str, Held | str]:
    """Each host's copies of one run, by the run's directory there; a string is why there are none."""
    asks = {name: [Command(("sh", "-c", LIST, "runbook", dir_), TIME, changes=False)] for name, dir_ in dirs.items()}
    listed = {name: results[0] for name, results in hosts.ask(asks).items()} if asks else {}
    pieces = {name: list(_pieces(result)) for name, result in listed.items() if not _bad(result)}
    wanted = {
        name: [Command(("sh", "-c", PIECE, "runbook", dirs[name], *words), TIME, changes=False) for words in found]
        for name, found in pieces.items()
        if found
    }
    answers = hosts.ask(wanted) if wanted else {}
    return {name: _bad(result) or _held(result, pieces[name], answers.get(name, ())) for name, result in listed.items()}


def _pieces(listed: Result) -> Iterable[tuple[str, str, str]]:
    """The files of a listing, piece by piece: name, first byte's number, how many bytes."""
    for line in listed.out.splitlines():
        kind, _, rest = line.partition(" ")
        name, _, size = rest.partition(" ")
        if kind == "file" and size.isdecimal():
            yield from ((name, str(at + 1), str(STRIDE)) for at in range(0, max(1, int(size)), STRIDE))


def _held(listed: Result, pieces: Sequence[tuple[str, str, str]], answers: Sequence[Result]) -> Held | str:
    files: dict[str, bytes] = {}
    for (name, *_), result in zip(pieces, answers, strict=False):
        data = _decoded(result.out)
        if (bad := _bad(result)) or data is None:
            return f"{name} could not be read whole: {bad or 'what came is no base64'}"
        files[name] = files.get(name, b"") + data
    words = [line.split(" ") for line in listed.out.splitlines()]
    epoch, owner = next(((w[1], "".join(w[2:3])) for w in words if w[0] == "epoch" and len(w) > 1), ("", ""))
    keys = tuple(w[1].removesuffix(".intent") for w in words if w[0] == "command" and len(w) == 2)
    return held(files, int(epoch) if epoch.isdecimal() else 0, owner, keys)


def held(
    files: Mapping[str, bytes], epoch: int = 0, owner: str = "", commands: Sequence[str] = (), *, here: bool = False
) -> Held:
    """What these files are worth.

    A line that was changed is noticed only by the next, which no longer follows from it: neither of the two is used.
    """
    raw = files.get(JOURNAL, b"")
    lines, good, fault = scan(raw)
    if fault == BROKEN and lines:
        lines.pop()
        good = raw.rfind(b"\n", 0, good - 1) + 1
    return Held(files, epoch, owner, tuple(lines), good, fault, tuple(commands), here)


def run_of(seen: Mapping[str, Seen | str], typed: Typed) -> str:
    """Which run is to be taken over. Raises UsageError where there is none, or more than one could be meant."""
    wanted = typed.run
    known = [s for s in seen.values() if isinstance(s, Seen)]
    if not known:
        raise _unasked({host: why for host, why in seen.items() if isinstance(why, str)}, typed)
    locked = sorted({s.lock for s in known if s.lock})
    there = sorted({dir_.rsplit("/", 1)[-1] for s in known for dir_ in s.dirs})
    if wanted:
        if wanted in there or wanted in locked:
            return wanted
        raise UsageError(
            f"--run {wanted}: no host that was asked holds it; they hold {', '.join(there) or 'no run at all'}",
            true="nothing was changed",
            means="it lies elsewhere, or on other hosts",
            next=(f"{typed.again(wanted, 'DIR')}{NOTE}DIR: its plan's spec.paths.workspace",),
        )
    found = locked if len(locked) == 1 else there
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            "no host that was asked holds a run",
            true="nothing was changed",
            means="there is nothing to take over: no lock, and no directory of a run",
            next=("runbook run PLAN",),
        )
    raise UsageError(
        f"the hosts hold several runs: {', '.join(found)}",
        true="nothing was changed",
        next=tuple(typed.again(run) for run in found),
    )


_COMPARE = re.compile(r"Compare before you trust it: (.*?) here, .*If they agree: (.*)", re.DOTALL)
"""The transport's words for a host key that is not trusted; here each of its commands gets a line of its own."""


def _unasked(why: Mapping[str, str], typed: Typed) -> Halted:
    """No host could be asked: they are silent, or this machine may not or will not log in, which can be mended here."""
    untrusted = {found.groups() for said in why.values() if (found := _COMPARE.search(said))}
    next_ = []
    for compare, trust in sorted(untrusted):
        next_ += [f"{compare}{NOTE}is it what the host's own console says?", f"{trust}{NOTE}if it is"]
    options = {"knownHostsFile": "host key", "identityFile": "login as|identity file"}
    needs = {key for key, words in options.items() if any(re.search(words, said) for said in why.values())}
    notes = {"knownHostsFile": "where another file has the host's key", "identityFile": "with the key that it takes"}
    for key in (k for k in options if k in needs):
        other = Typed(typed.words, {**typed.given, key: "FILE"}, typed.workspace).again(typed.run)
        next_.append(f"{other}{NOTE}{notes[key]}")
    next_.append(f"{typed.again(typed.run)}{NOTE}once {'that is mended' if needs else 'one of them answers'}")
    shown = [f"  {host}: {_COMPARE.sub('', said).strip()}" for host, said in why.items()]
    return Halted(
        "\n".join(["no host could be asked:", *shown]),
        true="nothing was changed",
        means="without a host of it nothing is known here of the run; it is as its last engine left it",
        next=next_,
    )

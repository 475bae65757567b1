"""What is in the archive, what is not, and what was masked: for programs, for its readers, and for the terminal."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from runbook import __version__
from runbook.checks.words import size
from runbook.errors import NOTE, bare, closing
from runbook.plan import Plan
from runbook.tables import duration, printable

SHOWN = 6
"""Lines of one kind on the terminal; all of them stand in the archive."""


@dataclass
class Entry:
    """One file of the archive, or one that could not be had: then ``bytes`` is 0, and ``why`` says why.

    ``exit_code`` is None where nothing was run, or nobody knows how it ended. ``masked`` counts by kind.
    """

    file: str
    host: str
    about: str
    command: str
    bytes: int = 0
    exit_code: int | None = None
    seconds: float = 0.0
    cut: bool = False
    masked: dict[str, int] = field(default_factory=dict)
    why: str = ""


@dataclass
class Contents:
    """All of it. ``hosts`` has why a host did not answer, or not to the end; "" where it did."""

    name: str
    what: str
    began: str
    plan: Plan | None = None
    run: str = ""
    entries: list[Entry] = field(default_factory=list)
    hosts: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def answered(self) -> list[str]:
        """The hosts of which something is in here."""
        return [name for name in self.hosts if any(e.host == name and not e.why for e in self.entries)]

    @property
    def lacking(self) -> list[Entry]:
        """What could not be had, silent hosts apart: they are one line each."""
        there = self.answered
        return [e for e in self.entries if e.why and (not e.host or e.host in there)]

    @property
    def masked(self) -> Counter[str]:
        """How many of each kind."""
        return sum((Counter(e.masked) for e in self.entries), Counter())

    def missing(self) -> list[str]:
        """What is not in here and should be, the gravest first."""
        silent = [of(name, why) for name, why in self.hosts.items() if name not in self.answered]
        return [*silent, *(f"{e.file}: {printable(e.why)}" for e in self.lacking), *map(printable, self.doubts)]

    def document(self) -> dict[str, Any]:
        """MANIFEST.json."""
        hosts = {name: {"answered": name in self.answered, "why": why} for name, why in self.hosts.items()}
        return {
            "name": self.name,
            "of": self.what,
            "run": self.run,
            "began": self.began,
            "seconds": round(self.seconds, 1),
            "runbook": __version__,
            "cluster": _cluster(self.plan),
            "hosts": hosts,
            "doubts": self.doubts,
            "masked": dict(sorted(self.masked.items())),
            "files": [asdict(e) for e in self.entries],
        }

    def manifest(self) -> str:
        """The same as text."""
        return json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n"

    def readme(self) -> str:
        """README.txt."""
        return (
            "\n".join([*self._head(), *_reading(self.plan), *self._missing(), *self._masked(), *self._files()]) + "\n"
        )

    def _head(self) -> list[str]:
        cluster = [f"{key + ':':18}{value}" for key, value in _cluster(self.plan).items()]
        return [
            f"{self.name}",
            "",
            f"Gathered by runbook {__version__} from {self.what}",
            f"at {self.began}, in {duration(self.seconds)}; nothing was changed on any host.",
            "",
            *cluster,
            f"{'hosts answered:':18}{len(self.answered)} of {len(self.hosts)}",
            f"{'run:':18}{self.run or 'none'}",
            "",
        ]

    def _missing(self) -> list[str]:
        missing = self.missing()
        return ["WHAT IS MISSING", *(f"  {line}" for line in missing or ["nothing"]), ""]

    def _masked(self) -> list[str]:
        rows = [f"  {e.file}: {_counted(Counter(e.masked))}" for e in self.entries if e.masked]
        return [
            "WHAT WAS MASKED (•••)",
            "  Masked are private keys, tokens, passwords, credentials in URLs, cloud keys, values of Secret objects",
            "  and of containers' environments, as far as their form, their name or their place tells them. Secrets,",
            "  kubeconfigs, the keys of the encryption at rest, and snapshots are not asked for at all.",
            *(rows or ["  nothing was found to mask"]),
            "",
            "WHAT WAS NOT MASKED",
            "  Names and addresses of hosts, members, nodes, pods and Secrets; paths, flags, versions, times, hashes.",
            "  What no rule can tell from ordinary text stands here too: read it before you send it on.",
            "",
        ]

    def _files(self) -> list[str]:
        rows = []
        for e in self.entries:
            marks = [size(e.bytes) if e.bytes else "", "cut" if e.cut else ""]
            marks += [
                f"exit code {e.exit_code}" if e.exit_code else "",
                f"MISSING: {printable(e.why)}" if e.why else "",
            ]
            rows.append(f"  {e.file}: {e.about} ({', '.join(m for m in marks if m)})")
        return ["ALL FILES", *rows]

    def told(self, path: str, octets: int) -> str:
        """For the terminal."""
        hosts = f"{len(self.answered)} of {len(self.hosts)} hosts"
        run = f" and the run {self.run}" if self.run else ""
        files = sum(1 for e in self.entries if not e.why)
        lines = [f"{path}: {size(octets)}, {files} files from {hosts}{run}, in {duration(self.seconds)}"]
        missing = self.missing()
        rest = [f"and {len(missing) - SHOWN} more: README.txt"] if len(missing) > SHOWN else []
        for label, told in (
            ("Missing:", [*missing[:SHOWN], *rest] or ["nothing"]),
            ("Masked:", [_counted(self.masked) or "nothing was found to mask"]),
        ):
            lines += [f"{label if i == 0 else '':15}{text}" for i, text in enumerate(told)]
        return "\n".join([*lines, *closing("", "", next_(path, self.name))])

    def result(self, path: str, octets: int) -> dict[str, Any]:
        """The same for programs."""
        return {
            "archive": path,
            "bytes": octets,
            "files": sum(1 for e in self.entries if not e.why),
            "seconds": round(self.seconds, 1),
            "run": self.run,
            "hosts": self.document()["hosts"],
            "missing": self.missing(),
            "masked": dict(sorted(self.masked.items())),
            "next": [bare(command) for command in next_(path, self.name)],
            "exit_code": 0,
        }


def of(host: str, why: str) -> str:
    """Why a host did not answer, with its name once."""
    return printable(why if why.startswith(host) else f"{host}: {why}")


def next_(path: str, name: str) -> tuple[str, ...]:
    """What to do with it."""
    read = shlex.join(["tar", "--zstd", "-xOf", path, f"{name}/README.txt"])
    return (f"{read}{NOTE}read it, and look into the files, before you send it on",)


def _counted(masked: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(masked.items()) if count)


def _cluster(plan: Plan | None) -> dict[str, Any]:
    """What helpers ask first. The flags stand as the plan has them; what was run stands in each host's restore.txt."""
    if plan is None:
        return {}
    count = len(plan.nodes)
    return {
        "topology": "single node" if count == 1 else f"HA, {count} members",
        "bumpRevision": plan.cluster.bump_revision,
        "markCompacted": plan.cluster.mark_compacted,
        "snapshot": plan.snapshot.source,
    }


def _reading(plan: Plan | None) -> Sequence[str]:
    hosts = [] if plan is None else ["  hosts/HOST/etcd-status.txt, etcd-health.txt, etcd-log.txt, apiserver-log.txt"]
    return (
        "WHERE TO BEGIN",
        "  run/report.md and run/status.txt, where a run is in here; MANIFEST.json for programs",
        *hosts,
        "  hosts/HOST/restore.txt: what the restore's commands printed; encryption.txt: encryption at rest",
        "  Each file begins with its command and exit code; in it, `$ …` is a command, with its output below it.",
        "",
    )


def entry_texts(host: str, address: str, about: str, shown: str, code: int | None, words: Mapping[str, str]) -> str:
    """What a host's file begins with."""
    told = "not known" if code is None else str(code)
    lines = {"command": shown, "exit code": told, "host": f"{host} ({address})", "about": about, **words}
    return "".join(f"# {key + ':':11} {printable(value)}\n" for key, value in lines.items() if value)

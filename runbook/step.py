"""The vocabulary of a restore, with no I/O: steps are pure data, one engine carries them out.

A :class:`Step` answers five questions for a :class:`Target` (one host of one run): may it start, what to do, is it
done, how to undo it, is it undone. Every answer is a pure function of plan, host and run, so that preview, run,
resume, rollback and the tests all read the same definition.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from runbook.plan import Node, Plan, Worker


class Phase(StrEnum):
    """PREPARE leaves the cluster untouched, OUTAGE stops and swaps, VERIFY looks at the serving cluster."""

    PREPARE = "prepare"
    OUTAGE = "outage"
    VERIFY = "verify"


class Scope(StrEnum):
    """On which hosts a step acts."""

    ALL = "all"
    FIRST = "first"
    WORKERS = "workers"


@dataclass(frozen=True)
class Secret:
    """A word of a command that no log, preview or journal may show."""

    value: str

    def __str__(self) -> str:
        return "•••"

    __repr__ = __str__


@dataclass(frozen=True)
class Command:
    """One program with its arguments, never a shell line.

    ``timeout`` is in seconds and ends the program on the host. ``changes``: it alters the host, so it runs detached,
    under the run's flock and epoch. ``bare``: it changes, but without that wrapper, because it makes or removes the
    run's own directory, in which the wrapper lives. ``optional``: a failure is noted and the step goes on.
    ``large``: what it prints may be tens of MB. ``stray``: a text of the plan's, which may leave something running.
    """

    argv: tuple[str | Secret, ...]
    timeout: float = 60.0
    changes: bool = True
    bare: bool = False
    optional: bool = False
    large: bool = False
    stray: bool = False

    def words(self) -> tuple[str, ...]:
        """The real words, secrets included; only for handing to a host."""
        return tuple(w.value if isinstance(w, Secret) else w for w in self.argv)


@dataclass(frozen=True)
class Upload:
    """One file to a host: streamed beside its place, its SHA-256 proven there, then renamed into place.

    ``source`` is a path of the responder's machine; ``source_node`` names the node whose disk holds it instead;
    ``content`` is the file itself, for small ones. ``sha256`` is in hex. ``named`` is how messages name the source, ""
    where its path will do.
    """

    dest: str
    sha256: str
    source: str = ""
    source_node: str | None = None
    content: bytes | None = None
    mode: int = 0o600
    timeout: float = 1800.0
    named: str = ""


Action = Command | Upload
SCREENFUL = 2000
"""Characters of a host's own words that a message, or a line of the journal, takes."""


@dataclass(frozen=True)
class Result:
    """What a host answered. ``code`` None means unknown: the host did not answer, or the session was lost.

    Never read an unknown result as "not executed".
    """

    code: int | None
    out: str = ""
    err: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """It ran, and ended with 0."""
        return self.code == 0

    @property
    def unknown(self) -> bool:
        """Nobody can say whether it ran."""
        return self.code is None

    def tail(self, lines: int = 3) -> str:
        """The last lines of what it said, errors first; for messages, so at most a screenful."""
        text = self.err.strip() or self.out.strip()
        shown = " / ".join(text.splitlines()[-lines:])
        return shown if len(shown) <= SCREENFUL else f"[…]{shown[-SCREENFUL:]}"


@dataclass(frozen=True)
class Question:
    """One read-only command and the judgement of its answer.

    ``judge`` gets a result that is known and returns "" where the host says yes, else what was seen instead. ``slow``:
    it reads much, or takes its whole time where the answer is no; so it is not asked for nothing.
    """

    says: str
    ask: Command
    judge: Callable[[Result], str]
    slow: bool = False


@dataclass(frozen=True)
class Probe:
    """Questions that must all be answered with yes, asked again until then for at most ``wait`` seconds."""

    questions: tuple[Question, ...] = ()
    wait: float = 0.0

    def __and__(self, other: Probe) -> Probe:
        return Probe(self.questions + other.questions, max(self.wait, other.wait))

    def within(self, seconds: float) -> Probe:
        """The same questions, with so many seconds to become true."""
        return replace(self, wait=seconds)

    @property
    def says(self) -> str:
        """What it claims, in words."""
        return "; ".join(q.says for q in self.questions)


def probe(says: str, ask: Command, judge: Callable[[Result], str], *, slow: bool = False) -> Probe:
    """A probe of one question; the command is made read-only."""
    return Probe((Question(says, replace(ask, changes=False), judge, slow),))


NOTHING = Probe()
"""The probe that always says yes: there is nothing to ask."""


@dataclass(frozen=True)
class Irreversible:
    """An undo that cannot be; ``why`` is shown to the responder."""

    why: str


@dataclass(frozen=True)
class Binding:
    """What is known of a run beyond its plan; in a preview the placeholders below.

    ``sha256`` is the snapshot's, ``holder`` is who runs it from where (``user@machine``); the tools' sums are those of
    the files in ``tools.upload``, "" where nothing is brought along. ``absent`` are the nodes that the run goes on
    without, a minority; ``joining`` is the one of them that is back and is being given its steps, "" mostly.
    """

    run: str = "$RUN"
    sha256: str = "$SHA256"
    holder: str = "$HOLDER"
    etcdctl_sha256: str = ""
    etcdutl_sha256: str = ""
    absent: tuple[str, ...] = ()
    joining: str = ""

    @property
    def known(self) -> bool:
        """Whether it is known what is restored: the snapshot's SHA-256."""
        return "$" not in self.sha256


@dataclass(frozen=True)
class Target:
    """One host in one run: what a step is given. Workers have no ``member``."""

    plan: Plan
    bound: Binding
    place: Node | Worker

    @property
    def name(self) -> str:
        """The host's name in journal, progress and messages."""
        return self.place.name

    @property
    def node(self) -> Node:
        """The control-plane node; TypeError for a worker, which no step of the control plane may be given."""
        if not isinstance(self.place, Node):
            raise TypeError(f"{self.place.name} is a worker, not a control-plane node")
        return self.place

    @property
    def run_dir(self) -> str:
        """The run's directory on the host."""
        return f"{self.place.paths.workspace}/{self.bound.run}"

    @property
    def present(self) -> tuple[Node, ...]:
        """The control-plane nodes that take part: all but the absent ones."""
        return tuple(node for node in self.plan.nodes if node.name not in self.bound.absent)

    @property
    def token(self) -> str:
        """The new cluster's token."""
        return self.plan.cluster.token.replace("$RUN", self.bound.run)


class Step(ABC):
    """One step of the procedure. The first line of a subclass's docstring is its title everywhere."""

    phase: ClassVar[Phase]
    on: ClassVar[Scope] = Scope.ALL
    checks: ClassVar[str] = ""
    """The group of checks that decides, beside ``done``: "preflight" or "verify"; "" for none."""
    supplied: ClassVar[bool] = False
    """It gives the hosts the snapshot: where that is kept in a store, it must be on this machine before."""
    consent: ClassVar[bool] = False
    """Once this step has begun, going back throws writes of the restored cluster away."""

    @classmethod
    def id(cls) -> str:
        """The step's name in the journal."""
        return cls.__name__

    @classmethod
    def title(cls) -> str:
        """The first line of the docstring, without its full stop."""
        return (inspect.getdoc(cls) or cls.__name__).splitlines()[0].rstrip(".")

    def ready(self, n: Target) -> Probe:
        """May it start on this host?"""
        return NOTHING

    def turn(self, n: Target) -> Probe:
        """What is waited for, for its time at most, before the next host acts; NOTHING: all act at once.

        For pace only: whether it was seen decides nothing.
        """
        return NOTHING

    def turn_back(self, n: Target) -> Probe:
        """The same between hosts that are undone."""
        return NOTHING

    @abstractmethod
    def do(self, n: Target) -> Sequence[Action]:
        """What to carry out, in order; safe to repeat from any half-done state."""

    @abstractmethod
    def done(self, n: Target) -> Probe:
        """The postcondition, seen on the host."""

    def clue(self, n: Target) -> Probe:
        """Asked once where ``done`` did not come true in time: its objection is told beside, and decides nothing."""
        return NOTHING

    def undo(self, n: Target) -> Sequence[Action] | Irreversible:
        """What takes it back, in order; safe to repeat; touches only what carries this run's id."""
        return ()

    def undone(self, n: Target) -> Probe:
        """Nothing of this step remains on the host; never a question of health."""
        return NOTHING

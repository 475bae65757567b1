"""Read-only checks, one class a check, found by listing this folder.

A check says which read-only commands it asks of each host, and judges the answers of all hosts together, without
I/O: ``runbook.checks.survey`` asks all checks' commands of all hosts at once. To add a check, add a class.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeVar

from runbook.log import redact
from runbook.plan import Node, Plan, Worker
from runbook.step import Binding, Command, Result, Target

Place = TypeVar("Place", Node, Worker, Node | Worker)
"""A host of the plan, of either kind."""


class Severity(StrEnum):
    """OK is told too, so that the table has a mark in every cell."""

    OK = "ok"
    WARNS = "warns"
    BLOCKS = "blocks"
    HELD = "held"
    """Another run holds the host: exit 6, before everything that merely blocks."""


@dataclass(frozen=True)
class Finding:
    """One answer of one check on one host (``host`` "" where it is about the whole plan or the responder's machine).

    ``saw`` says what was found and compared, ``do`` what the responder should do; "" where all is well. What was found
    may be another program's words, and is kept without the secrets in it.
    """

    check: str
    host: str
    severity: Severity
    saw: str
    do: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "saw", redact(self.saw))


Answers = Mapping[str, tuple[Result, ...]]
"""By host name, one result for each command that ``asks`` gave for that host, in order."""


class Check(ABC):
    """One check. The first line of the docstring is its title in every table."""

    group: ClassVar[str] = "preflight"
    severity: ClassVar[Severity] = Severity.BLOCKS
    """The worst that it may say of a host; warnings are all checks' to give."""
    order: ClassVar[int] = 50
    """Where it stands in the table; connection and tools come first."""
    round: ClassVar[int] = 2
    """When it is asked: 0 opens the connections, and who is silent then is not asked again; 1 wants them open already
    (it measures time), or ends the rest (another run holds a host); 2 is everything else."""
    slow: ClassVar[bool] = False
    """Its ``look`` takes seconds: it is taken in a thread, while the hosts are asked."""
    tells: ClassVar[bool] = False
    """What it saw is told to people where all is well, too: what is restored, and how old it is."""
    fetches: ClassVar[bool] = False
    """Its slow ``look`` fetches a snapshot that lies on a node, by a connection of its own; where that host is silent,
    or not asked at all, nobody looks: an unknown result stands for it."""

    at_first: ClassVar[bool] = False
    """It is about the snapshot, or about the cluster before the restore: a node that comes back to a run which went on
    without it, and restored the others, is not asked again."""

    @classmethod
    def id(cls) -> str:
        """The check's name in journal and JSON."""
        return cls.__name__

    @classmethod
    def title(cls) -> str:
        """The first line of the docstring, without its full stop."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip(".")

    def applies(self, plan: Plan) -> bool:
        """Whether the plan asks for this check at all."""
        return True

    def within(self, plan: Plan) -> float:
        """For how many seconds a "no" is asked again; 0 for the checks before the restore."""
        return 0.0

    def asks(self, n: Target) -> Sequence[Command]:
        """The read-only commands for this host."""
        return ()

    def local(self, plan: Plan, bound: Binding) -> Sequence[Command]:
        """Commands for the responder's machine; their results stand under the host name ""."""
        return ()

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        """Facts of the responder's machine that no command gives; they stand behind those of ``local``.

        The one method that may do I/O, read-only, just before the hosts are asked, or meanwhile where the check is
        ``slow``. Raising is a finding that blocks.
        When the results are judged, their ``seconds`` say how long all the hosts' answers then took.
        """
        return ()

    @abstractmethod
    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """What the answers of all hosts say. An unknown result (``code`` None) is a host that did not answer.

        The connection check reports unreachable hosts; every other check stays silent about them.
        """

    # Small words for subclasses.
    def ok(self, host: str, saw: str) -> Finding:
        """All is well on this host."""
        return Finding(self.id(), host, Severity.OK, saw)

    def warns(self, host: str, saw: str, do: str) -> Finding:
        """Worth knowing; the restore goes on."""
        return Finding(self.id(), host, Severity.WARNS, saw, do)

    def blocks(self, host: str, saw: str, do: str) -> Finding:
        """The restore must not start."""
        return Finding(self.id(), host, Severity.BLOCKS, saw, do)

    def held(self, host: str, saw: str, do: str) -> Finding:
        """Another run has the host."""
        return Finding(self.id(), host, Severity.HELD, saw, do)


def places(plan: Plan) -> tuple[Node | Worker, ...]:
    """Every host of the plan."""
    return (*plan.nodes, *plan.workers)


def heard(answers: Answers, places: Iterable[Place]) -> Iterator[tuple[Place, tuple[Result, ...]]]:
    """The hosts that answered all that they were asked. Silent ones are the connection check's to report."""
    for place in places:
        results = answers.get(place.name, ())
        if results and not any(r.unknown for r in results):
            yield place, results


def all_checks(group: str) -> tuple[Check, ...]:
    """Every check of the group, in the order of the table."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    kinds: list[type[Check]] = _subclasses(Check)  # type: ignore[type-abstract]  # only asked for its children
    mine = [cls for cls in kinds if cls.__module__.startswith(f"{__name__}.") and not inspect.isabstract(cls)]
    found = [cls() for cls in mine if cls.group == group]
    return tuple(sorted(found, key=lambda c: (c.order, c.id())))


def _subclasses(cls: type[Check]) -> list[type[Check]]:
    direct = cls.__subclasses__()
    return direct + [sub for one in direct for sub in _subclasses(one)]

"""What the engine asks of the hosts: the interface that ``runbook.hosts`` and the tests' fake fulfil.

Every call goes to all its hosts in parallel, with a deadline for each host, and returns an answer for each: a host that
does not answer gives ``Result(code=None)``, never an exception, so that one dead host hides nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from runbook.step import Action, Command, Result

LOCK = "/var/lib/etcd-runbook.lock"
"""The one lock of a host: one line of JSON that names the run, who holds it, and since when."""


@dataclass(frozen=True)
class Claim:
    """What an engine claims the hosts with: a higher epoch than any before, its own word, and its forerunners' words.

    A host that was claimed by an engine whose word is not among these has been taken over meanwhile, and refuses;
    ``ANY`` among ``known`` is what takes over. Without an ``owner`` only the epoch counts.
    """

    epoch: int
    owner: str = ""
    known: tuple[str, ...] = ()


ANY = "*"


class Witness(Protocol):
    """Told of each changing action before it starts and after it ended; called from several threads."""

    def begins(self, host: str, key: str, action: Action) -> None:
        """The action is about to start; raising here keeps it from starting."""

    def ended(self, host: str, key: str, action: Action, result: Result) -> None:
        """The action ended, or its end could not be learned (``code`` None)."""

    def lost(self, host: str, key: str, why: str) -> None:
        """The host that carries an action out does not answer any more, and is looked for; it may be found again."""


@dataclass(frozen=True)
class Copy:
    """A piece of a file in the run's directory on a host: what follows its first ``offset`` bytes; 0: all of it."""

    name: str
    offset: int
    data: bytes


class Hosts(Protocol):
    """All hosts of one run, connected as needed."""

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        """Run each host's read-only commands, one round trip a host; one result for each command, in order.

        A command that outlives its ``timeout`` is ended on the host and gives code 124.
        """

    def act(self, actions: Mapping[str, Sequence[Action]], key: str, witness: Witness) -> dict[str, Result]:
        """Carry out each host's actions in order, stopping at that host's first failure.

        ``key`` is unique for the attempt; the n-th action of a host has the key ``<key>.<n>``. Returns each host's
        first failing result, else its last; hosts without actions get ``Result(0)``.

        A changing command runs detached through the wrapper on the host, under the run's flock, and leaves intent,
        output and exit code in ``<run_dir>/commands/<key>.{intent,out,err,rc}``; when the connection dies the call
        reconnects within the command's deadline and takes the command's result: it never starts it twice.
        Refusals of the wrapper are results too: 96 another command of this run still runs, 97 this engine's epoch is
        not the newest, 98 another run holds the host's lock, 95 the run's directory is gone.
        """

    def settle(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        """Wait until no command of this run runs on these hosts, and claim the run there for this engine's epoch.

        Code 0: settled, and ``out`` has the key of each changing command that was ever begun there, a line each; 95:
        the run has no directory there (yet, or any more), so nothing of it can be running; 96: one still runs after
        ``wait`` seconds; 97: a newer engine has the run.
        """

    def close(self) -> None:
        """Drop all connections."""


class RunHosts(Hosts, Protocol):
    """Hosts that also keep copies of the run's files: what the engine works with."""

    def keep(self, copies: Mapping[str, Sequence[Copy]]) -> dict[str, Result]:
        """Write these into each host's run directory, durably, beside any command that runs there.

        Code 0: written; 94: the file there does not have ``offset`` bytes, so all of it is wanted; 95: the run has no
        directory there; 97: a newer engine has the run.
        """

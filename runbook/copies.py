"""The hosts' copies of plan and journal, from which another machine can take a run over.

They are brought up to the journal's end before anything is done on a host, and at each end of the engine. So the
newest copy always names the step that an engine may have been in, and what it did there the hosts themselves tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from runbook.journal import Journal
from runbook.log import logger
from runbook.step import Result
from runbook.transport import Copy, RunHosts

JOURNAL = "journal.jsonl"
NOT_SO_LONG, NO_DIRECTORY, SUPERSEDED = 94, 95, 97


class Copies:
    """What each host has of the run's files. ``files`` gives those beside the journal: the plan, newer settings."""

    def __init__(
        self, hosts: RunHosts, names: Sequence[str], journal: Journal, files: Callable[[], Mapping[str, bytes]]
    ) -> None:
        self.hosts, self.names, self.journal, self.files = hosts, tuple(names), journal, files
        self.has: dict[str, int] = {}
        """Bytes of the journal that a host has; a host is missing where that is not known."""
        self.deaf: set[str] = set()
        """Hosts that did not answer: they are not waited for again and again."""
        self.told: set[str] = set()

    def share(self) -> dict[str, Result]:
        """Bring the copies up to the journal's end; a host that cannot take them is journalled, once.

        Returns each host's answer; only that a newer engine has the run (97) must stop anybody.
        """
        wanted = [name for name in self.names if name not in self.deaf]
        results = self._send(wanted)
        again = [name for name, result in results.items() if result.code == NOT_SO_LONG]
        for name in again:
            self.has.pop(name, None)
        if again:
            results |= self._send(again)
        for name, result in results.items():
            self._note(name, result)
        return results

    def _send(self, names: Sequence[str]) -> dict[str, Result]:
        end = self.journal.size
        copies: dict[str, list[Copy]] = {}
        for name in names:
            offset = self.has.get(name, 0)
            rest = () if name in self.has else (Copy(file, 0, data) for file, data in self.files().items())
            if offset < end:
                copies[name] = [*rest, Copy(JOURNAL, offset, self.journal.tail(offset)[: end - offset])]
        results = self.hosts.keep(copies) if copies else {}
        self.has |= {name: end for name, result in results.items() if result.ok}
        return results

    def _note(self, name: str, result: Result) -> None:
        if result.ok or result.code == NO_DIRECTORY:
            self.told.discard(name)
            return
        self.has.pop(name, None)
        if result.unknown:
            self.deaf.add(name)
        logger().warning("a host took no copy of the journal", host=name, code=result.code, said=result.tail())
        if name not in self.told:
            self.told.add(name)
            self.journal.append("copy", {"code": result.code, "said": result.tail()}, host=name)

    def renew(self) -> None:
        """Send all files anew, to all hosts: they may have changed, and a host may be back."""
        self.has.clear()
        self.deaf.clear()

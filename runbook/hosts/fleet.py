"""All hosts of a run at once: a thread for each, a deadline for each, and one dead host hides nothing of the others."""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from runbook.hosts import client, errands, transfer, wrapper
from runbook.hosts.address import Address
from runbook.hosts.connection import Link, link_to
from runbook.step import Action, Command, Result, Target, Upload
from runbook.transport import Claim, Copy, Witness

T = TypeVar("T")
KEEP = 15.0
"""Seconds for a copy of the journal to be written on a host."""
TICK = 0.2
"""Seconds between two looks at the clock; Ctrl-C is heard in between."""


class Interruption(Exception):
    """The caller has left; whatever a thread still does is told to nobody."""


class Call:
    """One call to several hosts, and whether its caller still waits. Callbacks happen only while it does."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.given_up: set[str] = set()
        """Hosts whose thread did not come back; they have had their answer."""
        self._telling = threading.Lock()

    def tell(self, host: str, callback: Callable[[], None]) -> None:
        """Call the witness; raises :class:`Interruption` when nobody waits for this host any more."""
        with self._telling:
            if self.stop.is_set() or host in self.given_up:
                raise Interruption
            callback()

    def leave(self) -> None:
        """The caller leaves: after this no callback happens any more."""
        self.stop.set()
        if self._telling.acquire(timeout=2):
            self._telling.release()


class Fleet:
    """The hosts of one run over SSH; fulfils :class:`runbook.transport.Hosts`."""

    def __init__(self, targets: Sequence[Target], claim: Claim) -> None:
        self._targets = {t.name: t for t in targets}
        self._links = {t.name: link_to(Address.of(t)) for t in targets}
        self._claim = claim

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        """See :meth:`runbook.transport.Hosts.ask`."""
        return self._each(
            [name for name in asks if asks[name]],
            lambda link, _: errands.ask(link, asks[link.address.name]),
            lambda name, why: tuple(Result(None, err=why) for _ in asks[name]),
        ) | {name: () for name in asks if not asks[name]}

    def act(self, actions: Mapping[str, Sequence[Action]], key: str, witness: Witness) -> dict[str, Result]:
        """See :meth:`runbook.transport.Hosts.act`. An exception of the witness is raised when all hosts have ended."""
        return self._each(
            [name for name in actions if actions[name]],
            lambda link, call: self._sequence(link, actions[link.address.name], key, witness, call),
            lambda _, why: Result(None, err=why),
        ) | {name: Result(0) for name in actions if not actions[name]}

    def settle(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        """See :meth:`runbook.transport.Hosts.settle`."""

        def work(link: Link, call: Call) -> Result:
            guarded, errand = self._guarded(link), errands.Errand(link, wait, call.stop)
            errand.doubt = "whether a command still runs there is not known"
            return errand.run(lambda word: guarded.settle(word, wait), "")

        return self._each(hosts, work, lambda _, why: Result(None, err=why))

    def keep(self, copies: Mapping[str, Sequence[Copy]]) -> dict[str, Result]:
        """See :meth:`runbook.transport.Hosts.keep`."""

        def work(link: Link, call: Call) -> Result:
            guarded, errand = self._guarded(link), errands.Errand(link, KEEP, call.stop)
            errand.doubt = "whether it has the copy is not known"
            return errand.run(lambda word: guarded.keep(word, copies[link.address.name]), "")

        return self._each(list(copies), work, lambda _, why: Result(None, err=why))

    def close(self) -> None:
        """Drop all connections; what runs on the hosts runs on."""
        for link in self._links.values():
            link.drop()

    def _guarded(self, link: Link) -> wrapper.Guarded:
        target = self._targets[link.address.name]
        return wrapper.Guarded(target.run_dir, target.bound.run, self._claim, link.forsaken)

    def _sequence(self, link: Link, actions: Sequence[Action], key: str, witness: Witness, call: Call) -> Result:
        """One host's actions in order, up to the first that fails."""
        name, last = link.address.name, Result(0)
        for number, action in enumerate(actions):
            own = wrapper.checked_key(f"{key}.{number}")
            call.tell(name, lambda own=own, action=action: witness.begins(name, own, action))  # type: ignore[misc]
            link.lost = partial(self._tell_lost, call, witness, name, own)
            result = self._one(link, action, own, call)
            call.tell(name, lambda own=own, action=action, result=result: witness.ended(name, own, action, result))  # type: ignore[misc]
            if result.ok:
                last = result
            elif not (isinstance(action, Command) and action.optional):
                return result
        return last

    @staticmethod
    def _tell_lost(call: Call, witness: Witness, name: str, key: str, why: str) -> None:
        with contextlib.suppress(Interruption):
            call.tell(name, lambda: witness.lost(name, key, why))

    def _one(self, link: Link, action: Action, key: str, call: Call) -> Result:
        if isinstance(action, Upload):
            result = self._upload(link, action, key, call)
        elif action.bare or not action.changes:
            return errands.bare(link, action)
        else:
            guarded, intent = self._guarded(link), self._intent(key, action)
            where = f"{self._targets[link.address.name].run_dir}/commands/{key}"
            result = errands.Errand(link, action.timeout, call.stop).run(
                lambda word: guarded.run(word, key, intent, action), where
            )
            result = errands.scrubbed(action, result)
        if result.unknown:
            # Its script may yet arrive there; whatever we do next on that host must bar it first.
            link.forsaken.append(key)
        return result

    def _intent(self, key: str, action: Action) -> str:
        """One line of JSON: what is about to be started, without its secrets."""
        if isinstance(action, Command):
            what = shlex.join(str(word) for word in action.argv)
        else:
            what = f"upload {shlex.quote(action.dest)} sha256 {action.sha256}"
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"key": key, "action": what, "epoch": self._claim.epoch, "at": at})

    def _upload(self, link: Link, upload: Upload, key: str, call: Call) -> Result:
        target = self._targets[link.address.name]
        own = upload.source_node == target.name
        if upload.source_node and not own and upload.source_node not in self._links:
            return Result(1, err=f"{link.address.label}: no host {upload.source_node} to take {upload.source} from")
        what = transfer.Delivery(
            target=link.address,
            dest=upload.dest,
            sha256=upload.sha256,
            mode=upload.mode,
            timeout=upload.timeout,
            run_dir=target.run_dir,
            run=target.bound.run,
            claim=self._claim,
            key=key,
            intent=self._intent(key, upload),
            void=tuple(link.forsaken),
            path=upload.source,
            origin=self._links[upload.source_node].address if upload.source_node and not own else None,
            named=upload.named,
        )
        if own:
            return transfer.deliver(link, what, None, call.stop)
        if upload.content is not None:
            if len(upload.content) <= transfer.SMALL and b"\0" not in upload.content:
                text = upload.content.decode("utf-8", "surrogateescape")
                return transfer.deliver(link, what, None, call.stop, inline=text)
            return transfer.deliver(link, what, transfer.Bytes(upload.content), call.stop)
        if what.origin:
            return transfer.by_process(link, what, call.stop)
        if _size(upload.source) >= transfer.LARGE:
            return client.by_client(link, what, call.stop) or transfer.by_process(link, what, call.stop)
        return transfer.deliver(link, what, transfer.LocalFile(upload.source, upload.named), call.stop)

    def _each(
        self, names: Iterable[str], work: Callable[[Link, Call], T], unknown: Callable[[str, str], T]
    ) -> dict[str, T]:
        """Work on all hosts in parallel; ``unknown`` makes the answer of one that did not come back in time."""
        call, wanted = Call(), list(names)
        done: queue.SimpleQueue[tuple[str, T | BaseException]] = queue.SimpleQueue()
        for name in wanted:
            link = self._links[name]
            # daemons: a thread that hangs in spite of everything may not keep the process from ending
            threading.Thread(
                target=_worker, args=(link, work, unknown, call, done), name=f"host-{name}", daemon=True
            ).start()
        answers: dict[str, T] = {}
        failures: list[BaseException] = []
        try:
            self._gather(wanted, answers, failures, done, unknown, call)
        except BaseException:
            call.leave()
            for name in wanted:
                if name not in answers:
                    self._links[name].drop()
            raise
        if failures:
            raise failures[0]
        return {name: answers[name] for name in wanted}

    def _gather(
        self,
        wanted: Sequence[str],
        answers: dict[str, T],
        failures: list[BaseException],
        done: queue.SimpleQueue[tuple[str, T | BaseException]],
        unknown: Callable[[str, str], T],
        call: Call,
    ) -> None:
        """Collect the answers, and cut off the hosts whose thread is stuck."""
        cut: dict[str, float] = {}
        while left := [name for name in wanted if name not in answers]:
            try:
                name, answer = done.get(timeout=TICK)
            except queue.Empty:
                now = time.monotonic()
                for name in left:
                    link = self._links[name]
                    if now <= link.expires:
                        continue
                    if cut.get(name) == link.expires:  # nothing has moved since it was cut off
                        call.given_up.add(name)
                        answers[name] = unknown(name, f"{link.address.label}: no answer before its deadline")
                    else:
                        link.drop()
                        link.expires = cut[name] = now + 3
                continue
            if name in answers:
                continue
            if isinstance(answer, BaseException):
                failures.append(answer)
                answers[name] = unknown(name, f"{self._links[name].address.label}: {answer}")
            else:
                answers[name] = answer


def _worker(
    link: Link,
    work: Callable[[Link, Call], T],
    unknown: Callable[[str, str], T],
    call: Call,
    done: queue.SimpleQueue[tuple[str, T | BaseException]],
) -> None:
    name = link.address.name
    if not link.lock.acquire(timeout=5):
        done.put((name, unknown(name, f"{link.address.label}: still busy with an earlier call")))
        return
    try:
        done.put((name, work(link, call)))
    except BaseException as error:  # it belongs to the caller's thread
        done.put((name, error))
    finally:
        link.expires = float("inf")
        link.lock.release()


def _size(path: str) -> int:
    try:
        return Path(path).expanduser().stat().st_size
    except OSError:
        return 0  # the attempt itself will say what is wrong with it

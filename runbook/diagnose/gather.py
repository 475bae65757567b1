"""Asks all hosts at once. Each question has its own time limit on the host, and all of them have one together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runbook.diagnose.questions import Topic
from runbook.step import Result
from runbook.tables import duration
from runbook.transport import Hosts

TOGETHER = 40.0
"""Seconds for all questions to all hosts; what has not come by then is named, and left out."""
BATCH = 12.0
"""Seconds that the questions of one round trip may take together at worst."""
TICK = 0.2
"""Seconds between two looks at the clock; Ctrl-C is heard in between."""


@dataclass(frozen=True)
class Answer:
    """What a host answered to one question; ``result.unknown`` where nothing came, ``result.err`` says why."""

    host: str
    topic: Topic
    result: Result


@dataclass(frozen=True)
class Ended:
    """Nothing more comes from this host. ``why`` says what it lacks: "" where it has answered to the end."""

    host: str
    why: str = ""
    error: BaseException | None = None


Told = Answer | Ended


def gather(hosts: Hosts, asks: Mapping[str, Sequence[Topic]], within: float = TOGETHER) -> Iterator[Told]:
    """Every answer as it comes, and how each host ended. Each topic of each host is told of exactly once.

    A host that does not answer at all is left alone after the first question, one that falls silent after the second
    question in a row that it leaves open. Changes nothing anywhere.
    """
    told: queue.SimpleQueue[Told] = queue.SimpleQueue()
    stop = threading.Event()
    open_ = {name: list(topics) for name, topics in asks.items()}
    until = time.monotonic() + within
    for name, topics in asks.items():
        threading.Thread(target=_host, args=(hosts, name, topics, told, stop), name=f"ask-{name}", daemon=True).start()
    try:
        while open_:
            left = until - time.monotonic()
            try:
                one = told.get(timeout=max(0.0, min(left, TICK)))  # what has come is taken, however late it is
            except queue.Empty:
                if left > 0:
                    continue
                break
            if isinstance(one, Answer):
                open_[one.host].remove(one.topic)
            else:
                if one.error:
                    raise one.error
                del open_[one.host]
            yield one
    finally:
        stop.set()
    why = f"no answer within the {duration(within)} that all questions have together"
    for name, topics in open_.items():
        for topic in topics:
            yield Answer(name, topic, Result(None, err=why))
        yield Ended(name, why)


def _host(
    hosts: Hosts, name: str, topics: Sequence[Topic], told: queue.SimpleQueue[Told], stop: threading.Event
) -> None:
    """One host's questions, a few in each round trip."""
    try:
        why = ""
        left, heard, silences = list(topics), False, 0
        while left and not stop.is_set():
            batch = _batch(left)
            for topic, result in zip(batch, hosts.ask({name: [t.command for t in batch]})[name], strict=True):
                refused = not heard and not result.ok and not result.out.strip()  # no shell, or no sudo: not a word
                told.put(Answer(name, topic, Result(None, err=result.tail()) if refused else result))
                left.remove(topic)
                if not result.unknown and not refused:
                    heard, silences = True, 0
                    continue
                silences += 1
                if not heard or silences > 1:
                    why = result.tail() or "it does not answer"
                    for rest in left:
                        told.put(Answer(name, rest, Result(None, err=f"not asked: {why}")))
                    left = []
                break  # those behind it may never have been asked: they are asked anew
        told.put(Ended(name, why))
    except BaseException as error:  # it belongs to the caller's thread
        told.put(Ended(name, error=error))


def _batch(topics: Sequence[Topic]) -> list[Topic]:
    """As many as fit one round trip, one at least."""
    batch, seconds = [topics[0]], topics[0].command.timeout
    for topic in topics[1:]:
        seconds += topic.command.timeout
        if seconds > BATCH:
            break
        batch.append(topic)
    return batch

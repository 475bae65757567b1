"""The `runbook` command itself, with every call to the hosts and every pause written down as it happens.

    python -m tests.bench.traced FILE run PLAN --yes

FILE gets one JSON object a line: ``call`` (ask, act, settle, sleep), ``since`` and ``until`` in seconds since 1970,
``waiting`` (true for a question or pause of a wait, up to the last round that somebody answered with no), and
``hosts``: for each of them, in order, one entry per command: what it waits for (see ``waits_for``), and for a question
the seconds that its answer took. The journal tells when actions began and ended, but it has no lines for questions.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from runbook.step import Action, Command, Result, Upload

THEIRS = ("etcdctl", "etcdutl", "kubectl", "crictl", "systemctl")
"""Programs that wait for etcd, for the kubelet and what it runs, or for the disk on their behalf."""

Call = dict[str, Any]


def waits_for(action: Action) -> str:
    """What the host is busy with: "theirs" (etcd, the kubelet, etcdutl), "transfer" of a large file, or "own"."""
    if isinstance(action, Upload):
        return "own" if action.content is not None else "transfer"
    for word in action.words():
        if word.rsplit("/", 1)[-1] in THEIRS or ("\n" in word and any(f"{tool} " in word for tool in THEIRS)):
            return "theirs"
    return "own"


def _asked(asks: Mapping[str, Sequence[Command]], answers: Mapping[str, Sequence[Result]]) -> dict[str, list[Any]]:
    return {
        host: [(waits_for(c), r.seconds) for c, r in zip(commands, answers[host], strict=True)]
        for host, commands in asks.items()
    }


def trace(calls: list[Call]) -> None:
    """From now on every call to the hosts, and every pause of the engine, is appended to ``calls``."""
    from runbook import asking, hands
    from runbook.asking import RealClock
    from runbook.hosts import Fleet
    from runbook.lifecycle import YES

    def watched(kind: str, real: Callable[..., Any], hosts: Callable[[tuple[Any, ...], Any], Any]) -> Any:
        def call(self: object, *args: Any) -> Any:
            since = time.time()
            result = real(self, *args)
            seen = {"call": kind, "since": since, "until": time.time(), "waiting": False, "hosts": hosts(args, result)}
            calls.append(seen)
            return result

        return call

    def waited(*args: Any) -> Any:
        begun, until = len(calls), [0]
        together = asking._together

        def watched_round(*asked: Any) -> Any:
            views = together(*asked)
            if any(view != YES for view in views.values()):
                until[0] = len(calls)
            return views

        vars(asking)["_together"] = watched_round
        try:
            return ask_until(*args)
        finally:
            vars(asking)["_together"] = together
            for call in calls[begun : until[0]]:
                call["waiting"] = True

    ask_until = asking.ask_until
    vars(hands)["ask_until"] = waited

    def acted(args: tuple[Any, ...], _: object) -> dict[str, list[str]]:
        return {host: [waits_for(action) for action in actions] for host, actions in args[0].items()}

    plain: dict[str, list[str]] = {}
    Fleet.ask = watched("ask", Fleet.ask, lambda args, result: _asked(args[0], result))  # type: ignore[method-assign]
    Fleet.act = watched("act", Fleet.act, acted)  # type: ignore[method-assign]
    Fleet.settle = watched("settle", Fleet.settle, lambda *_: plain)  # type: ignore[method-assign]
    RealClock.sleep = watched("sleep", RealClock.sleep, lambda *_: plain)  # type: ignore[method-assign]


def read(path: Path) -> list[Call]:
    """What a traced command wrote down."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    """Run the command line."""
    path, calls = Path(sys.argv[1]), list[Call]()
    sys.argv = ["runbook", *sys.argv[2:]]
    trace(calls)
    from runbook.cli import main as runbook

    def end(code: int) -> NoReturn:
        path.write_text("".join(f"{json.dumps(call)}\n" for call in calls))
        leave(code)

    leave, vars(os)["_exit"] = os._exit, end
    runbook()


if __name__ == "__main__":
    main()

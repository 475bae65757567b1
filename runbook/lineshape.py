"""What a journal line must hold, so that whoever replays it never stumbles: each known event's keys, and their kinds.

An unknown event may hold anything, so that an older program can read a newer journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

Kind = Callable[[object], bool]


def _text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _code(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _run_state(value: object) -> bool:
    from runbook.lifecycle import RUN_STATES  # not at the top: ``transitions`` is slow to import

    return value in RUN_STATES


def _step_state(value: object) -> bool:
    from runbook.lifecycle import STEP_STATES

    return value in STEP_STATES


def _names(value: object) -> bool:
    return isinstance(value, list) and all(_text(name) for name in value)


def _by_host(value: object) -> bool:
    return value is None or isinstance(value, dict)


def _time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


COMMON: Mapping[str, Kind] = {"at": _time, "epoch": _number, "event": _text}
"""What every line has, beside ``seq`` and ``prev``."""
NEEDS: Mapping[str, Mapping[str, Kind]] = {
    "run": {"run": _text},
    "state": {"from": _run_state, "to": _run_state},
    "step": {
        "step": _text,
        "from": _step_state,
        "to": _step_state,
        "trigger": _text,
    },
    "absent": {"hosts": _names},
    "present": {"host": _text},
    "settings": {"base": _text},
    "bound": {"snapshot_sha256": _text, "preview_digest": _text},
    "superseded": {"adopt": _text},
    "card": {"lines": _names},
}
"""What is read of an event as if it were always there."""
MAY: Mapping[str, Kind] = {
    "elsewhere": _names,
    "step": _text,
    "host": _text,
    "key": _text,
    "owner": _text,
    "holder": _text,
    "why": _text,
    "joining": _text,
    "code": _code,
    "saw": _by_host,
    "nodes": _names,
    "workers": _names,
}
"""What a known event may hold, and of which kind it then is; a finding's ``saw`` is a text of its own."""
KNOWN = {*NEEDS, "engine", "adopted", "begin", "begun", "end", "closed", "accepted", "finishing", "consent"}


def fault(line: Mapping[str, Any]) -> str:
    """What is wrong with a line's keys; "" where nothing is."""
    missing = [key for key in COMMON if key not in line]
    if missing:
        return f"it lacks {', '.join(missing)}"
    event = line["event"]
    if not isinstance(event, str):
        return f"its event is {event!r}"
    needs = NEEDS.get(event, {})
    missing = [key for key in needs if key not in line]
    if missing:
        return f"it is of the event {event} and lacks {', '.join(missing)}"
    kinds = {**COMMON, **(MAY if event in KNOWN else {}), **needs}
    wrong = (key for key, good in kinds.items() if key in line and not good(line[key]))
    return next((f"its {key} is {line[key]!r}" for key in wrong), "")

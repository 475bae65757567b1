"""What a resume may not change: the differences of two plans, by the keys of the plan file."""

from __future__ import annotations

import re
from typing import Any

from runbook.plan import Plan
from runbook.planfile.build import FIELDS

_KEYS = {field: key for key, field in FIELDS.items()}
_PLACES = {"name": "metadata.name", "ticket": "metadata.ticket", "owner": "spec.restore.owner"}


def pinned_differences(old: Plan, new: Plan) -> list[str]:
    """The pinned keys in which two plans differ, as they stand in a plan file: ``spec.nodes[1].peerURLs``.

    Empty where ``new`` only brings other connection settings (``nodes[].host``, every ``ssh``), timeouts or ``verify``:
    all that ``resume --plan`` may bring.
    """
    before, after = old.pinned(), new.pinned()
    found: list[str] = []
    for field in before:
        place = _PLACES.get(field, f"spec.{_KEYS.get(field, field)}")
        found += _differences(before[field], after[field], place)
    return list(dict.fromkeys(_common(found, len(old.nodes))))


def _common(found: list[str], nodes: int) -> list[str]:
    """Paths that differ on every host differ because ``spec.paths`` does."""
    below = [re.sub(r"^spec\.(nodes|workers)\[\d+\]\.paths\.", "spec.paths.", place) for place in found]
    everywhere = {place for place in below if below.count(place) >= nodes}
    workers = re.compile(r"spec\.workers\[\d+\]\.paths\.")  # a worker has no paths of its own
    pairs = zip(below, found, strict=True)
    return [common if common in everywhere or workers.match(own) else own for common, own in pairs]


def _differences(old: Any, new: Any, place: str) -> list[str]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [found for key in old for found in _differences(old[key], new[key], _below(place, key))]
    records = isinstance(old, list) and isinstance(new, list) and all(isinstance(x, dict) for x in old + new)
    if records and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [found for index, (a, b) in pairs for found in _differences(a, b, f"{place}[{index}]")]
    return [place]


def _below(place: str, field: str) -> str:
    """The key of a field; what a snapshot's source means, its path and node, is no key of its own."""
    if place == "spec.snapshot" and field in ("path", "node", "name", "trouble"):
        return "spec.snapshot.from"
    return f"{place}.{_KEYS.get(field, field)}"

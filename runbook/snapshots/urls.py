"""What ``spec.snapshot.from`` says where it names a store: which store, and which snapshot in it. No I/O here.

A URL names one snapshot by its name (``s3://bucket/prod-eu1/NAME.db.zst.age``), or a store and which of its snapshots
is meant: ``?latest=verified`` or ``?at=2026-04-09T14:00:00Z``. Of a file of this machine or of a node, only what must
be opened first, or chosen first, is a store's; a plain ``.db`` there is read as it lies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from runbook.errors import command

OBJECTS = ("s3", "gs", "az")
"""The schemes of object stores."""
SCHEMES = (*OBJECTS, "file", "host")
SEALED = (".db.zst", ".db.age", ".db.zst.age")
"""How the names of snapshots end that are compressed or encrypted."""
CHOICES = "?latest=verified or ?at=TIME"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@-]*\.db(\.zst)?(\.age)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Reference:
    """A snapshot in a store: its ``name``, or ``latest`` ("verified"), or ``at`` (RFC 3339); the others are "".

    ``place_url`` is the store's URL, as ``runbook.plan.Place`` has it.
    """

    place_url: str
    name: str = ""
    latest: str = ""
    at: str = ""

    @property
    def moment(self) -> datetime | None:
        """The time of ``at``, with its zone; None where none is given."""
        return moment(self.at) if self.at else None


def moment(text: str) -> datetime:
    """An RFC 3339 time. Raises ValueError, with what is wrong as it reads after the text."""
    if not _TIME.fullmatch(text):
        zone = "" if re.search(r"([Zz]|[+-]\d\d:\d\d)$", text) else "; it ends with Z (UTC), or an offset as +02:00"
        raise ValueError(f"is no time as 2026-04-09T14:00:00Z{zone}")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError("is no time that a calendar and a clock have") from None


def to_list(url: str, endpoint: str = "", region: str = "") -> str:
    """The command that lists what a store has."""
    return command(("runbook", "snapshot", "list", url), {"--endpoint": endpoint, "--region": region})


def is_reference(text: str) -> bool:
    """Whether a snapshot's URL is read through a store; else it is a file of this machine, or of a node."""
    scheme, found, rest = text.partition("://")
    if not found or scheme not in SCHEMES:
        return False
    return scheme in OBJECTS or "?" in rest or rest.endswith(SEALED)


def parse_reference(text: str) -> Reference:
    """The store and the snapshot that such a URL names; the store's own URL is not judged here.

    Raises:
        ValueError: with what is wrong, as it reads after the URL.
    """
    scheme, found, _ = text.partition("://")
    if not found or scheme not in SCHEMES:
        raise ValueError("is no URL of a store: s3://, gs://, az://, file:// or host://")
    if "#" in text:
        raise ValueError("holds #")
    place, asks, query = text.partition("?")
    if asks:
        return _chosen(place, query)
    place, _, last = place.rpartition("/")
    name = unquote(last) if scheme == "file" else last
    if not name.endswith((".db", *SEALED)):
        raise ValueError(f"names no snapshot: it ends with a name (….db, ….db.zst.age), or with {CHOICES}")
    if not _NAME.fullmatch(name):
        raise ValueError("names a snapshot with other characters than letters, digits, . _ = + @ -")
    if place.endswith(("/", ":")):
        raise ValueError("names no place before the snapshot's name")
    return Reference(place, name)


def _chosen(place: str, query: str) -> Reference:
    """A store, and which of its snapshots."""
    given: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key not in ("latest", "at"):
            encoded = "; a ? in a file's name is written %3F" if place.startswith("file:") else ""
            raise ValueError(f"has the option {key}, which is neither latest nor at{encoded}")
        if key in given:
            raise ValueError(f"has {key}= twice")
        given[key] = unquote(value)
    if len(given) > 1:
        raise ValueError("has latest= and at=, and only one of them can be meant")
    if "latest" in given and given["latest"] != "verified":
        raise ValueError(f"has latest={given['latest']}, and only latest=verified is known")
    if "at" in given:
        try:
            moment(given["at"])
        except ValueError as error:
            raise ValueError(f"has at={given['at']}, which {error}") from None
    bare = place.rstrip("/")
    if bare.endswith((".db", *SEALED)):
        raise ValueError("names one snapshot, and then asks for another: leave out its name, or what follows the ?")
    return Reference(bare if not bare.endswith(":") else place, **given)

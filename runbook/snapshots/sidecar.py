"""The sidecar of a stored snapshot, ``NAME.json`` beside it: what was saved where and when, and how it is stored.

It is written last. So a snapshot without one is half-written or not ours: it is never restored by ``?latest=``, and
never pruned. It holds no value and no name of an object: what an attacker learns from it is how large the cluster is.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

VERSION = "runbook/v1"
KIND = "EtcdSnapshot"
MAX_BYTES = 1 << 20
"""More than any sidecar has: 2,000 kinds of objects take 100 KiB."""
SUFFIX = ".json"
_STAMP = "%Y%m%dt%H%M%Sz"
CLUSTER = r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?"
_NAME = re.compile(rf"(?P<cluster>{CLUSTER})-\d{{8}}t\d{{6}}z-[0-9a-f]{{4}}\.db(\.zst)?(\.age)?")


class NoSidecar(ValueError):
    """The text is no sidecar; the message says what is wrong with it."""


def new_name(cluster: str, at: datetime, *, compressed: bool, encrypted: bool) -> str:
    """What a snapshot taken at that time is called, for instance ``prod-eu1-20260409t140000z-3f2a.db.zst.age``.

    Never twice the same: two schedules may save at once, and a clock may be set back.
    """
    stamp = at.astimezone(UTC).strftime(_STAMP)
    ends = f"{'.zst' if compressed else ''}{'.age' if encrypted else ''}"
    return f"{cluster}-{stamp}-{secrets.token_hex(2)}.db{ends}"


def is_name(text: str) -> bool:
    """Whether a stored snapshot of ours may be called that."""
    return _NAME.fullmatch(text) is not None


def cluster_of(name: str) -> str:
    """The cluster that such a name begins with; "" for a name that is not one of ours."""
    found = _NAME.fullmatch(name)
    return found["cluster"] if found else ""


@dataclass(frozen=True)
class Stored:
    """The file as it lies in the store: its ``size`` in bytes, its ``sha256`` in hex, and what was done to it.

    ``compressed`` is ``zstd`` or "", ``recipients`` are age's public keys, none where it is not encrypted.
    """

    size: int
    sha256: str
    compressed: str = ""
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sidecar:
    """What is known of a snapshot. ``sha256`` (hex) and ``size`` (bytes) are the plain file's, trailer included.

    ``at`` is when it was taken and ``verified`` when it was last read to its end and found whole: RFC 3339 in UTC,
    ``verified`` "" where that was never done; ``damaged`` is what was found when it was read, "" where nothing was.
    ``etcd`` and ``kubernetes`` are the versions of the programs on the ``member``; "" for a file that was pushed, which
    does not tell them. ``fingerprints`` are SHA-256 sums of the certificates of the cluster's
    CAs, by file name below the PKI directory: those are what a restored cluster must have.
    """

    name: str
    cluster: str
    at: str
    sha256: str
    size: int
    stored: Stored
    revision: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    etcd: str = ""
    kubernetes: str = ""
    member: str = ""
    cluster_id: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    verified: str = ""
    damaged: str = ""
    runbook: str = ""

    def json(self) -> str:
        """As it is written."""
        whole = {"apiVersion": VERSION, "kind": KIND, **asdict(self)}
        return json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=False) + "\n"

    @property
    def taken(self) -> datetime:
        """When it was taken."""
        return datetime.fromisoformat(self.at)

    @staticmethod
    def from_json(text: str | bytes) -> Sidecar:
        """What :meth:`json` wrote; of a newer program, what is known of it. Raises NoSidecar."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NoSidecar(f"it is not JSON: {error}"[:200]) from None
        if not isinstance(value, dict) or value.get("kind") != KIND or value.get("apiVersion") != VERSION:
            raise NoSidecar(f"it is not of the kind {KIND} of {VERSION}")
        stored = value.get("stored")
        if not isinstance(stored, dict):
            raise NoSidecar("stored is missing")
        own = _known(value, _FIELDS) | {"stored": Stored(**_known(stored, _STORED, "stored."))}
        return Sidecar(**own)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _sum(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _time(value: object) -> bool:
    """With its zone, and within what a calendar has in UTC too."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at is not None and at.tzinfo is not None and at.astimezone(UTC) is not None
    except (ValueError, OverflowError):
        return False


def _cluster(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(CLUSTER, value) is not None


def _own_name(value: object) -> bool:
    return isinstance(value, str) and is_name(value)


def _counts(value: object) -> bool:
    return isinstance(value, dict) and all(_number(v) for v in value.values())


def _texts(value: object) -> bool:
    return isinstance(value, dict) and all(_text(v) for v in value.values())


Test = Callable[[object], bool]
_FIELDS: Mapping[str, tuple[Test, bool]] = {
    "name": (_own_name, True),
    "cluster": (_cluster, True),
    "at": (_time, True),
    "sha256": (_sum, True),
    "size": (_number, True),
    "revision": (_number, True),
    "kinds": (_counts, False),
    "etcd": (_text, False),
    "kubernetes": (_text, False),
    "member": (_text, False),
    "cluster_id": (_text, False),
    "fingerprints": (_texts, False),
    "verified": (lambda value: value == "" or _time(value), False),
    "damaged": (_text, False),
    "runbook": (_text, False),
}
"""Each key's test, and whether it must be there."""
_STORED: Mapping[str, tuple[Test, bool]] = {
    "size": (_number, True),
    "sha256": (_sum, True),
    "compressed": (lambda value: value in ("", "zstd"), False),
    "recipients": (lambda value: isinstance(value, list) and all(_text(v) for v in value), False),
}


def _known(value: Mapping[str, Any], tests: Mapping[str, tuple[Test, bool]], where: str = "") -> dict[str, Any]:
    """The keys that are known, each as it must be; lists become tuples."""
    missing = [where + key for key, (_, needed) in tests.items() if needed and key not in value]
    if missing:
        raise NoSidecar(f"{', '.join(missing)} is missing")
    wrong = next((key for key, (good, _) in tests.items() if key in value and not good(value[key])), None)
    if wrong:
        raise NoSidecar(f"{where}{wrong} is {value[wrong]!r}"[:200])
    return {key: tuple(v) if isinstance(v := value[key], list) else v for key in tests if key in value}

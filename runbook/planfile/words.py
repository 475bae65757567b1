"""The single values of a plan: for each format of the schema, what is allowed and what is wrong with a value.

A function returns "" for a good value, else what is wrong with it, as it reads after the value itself. Together they
keep every value in its place in a command line, a URL, etcd's ``--initial-cluster`` and a file name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runbook.planfile.charset import MEMBER, USER, Check, holds_identity, strange, word
from runbook.planfile.cron import cron
from runbook.planfile.durations import parse_duration
from runbook.planfile.places import endpoint_url, etcd_url, host, host_path, jump, local_path, snapshot_url, store_url
from runbook.planfile.problems import nearest


@dataclass(frozen=True)
class Format:
    """One format: ``allowed`` in words, and the check."""

    allowed: str
    fault: Check


def plan_name(text: str) -> str:
    """A DNS label, short enough to head a run id."""
    if len(text) > 40:
        return f"has {len(text)} characters, more than 40"
    return "" if re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) else "is not a DNS label"


def member_name(text: str) -> str:
    """An etcd member's name; ``local`` and ``all`` mean something else in ``verify.checks[].on``."""
    if text in ("local", "all"):
        return "has a meaning of its own in verify.checks[].on"
    return MEMBER(text)


def token(text: str) -> str:
    """A cluster token of etcd, perhaps with ``$RUN`` in it."""
    bare = text.replace("$RUN", "run")
    if "$" in bare:
        return "holds a $ that is not $RUN"
    return word(r"A-Za-z0-9._\-", 128)(bare)


def owner(text: str) -> str:
    """``keep``, or user and group by name or number."""
    if text == "keep":
        return ""
    parts = text.split(":")
    if len(parts) != 2:
        return "is not user:group"
    for part in parts:
        if fault := USER(part):
            return f"has a name that {fault}"
        if part.isdigit() and int(part) > MAX_ID:
            return f"has a number above {MAX_ID}"
    return ""


def program(text: str) -> str:
    """A name on PATH or an absolute path."""
    if text.startswith("/"):
        return host_path(text)
    return "is a relative path" if "/" in text else word(r"A-Za-z0-9._+\-", 100)(text)


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
RBAC_KINDS = {"clusterrole": False, "clusterrolebinding": False, "role": True, "rolebinding": True}
"""The kinds, and whether they live in a namespace."""


def secret(text: str) -> str:
    """``namespace/name``."""
    parts = text.split("/")
    if len(parts) != 2:
        return "is not namespace/name"
    if not _LABEL.fullmatch(parts[0]):
        return "has a namespace that no namespace can have"
    return "" if len(parts[1]) <= 253 and _SUBDOMAIN.fullmatch(parts[1]) else "has a name that no Secret can have"


def rbac(text: str) -> str:
    """``kind/name``, or ``kind/namespace/name`` for kinds that live in a namespace."""
    kind, *rest = text.split("/")
    if kind.lower() not in RBAC_KINDS:
        meant = nearest(kind, RBAC_KINDS)
        return "has an unknown kind" + (f" (did you mean {meant}?)" if meant else "")
    spaced = RBAC_KINDS[kind.lower()]
    if len(rest) != 1 + spaced:
        return f"is not {kind.lower()}/{'namespace/' if spaced else ''}name"
    if spaced and not _LABEL.fullmatch(rest[0]):
        return "has a namespace that no namespace can have"
    return f"has a name that {fault}" if (fault := word(r"A-Za-z0-9:._\-", 253)(rest[-1])) else ""


def line(text: str) -> str:
    """Free text on one line."""
    if len(text) > 500:
        return f"has {len(text)} characters, more than 500"
    return "" if text.isprintable() else "is more than one line, or holds a control character"


def title(text: str) -> str:
    """Free text on one line, and not empty."""
    if not text.strip():
        return "is empty"
    return f"has {len(text)} characters, more than 100" if len(text) > 100 else line(text)


def shell(text: str) -> str:
    """Shell text of one or more lines."""
    if not text.strip():
        return "is empty"
    if len(text) > 8192:
        return f"has {len(text)} characters, more than 8192"
    return "" if all(c in "\n\t" or c.isprintable() for c in text) else "holds a control character"


def duration(text: str) -> str:
    """A duration in Go's syntax."""
    try:
        parse_duration(text)
    except ValueError as e:
        return str(e)
    return ""


def sha256(text: str) -> str:
    """64 hex digits, or "" where it is not known."""
    if not text or re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return ""
    if odd := strange(text, "0-9a-fA-F"):
        return odd
    return f"has {len(text)} digits"


def recipient(text: str) -> str:
    """A public key of age's or of SSH's, which the library that encrypts takes: it is loaded for nothing else."""
    if holds_identity(text):
        return "is a secret identity, which stands in no plan; its public key begins with age1, or with ssh-"
    age = re.fullmatch(r"age1[02-9ac-hj-np-z]{58}", text)
    if not age and not re.fullmatch(r"ssh-(ed25519|rsa) [A-Za-z0-9+/]+=*( [\x20-\x7e]*)?", text):
        return "is no recipient"
    from runbook.snapshots import sealing

    try:
        sealing.recipient(text)
    except sealing.NoKey:
        return f"{'has a wrong checksum' if age else 'is no SSH key that can be read'}: a character is lost or mistyped"
    return ""


def namespace(text: str) -> str:
    """A namespace of Kubernetes."""
    return "" if _LABEL.fullmatch(text) else "is no name that a namespace can have"


def object_name(text: str) -> str:
    """A name that a Secret may have."""
    return "" if len(text) <= 253 and _SUBDOMAIN.fullmatch(text) else "is no name that a Secret can have"


_IMAGE = re.compile(
    r"([a-zA-Z0-9.\-]+(:[0-9]{1,5})?/)?[a-z0-9]+([._\-/]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._\-]{0,127})?"
    r"(@sha256:[0-9a-f]{64})?"
)


def image(text: str) -> str:
    """A container image, as a kubelet takes it."""
    return "" if len(text) <= 500 and _IMAGE.fullmatch(text) else "is no container image"


MAX_ID = 0xFFFF_FFFD


def or_empty(check: Check) -> Check:
    """The same, with "" allowed for none."""
    return lambda text: check(text) if text else ""


_NAME = "letters, digits, . _ - (first a letter or digit)"
_PATH = "an absolute path without .., //, trailing / or special characters, such as /var/lib/etcd"
_LOCAL = "a path: absolute, ~/…, or relative to the plan file, without .."

FORMATS: dict[str, Format] = {
    "plan-name": Format("a DNS label: a-z, 0-9 and - inside, at most 40 characters", plan_name),
    "line": Format("one line of text, at most 500 characters", line),
    "title": Format("one line of text, at most 100 characters", title),
    "snapshot-url": Format(
        "file:///path, a path relative to the plan file, host://NODE/path, or a store's URL (s3://, gs://, az://, "
        "file:///, host://NODE/) that ends with a snapshot's name, with ?latest=verified or with ?at=TIME",
        snapshot_url,
    ),
    "store-url": Format(
        "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///DIRECTORY, or host://NODE/DIRECTORY",
        store_url,
    ),
    "endpoint-or-empty": Format('https://HOST:PORT or http://HOST:PORT; "" for none', or_empty(endpoint_url)),
    "region-or-empty": Format('letters, digits and -; "" for none', or_empty(word(r"A-Za-z0-9\-", 63))),
    "kms-key-or-empty": Format('a key\'s id, alias or ARN; "" for none', or_empty(word(r"A-Za-z0-9:/_.\-", 2048))),
    "recipient": Format(
        "age1… (58 characters after it), or an SSH public key: ssh-ed25519 …, ssh-rsa …; copy it as "
        "`age-keygen -y FILE` prints it, or as it stands in the .pub file",
        recipient,
    ),
    "cron-or-empty": Format("minute, hour, day, month, weekday, as cron takes them", or_empty(cron)),
    "namespace": Format("a DNS label", namespace),
    "object-name-or-empty": Format('a DNS subdomain; "" for none', or_empty(object_name)),
    "image-or-empty": Format('a container image, as REGISTRY/NAME:TAG; "" for none', or_empty(image)),
    "sha256": Format("64 hex digits, as sha256sum prints them", sha256),
    "token": Format(f"{_NAME}, at most 128, with $RUN for the run id", token),
    "member-name": Format(f"{_NAME}", member_name),
    "member-or-place": Format("local, all, or a node's name", MEMBER),
    "host": Format("a host name or an IP address", host),
    "etcd-url": Format("https://HOST:PORT or http://HOST:PORT, nothing after it", etcd_url),
    "user": Format(f"{_NAME}, at most 64", USER),
    "jump": Format("[user@]host[:port]", jump),
    "owner": Format("keep, or user:group by name or number", owner),
    "program": Format("a name on PATH (letters, digits, . _ + -), or an absolute path", program),
    "host-path": Format(_PATH, host_path),
    "host-path-or-empty": Format(f'{_PATH}; "" for none', or_empty(host_path)),
    "local-path": Format(_LOCAL, local_path),
    "local-path-or-empty": Format(f'{_LOCAL}; "" for none', or_empty(local_path)),
    "secret": Format("namespace/name", secret),
    "rbac": Format("clusterrole/NAME, clusterrolebinding/NAME, role/NAMESPACE/NAME, rolebinding/NAMESPACE/NAME", rbac),
    "shell": Format("shell text, at most 8192 characters", shell),
    "duration-go": Format("Go's syntax, above 0 and at most 24h: 90s, 1h30m, 500ms", duration),
}

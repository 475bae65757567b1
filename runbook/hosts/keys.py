"""What a known_hosts file says of one host, read as OpenSSH reads it (``man sshd``, "SSH_KNOWN_HOSTS FILE FORMAT").

Paramiko's own reader knows neither patterns nor ``@revoked``, keeps one key of a type, and offers the server key types
that the file does not hold, so that a known host looks like a stranger.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

_PRIVATE = re.compile(rb"^-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----\s*$", re.MULTILINE)
ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""The signature algorithms of a key type, where they have other names than the type."""


def fingerprint(blob: bytes) -> str:
    """The fingerprint of a public key as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def is_private_key(file: Path) -> bool:
    """Whether the file holds a line that a private key begins with, OpenSSH's own or one of PEM's. Raises OSError."""
    with file.open("rb") as opened:
        return bool(_PRIVATE.search(opened.read(1 << 16)))


@dataclass(frozen=True)
class KnownKeys:
    """The keys of one host: pairs of type and blob, and the blobs that the file revokes."""

    file: Path
    name: str
    keys: tuple[tuple[str, bytes], ...]
    revoked: frozenset[bytes]

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What to ask the server for: only keys of these algorithms can be compared with the file."""
        names = [name for kind, _ in self.keys for name in ALGORITHMS.get(kind, (kind,))]
        return tuple(dict.fromkeys(names))

    def accepts(self, blob: bytes) -> bool:
        """The host's key is this one."""
        return blob not in self.revoked and any(blob == known for _, known in self.keys)


def lookup_name(host: str, port: int) -> str:
    """The name under which known_hosts lists a host: ``host``, or ``[host]:port`` off port 22."""
    host = host.lower()
    return host if port == 22 else f"[{host}]:{port}"


def known_keys(file: Path, host: str, port: int) -> KnownKeys:
    """All keys that ``file`` has for the host. OSError when it cannot be read; a line nobody understands is skipped."""
    name = lookup_name(host, port)
    keys: list[tuple[str, bytes]] = []
    revoked: set[bytes] = set()
    for line in file.expanduser().read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if marker not in ("", "@revoked") or len(words) < 3 or not _matches(words[0], name):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        if marker:
            revoked.add(blob)
        elif (words[1], blob) not in keys:
            keys.append((words[1], blob))
    return KnownKeys(file, name, tuple(keys), frozenset(revoked))


def _matches(patterns: str, name: str) -> bool:
    """Does a line's first field mean this host? Hashed, or a list of patterns with ``*``, ``?`` and ``!``."""
    if patterns.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part) for part in patterns[3:].split("|"))
        except ValueError:  # also binascii.Error
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    found = False
    for pattern in patterns.lower().split(","):
        # fnmatch gives [ ] a meaning that known_hosts does not
        glob = pattern.removeprefix("!").replace("[", "[[]")
        if fnmatchcase(name, glob):
            if pattern.startswith("!"):
                return False
            found = True
    return found

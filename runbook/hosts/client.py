"""Large uploads through the system's own ``ssh``, where there is one and the host is reached without a detour.

It is given what our own login uses, and reads no configuration of its own: what ``~/.ssh/config`` says of the host's
name, port, user, keys and key alias was looked up by us. Where it cannot start its work, we say nothing, and the
caller takes the way that has words for it.
"""

from __future__ import annotations

import re
import shutil
import threading

from runbook.hosts import wrapper
from runbook.hosts.address import Address
from runbook.hosts.connection import Link
from runbook.hosts.keys import ALGORITHMS
from runbook.hosts.login import GCM, Straight, Unreachable, straight
from runbook.hosts.pipe import NoStart, Pipe
from runbook.hosts.transfer import Delivery, LocalFile, deliver
from runbook.log import logger
from runbook.step import Result

_HOST = re.compile(r"[A-Za-z0-9:_][A-Za-z0-9._:%-]*")
_PLAIN = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", *ALGORITHMS["ssh-rsa"])
"""Kinds of host keys that every ``ssh`` knows; of a name that it does not know it makes an error."""
_TOKENS = re.compile(r'[%$"\\\x00-\x1f]|^~')
"""What ``ssh`` may replace in a value, or end it with."""


class Client:
    """``ssh`` to one host, once for each attempt at an upload."""

    def __init__(self, argv: list[str], file: LocalFile) -> None:
        self._argv = argv
        self._file = file
        self._began = threading.Event()
        self._pipe: Pipe | None = None

    def open(self, link: Link, command: str, nonce: str, cap: int) -> Pipe:
        """A new one; fulfils :data:`runbook.hosts.session.Opening`."""
        self._pipe = Pipe(link, [*self._argv, command], nonce, cap, self._began)
        return self._pipe

    def pour(self, _: object) -> None:
        """Send the file through the one that was opened last."""
        if self._pipe is None:
            raise AssertionError("not open")
        with self._file.opened() as (file, size):
            going = self._pipe.pour(file, max(0, size - 1), wrapper.STALL)
            last = file.read(1)
        # held back until the file is known to be what it was: the host puts no file into place before
        if going and self._pipe.push(last, wrapper.STALL):
            self._pipe.finish()


def by_client(link: Link, what: Delivery, stop: threading.Event) -> Result | None:
    """Deliver a file of this machine; None where another way must do it, under the same key."""
    argv = command_line(link.address)
    if argv is None:
        return None
    file = LocalFile(what.path, what.named)
    client = Client(argv, file)
    try:
        return deliver(link, what, file, stop, client.open, client.pour)
    except NoStart as error:
        logger().debug("the system's ssh cannot send it", host=link.address.name, why=str(error))
        return None


def command_line(address: Address) -> list[str] | None:
    """``ssh`` up to the command; None where there is none, or what it needs cannot be told to it safely."""
    program = shutil.which("ssh")
    if program is None:
        return None
    try:
        place = straight(address)
    except Unreachable:
        return None
    settings = _settings(place, address) if place else []
    if not place or not _HOST.fullmatch(place.host) or any(_TOKENS.search(value) for _, value in settings):
        return None
    # no configuration file is read, the system's neither; no terminal, no agent or X11 forwarded, no escape character
    return [
        program,
        *("-F", "/dev/null", "-T", "-a", "-x", "-e", "none", "-p", str(place.port), "-l", place.user),
        *(word for name, value in settings for word in ("-o", f'{name}="{value}"')),
        *("--", place.host),
    ]


def _settings(place: Straight, address: Address) -> list[tuple[str, str]]:
    """Options by name. The host's keys are those that known_hosts has, as with our own login."""
    return [
        ("BatchMode", "yes"),
        ("PreferredAuthentications", "publickey"),
        ("IdentitiesOnly", "yes" if place.keys else "no"),
        *(("IdentityFile", key) for key in place.keys),
        ("StrictHostKeyChecking", "yes"),
        ("UserKnownHostsFile", str(place.known.file.expanduser().absolute())),
        ("GlobalKnownHostsFile", "/dev/null"),
        ("HostKeyAlgorithms", ",".join(kind for kind in place.known.algorithms if kind in _PLAIN)),
        *([("HostKeyAlias", place.alias)] if place.alias else []),
        ("CheckHostIP", "no"),
        ("UpdateHostKeys", "no"),
        ("Ciphers", "^" + ",".join(GCM)),
        ("Compression", "no"),
        ("LogLevel", "ERROR"),
        ("ConnectTimeout", str(wrapper.limit(address.connect_timeout))),
        # a dead link is noticed in six seconds
        ("ServerAliveInterval", "2"),
        ("ServerAliveCountMax", "3"),
    ]

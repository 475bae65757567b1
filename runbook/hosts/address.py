"""Where a host is and how to log in: plain data, so that a sender process can be given it as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from runbook.plan import Ssh
from runbook.step import Target

COMMAND_LINE = "--host"
"""What names a host where there is no plan: a target of no plan has no snapshot either."""


@dataclass(frozen=True)
class Address:
    """One host to reach. ``name`` is the plan's word for it, ``host`` its SSH destination; times in seconds."""

    name: str
    host: str
    user: str | None = "root"
    port: int | None = 22
    identity_file: str | None = None
    known_hosts_file: str = "~/.ssh/known_hosts"
    jump: str | None = None
    sudo: str = "auto"
    connect_timeout: float = 10.0
    named_by: str = "`host` in the plan"
    """Where a person has written ``host``, for messages."""

    @classmethod
    def of(cls, target: Target) -> Address:
        """The address of a target of a run."""
        place, ssh = target.place, target.place.ssh
        address = cls.to(place.name, place.host, ssh)
        return address if target.plan.snapshot.source else replace(address, named_by=COMMAND_LINE)

    @classmethod
    def to(cls, name: str, host: str, ssh: Ssh) -> Address:
        """The address of any host, from the plan's words."""
        return cls(
            name=name,
            host=host,
            user=ssh.user,
            port=ssh.port or None,  # 0 where no plan is known yet: ~/.ssh/config says it, as with ssh itself
            identity_file=str(ssh.identity_file) if ssh.identity_file else None,
            known_hosts_file=str(ssh.known_hosts_file),
            jump=ssh.jump,
            sudo=ssh.sudo,
            connect_timeout=ssh.connect_timeout,
        )

    def hop(self, word: str) -> Address:
        """The jump host ``[user@]host[:port]``, reached with the same key and known hosts.

        User and port that the word leaves out come from ``~/.ssh/config``, as with ``ssh -J``. A hop has no ``jump``
        of its own, so that a wildcard in ``~/.ssh/config`` cannot send it through itself.
        """
        user, _, rest = word.rpartition("@")
        host, port = rest, ""
        if rest.startswith("["):
            host, _, tail = rest[1:].partition("]")
            port = tail.lstrip(":")
        elif rest.count(":") == 1:
            host, _, port = rest.partition(":")
        named_by = "--jump" if self.named_by == COMMAND_LINE else "`jump` in the plan"
        if self.jump is None:
            named_by = "`ProxyJump` in ~/.ssh/config"
        name, number = f"jump host {host}", int(port or 0) or None
        return replace(self, name=name, host=host, user=user or None, port=number, jump="", named_by=named_by)

    @property
    def elevates(self) -> bool:
        """Commands go through ``sudo -n``."""
        return self.sudo == "always" or (self.sudo == "auto" and self.user != "root")

    @property
    def label(self) -> str:
        """Name and destination, for messages."""
        return f"{self.name} ({self.host}:{self.port or 22})"

    def to_json(self) -> str:
        """One line, for a sender process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Address:
        """The reverse of :meth:`to_json`."""
        return cls(**json.loads(text))

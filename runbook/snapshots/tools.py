"""Etcd's two programs that a backup plan brings along, for hosts that have none: kubeadm installs neither.

They lie beside the snapshot while it is taken, and go with it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runbook.errors import NOTE, Refused
from runbook.plan import Plan

NAMES = ("etcdctl", "etcdutl")


@dataclass(frozen=True)
class Tool:
    """One of them, as it lies on this machine; ``size`` in bytes."""

    name: str
    path: Path
    size: int
    sha256: str

    @property
    def word(self) -> str:
        """As the script on the host is told of it."""
        return f"{self.name}:{self.size}:{self.sha256}"

    def chunks(self, size: int) -> Iterator[bytes]:
        """All of it, and no byte more. Raises OSError, also where it is shorter by now."""
        left = self.size
        with self.path.open("rb") as file:
            while left and (chunk := file.read(min(size, left))):
                left -= len(chunk)
                yield chunk
        if left:
            raise OSError(errno.EIO, "it has become shorter since its sum was taken; is it being replaced?")


def brought(plan: Plan) -> tuple[Tool, ...]:
    """Those of ``spec.tools.upload``; none where it is empty. Raises Refused where one is not there to be brought."""
    if not plan.tools.upload:
        return ()
    return tuple(_tool(plan, plan.tools.upload / name) for name in NAMES)


def _tool(plan: Plan, path: Path) -> Tool:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return Tool(path.name, path, size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise Refused(
            f"spec.tools.upload: {path}: {error.strerror}; put etcdctl and etcdutl of the cluster's version into "
            f"{path.parent}, or leave spec.tools.upload empty where the hosts have them",
            true="no host was asked, and no snapshot was taken",
            means="the newest snapshot is the one before",
            next=(f"runbook snapshot save {shlex.quote(str(plan.file))}{NOTE}after mending it",),
        ) from error

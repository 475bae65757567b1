"""Where a snapshot that is pushed came from, which its file does not say: whoever pushes it tells.

``runbook snapshot save`` asks the hosts; a pod of the CronJob, which has no way to a host, is told by its own
manifest.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runbook import parse, x509
from runbook.errors import UsageError

CAS = ("etcd/ca.crt", "ca.crt", "front-proxy-ca.crt")
"""By file name below the PKI directory, as kubeadm lays them out."""
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Origin:
    """As in a sidecar: the member's name, etcd's version, the CAs' SHA-256 sums; "" and none where it is not known."""

    member: str = ""
    etcd: str = ""
    fingerprints: dict[str, str] = field(default_factory=dict)


def origin(member: str, etcd: str, pki: Path | None, tell: Callable[[str], None]) -> Origin:
    """What was typed. Raises UsageError for what no member or version is called.

    A CA that cannot be read is told of, and no more: that is no reason to go without a backup.
    """
    if member and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", member):
        raise _wrong(f"--member {shlex.quote(member)}: allowed: an etcd member's name (letters, digits, . _ -)")
    if etcd and not re.fullmatch(r"\d+\.\d+\.\d+(-[A-Za-z0-9.]+)?", etcd):
        raise _wrong(f"--etcd {shlex.quote(etcd)}: allowed: etcd's version, such as 3.5.21")
    return Origin(member, etcd, _fingerprints(pki, tell) if pki else {})


def _fingerprints(pki: Path, tell: Callable[[str], None]) -> dict[str, str]:
    found, faults = {}, []
    for name in CAS:
        try:
            with (pki / name).open("rb") as file:
                found[name] = x509.certificate(file.read(_LARGEST).decode("utf-8", "replace")).fingerprint
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(f"{pki / name}: {error.strerror}")
        except parse.ParseError as error:
            faults.append(f"{pki / name}: {error}")
    if not found and not faults:
        faults.append(f"{pki} has none of {', '.join(CAS)}")
    for fault in faults:
        tell(f"warning: --pki: {fault}; the sidecar has no fingerprint of it")
    return found


def _wrong(message: str) -> UsageError:
    return UsageError(
        message,
        true="nothing was changed",
        means="the sidecar says where a snapshot is from; leave the option out where that is not known",
        next=("runbook snapshot push --help",),
    )

"""The lab: throwaway Kubernetes control planes on this machine, to try, test and drill restores on.

Each host is a set of Linux namespaces with an overlay on `/`, its own sshd and host key, real etcd with TLS, and
stand-ins for systemd and containerd (`init`), kubelet, API server, scheduler and controller-manager. All processes of
a lab live in one pid namespace, whose first process is its *holder*; all mounts live in the holder's mount namespace,
all links in network namespaces of their own. When the holder ends, the kernel takes the whole lab away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runbook.lab.lab import Lab as Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> Any:  # imported when first used: the command line's --help must not pay for it
    if name == "Lab":
        from runbook.lab.lab import Lab

        return Lab
    raise AttributeError(name)

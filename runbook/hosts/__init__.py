"""The hosts over SSH: the only place where Fabric is used. See :mod:`runbook.transport` for what is promised.

==============  ====================================================================================
``address``     where a host is, as plain data
``keys``        what known_hosts says of it
``login``       one hop: socket, host key, login; the only import of Fabric
``connection``  one connection per host, kept; ``pulse`` notices the far end of a jump
``session``     one exec: a script in, framed answers out (``frames``)
``wrapper``     the shell texts: asking, running detached, settling, receiving a file
``errands``     one host's command from the connection to the result, reconnecting where needed
``transfer``    uploads; ``client`` sends large ones by the system's ``ssh``, through the pipes of ``pipe``, and
                ``sender`` is the process of our own that does it elsewhere
``fleet``       all hosts in parallel
==============  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from runbook.hosts.address import Address
from runbook.hosts.connection import dial
from runbook.hosts.fleet import Fleet
from runbook.step import Target
from runbook.transport import Claim

__all__ = ["Fleet", "connect", "dial_ahead"]


def connect(targets: Sequence[Target], claim: Claim) -> Fleet:
    """The hosts of one run, for the engine of this claim. No connection is made before it is needed."""
    return Fleet(targets, claim)


def dial_ahead(targets: Sequence[Target]) -> None:
    """Begin to connect to hosts that :func:`connect` will be asked for: logging in takes a third of a second."""
    import fabric  # noqa: F401 # here, and not in all the threads at once

    for target in targets:
        dial(Address.of(target))

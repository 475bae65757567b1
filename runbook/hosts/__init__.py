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

from runbook.hosts.fleet import Fleet
from runbook.step import Target

__all__ = ["Fleet", "connect"]


def connect(targets: Sequence[Target], epoch: int) -> Fleet:
    """The hosts of one run, for the engine of this ``epoch``. No connection is made before it is needed."""
    return Fleet(targets, epoch)

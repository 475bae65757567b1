"""From where snapshots are kept to the store that reads and writes there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from runbook.snapshots.silence import Tell, nobody
from runbook.snapshots.stores import Store, StoreTrouble
from runbook.snapshots.urls import OBJECTS

if TYPE_CHECKING:
    from runbook.plan import Place, Plan


def open_store(place: Place, hosts: Plan | None, tell: Tell = nobody) -> Store:
    """The store at that place; what each kind needs is imported here, for most commands need none of it.

    ``hosts`` is the plan whose hosts ``host://NODE/DIR`` names, None where there is none. Nothing is connected to that
    need not be. ``tell`` is told where an object store is silent for long. Raises StoreTrouble.
    """
    scheme, _, rest = place.url.partition("://")
    if scheme == "file":
        from runbook.snapshots.store_files import Files

        return Files(Path(unquote(rest)))
    if scheme == "host":
        from runbook.snapshots.store_host import HostFiles

        node, _, directory = rest.partition("/")
        if hosts is None or node not in (n.name for n in hosts.nodes):
            raise StoreTrouble(f"{place.url}: no plan names a node {node}", "only a plan's nodes can have such a store")
        return HostFiles(hosts, node, f"/{directory}")
    if scheme in OBJECTS:
        from runbook.snapshots.store_objects import Objects

        return Objects(place, tell)
    raise StoreTrouble(f"{place.url} has no scheme that runbook knows", "file://, host://, s3://, gs:// or az://")

"""The shell texts of the procedure: constants, into which no plan text is ever put.

A plan's values reach them as positional arguments only. They keep to a small subset of POSIX shell (one simple command
a line, ``if``/``fi``, no functions, no pipes where files change) so that a reviewer can read them at once and the
tests' fake can interpret the very same text, stopping between any two of its commands.

Every script that changes files can be run again from any state in which it may have been cut off, and makes durable
(``sync``) what it did before it records that it did it.
"""

from __future__ import annotations

from runbook.procedures.scripts.data import (
    CLEAR,
    FIT,
    KEPT,
    LATER,
    MOVE,
    RESTORED,
    SEAL,
    SWAP,
    SWAP_BACK,
    SWAPPED,
    UNRESTORE,
    UNSWAPPED,
)
from runbook.procedures.scripts.etcd import (
    AWAIT_ETCD,
    COMPACTED,
    ETCD_ANSWERED,
    FIGURES_AND,
    KEEP_DISCARDED,
    LEADER_LAST,
    REVISION_NOW,
    SNAPSHOT_REVISION,
    STATUS,
)
from runbook.procedures.scripts.manifests import (
    GONE,
    IN_PLACE,
    PARK,
    PARKED,
    SAVE,
    UNCHANGED,
    UNPARK,
    UNSAVE,
)
from runbook.procedures.scripts.run import (
    ABSENT,
    DIGEST,
    LOCK,
    SWEEP,
    UNLOCK,
)

__all__ = [
    "ABSENT",
    "AWAIT_ETCD",
    "CLEAR",
    "COMPACTED",
    "DIGEST",
    "ETCD_ANSWERED",
    "FIGURES_AND",
    "FIT",
    "GONE",
    "IN_PLACE",
    "KEEP_DISCARDED",
    "KEPT",
    "LATER",
    "LEADER_LAST",
    "LOCK",
    "MOVE",
    "PARK",
    "PARKED",
    "RESTORED",
    "REVISION_NOW",
    "SAVE",
    "SEAL",
    "SNAPSHOT_REVISION",
    "STATUS",
    "SWAP",
    "SWAPPED",
    "SWAP_BACK",
    "SWEEP",
    "UNCHANGED",
    "UNLOCK",
    "UNPARK",
    "UNRESTORE",
    "UNSAVE",
    "UNSWAPPED",
]

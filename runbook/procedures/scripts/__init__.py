"""The shell texts of the procedure: constants, into which no plan text is ever put.

A plan's values reach them as positional arguments only. They keep to a small subset of POSIX shell (one simple command
a line, ``if``, ``for``, ``while``, no functions, no pipes where files change) so that a reviewer can read them at once
and the tests' fake can interpret the very same text, stopping between any two of its commands.

Every script that changes files can be run again from any state in which it may have been cut off, and makes durable
(``sync``) what it did before it records that it did it.
"""

from __future__ import annotations

from runbook.procedures.scripts.data import (
    KEPT,
    LATER,
    RESTORE,
    RESTORED,
    SWAP,
    SWAP_BACK,
    SWAPPED,
    UNRESTORE,
    UNSWAPPED,
)
from runbook.procedures.scripts.etcd import (
    ANSWERED,
    AWAIT,
    COMPACTED,
    FIGURES,
    KEEP_DISCARDED,
    LAST_REVISION,
    LEADER_LAST,
    REVISION_NOW,
    SNAPSHOT_REVISION,
)
from runbook.procedures.scripts.manifests import IN_PLACE, LAST_WORDS, SAVE, START, STOP, STOPPED, UNCHANGED, UNSAVE
from runbook.procedures.scripts.run import ABSENT, DIGEST, LOCK, MAKE_DIR, PROVEN, RESTART_KUBELET, SWEEP, UNLOCK

__all__ = [
    "ABSENT",
    "ANSWERED",
    "AWAIT",
    "COMPACTED",
    "DIGEST",
    "FIGURES",
    "IN_PLACE",
    "KEEP_DISCARDED",
    "KEPT",
    "LAST_REVISION",
    "LAST_WORDS",
    "LATER",
    "LEADER_LAST",
    "LOCK",
    "MAKE_DIR",
    "PROVEN",
    "RESTART_KUBELET",
    "RESTORE",
    "RESTORED",
    "REVISION_NOW",
    "SAVE",
    "SNAPSHOT_REVISION",
    "START",
    "STOP",
    "STOPPED",
    "SWAP",
    "SWAPPED",
    "SWAP_BACK",
    "SWEEP",
    "UNCHANGED",
    "UNLOCK",
    "UNRESTORE",
    "UNSAVE",
    "UNSWAPPED",
]

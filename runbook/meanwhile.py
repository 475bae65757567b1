"""Hashing a large snapshot beside other work: while modules load, or while the first checks wait for the hosts.

Heavy modules are imported where they are used, so that ``--help`` and ``validate`` stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING

from runbook.bind import not_there, planned_binding, preview_binding
from runbook.connecting import dial_ahead
from runbook.plan import Plan
from runbook.step import Binding

if TYPE_CHECKING:
    from runbook.procedure import Procedure


def bound_meanwhile(plan: Plan, *, agreed: bool = False) -> tuple[Binding, str]:
    """The preview's binding. What a run needs is loaded meanwhile: hashing a snapshot leaves the interpreter free.

    ``agreed``: nobody will be asked whether the run may begin, and no digest compared. So its connections are begun as
    well, and the snapshot's SHA-256 need not be known yet: where the plan says it, the first checks will tell whether
    it is so, and where it does not, they compute it of the plan's own file (see :func:`is_late`).
    """
    bound: Future[tuple[Binding, str]] = Future()

    def bind() -> None:
        try:
            bound.set_result(preview_binding(plan))
        except BaseException as error:  # it belongs to the caller's thread
            bound.set_exception(error)

    Thread(target=bind, daemon=True).start()  # a daemon: Ctrl-C is not kept waiting for a slow disk
    if agreed:
        dial_ahead(plan)
    import runbook.engine
    import runbook.hosts
    import runbook.preview
    import runbook.procedures.byhand
    import runbook.procedures.kubeadm
    import runbook.progress  # noqa: F401 # only so that they need no time later
    from runbook import log
    from runbook.checks import all_checks
    from runbook.checks.content import begin_reading

    log.load()
    all_checks("preflight")
    planned = planned_binding(plan)
    if agreed and (plan.snapshot.sha256 or is_late(plan, planned)):
        return planned, ""
    known = bound.result()
    begin_reading(plan)  # not before: hashing and logging in need both of two cores
    return known


def is_late(plan: Plan, bound: Binding) -> bool:
    """Whether a run that begins now learns what it restores only after its first checks (:func:`learned`)."""
    return "$" in bound.sha256 and plan.snapshot.node is None and plan.snapshot.path.exists()


def learned(plan: Plan, bound: Binding, procedure: Procedure) -> Mapping[str, str]:
    """What the journal's line ``bound`` says: the SHA-256 of the plan's own file, and the digest of what will be done.

    Raises Refused where the file is gone, or damaged. The first checks have just read it, and it is not read again.
    """
    from runbook import preview

    known = preview_binding(plan)[0]
    if "$" in known.sha256:
        raise not_there(plan, bound)
    whole = replace(bound, sha256=known.sha256)
    return {"snapshot_sha256": whole.sha256, "preview_digest": preview.digest(plan, whole, procedure)}

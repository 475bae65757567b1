"""Hashing a large snapshot beside other work: while modules load, or while the first checks wait for the hosts.

Heavy modules are imported where they are used, so that ``--help`` and ``validate`` stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING

from runbook.bind import planned_binding, preview_binding
from runbook.connecting import dial_ahead
from runbook.plan import Plan
from runbook.step import Binding

if TYPE_CHECKING:
    from runbook.checks import Finding
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
    source = plan.snapshot
    return not bound.known and not source.node and not source.store and source.path.exists()


def learned(plan: Plan, bound: Binding, findings: Sequence[Finding], procedure: Procedure) -> Mapping[str, str]:
    """What the journal's line ``bound`` says: the SHA-256 of what was checked, and the digest of what will be done.

    Nothing is read again: a file that was put in its place since is another one, and nobody has checked that.
    """
    from runbook import preview
    from runbook.checks.snapshot import summed_up

    whole = replace(bound, sha256=summed_up(findings))
    return {"snapshot_sha256": whole.sha256, "preview_digest": preview.digest(plan, whole, procedure)}

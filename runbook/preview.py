"""What a run would do, exactly, without a connection: every step, every command, and a digest of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runbook.plan import Plan
    from runbook.procedure import Procedure
    from runbook.step import Binding


def digest(plan: Plan, bound: Binding, procedure: Procedure) -> str:
    """SHA-256, in hex, over all that a run of this plan by this program would do."""
    raise NotImplementedError


def document(plan: Plan, bound: Binding, procedure: Procedure) -> dict[str, Any]:
    """The preview for programs."""
    raise NotImplementedError


def render(plan: Plan, bound: Binding, procedure: Procedure, *, note: str = "") -> str:
    """The preview for people; its last line is ``digest: <64 hex>``. ``note`` is shown beside the snapshot."""
    raise NotImplementedError


def follow_up(plan: Plan, bound: Binding) -> list[dict[str, str]]:
    """What to do by hand afterwards: ``why``, ``on`` (a host) and ``command``."""
    raise NotImplementedError

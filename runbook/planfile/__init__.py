"""A plan file → :class:`runbook.plan.Plan`: YAML, schema, sense; every error at once, each with line and column.

``load`` for those who need the plan, ``validate`` for those who only ask; both read nothing but the plan file, make no
connection, and do not look whether the snapshot is there.
"""

from __future__ import annotations

from pathlib import Path

from runbook.plan import Plan
from runbook.planfile.build import build
from runbook.planfile.durations import format_duration, parse_duration
from runbook.planfile.pins import pinned_differences
from runbook.planfile.problems import PlanErrors, Problem, Where, file_name, in_order, written
from runbook.planfile.sense import View, errors, warnings
from runbook.planfile.shape import faults
from runbook.planfile.tree import MAX_BYTES, Fault, Mapping, Spot, Unreadable, look_up, parse, position

__all__ = [
    "PlanErrors",
    "Problem",
    "format_duration",
    "load",
    "load_with_warnings",
    "parse_duration",
    "pinned_differences",
    "read",
    "validate",
]


def load(path: Path, *, base: Path | None = None) -> Plan:
    """The plan in that file; warnings are dropped.

    Args:
        path: the plan file.
        base: the directory that relative paths in the plan start from, where it is not the file's own: a run's copy of
            its plan is read with the directory of the file it was copied from.

    Raises:
        PlanErrors: the plan is invalid or cannot be read; all its errors at once.
    """
    return load_with_warnings(path, base=base)[0]


def load_with_warnings(path: Path, *, base: Path | None = None) -> tuple[Plan, tuple[Problem, ...]]:
    """As ``load``, with what is allowed and yet seldom meant, in the file's order."""
    return read(_bytes(path), path, base=base)


def validate(path: Path) -> tuple[Problem, ...]:
    """Errors and warnings of a plan file, in the file's order; raises nothing. Good: none has ``warning`` False."""
    try:
        return load_with_warnings(path)[1]
    except PlanErrors as e:
        return in_order((*e.problems, *e.warnings))


def read(data: bytes, file: Path, *, base: Path | None = None) -> tuple[Plan, tuple[Problem, ...]]:
    """The plan in those bytes, and its warnings; ``file`` names it in messages, and places relative paths.

    Raises:
        PlanErrors: as ``load``; it has the ``warnings`` too.
    """
    try:
        tree, broken = parse(data)
    except Unreadable as e:
        raise PlanErrors([_problem(file, e.fault)]) from None
    kind = _other_kind(tree)
    if kind is not None:
        raise PlanErrors([_problem(file, f) for f in (*broken, kind)])
    values, shapeless = faults(tree)
    found = broken + shapeless
    view = View(values, [f.where for f in found if f.where])
    found += [Fault(position(tree, where), where, message) for where, message in errors(view)]
    hints = [Fault(position(tree, where), where, message) for where, message in warnings(view)]
    told = in_order(_problem(file, hint, warning=True) for hint in hints)
    if found:
        raise PlanErrors((_problem(file, fault) for fault in found), told)
    return build(values, file, data, (base or file.parent).absolute()), told


def _problem(file: Path, fault: Fault, warning: bool = False) -> Problem:
    return Problem(file_name(file), fault.at.line, fault.at.column, written(fault.where), fault.message, warning)


def _bytes(path: Path) -> bytes:
    """The file, up to one byte more than a plan may have."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        message = "this is a directory; name the plan file in it"
    except FileNotFoundError:
        message = "there is no such file"
    except PermissionError:
        message = "you may not read this file"
    except (OSError, ValueError) as e:
        message = f"the file cannot be read: {e.strerror if isinstance(e, OSError) else e}"
    raise PlanErrors([_problem(path, Fault(Spot(), (), message))])


def _other_kind(tree: Mapping) -> Fault | None:
    """A plan of another kind: everything else that this schema would say of it is beside the point."""
    where: Where = ("kind",)
    node = look_up(tree, where)
    if getattr(node, "text", None) != "EtcdBackup":
        return None
    return Fault(position(tree, where), where, 'found "EtcdBackup", which comes later; allowed: EtcdRestore')

"""A plan file → :class:`runbook.plan.Plan`: YAML, schema, sense; every error at once, each with line and column.

``load`` for those who need the plan, ``validate`` for those who only ask; both read nothing but the plan file, make no
connection, and do not look whether the snapshot is there. ``load_backup`` is for plans of the other kind,
:class:`runbook.backup.Backup`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runbook.backup import Backup
from runbook.plan import Plan
from runbook.planfile import backups
from runbook.planfile.build import build
from runbook.planfile.durations import format_duration, parse_duration
from runbook.planfile.pins import pinned_differences
from runbook.planfile.problems import PlanErrors, Problem, Where, file_name, in_order, written
from runbook.planfile.sense import View, errors, warnings
from runbook.planfile.shape import BACKUP, KINDS, RESTORE, faults
from runbook.planfile.tree import MAX_BYTES, Fault, Mapping, Spot, Unreadable, look_up, parse, position

__all__ = [
    "PlanErrors",
    "Problem",
    "format_duration",
    "load",
    "load_backup",
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


def load_backup(path: Path) -> tuple[Backup, tuple[Problem, ...]]:
    """The backup plan in that file, with what is allowed and yet seldom meant. Raises PlanErrors, as ``load`` does."""
    data = _bytes(path)
    values, told = _checked(data, path, BACKUP)
    return backups.build(values, path, data, path.parent.absolute()), told


def validate(path: Path) -> tuple[Problem, ...]:
    """Errors and warnings of a plan file of either kind, in the file's order; good: none has ``warning`` False."""
    try:
        return _checked(_bytes(path), path, "")[1]
    except PlanErrors as e:
        return in_order((*e.problems, *e.warnings))


def read(data: bytes, file: Path, *, base: Path | None = None) -> tuple[Plan, tuple[Problem, ...]]:
    """The plan in those bytes, and its warnings; ``file`` names it in messages, and places relative paths.

    Raises:
        PlanErrors: as ``load``; it has the ``warnings`` too.
    """
    values, told = _checked(data, file, RESTORE)
    return build(values, file, data, (base or file.parent).absolute()), told


def _checked(data: bytes, file: Path, wanted: str) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """The values of a plan of the kind that is wanted, "" for any, and its warnings. Raises PlanErrors."""
    try:
        tree, broken = parse(data)
    except Unreadable as e:
        raise PlanErrors([_problem(file, e.fault)]) from None
    kind = getattr(look_up(tree, ("kind",)), "text", "")
    if wanted and kind in KINDS and kind != wanted:  # all else that this kind's schema would say is beside the point
        raise PlanErrors([_problem(file, f) for f in (*broken, _other_kind(tree, kind, wanted))])
    kind = kind if kind in KINDS else wanted or RESTORE
    values, shapeless = faults(tree, kind)
    found = broken + shapeless
    view = View(values, [f.where for f in found if f.where])
    judges = (backups.errors, backups.warnings) if kind == BACKUP else (errors, warnings)
    wrong, odd = ([Fault(position(tree, where), where, says) for where, says in judge(view)] for judge in judges)
    found += wrong
    told = in_order(_problem(file, hint, warning=True) for hint in odd)
    if found:
        raise PlanErrors((_problem(file, fault) for fault in found), told)
    return values, told


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


def _other_kind(tree: Mapping, kind: str, wanted: str) -> Fault:
    """A plan for other commands."""
    takes = {RESTORE: "runbook preview, run", BACKUP: "runbook snapshot save"}
    message = f'found "{kind}", which is for {takes[kind]}; allowed here: {wanted}'
    where: Where = ("kind",)
    return Fault(position(tree, where), where, message)

"""The page about the checks, from the checks themselves: ``python -m runbook.checkdocs docs/checks.md``.

A test keeps the page in step with the classes, so it cannot tell of a check that is not there.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from runbook.checks import Check, Severity, all_checks

HEAD = """\
# The checks

Generated from the classes in [`runbook/checks/`](../runbook/checks/) by `make docs`; a test keeps it in step.

All of them are read-only, ask all hosts at once, and stand in the order of the table of `runbook preview --check`.
*asks*: of the hosts; *here*: on the responder's machine; *then*: how the answers are judged. Each ends in one of these,
on each host or for the plan as a whole:

- ✓ all is well, with what was seen; `–` where it does not apply;
- `!` a warning: the restore goes on, and says so;
- `✗` it blocks: `run` ends with exit 3 and changes nothing; a host that another run holds ends it with 6.

Whatever it says, it says what it saw and what to do. A host that stops answering, and a check that fails itself, block.
"""
GROUPS = {
    "preflight": "Before the restore: `preview --check`, and the start of every `run`",
    "verify": "After it: the last step, asked again until its time is over",
}
SAYS = {Severity.BLOCKS: "may block", Severity.WARNS: "only warns", Severity.HELD: "ends the run with exit 6"}
PARAGRAPH = "\n\n"


def page() -> str:
    """The whole text, Markdown."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [_section(check) for check in all_checks(group)]
    return "\n".join(parts)


def _section(check: Check) -> str:
    kind = type(check)
    words = {"asks": "asks", "here": "look", "then": "judge"}
    told = {word: _own(kind, method) for word, method in words.items()}
    rest = inspect.getdoc(kind) or ""
    more = f" {' '.join(rest.split(PARAGRAPH, 1)[1].split())}" if PARAGRAPH in rest else ""
    lines = "".join(f"\n  *{word}:* {text}" for word, text in told.items() if text)
    return f"- **{check.title()}.** `{check.id()}`, {SAYS[check.severity]}.{more}{lines}"


def _own(kind: type[Check], method: str) -> str:
    """A method's own words; "" where it has none but the general ones."""
    text = inspect.getdoc(getattr(kind, method)) or ""
    return "" if text == inspect.getdoc(getattr(Check, method)) else " ".join(text.split())


def main() -> None:
    """Write it."""
    Path(sys.argv[1]).write_text(page())


if __name__ == "__main__":
    main()

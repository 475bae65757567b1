"""The sum of several sessions of pytest in one plain last line: N passed, N failed, N skipped.

``python -m tests.total DIRECTORY``: of all result files (``--junitxml``) there. Exits with 1 where a test failed, or
where none ran at all.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def counted(directory: Path) -> Counter[str]:
    """How many tests passed, failed, could not be run, were skipped."""
    found: Counter[str] = Counter()
    for path in directory.glob("*.xml"):
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):  # noqa: S314 - pytest's own file
            told = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
            found["failed"] += told["failures"]
            found["errors"] += told["errors"]
            found["skipped"] += told["skipped"]
            found["passed"] += told["tests"] - told["failures"] - told["errors"] - told["skipped"]
    return found


def line(found: Counter[str]) -> str:
    """One line; what could not be run has failed."""
    return f"{found['passed']} passed, {found['failed'] + found['errors']} failed, {found['skipped']} skipped"


def main() -> None:
    """Print it."""
    found = counted(Path(sys.argv[1]))
    print(line(found))
    sys.exit(bool(found["failed"] or found["errors"] or not found["passed"]))


if __name__ == "__main__":
    main()

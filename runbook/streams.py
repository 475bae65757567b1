"""A process's standard streams: held from the beginning, flushed at the end."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def hold() -> None:
    """Where one of them is closed, the next file to be opened would take its number, and be written to by mistake."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False, encoding="utf-8"))  # noqa: SIM115


def leave(said: object) -> NoReturn:
    """End at once with what :class:`SystemExit` said; 1 in place of 0 where the last words could not be written."""
    code = said if isinstance(said, int) else int(said is not None)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        code = code or 1
    finally:
        os._exit(code)

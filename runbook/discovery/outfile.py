"""The file that ``init -o`` writes: whether it can be written is told before any host is asked, and nothing is lost."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from runbook.errors import NOTE, UsageError

Again = Callable[[Path], str]
"""The same command, to be typed, that writes its plan to that file."""
NOTHING = "nothing was connected to, and nothing was written"
MEANS = "the hosts are only asked once it is sure that the plan has a place to be written to"


def may_write(out: Path | None, force: bool, again: Again) -> None:
    """Told before anything is asked. Raises UsageError."""
    if out is None:
        return
    place = out.absolute().parent
    if out.is_dir():
        next_ = again(out / "plan.yaml")
        raise UsageError(f"-o {out}: this is a directory; name a file in it", true=NOTHING, means=MEANS, next=(next_,))
    if not place.is_dir():
        what = f"{place} is no directory" if os.path.lexists(place) else f"there is no directory {place}"
        made = again(Path(out.name)) if os.path.lexists(place) else f"mkdir -p {shlex.quote(str(place))}"
        after = f"{NOTE}into the present directory" if os.path.lexists(place) else f"{NOTE}then the same command again"
        raise UsageError(f"-o {out}: {what}", true=NOTHING, means=MEANS, next=(f"{made}{after}",))
    if os.path.lexists(out) and not force:
        raise UsageError(
            f"-o {out}: it is there already, and is not written over",
            true=f"{NOTHING}; {out} is as it was",
            means="a plan that somebody wrote, or mended, is not lost to a second init",
            next=(f"{again(out)} --force{NOTE}writes over it", f"{again(_beside(out))}{NOTE}keeps both"),
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise _unwritable(out, f"nothing can be written into {place}", again, NOTHING, MEANS)


def write(out: Path, text: str, force: bool, again: Again) -> None:
    """Whole or not at all; a file that came meanwhile is not written over. Raises UsageError."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    named = False
    try:
        if not force:
            out.open("x").close()  # the name is ours now
            named = True
        part.write_text(text, encoding="utf-8")
        part.replace(out)
    except FileExistsError:
        raise UsageError(
            f"-o {out}: it came into being just now, and is not written over",
            true=f"no host is changed; {out} is somebody else's",
            means="the plan that was made is printed, and stands in no file",
            next=(f"{again(_beside(out))}{NOTE}asks the hosts again", f"{again(out)} --force{NOTE}writes over it"),
        ) from None
    except OSError as error:
        if named:
            out.unlink(missing_ok=True)
        means = "the plan that was made is printed, and stands in no file"
        why = f"it cannot be written: {error.strerror}"
        raise _unwritable(out, why, again, "no host is changed, and no file", means) from error
    finally:
        part.unlink(missing_ok=True)


def _unwritable(out: Path, why: str, again: Again, true: str, means: str) -> UsageError:
    place = shlex.quote(str(out.absolute().parent))
    next_ = (f"ls -ld {place}; df -h {place}", f"{again(Path('FILE'))}{NOTE}a FILE elsewhere, which you may write")
    return UsageError(f"-o {out}: {why}", true=true, means=means, next=next_)


def _beside(out: Path) -> Path:
    """A name like it that is free."""
    names = (out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(2, 1000))
    return next((name for name in names if not os.path.lexists(name)), Path("FILE"))

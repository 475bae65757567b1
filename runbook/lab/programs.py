"""Programs on PATH, and the cache directory for those that are not."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runbook.lab.errors import Missing

SBIN = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def cache_dir() -> Path:
    """The project's own cache directory."""
    if own := os.environ.get("RUNBOOK_CACHE_DIR"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runbook"


def on_path(name: str) -> Path | None:
    """The program on PATH, or where a system keeps its administration programs."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN]))
    return Path(found) if found else None


def says(argv: list[str]) -> str:
    """What a program prints on both streams; empty where it cannot be run."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One bootstrap at a time."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        fd = os.open(cache / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Missing(
            f"the cache directory {cache} cannot be written ({error.strerror}): set RUNBOOK_CACHE_DIR."
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

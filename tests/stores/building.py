"""The programs of the object stores that the tests start, built or unpacked once into the project's cache.

``python -m tests.stores.building`` (``make stores``) makes what can be made here, says what cannot and why, and exits
with 1 where something is missing. Nothing is installed. ``gosource/`` and ``npmsource/`` pin everything by checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runbook.lab.errors import Missing
from runbook.lab.programs import cache_dir, locked, on_path

HERE = Path(__file__).parent
GO = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server",
    "age": "filippo.io/age/cmd/age",
}
MOTO = "moto[s3,server]==5.1.*"
"""An S3 server in Python, for where there is no Go; in an environment of its own, for it is 340 MB."""
LONGEST = 1800
"""Seconds for one program; two minutes on two cores, where nothing of Go's own cache is there."""


def go_program(name: str) -> Path:
    """One of the programs that are built with Go. Raises Missing."""
    return _made("go-" + name, [HERE / "gosource/go.mod", HERE / "gosource/go.sum"], lambda to: _go(name, to)) / name


def azurite() -> list[str]:
    """The command that runs Azurite's blob server. Raises Missing."""
    node, npm = on_path("node"), on_path("npm")
    if not node or not npm:
        raise Missing("Azurite needs Node.js, and there is no node and npm on PATH (Debian: apt-get install npm)")
    source = HERE / "npmsource"
    tree = _made("azurite", [source / "package-lock.json"], lambda to: _npm(npm, source, to))
    return [str(node), str(tree / "node_modules/azurite/dist/src/blob/main.js")]


def moto() -> list[str]:
    """The command that runs moto's server. Raises Missing."""
    tree = _made("moto", [Path(__file__)], _moto)
    return [str(tree / "bin/python"), "-m", "moto.server"]


def _made(name: str, pins: list[Path], make: Callable[[Path], None]) -> Path:
    """The directory below the cache, made where it is not there yet, or was made of other sources."""
    cache = cache_dir() / "stores"
    home = cache / name
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()
    stamp = home / ".stamp.json"
    with locked(cache):
        if stamp.exists() and json.loads(stamp.read_text()) == {"pins": wanted}:
            return home
        print(f"stores: making {name} (once)", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)  # without its stamp it is half-made, or old
        home.mkdir(parents=True)
        make(home)
        stamp.write_text(json.dumps({"pins": wanted}))
    return home


def _go(name: str, to: Path) -> None:
    go = on_path("go")
    if go is None:
        raise Missing(
            f"{name} is built from its Go modules, and there is no go on PATH (Debian: apt-get install golang)"
        )
    flags = "-mod=readonly -trimpath -buildvcs=false"
    env = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": flags}
    with tempfile.TemporaryDirectory(prefix="runbook-stores-") as work:
        module = Path(work, "module")  # go may want to write beside go.mod
        shutil.copytree(HERE / "gosource", module)
        _run([str(go), "build", "-ldflags", "-s -w", "-o", str(to / name), GO[name]], module, env)


def _npm(npm: Path, source: Path, to: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, to)
    # No package's own scripts are run; what Azurite needs is in its packages.
    _run([str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"], to, dict(os.environ))


def _moto(to: Path) -> None:
    _run([sys.executable, "-m", "venv", str(to)], to, dict(os.environ))
    _run([str(to / "bin/pip"), "install", "-q", "--disable-pip-version-check", MOTO], to, dict(os.environ))


def _run(argv: list[str], cwd: Path, env: dict[str, str]) -> None:
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=LONGEST, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"`{' '.join(argv[:3])} …` did not end well: {error}") from None
    if done.returncode != 0:
        last = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise Missing(f"`{' '.join(argv[:3])} …` failed: {last}")


def s3_program() -> list[str]:
    """The S3 server: versitygw, or where there is no Go moto's. Raises Missing."""
    return [str(go_program("versitygw"))] if on_path("go") else moto()


def main() -> int:
    """Make everything, and say what is where and how long it took."""
    lacking = 0
    wanted: dict[str, Callable[[], object]] = {
        "S3": s3_program,
        "Azure": azurite,
        "GCS": lambda: go_program("fake-gcs-server"),
    }
    if "--all" in sys.argv:
        wanted["age, for the bench"] = lambda: go_program("age")
    for name, make in wanted.items():
        begun = time.monotonic()
        try:
            print(f"{name}: {make()} ({time.monotonic() - begun:.0f} s)")
        except Missing as missing:
            lacking += 1
            print(f"{name}: missing, and its tests are skipped: {missing}", file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds etcd 3.6 from its Go modules into the project's cache: `python -m runbook.lab.etcdbuild`, `make etcd-3.6`.

``etcdsource/`` holds the Go module that pins it and all that it is built from; its ``go.sum`` proves what is fetched.
No release binary is needed, nothing is installed, and a second call finds what the first one built.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from runbook.lab.errors import Missing
from runbook.lab.programs import cache_dir, locked, on_path

SERIES = "3.6"
SOURCE = Path(__file__).with_name("etcdsource")
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
    "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
}
LONGEST = 1800
"""Seconds for one program; a minute on two cores."""


def built(cache: Path) -> dict[str, Path] | None:
    """The programs, where this module's exact versions were built before."""
    home = cache / f"etcd-{SERIES}"
    try:
        same = json.loads((home / ".stamp.json").read_text()) == _stamp()
    except (OSError, ValueError):
        return None
    return {name: home / "usr/bin" / name for name in PACKAGES} if same else None


def compiler() -> Path:
    """What builds them. Raises Missing where it is not there."""
    go = on_path("go")
    if go is None:
        raise Missing(
            f"etcd {SERIES} is built from its Go modules, and there is no go on PATH: install Go "
            f"(go.mod says which: {_wants()}), or put the programs of etcd {SERIES} into a directory and name that."
        )
    return go


def ensure(cache: Path) -> dict[str, Path]:
    """Build them where they are not there yet. Raises Missing; the caller holds the cache's lock."""
    if found := built(cache):
        return found
    go = compiler()
    print(f"runbook lab: building etcd {SERIES} from its Go modules (a few minutes, once)", file=sys.stderr)
    home = cache / f"etcd-{SERIES}"
    with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as work:
        tree = Path(work, "tree")
        (tree / "usr/bin").mkdir(parents=True)
        module = Path(work, "module")  # go may want to write beside go.mod, where this program may not
        shutil.copytree(SOURCE, module)
        for name, package in PACKAGES.items():
            _build(go, module, package, tree / "usr/bin" / name)
        (tree / ".stamp.json").write_text(json.dumps(_stamp()))
        if home.exists():
            home.rename(Path(work, "old"))
        tree.rename(home)
    return {name: home / "usr/bin" / name for name in PACKAGES}


def _build(go: Path, module: Path, package: str, target: Path) -> None:
    env = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
    argv = [str(go), "build", "-ldflags", "-s -w", "-o", str(target), package]
    try:
        done = subprocess.run(argv, cwd=module, env=env, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"`go build {package}` did not end within {LONGEST // 60} minutes.") from None
    if done.returncode != 0:
        last = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise Missing(f"`go build {package}` failed: {last}")


def _stamp() -> dict[str, str]:
    texts = (SOURCE / "go.mod").read_bytes() + (SOURCE / "go.sum").read_bytes()
    return {"module": hashlib.sha256(texts).hexdigest()}


def _wants() -> str:
    lines = (SOURCE / "go.mod").read_text().splitlines()
    return next((line for line in lines if line.startswith("go ")), "go")


def main() -> int:
    """Build them and say where they are; exit 1 with one sentence where that is not possible."""
    cache = cache_dir()
    try:
        with locked(cache):
            programs = ensure(cache)
    except Missing as missing:
        print(f"runbook lab: {missing}", file=sys.stderr)
        return 1
    for name, path in programs.items():
        print(f"{name}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

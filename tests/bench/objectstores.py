"""Which library for object stores: obstore, or fsspec's family (s3fs, gcsfs, adlfs), measured on the tests' S3 server.

Run: `python -m tests.bench.objectstores [MIB] [ROUNDS]`; 512 and 3 where none is given. Each library is installed into
an environment of its own, below /var/tmp, which is removed at the end; this takes a minute. Both send and read the
same random bytes in pieces of a mebibyte, with parts of 8 MiB of which four are on their way at once, in processes of
their own, in turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.stores.servers import BUCKET, running

PACKAGES = {"obstore": ["obstore"], "fsspec": ["s3fs", "gcsfs", "adlfs"]}
IMPORTS = {"obstore": "import obstore.store", "fsspec": "import s3fs, gcsfs, adlfs"}
ONE = {"obstore": "import obstore.store", "fsspec": "import s3fs"}
_SAID = r"""
import re, time
def said(begun, count):
    peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) // 1024
    print(count / (time.monotonic() - begun), peak)
"""
_BEGIN = {
    "obstore": """
import os, sys, time, obstore
from obstore.store import S3Store
endpoint, bucket, name, count = *sys.argv[1:4], int(sys.argv[4])
store = S3Store(bucket, endpoint=endpoint, region="us-east-1", client_options={"allow_http": True})
""",
    "fsspec": """
import os, sys, time, s3fs
endpoint, bucket, name, count = *sys.argv[1:4], int(sys.argv[4])
store = s3fs.S3FileSystem(client_kwargs={"endpoint_url": endpoint, "region_name": "us-east-1"}, max_concurrency=4)
""",
}
UP = {
    "obstore": """
block, begun = os.urandom(1 << 20), time.monotonic()
obstore.put(store, name, (block for _ in range(count)), use_multipart=True, chunk_size=8 << 20, max_concurrency=4)
""",
    "fsspec": """
block, begun = os.urandom(1 << 20), time.monotonic()
with store.open(f"{bucket}/{name}", "wb", block_size=8 << 20) as file:
    for _ in range(count):
        file.write(block)
""",
}
DOWN = {
    "obstore": """
begun = time.monotonic()
assert sum(len(bytes(piece)) for piece in obstore.get(store, name).stream(min_chunk_size=1 << 20)) == count << 20
""",
    "fsspec": """
begun, had = time.monotonic(), 0
with store.open(f"{bucket}/{name}", "rb", block_size=8 << 20) as file:
    while piece := file.read(1 << 20):
        had += len(piece)
assert had == count << 20
""",
}


def environment(room: Path, library: str) -> tuple[Path, int, int]:
    """Its Python, the MB that were installed, and how many packages."""
    home = room / library
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    python = home / "bin/python"
    [packages] = (home / "lib").glob("*/site-packages")
    before = weight(packages)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES[library]]
    subprocess.run(pip, check=True)
    return python, (weight(packages) - before) >> 20, len(list(packages.glob("*.dist-info"))) - 2


def weight(tree: Path) -> int:
    """Bytes of all files, without what Python compiled."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc")


def seconds(python: Path, code: str) -> float:
    """The shortest of five runs."""

    def once() -> float:
        begun = time.monotonic()
        subprocess.run([str(python), "-c", code], check=True)
        return time.monotonic() - begun

    return min(once() for _ in range(5))


def moved(python: Path, library: str, code: str, argv: list[str]) -> tuple[float, int]:
    """MiB a second, and MB of memory at most."""
    text = _SAID + _BEGIN[library] + code + "said(begun, count)\n"
    done = subprocess.run([str(python), "-c", text, *argv], check=True, capture_output=True, text=True)
    rate, peak = done.stdout.split()
    return float(rate), int(peak)


def main() -> None:
    """Prints a table, in Markdown."""
    mib, rounds = (int(text) for text in ([*sys.argv[1:3], *["512", "3"][len(sys.argv) - 1 :]])[:2])
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="runbook-objectstores-") as name:
        room = Path(name)
        with running("s3", room) as server:
            os.environ.update(server.env)
            argv = [server.endpoint, BUCKET]
            made = {library: environment(room, library) for library in PACKAGES}
            rates: dict[tuple[str, str], list[tuple[float, int]]] = {}
            for number in range(rounds):
                for library, (python, *_) in made.items():
                    for what, code in (("up", UP[library]), ("down", DOWN[library])):
                        said = moved(python, library, code, [*argv, f"{library}-{number}", str(mib)])
                        rates.setdefault((library, what), []).append(said)
            for library, (python, size, count) in made.items():
                bare = seconds(python, "pass")
                row = [library, f"{count} packages, {size} MB"]
                row += [f"{seconds(python, text[library]) - bare:.2f} s" for text in (ONE, IMPORTS)]
                for what in ("up", "down"):
                    found = rates[library, what]
                    row.append(
                        f"{statistics.median(rate for rate, _ in found):.0f} MiB/s, {max(p for _, p in found)} MB"
                    )
                rows[library] = row
    heads = ["", "installed", "import for S3", "import for all three", f"{mib} MiB up, memory", "down, memory"]
    for cells in (heads, ["---"] * len(heads), *rows.values()):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

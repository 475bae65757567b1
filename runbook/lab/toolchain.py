"""Ensure the programs the lab needs, without touching the system: `python -m runbook.lab.toolchain`.

What is on PATH and new enough serves. What is missing is downloaded from the distribution's signed packages, with apt
and a state of our own, and unpacked below the project's cache directory. Nothing is installed, and apt's own
lists and caches on this machine stay as they are.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runbook.lab import etcdbuild
from runbook.lab.errors import Missing
from runbook.lab.programs import cache_dir, locked, on_path, says

CHOICE = "RUNBOOK_LAB_ETCD"
ETCD = ("etcd", "etcdctl", "etcdutl")
ETCD_PACKAGES = ("etcd-server", "etcd-client")
ETCD_SUITE = "trixie"  # Debian 13: the first with etcdutl and --bump-revision (3.5.16); its binaries are static
KUBECTL_PACKAGES = ("kubectl",)
# program → the Debian package it is in; these are wanted on the hosts, or by the lab itself
HOST_PROGRAMS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "scp": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "ip": "iproute2",
    "ss": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "flock": "util-linux",
    "openssl": "openssl",
}
FORMAT = 3  # of the cache; raise it when what is unpacked changes


@dataclass(frozen=True)
class Toolchain:
    """Where the programs are: `programs` by name, `layer` the tree of packages to lay over `/` on each host."""

    programs: dict[str, Path]
    layer: Path | None

    def etcd_version(self) -> str:
        """Such as 3.5.16; "" where the program does not say."""
        found = re.search(r"etcd Version: (\d+\.\d+\.\d+)", says([str(self.programs["etcd"]), "--version"]))
        return found[1] if found else ""

    def extra_env(self) -> dict[str, str]:
        """What to append to PATH, and where needed to LD_LIBRARY_PATH, so that what is not installed is found too."""
        folders = {str(path.parent) for name, path in self.programs.items() if shutil.which(name) is None}
        extra = {"PATH": os.pathsep.join(sorted(folders))}
        if self.layer is not None and str(self.programs["ssh"]).startswith(str(self.layer)):
            libraries = (self.layer / "usr/lib").glob("*-linux-gnu*")
            extra["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
        return extra


def is_good_etcd(programs: dict[str, Path]) -> bool:
    """Whether these run and can do what a restore needs: `--bump-revision` came in etcd 3.5.10."""
    if set(programs) != set(ETCD):
        return False
    restores = "--bump-revision" in says([str(programs["etcdutl"]), "snapshot", "restore", "--help"])
    version = says([str(programs["etcdctl"]), "version"])
    return restores and "etcdctl version" in version and "etcd Version" in says([str(programs["etcd"]), "--version"])


def is_good_kubectl(program: Path | None) -> bool:
    """Whether it runs."""
    return program is not None and "Client Version" in says([str(program), "version", "--client"])


def ensure(etcd: str = "") -> Toolchain:
    """Find or bring every program; raises `Missing` with one plain sentence.

    `etcd`: "3.6" for the one that is built, or a directory with the three programs; "" for what RUNBOOK_LAB_ETCD names
    likewise, and where that is not set what is on PATH or in the distribution's packages (3.5).
    """
    if sys.platform != "linux":
        raise Missing(f"the lab needs Linux, with its namespaces and overlay file system; this is {sys.platform}.")
    cache = cache_dir()
    wanted = etcd or os.environ.get(CHOICE, "")
    build = wanted == etcdbuild.SERIES
    with locked(cache):
        if build and not etcdbuild.built(cache):
            etcdbuild.compiler()
        programs = {} if build else _etcd(cache, wanted)
        kubectl = on_path("kubectl")
        programs["kubectl"] = kubectl if kubectl and is_good_kubectl(kubectl) else _ensure_kubectl(cache)
        layer = _ensure_layer(cache, {name for name in HOST_PROGRAMS if on_path(name) is None})
        if build:  # last: it takes minutes, and what is missing of the others is found in seconds
            programs |= etcdbuild.ensure(cache)
    for name in HOST_PROGRAMS:
        programs[name] = on_path(name) or _in_layer(layer, name) or Path(name)
    return Toolchain(programs, layer)


def _etcd(cache: Path, wanted: str) -> dict[str, Path]:
    if wanted:
        programs = {name: Path(wanted).expanduser().absolute() / name for name in ETCD}
        lacking = [name for name, path in programs.items() if not os.access(path, os.X_OK)]
        if lacking:
            known = f"{etcdbuild.SERIES}, or a directory with the programs {', '.join(ETCD)}"
            raise Missing(f"there is no {' and no '.join(lacking)} in {wanted}: the lab's etcd is {known}.")
        return programs
    programs = {name: found for name in ETCD if (found := on_path(name))}
    return programs if is_good_etcd(programs) else _ensure_etcd(cache)


def _ensure_etcd(cache: Path) -> dict[str, Path]:
    home = cache / "etcd"
    programs = {name: home / "usr/bin" / name for name in ETCD}
    if not _is_stamped(home, list(ETCD_PACKAGES)):
        _fetch(cache, home, list(ETCD_PACKAGES), newer=True, purpose="etcd 3.5.10 or newer, with etcdctl and etcdutl,")
    if not is_good_etcd(programs):
        raise Missing(
            f"the etcd programs in {home} do not run, or are too old: remove that directory and try again, "
            "or put etcd, etcdctl and etcdutl 3.5.10 or newer on PATH."
        )
    return programs


def _ensure_kubectl(cache: Path) -> Path:
    home = cache / "kubectl"
    if not _is_stamped(home, list(KUBECTL_PACKAGES)):
        _fetch(cache, home, list(KUBECTL_PACKAGES), newer=True, purpose="kubectl")
    if not is_good_kubectl(program := home / "usr/bin/kubectl"):
        raise Missing(
            f"the kubectl in {home} does not run: remove that directory and try again, or put kubectl on PATH."
        )
    return program


def _ensure_layer(cache: Path, missing: set[str]) -> Path | None:
    home = cache / "layer"
    if home.is_dir():  # what an earlier call unpacked is not on PATH, and still counts
        missing = missing | set(_stamp(home).get("programs", []))
    if not missing:
        return None
    wanted = sorted({HOST_PROGRAMS[name] for name in missing})
    if not _is_stamped(home, wanted):
        _fetch(cache, home, wanted, newer=False, purpose=" and ".join(sorted(missing)), programs=sorted(missing))
    for name in sorted(missing):
        if _in_layer(home, name) is None:
            raise Missing(f"{name} is in none of the packages {', '.join(wanted)}: install {HOST_PROGRAMS[name]}.")
    return home


def _in_layer(layer: Path | None, name: str) -> Path | None:
    for folder in ("usr/sbin", "usr/bin"):
        if layer is not None and (layer / folder / name).exists():
            return layer / folder / name
    return None


def _stamp(home: Path) -> dict[str, list[str]]:
    try:
        stamp = json.loads((home / ".stamp.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and stamp.get("format") == FORMAT else {}


def _is_stamped(home: Path, packages: list[str]) -> bool:
    return _stamp(home).get("packages") == packages


def _fetch(
    cache: Path, home: Path, packages: list[str], *, newer: bool, purpose: str, programs: list[str] | None = None
) -> None:
    """Download and unpack beside `home`, then rename: a half-done one is never seen."""
    for tool in ("apt-get", "apt-config", "dpkg-deb"):
        if on_path(tool) is None:
            raise Missing(
                f"{purpose} is not on PATH, and without {tool} (this is no Debian) it cannot be downloaded: "
                f"install {purpose} yourself."
            )
    print(f"runbook lab: downloading {', '.join(packages)} (signed packages, kept in {home})", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as work:
        tree = Path(work, "tree")
        tree.mkdir()
        debs = Apt(Path(work, "apt"), ETCD_SUITE if newer else None, purpose).download(packages, alone=newer)
        for deb in debs:
            _run(["dpkg-deb", "-x", str(deb), str(tree)], purpose)
        _merge_usr(tree)
        for folder in ("doc", "man", "locale", "lintian"):
            shutil.rmtree(tree / "usr/share" / folder, ignore_errors=True)
        stamp = {"format": FORMAT, "packages": packages, "files": [d.name for d in debs], "programs": programs or []}
        (tree / ".stamp.json").write_text(json.dumps(stamp))
        if home.exists():
            home.rename(Path(work, "old"))
        tree.rename(home)


def _merge_usr(tree: Path) -> None:
    """Move /bin, /lib … below /usr where this machine has links: laid over `/`, a directory would hide the link."""
    for folder in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if (tree / folder).is_dir() and Path("/", folder).is_symlink():
            shutil.copytree(tree / folder, tree / "usr" / folder, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(tree / folder)


def _run(argv: list[str], purpose: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, cwd=cwd, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        last = (
            " / ".join(line for line in done.stderr.strip().splitlines() if line.startswith("E:")) or done.stderr[-300:]
        )
        raise Missing(f"{purpose} is missing, and `{' '.join(argv[:3])} …` failed to bring it: {last.strip()}")
    return done.stdout


class Apt:
    """An apt with state, lists and caches of its own below `work`; it verifies signatures as the system's does."""

    def __init__(self, work: Path, suite: str | None, purpose: str) -> None:
        self.work, self.purpose = work, purpose
        for folder in ("state/lists/partial", "cache/archives/partial", "empty", "debs"):
            (work / folder).mkdir(parents=True)
        sources = self._sources_of_machine()
        if suite is not None:
            sources = [self._source_of_suite(sources, suite)]
        (work / "sources.list").write_text("\n".join(sources) + "\n")
        # What the machine already has need not be downloaded; but a package of another suite comes whatever it has.
        (work / "empty-status").touch()
        status = work / "empty-status" if suite else Path("/var/lib/dpkg/status")
        (work / "apt.conf").write_text(self._configuration(status))
        self.env = dict(os.environ, APT_CONFIG=str(work / "apt.conf"), LC_ALL="C", DEBIAN_FRONTEND="noninteractive")

    def download(self, packages: list[str], *, alone: bool) -> list[Path]:
        """The .deb files: of just these packages if `alone`, else also of what they need and this machine lacks."""
        _run(["apt-get", "update", "-q", "--error-on=any"], self.purpose, self.env)
        if alone:
            _run(["apt-get", "download", "-q", *packages], self.purpose, self.env, cwd=self.work / "debs")
            return sorted((self.work / "debs").glob("*.deb"))
        install = ["apt-get", "install", "-q", "-y", "--download-only", "--no-install-recommends", "--reinstall"]
        _run([*install, *packages], self.purpose, self.env)
        return sorted((self.work / "cache/archives").glob("*.deb"))

    def _sources_of_machine(self) -> list[str]:
        """One line for each suite of the machine's own release; other sources, such as vendors', are left out."""
        release = platform.freedesktop_os_release()
        codename = release.get("VERSION_CODENAME", "")
        form = "$(IDENTIFIER) $(REPO_URI) $(RELEASE) $(COMPONENT)"
        seen: dict[str, None] = {}
        for line in _run(["apt-get", "indextargets", "--format", form], self.purpose).splitlines():
            kind, uri, suite, component = line.split()
            if kind == "Packages" and suite.split("-")[0] in (codename, "stable"):
                seen[f"deb {_signed_by(suite)}{uri} {suite} {component}"] = None
        if not seen:
            raise Missing(
                f"{self.purpose} is missing, and this machine's apt names no source for its own release {codename}."
            )
        return list(seen)

    def _source_of_suite(self, sources: list[str], suite: str) -> str:
        """The same mirror, another suite: taken from the machine's own plain suite."""
        release = platform.freedesktop_os_release()
        if release.get("ID") == "debian":
            for line in sources:
                *_, uri, own, _component = line.split()
                if own in (release.get("VERSION_CODENAME"), "stable"):
                    return f"deb {_signed_by(suite)}{uri} {suite} main"
        raise Missing(
            f"{self.purpose} is not on PATH, and this machine's apt names no Debian mirror to take it from: "
            f"put {self.purpose.rstrip(',')} on PATH."
        )

    def _configuration(self, status: Path) -> str:
        """The machine's way to the network (proxies, date checks), and nothing else of its configuration."""
        dump = _run(["apt-config", "dump"], self.purpose).splitlines()
        network = ("Acquire::http::", "Acquire::https::", "Acquire::ftp::", "Acquire::Check-", "Acquire::Retries")
        kept = [line for line in dump if line.startswith(network)]
        own = {
            "Dir::State": self.work / "state",
            "Dir::State::status": status,
            "Dir::Cache": self.work / "cache",
            "Dir::Etc::SourceList": self.work / "sources.list",
            "Dir::Etc::SourceParts": self.work / "empty",
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::Parts": self.work / "empty",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": self.work / "empty",
            "Dir::Log": self.work / "log",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Languages": "none",
        }
        return "\n".join([*kept, *(f'{key} "{value}";' for key, value in own.items())]) + "\n"


def _signed_by(suite: str) -> str:
    """The archive's keys for a suite: those of that release alone where the machine keeps them apart."""
    rings = Path("/usr/share/keyrings")
    own = sorted(rings.glob(f"debian-archive-{suite.split('-')[0]}-*.gpg"))
    found = own or sorted(rings.glob("debian-archive-keyring.gpg")) or sorted(rings.glob("ubuntu-archive-keyring.gpg"))
    return f"[signed-by={','.join(map(str, found))}] " if found else ""


def main() -> int:
    """Ensure everything and say where it is; exit 1 with one sentence where that is not possible."""
    try:
        tools = ensure()
    except Missing as missing:
        print(f"runbook lab: {missing}", file=sys.stderr)
        return 1
    for name, path in sorted(tools.programs.items()):
        print(f"{name}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A lab as an object: bring up, take down, crash, boot, pull cables, run commands on hosts or as the operator."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from runbook.lab import kernel
from runbook.lab.errors import LabError, LabUsageError
from runbook.lab.layout import ROOT, Host, Layout, chosen_name, make_hosts
from runbook.lab.process import alive, kill_file, script

T = TypeVar("T")
OPERATOR = "operator"
HOST_ENV = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "USER=root",
]
WAL_DIR = "/var/lib/etcd-wal/wal"


class Lab:
    """One lab, by name; constructing it touches nothing."""

    def __init__(self, name: str | None = None) -> None:
        try:
            self.layout = Layout(chosen_name(name))
        except ValueError as error:
            raise LabUsageError(str(error)) from error
        self.name = self.layout.name

    # --- what it is ---------------------------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        name: str | None = None,
        *,
        nodes: int = 3,
        workers: int = 0,
        wal_dir: str = "",
        user: str = "ops",
        disk: str = "6g",
        wait: float = 60.0,
        etcd: str = "",
    ) -> Lab:
        """Build and boot a lab, and wait until it is healthy (at most `wait` seconds; 0: do not wait).

        `wal_dir` gives etcd a WAL directory of its own, whose parent is the volume; `disk` limits each host's disk
        (memory, taken as it fills); `etcd` is "3.6", or a directory with other programs. Raises LabUsageError where one
        of that name is up; LabError where it does not boot, and then nothing is left, or does not get healthy, and then
        it stays.
        """
        from runbook.lab.build import build

        lab = cls(name)
        build(lab, nodes=nodes, workers=workers, wal_dir=wal_dir, user=user, disk=disk, wait=wait, etcd=etcd)
        return lab

    @classmethod
    def of_known_hosts(cls, path: str | os.PathLike[str]) -> Lab | None:
        """The running lab whose known-hosts file this is; None for any other file."""
        real = Path(os.path.realpath(os.path.expanduser(path)))
        if real.name != "known_hosts" or real.parent.parent != ROOT:
            return None
        lab = cls(real.parent.name)
        return lab if lab.is_up else None

    @property
    def dir(self) -> Path:
        """Everything that the lab keeps on this machine."""
        return self.layout.dir

    @property
    def identity(self) -> Path:
        """The private key for ssh."""
        return self.layout.identity

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys, by name, alias and address."""
        return self.layout.known_hosts

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`."""
        return self.layout.ssh_config

    @property
    def kubeconfig(self) -> Path:
        """admin.conf of the first node, for kubectl in the operator's network."""
        return self.layout.pki / "admin.conf"

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for at `up`."""
        try:
            spec: dict[str, Any] = json.loads(self.layout.spec.read_text())
        except FileNotFoundError:
            raise LabUsageError(
                f"lab {self.name} is not up: `runbook lab --name {self.name} up` brings it up"
            ) from None
        return spec

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, workers last."""
        return make_hosts(self.spec["nodes"], self.spec["workers"])

    @property
    def nodes(self) -> tuple[Host, ...]:
        """The control-plane hosts."""
        return tuple(h for h in self.hosts if not h.worker)

    def host(self, name: str) -> Host:
        """A host by name, alias or address."""
        for host in self.hosts:
            if name in (host.name, host.alias, host.ip):
                return host
        raise LabUsageError(
            f"lab {self.name} has no host {name!r}; it has {', '.join(h.name for h in self.hosts)}, {OPERATOR}"
        )

    @property
    def is_up(self) -> bool:
        """Whether its holder lives."""
        return alive(self.layout.holder) is not None

    def holder(self) -> int:
        """The holder's pid; raises LabUsageError where the lab is not up."""
        pid = alive(self.layout.holder)
        if pid is None:
            raise LabUsageError(f"lab {self.name} is not up: `runbook lab --name {self.name} up` brings it up")
        return pid

    def host_pid(self, name: str) -> int | None:
        """The pid of the host's first process; None while the host is down."""
        return alive(self.layout.host_pid(self.host(name).name))

    # --- commands -----------------------------------------------------------------------------------------------

    def argv(self, host: str, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on a host, as root; or here, in the operator's network, as whoever calls."""
        if not argv:
            raise LabUsageError("no command was given: `runbook lab exec HOST -- CMD…`")
        if host == OPERATOR:
            names = str(self.dir / "hosts" / "names")
            script = 'mount --bind "$0" /etc/hosts && exec "$@"'
            return [
                "nsenter",
                f"--net=/proc/{self.holder()}/ns/net",
                "--",
                "unshare",
                "-m",
                "sh",
                "-c",
                script,
                names,
                *argv,
            ]
        self.holder()
        pid = self.host_pid(host)
        if pid is None:
            name = self.host(host).name
            raise LabUsageError(
                f"host {name} of lab {self.name} is down: `runbook lab --name {self.name} boot {name}` boots it"
            )
        enter = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "--", "/usr/bin/env", "-i", *HOST_ENV]
        return [*enter, f"TERM={os.environ.get('TERM', 'dumb')}", *argv]

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        input: bytes | str | None = None,
        timeout: float | None = 60.0,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host (or as "operator"), and give back what it said, as text.

        Raises subprocess.TimeoutExpired after the command was killed; with `check`, LabError where it failed.
        """
        data = input.encode() if isinstance(input, str) else input
        done = self.exec_bytes(host, argv, data, timeout)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            raise LabError(f"{host}: `{shlex.join(argv)}` exited with {done.returncode}: {(err or out).strip()[-500:]}")
        return subprocess.CompletedProcess(list(argv), done.returncode, out, err)

    def exec_bytes(
        self, host: str, argv: Sequence[str], input: bytes | None = None, timeout: float | None = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """As `exec`, with bytes."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        with self.popen(host, argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                # The whole group: nsenter waits for a child in the host, which would keep the pipes open.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                raise
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a command on a host, in a process group of its own; options as for subprocess.Popen."""
        env = None
        if host == OPERATOR:
            env = self.operator_env(options.pop("env", None))
        return subprocess.Popen(self.argv(host, argv), env=env, start_new_session=True, **options)

    def operator_env(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """An environment (this process's by default) in which the lab is the chosen one, and its tools are on PATH."""
        found = dict(os.environ if env is None else env)
        for name, value in self.spec.get("extra_env", {}).items():
            found[name] = os.pathsep.join(part for part in (found.get(name, ""), value) if part)
        return {**found, "RUNBOOK_LAB": self.name}

    def popen_operator(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a command on this machine, in the operator's network."""
        return self.popen(OPERATOR, argv, **options)

    def enter_operator(self) -> None:
        """Put the calling thread, and threads and processes it starts from now on, into the operator's network."""
        kernel.setns(self.holder(), net=kernel.CLONE_NEWNET)

    def in_operator(self, function: Callable[[], T]) -> T:
        """Call a function in a thread that is in the operator's network."""
        box: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self.enter_operator()
                box.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return box[0]

    # --- power and cables ---------------------------------------------------------------------------------------

    def crash(self, host: str) -> None:
        """Take the power from a host. Its disk stays; nobody hears a word from it, not even a closed connection."""
        name = self.host(host).name
        self.holder()
        self._net(f"link set {name} down", check=False)
        path = self.layout.host_pid(name)
        kill_file(path)
        self._net(f"link del {name}", check=False)
        path.unlink(missing_ok=True)

    def boot(self, host: str) -> None:
        """Give it power again; returns once its first process runs, not when etcd does."""
        name = self.host(host).name
        if self.host_pid(name) is not None:
            raise LabUsageError(f"host {name} of lab {self.name} runs already")
        self._net(f"link del {name}", check=False)  # of a host that ended without `crash`
        self.boot_all([self.host(name)])

    def boot_all(self, hosts: Sequence[Host]) -> None:
        """Boot several at once."""
        processes = [
            (host, script("boot", json.dumps(self._boot_spec(host)), stderr=subprocess.PIPE)) for host in hosts
        ]
        for host, process in processes:
            _, error = process.communicate()
            if process.returncode != 0:
                raise LabError(f"host {host.name} does not boot: {error.decode(errors='replace').strip()}")

    def _boot_spec(self, host: Host) -> dict[str, Any]:
        return {
            "holder": self.holder(),
            "name": host.name,
            "ip": host.ip,
            "plugged": not self.layout.unplugged(host.name).exists(),
            "disk": self.layout.disk(host.name),
            "base": self.layout.base,
            "binds": self.spec["binds"],
            "pid_file": str(self.layout.host_pid(host.name)),
            "init": ["/opt/runbook-lab/bin/init"],
            "ip_program": self.spec["ip_program"],
        }

    def unplug(self, host: str) -> None:
        """Pull its network cable; it stays out over a boot."""
        name = self.host(host).name
        self.layout.unplugged(name).touch()
        if self.host_pid(name) is not None:
            self._net(f"link set {name} down")

    def plug(self, host: str) -> None:
        """Put its network cable in again."""
        name = self.host(host).name
        self.layout.unplugged(name).unlink(missing_ok=True)
        if self.host_pid(name) is not None:
            self._net(f"link set {name} up")

    def _net(self, commands: str, *, check: bool = True) -> None:
        program = self.spec["ip_program"]
        enter = ["nsenter", f"--net=/proc/{self.holder()}/ns/net", program, "-batch", "-"]
        done = subprocess.run(enter, input=commands + "\n", text=True, capture_output=True, check=False)
        if check and done.returncode != 0:
            raise LabError(f"lab {self.name}: ip {commands}: {done.stderr.strip()}")

    # --- content and end ----------------------------------------------------------------------------------------

    def wait_healthy(self, timeout: float = 60.0) -> None:
        """Wait until every node's API server is ready and every node is Ready; raises LabError with what is not."""
        from runbook.lab.health import wait_healthy

        wait_healthy(self, timeout)

    def status(self) -> dict[str, Any]:
        """What is true of each host now; `up` is False where there is no such lab."""
        from runbook.lab.health import status

        return status(self)

    def fill(self, *, objects: int = 200, mb: int = 0) -> dict[str, int]:
        """Write Kubernetes-shaped objects, and ballast of random bytes until the database has about `mb` MiB."""
        from runbook.lab.fill import fill

        return fill(self, objects=objects, mb=mb)

    def snapshot(self, path: str | os.PathLike[str], host: str | None = None) -> Path:
        """Save a snapshot, through a member, to a file of mode 0600 on this machine."""
        from runbook.lab.fill import snapshot

        return snapshot(self, Path(path), host)

    def down(self) -> bool:
        """Take everything away; False where there was nothing. May be called at any time, and again."""
        with self.locked():
            there = self.dir.exists()
            self.remove()
        return there

    def remove(self) -> None:
        """As `down`, for who holds the lock already."""
        kill_file(self.layout.holder)
        if self.dir.exists():
            shutil.rmtree(self.dir)

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Alone with the lab of this name; the lock's file is gone afterwards where no lab is."""
        if os.geteuid() != 0:
            raise LabUsageError("the lab needs root, for its namespaces and mounts: run it as root, or with sudo")
        ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            fd = os.open(self.layout.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.layout.lock).st_ino == os.fstat(fd).st_ino:
                    break
            os.close(fd)  # whoever had it has removed it meanwhile
        try:
            yield fd
        finally:
            if not self.dir.exists():
                self.layout.lock.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other labs are there
                    ROOT.rmdir()
            os.close(fd)

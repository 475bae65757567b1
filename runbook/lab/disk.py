"""What is on the disks: the layer that all hosts of a lab share, and each host's own files."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

import runbook
from runbook.lab.layout import GUEST, Host
from runbook.lab.manifests import manifests
from runbook.lab.pki import ClusterPki, Files
from runbook.lab.toolchain import ETCD, Toolchain

USER_ID = 2000
ON_HOSTS = ("etcdctl", "etcdutl", "kubectl")  # a kubeadm host has no etcd of its own: that is in the container
STAND_INS = {
    "init": "init.main",
    "kubelet": "kubelet.main",
    "crictl": "crictl.main",
    "systemctl": "systemctl.main",
    "kube-apiserver": "apiserver.main",
    "kube-scheduler": "controllers.scheduler",
    "kube-controller-manager": "controllers.controller_manager",
}
GUEST_MODULES = (
    "kernel", "wire", "runtime", "init", "kubelet", "node", "kubeapi", "kubeobjects", "jsonhttp", "etcdkv", "apiserver",
    "controllers", "crictl", "systemctl",
)  # fmt: skip
# Hidden on every host: this machine's own things, which are no business of a host's, and what a host has afresh.
EMPTY = {
    "root": 0o700,
    "home": 0o755,
    "srv": 0o755,
    "mnt": 0o755,
    "media": 0o755,
    "etc/ssh": 0o755,
    "etc/kubernetes": 0o755,
    "etc/etcd": 0o755,
    "etc/ssl/private": 0o700,
    "etc/sudoers.d": 0o750,
    "boot": 0o755,
    "var/backups": 0o755,
    "var/lib": 0o755,
    "var/lib/etcd": 0o700,
    "var/lib/kubelet": 0o750,
    "var/log": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
# What a system has in `/`; whatever else this machine has there is hidden too.
TOP = frozenset(
    [
        "bin",
        "boot",
        "dev",
        "etc",
        "home",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "media",
        "mnt",
        "opt",
        "proc",
        "root",
        "run",
        "sbin",
        "srv",
        "sys",
        "tmp",
        "usr",
        "var",
    ]
)
SSHD_CONFIG = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/lab_authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""
PAM_SUDO = "auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\n"


def guest_python() -> tuple[str, list[tuple[str, str]]]:
    """The interpreter of the stand-ins, and what must be shown on the hosts for it (from, to).

    The system's own where it serves: it is on every host already, and every user there can reach it.
    """
    system = "/usr/bin/python3"
    check = [system, "-I", "-S", "-c", "import sys, ssl, json; sys.exit(sys.version_info < (3, 9))"]
    if os.path.exists(system) and subprocess.run(check, check=False, capture_output=True).returncode == 0:
        return system, []
    prefix = os.path.realpath(sys.base_prefix)
    real = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return f"{GUEST}/python/{os.path.relpath(real, prefix)}", [(prefix, f"{GUEST}/python")]


def write_base(base: Path, tools: Toolchain) -> list[tuple[str, str]]:
    """Fill the shared layer; returns what is to be bound read-only on each host (from, to)."""
    if tools.layer is not None:
        subprocess.run(["cp", "-a", f"{tools.layer}/.", str(base)], check=True)
    guest = base / GUEST.lstrip("/")
    python, binds = guest_python()
    for folder in ("bin", "lib/runbook/lab", "tools", "etc"):
        (guest / folder).mkdir(parents=True)
    if binds:
        (guest / "python").mkdir()
    _write_stand_ins(guest, python)
    for programs in (base / "usr/local/bin", base / "usr/bin"):
        programs.mkdir(parents=True, exist_ok=True)
    for name in (*ETCD, "kubectl"):
        _offer(name, tools.programs[name], base, guest, binds)
    own = Path(__file__).parent / "bin"
    shutil.copy2(own / "crictl", base / "usr/local/bin/crictl")
    os.chmod(base / "usr/local/bin/crictl", 0o755)  # noqa: S103 - a program
    # In both places: this machine may have a real one, which would find no systemd.
    for place in ("usr/local/bin/systemctl", "usr/bin/systemctl"):
        (base / place).symlink_to(f"{GUEST}/bin/systemctl")
    (base / ".stamp.json").unlink(missing_ok=True)
    hide_the_rest(base / "opt")
    return binds


def _offer(name: str, program: Path, base: Path, guest: Path, binds: list[tuple[str, str]]) -> None:
    """Make a program of this machine one of each host's, without a copy."""
    link = guest / "bin" / name
    if str(program).startswith(("/usr/bin/", "/bin/")):
        link.symlink_to(program)  # on every host too, below the overlay
        return
    (guest / "tools" / name).touch(0o755)
    binds.append((os.path.realpath(program), f"{GUEST}/tools/{name}"))
    link.symlink_to(f"../tools/{name}")
    if name in ON_HOSTS:
        (base / "usr/local/bin" / name).symlink_to(f"{GUEST}/bin/{name}")


def _write_stand_ins(guest: Path, python: str) -> None:
    library = guest / "lib"
    source = Path(runbook.__file__).parent / "lab"
    for package in ("runbook", "runbook/lab"):
        (library / package / "__init__.py").touch()
    for module in GUEST_MODULES:
        shutil.copyfile(source / f"{module}.py", library / "runbook/lab" / f"{module}.py")
    # The one library that is not Python's own: the kubelet has to read any YAML that a person may write.
    ours = Path(yaml.__file__).parent
    shutil.copytree(ours, library / "yaml", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    if python.startswith(GUEST):  # an interpreter that was moved does not find its own libraries
        wrapper = guest / "bin/python"
        library_path = f"{GUEST}/python/lib"
        wrapper.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={library_path} exec {python} "$@"\n')
        wrapper.chmod(0o755)
        python = f"{GUEST}/bin/python"
    for name, entry in STAND_INS.items():
        module, function = entry.split(".")
        code = (
            f'import sys\n\nsys.path.insert(0, "{GUEST}/lib")\nfrom runbook.lab.{module} import {function} as main\n\n'
        )
        path = guest / "bin" / name
        path.write_text(f"#!{python} -IS\n{code}sys.exit(main(sys.argv[1:]))\n")
        path.chmod(0o755)
    if python == "/usr/bin/python3":  # the layer is read-only on the hosts: what is compiled, is compiled now
        subprocess.run([python, "-IS", "-m", "compileall", "-q", "-j1", str(library)], check=True)


def hide_the_rest(folder: Path) -> None:
    """Make a directory of an overlay's layer hide what the layers below have at its place."""
    os.setxattr(folder, "trusted.overlay.opaque", b"y")


class HostDisk:
    """Writes one host's files into the upper directory of its overlay, before the host is booted first."""

    def __init__(self, disk: str, host: Host, everyone: Sequence[Host]) -> None:
        self.upper, self.host, self.everyone = Path(disk, "upper"), host, everyone
        for folder in ("upper", "work", "root"):
            Path(disk, folder).mkdir()
        for path, mode in EMPTY.items():
            self.folder(path, mode)
        for entry in sorted(os.listdir("/")):
            if entry not in TOP:
                self.hide(entry)
        for name in ("shadow-", "gshadow", "gshadow-", "passwd-", "group-", "subuid", "subgid"):
            if os.path.lexists(f"/etc/{name}"):
                self.hide(f"etc/{name}")

    def folder(self, path: str, mode: int) -> None:
        """A directory that hides whatever this machine has at its place."""
        target = self.upper / path
        target.mkdir(parents=True, exist_ok=True)
        os.chmod(target, mode)
        hide_the_rest(target)

    def hide(self, path: str) -> None:
        """Let the host not see what this machine has at this path: overlayfs' whiteout."""
        target = self.upper / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))

    def write(self, path: str, content: bytes | str, mode: int = 0o644, owner: int = 0) -> None:
        """One file, by its absolute path on the host."""
        target = self.upper / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        os.chmod(target, mode)
        os.chown(target, owner, owner)

    def system(self, user: str, host_key: tuple[bytes, bytes], authorized: bytes) -> None:
        """Names, users, sshd and sudo."""
        name, ip = self.host.name, self.host.ip
        self.write("/etc/hostname", f"{name}\n")
        self.write("/etc/machine-id", f"{secrets.token_hex(16)}\n")
        self.write("/etc/hosts", hosts_file(self.everyone))
        self.write("/etc/resolv.conf", "# no name server: the lab has no way out\n")
        self.users(user)
        self.write("/etc/ssh/sshd_config", f"{SSHD_CONFIG}ListenAddress {ip}\nListenAddress 127.0.0.1\n")
        self.write("/etc/ssh/ssh_host_ed25519_key", host_key[0], 0o600)
        self.write("/etc/ssh/ssh_host_ed25519_key.pub", host_key[1])
        self.write("/etc/ssh/lab_authorized_keys", authorized)
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        sudoers = (
            f'Defaults env_reset\nDefaults secure_path="{path}"\nroot ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n'
        )
        self.write("/etc/sudoers", sudoers, 0o440)
        self.write("/etc/sudoers.d/lab", f"{user} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
        self.write("/etc/pam.d/sudo", PAM_SUDO)

    def users(self, user: str) -> None:
        """This machine's system users, without its people and without any password, and the lab's own user."""
        passwd = [line for line in _lines("/etc/passwd") if _id_of(line) < 1000 or line.startswith("nobody:")]
        group = [line for line in _lines("/etc/group") if _id_of(line) < 1000 or line.startswith("nogroup:")]
        names = {line.split(":")[0] for line in passwd}
        if "sshd" not in names:
            passwd.append("sshd:x:199:65534::/run/sshd:/usr/sbin/nologin")
        passwd = [line for line in passwd if not line.startswith(f"{user}:")]
        passwd.append(f"{user}:x:{USER_ID}:{USER_ID}:lab user:/home/{user}:/bin/sh")
        group.append(f"{user}:x:{USER_ID}:")
        self.write("/etc/passwd", "\n".join(passwd) + "\n")
        self.write("/etc/group", "\n".join(group) + "\n")
        shadow = "".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in passwd)
        self.write("/etc/shadow", shadow, 0o640)
        self.folder(f"home/{user}", 0o755)
        os.chown(self.upper / "home" / user, USER_ID, USER_ID)

    def kubernetes(self, pki: ClusterPki, wal_dir: str, etcd: str) -> None:
        """What kubeadm leaves on a host, and the kubelet's own; `etcd` is its version."""
        control = [h for h in self.everyone if not h.worker]
        servers = [self.host] if not self.host.worker else control
        conf, pem = pki.kubelet(self.host, [f"https://{h.ip}:6443" for h in servers])
        files: Files = {"kubelet.conf": conf}
        self.folder("etc/kubernetes/manifests", 0o755)
        if self.host.worker:
            files["pki/ca.crt"] = pki.ca.crt
        else:
            files |= pki.control_plane(self.host)
            for name, text in manifests(self.host, control, wal_dir, etcd).items():
                self.write(f"/etc/kubernetes/manifests/{name}", text, 0o600)
        for path, content in files.items():
            self.write(f"/etc/kubernetes/{path}", content, 0o644 if path.endswith((".crt", ".pub")) else 0o600)
        self.write("/var/lib/kubelet/pki/kubelet-client-current.pem", pem, 0o600)

    def bootstrap(self) -> None:
        """Let all etcd members of the new lab start at once; see `runtime.bootstrap_args`."""
        members = ",".join(f"{h.name}=https://{h.ip}:2380" for h in self.everyone if not h.worker)
        args = f"--initial-cluster={members} --initial-cluster-state=new"
        self.write(f"{GUEST}/etc/bootstrap-etcd", args)


def hosts_file(everyone: Sequence[Host]) -> str:
    """/etc/hosts, on the hosts and for the operator."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", *(f"{h.ip} {h.name} {h.alias}" for h in everyone)]
    return "\n".join(lines) + "\n"


def known_hosts_file(keys: Mapping[Host, bytes]) -> bytes:
    """One line a host: all its names, and its key."""
    return b"".join(
        f"{h.name},{h.alias},{h.ip} ".encode() + b" ".join(key.split()[:2]) + b"\n" for h, key in keys.items()
    )


def _lines(path: str) -> list[str]:
    return [line for line in Path(path).read_text().splitlines() if line.count(":") >= 2]


def _id_of(line: str) -> int:
    try:
        return int(line.split(":")[2])
    except ValueError:
        return 1 << 30

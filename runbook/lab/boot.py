"""Boots one host of a lab. Run as a script: `boot.py SPEC`, SPEC being JSON (see `Lab._boot_spec`).

The host's first process gets its own mount, network, uts, ipc and pid namespaces, below those of the lab's holder; an
overlay of the shared layer and `/` with the host's own disk on top becomes its root, and everything else is let go
of.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from typing import Any

from runbook.lab import kernel
from runbook.lab.holder import write_pid_file

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def main(argv: list[str]) -> int:
    """Boot the host of SPEC (see `Lab._boot_spec`); return once its first process runs."""
    spec = json.loads(argv[0])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    kernel.setns(spec["holder"], pid=kernel.CLONE_NEWPID, ipc=kernel.CLONE_NEWIPC)
    between = os.fork()
    if between == 0:
        ours.close()
        os.setsid()
        kernel.setns(spec["holder"], mnt=kernel.CLONE_NEWNS)
        kernel.unshare(kernel.CLONE_NEWPID)
        if os.fork() == 0:
            become_host(spec, theirs)
        os._exit(0)
    theirs.close()
    os.waitpid(between, 0)
    pid = pid_of_peer(ours)
    write_pid_file(spec["pid_file"], pid)
    connect(spec, pid)
    ours.send(b"go")
    error = ours.recv(4096)  # an end of file is the successful exec
    if error:
        print(error.decode(errors="replace"), file=sys.stderr)
        return 1
    return 0


def pid_of_peer(channel: socket.socket) -> int:
    """The sender's pid, as seen from this pid namespace."""
    _, ancillary, _, _ = channel.recvmsg(16, socket.CMSG_SPACE(12))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(struct.unpack("iii", data[:12])[0])
    raise OSError("the host's first process did not say who it is")


def hardware_address(ip: str) -> str:
    """The host's network card: the same after each boot, or its neighbours would look for the old one for 30 s."""
    return ":".join(["02", "00", *(f"{part:02x}" for part in ipaddress.IPv4Address(ip).packed)])


def connect(spec: dict[str, Any], pid: int) -> None:
    """Lay the cable from the operator's bridge to the host, and give it its address."""
    name, program = spec["name"], spec["ip_program"]
    state = "up" if spec["plugged"] else "down"
    lab_side = (
        f"link add {name} type veth peer name eth0 address {hardware_address(spec['ip'])} netns /proc/{pid}/ns/net\n"
        f"link set {name} master br0 {state}\n"
    )
    host_side = f"link set lo up\naddr add {spec['ip']}/24 dev eth0\nlink set eth0 up\n"
    for target, commands in ((spec["holder"], lab_side), (pid, host_side)):
        enter = ["nsenter", f"--net=/proc/{target}/ns/net", program, "-batch", "-"]
        done = subprocess.run(enter, input=commands, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise OSError(f"no cable to {name}: {done.stderr.strip()}")


def become_host(spec: dict[str, Any], channel: socket.socket) -> None:
    """Never returns: becomes the host's first process."""
    try:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
        channel.send(b"me")
        channel.recv(2)
        kernel.set_hostname(spec["name"])
        build_root(spec)
        os.environ.clear()
        os.environ.update(
            PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LANG="C.UTF-8"
        )
        os.umask(0o022)
        log = os.open("/var/log/init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.set_inheritable(channel.fileno(), False)
        os.execv(spec["init"][0], spec["init"])  # noqa: S606 - no shell is meant
    except BaseException as error:
        channel.send(f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def build_root(spec: dict[str, Any]) -> None:
    """Mount the host's root with what a running system has in it, and make it the only thing there is."""
    disk = spec["disk"]
    root = os.path.join(disk, "root")
    kernel.make_private()
    layers = f"lowerdir={spec['base']}:/,upperdir={disk}/upper,workdir={disk}/work"
    # As on any real disk: redirect_dir lets a directory that came from a lower layer be renamed, and with xino a
    # directory has the same inode number after a boot.
    kernel.mount(f"disk-{spec['name']}", root, "overlay", 0, f"{layers},redirect_dir=on,index=off,metacopy=off,xino=on")
    for source, target in spec["binds"]:
        kernel.bind(source, root + target, read_only=True)
    for path, mode in (("run", "0755"), ("tmp", "1777"), ("dev", "0755")):
        kernel.mount("tmpfs", os.path.join(root, path), "tmpfs", kernel.MS_NOSUID, f"mode={mode}")
    make_devices(os.path.join(root, "dev"))
    kernel.mount("proc", os.path.join(root, "proc"), "proc", kernel.MS_NOSUID | kernel.MS_NODEV)
    kernel.mount("sysfs", os.path.join(root, "sys"), "sysfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY)
    kernel.pivot_root(root)


def make_devices(dev: str) -> None:
    """A fresh /dev, with pseudo-terminals of its own."""
    old = os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(os.path.join(dev, name), stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.umask(old)
    for name, to in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")):
        os.symlink(to, os.path.join(dev, name))
    os.symlink("/proc/self/fd/2", os.path.join(dev, "stderr"))
    os.symlink("pts/ptmx", os.path.join(dev, "ptmx"))
    for name in ("pts", "shm"):
        os.mkdir(os.path.join(dev, name))
    kernel.mount("devpts", os.path.join(dev, "pts"), "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    kernel.mount("tmpfs", os.path.join(dev, "shm"), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

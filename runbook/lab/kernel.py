"""The few Linux system calls that Python 3.11 lacks: namespaces, mounts, and processes named beyond doubt.

Standard library only, because this runs inside the lab's hosts too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Give the calling process new namespaces; a new pid namespace takes effect for its children."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(pid: int, /, **kinds: int) -> None:
    """Enter the named namespaces (``net=CLONE_NEWNET`` …) of process `pid`, in the order given."""
    files = [
        (os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), kind, flag) for kind, flag in kinds.items()
    ]
    try:
        for fd, kind, flag in files:
            _check(_libc.setns(fd, flag), f"enter the {kind} namespace of process {pid}")
    finally:
        for fd, _, _ in files:
            os.close(fd)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system; an empty `kind` for binds and changes of flags."""
    done = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(done, f"mount {source} on {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show `source` at `target` too."""
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def make_private() -> None:
    """Keep this mount namespace's mounts from spreading to any other."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def pivot_root(new_root: str) -> None:
    """Make `new_root`, a mount point, the root, and let go of the old one and everything mounted below it."""
    os.chdir(new_root)
    number = {"x86_64": 155, "aarch64": 41, "riscv64": 41}[os.uname().machine]
    _check(_libc.syscall(ctypes.c_long(number), b".", b"."), f"pivot_root {new_root}")
    _check(_libc.umount2(b".", MNT_DETACH), "let go of the old root")
    os.chdir("/")


def set_hostname(name: str) -> None:
    """sethostname(2), in this uts namespace."""
    _check(_libc.sethostname(name.encode(), len(name.encode())), f"set the host name {name}")


def set_process_name(name: str) -> None:
    """What `ps` and /proc/PID/comm show; at most 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


class Watch:
    """An inotify watch on one directory; `fd` becomes readable when a file in it changes."""

    def __init__(self, path: str) -> None:
        self.fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
        mask = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
        try:
            _check(_libc.inotify_add_watch(self.fd, path.encode(), mask), f"watch {path}")
        except OSError:
            os.close(self.fd)
            raise

    def drain(self) -> bool:
        """Read what has happened; say whether the watched directory itself is gone."""
        gone = False
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return gone
            at = 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from("iIII", data, at)
                gone = gone or bool(mask & 0x8000)  # IN_IGNORED
                at += 16 + length

    def close(self) -> None:
        """Stop watching."""
        os.close(self.fd)


def started_at(pid: int) -> str | None:
    """When process `pid` was started, in clock ticks since boot; None where it is gone or only waits to be reaped.

    A process id alone may by now mean another process; id and start time together do not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def kill_exactly(pid: int, start: str, number: int = signal.SIGKILL) -> bool:
    """Send a signal to the process that had `pid` and `start`; False where it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if started_at(pid) != start:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True

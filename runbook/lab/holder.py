"""The holder of a lab: first process of its pid namespace, keeper of its disks and of the operator's network.

Run as a script: `holder.py DIR LOCKFD SIZE HOST…`. It becomes three things in turn: a process that makes the
namespaces and writes the pid file, its child that is the holder, and nothing else. When the holder is killed, every
process of the lab is killed with it by the kernel, and with the last of them go all mounts and networks.
"""

from __future__ import annotations

import os
import signal
import sys

from runbook.lab import kernel


def write_pid_file(path: str, pid: int) -> None:
    """Pid and start time, in one rename."""
    beside = f"{path}.new"
    with open(beside, "w") as file:
        file.write(f"{pid} {kernel.started_at(pid)}\n")
    os.rename(beside, path)


def main(argv: list[str]) -> int:
    """Make the namespaces; return once the holder is known by its pid file, and ready."""
    directory, lock, size, *hosts = argv
    os.setsid()
    kernel.unshare(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
    go_read, go_write = os.pipe()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        os.close(ready_read)
        os.close(int(lock))
        # An end of file instead of the word: no pid file was written, and nobody could ever find this process.
        if os.read(go_read, 1) == b"g":
            hold(directory, size, hosts, ready_write)
        os._exit(1)
    write_pid_file(os.path.join(directory, "holder.pid"), child)
    os.close(ready_write)
    os.write(go_write, b"g")
    return 0 if os.read(ready_read, 1) == b"r" else 1


def hold(directory: str, size: str, hosts: list[str], ready: int) -> None:
    """Mount the disks, then wait, reaping, until killed."""
    kernel.set_process_name("lab-holder")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    kernel.make_private()
    for path in (os.path.join(directory, "base"), *(os.path.join(directory, "disks", h) for h in hosts)):
        os.makedirs(path, exist_ok=True)
        kernel.mount("runbook-lab", path, "tmpfs", 0, f"mode=0755,size={size}")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir("/")
    os.write(ready, b"r")
    os.closerange(3, 64)
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One hop: a socket, the host's key proven, our login. Every phase has its deadline, and every failure its words."""

from __future__ import annotations

import getpass
import logging
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook.hosts.address import Address
from runbook.hosts.keys import KnownKeys, fingerprint, is_private_key, known_keys
from runbook.tables import duration

if TYPE_CHECKING:
    import paramiko

    Sock = socket.socket | paramiko.Channel

USER_TIMEOUT_MS = 5000
"""How long sent data may stay unacknowledged before the kernel ends the connection."""
GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


class Again(Enum):
    """When another attempt to connect may end otherwise."""

    AT_ONCE = "the server was only too busy"
    LATER = "the host or the network may come back"
    NEVER = "the host key or the login was refused"


class Unreachable(Exception):
    """No connection, why, and what to check."""

    def __init__(self, message: str, again: Again = Again.LATER) -> None:
        super().__init__(message)
        self.again = again


def quiet_paramiko() -> None:
    """Keep paramiko's own log, tracebacks of its threads included, off the responder's terminal."""
    logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


def ssh_config(address: Address) -> tuple[Any, dict[str, Any]]:
    """Fabric's configuration, and what ``~/.ssh/config`` says of the host."""
    import fabric

    try:
        # lazy: a fabric.yaml on this machine may not change how hosts are reached
        config = fabric.Config(lazy=True)
        config.merge()
        config.load_ssh_config()
        return config, config.base_ssh_config.lookup(address.host)
    except Exception as error:
        raise Unreachable(f"{address.label}: ~/.ssh/config cannot be followed: {error}", Again.NEVER) from error


def jumps(address: Address) -> list[str]:
    """The jump hosts on the way, nearest first: the plan's, else those of ``~/.ssh/config``."""
    words = address.jump
    if words is None:
        words = ssh_config(address)[1].get("proxyjump", "")
    return [] if words in ("", "none") else [word.strip() for word in words.split(",")]


@dataclass(frozen=True)
class Straight:
    """A host that is reached without anything between: all that a login needs, ``~/.ssh/config`` consulted."""

    host: str
    port: int
    user: str
    alias: str
    known: KnownKeys
    keys: tuple[str, ...]


def straight(address: Address) -> Straight | None:
    """What :func:`open_hop` would use; None where a jump host or a ``ProxyCommand`` stands between."""
    if jumps(address):
        return None
    connection, known = _prepared(address, None)
    if connection.proxied:
        return None
    alias = connection.ssh_config.get("hostkeyalias", "")
    keys = tuple(_key_files(connection, address))
    return Straight(connection.host, connection.port, connection.user, alias, known, keys)


def open_hop(address: Address, through: Any, until: float, opened: Callable[[socket.socket], None]) -> Any:
    """One attempt at one hop: the connection, authenticated. Every socket is announced to ``opened``."""
    connection, known = _prepared(address, through)
    if through is None:
        own = _proxy(connection.ssh_config["proxycommand"]) if connection.proxied else _tcp(connection, address, until)
        opened(own)
        try:
            _log_in(connection, address, own, known, until)
        except BaseException:
            own.close()
            raise
    else:
        _log_in(connection, address, _forward(through, connection, address, until), known, until)
    return connection


def _prepared(address: Address, through: Any) -> tuple[Any, KnownKeys]:
    """A connection that knows where to go but has not begun, and what known_hosts says of the host."""
    import fabric

    config, _ = ssh_config(address)
    connection = fabric.Connection(
        address.host,
        user=address.user,
        port=address.port,
        config=config,
        gateway="",
        forward_agent=False,
        connect_kwargs={},
    )
    connection.user = connection.user or getpass.getuser()
    proxy = "" if through or address.jump is not None else connection.ssh_config.get("proxycommand", "")
    connection.proxied = proxy not in ("", "none")
    alias = connection.ssh_config.get("hostkeyalias")
    try:
        known = known_keys(Path(address.known_hosts_file), alias or connection.host, 22 if alias else connection.port)
    except OSError as error:
        raise Unreachable(
            f"{address.label}: cannot read the known hosts in {address.known_hosts_file}: {error.strerror}; "
            f"{_trust(connection, address)}",
            Again.NEVER,
        ) from error
    return connection, known


def _key_files(connection: Any, address: Address) -> list[str]:
    """The private keys to log in with, the plan's first."""
    if address.identity_file and not Path(address.identity_file).expanduser().is_file():
        raise Unreachable(f"{address.label}: the identity file {address.identity_file} does not exist", Again.NEVER)
    keys = [address.identity_file, *connection.ssh_config.get("identityfile", ())]
    return [str(p) for k in keys if k and (p := Path(k).expanduser()).is_file()]


def connection_errors() -> tuple[type[Exception], ...]:
    """What paramiko raises when a connection ends under its hands."""
    import paramiko

    return paramiko.SSHException, EOFError, OSError


def said(error: Exception) -> str:
    """The words of an error; paramiko's EOFError has none."""
    return str(error) or "the connection closed"


def _left(until: float) -> float:
    return max(0.1, until - time.monotonic())


def _tcp(connection: Any, address: Address, until: float) -> socket.socket:
    """A TCP connection that does not wait to send, and that notices within seconds when nobody is there any more."""
    try:
        sock = socket.create_connection((connection.host, connection.port), timeout=_left(until))
    except socket.gaierror as error:
        raise Unreachable(
            f"{address.label}: the name is not known ({error.strerror}); check {address.named_by}, and the name "
            f"service or /etc/hosts here",
        ) from error
    except TimeoutError as error:
        raise Unreachable(
            f"{address.label}: no answer within {duration(address.connect_timeout)}; check that the host is up and "
            f"that port {connection.port} is reachable from here",
        ) from error
    except OSError as error:
        raise Unreachable(
            f"{address.label}: {error.strerror or error}; check that the host is up and that its sshd listens on "
            f"port {connection.port}",
            # not refused: it has just come back, and ends what it still knows of the last connection
            Again.AT_ONCE if isinstance(error, ConnectionResetError) else Again.LATER,
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": USER_TIMEOUT_MS}
    for name, value in options.items():
        if hasattr(socket, name):  # Linux has them all, others some
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _proxy(command: str) -> socket.socket:
    """A ``ProxyCommand`` behind a real socket: paramiko's own wrapper never sees its end, and spins instead."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S602 - ssh_config(5): executed by the user's shell
            "exec " + command,
            shell=True,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    # it ends when our side of the socket does; somebody must take its exit code
    threading.Thread(target=process.wait, name="ssh-proxy", daemon=True).start()
    return ours


def _forward(through: Any, connection: Any, address: Address, until: float) -> paramiko.Channel:

    try:
        channel: paramiko.Channel = through.transport.open_channel(
            "direct-tcpip", (connection.host, connection.port), ("", 0), timeout=_left(until)
        )
    except connection_errors() as error:
        raise Unreachable(
            f"{address.label}: the jump host {through.host} cannot reach it: {said(error)}; check that it may "
            f"forward (AllowTcpForwarding), and the host itself from there",
        ) from error
    return channel


def _transport_factory(known: KnownKeys) -> Callable[..., paramiko.Transport]:
    """Transports that ask for the key types which known_hosts can judge, and prefer the fastest cipher."""
    import paramiko

    def make(sock: Any, disabled_algorithms: Any = None) -> paramiko.Transport:
        transport = paramiko.Transport(sock, disabled_algorithms=disabled_algorithms)
        options = transport.get_security_options()
        options.ciphers = [*GCM, *(c for c in options.ciphers if c not in GCM)]
        wanted = [name for name in options.key_types if name in known.algorithms]
        if wanted:
            options.key_types = wanted
        return transport

    return make


def _log_in(connection: Any, address: Address, sock: Sock, known: KnownKeys, until: float) -> None:
    """Prove the host's key, then our own. Raises :class:`Unreachable`."""
    import paramiko

    class Strict(paramiko.MissingHostKeyPolicy):
        def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
            if not known.accepts(key.asbytes()):
                raise Unreachable(_bad_key(connection, address, known, key), Again.NEVER)

    keys = _key_files(connection, address)
    connection.connect_timeout = _left(until)
    connection.connect_kwargs = {
        "sock": sock,
        "key_filename": keys,
        "look_for_keys": address.identity_file is None,
        "banner_timeout": _left(until),
        "auth_timeout": _left(until),
        "channel_timeout": address.connect_timeout,
        "transport_factory": _transport_factory(known),
    }
    # our client knows no keys of its own, so that every key is put to the policy, on each connection
    connection.client.set_missing_host_key_policy(Strict())
    try:
        connection.open()
    except Unreachable:
        connection.client.close()
        raise
    except Exception as error:
        # beside its own errors paramiko lets through what a strange key file makes cryptography or base64 say
        transport = connection.client.get_transport()
        refused = transport is not None and transport.is_active() and transport.initial_kex_done
        connection.client.close()
        raise _failure(connection, address, known, error, refused=refused) from error
    finally:
        # the agent's part is over; paramiko keeps its socket for the client's life, and nobody closes our clients
        if agent := getattr(connection.client, "_agent", None):
            agent.close()


def _failure(connection: Any, address: Address, known: KnownKeys, error: Exception, *, refused: bool) -> Unreachable:
    """Say what went wrong, and whether it is worth trying again."""
    import paramiko

    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) and "host key" in str(error):
        return Unreachable(
            f"{address.label}: the host has no key of the types that {known.file} holds for {known.name} "
            f"({', '.join(kind for kind, _ in known.keys)}). It was set up anew, or another machine answers in its "
            f"place. {_trust(connection, address)}",
            Again.NEVER,
        )
    if refused and "timeout" not in str(error).lower():
        if address.identity_file and not _is_key(address.identity_file):
            said_of_it = "is no private key, and no login was tried with it"
            return Unreachable(f"{address.label}: {address.identity_file} {said_of_it}", Again.NEVER)
        what = f"the key {address.identity_file}" if address.identity_file else "the agent's keys and those in ~/.ssh"
        why = "needs a passphrase, and no agent holds it" if "encrypted" in str(error) else str(error).rstrip(".")
        return Unreachable(
            f"{address.label}: the login as {connection.user} was refused with {what}: {why}; "
            f"check with: {_by_hand(connection, address)}",
            Again.NEVER,
        )
    words = said(error).rstrip(".")
    return Unreachable(
        f"{address.label}: no login within {duration(address.connect_timeout)}: {words}; check sshd there "
        f"(MaxStartups, its load, its log)",
        Again.AT_ONCE,
    )


def _is_key(file: str) -> bool:
    try:
        return is_private_key(Path(file).expanduser())
    except OSError:
        return True  # it could be read just now: whatever is wrong with it, this is not known


def _by_hand(connection: Any, address: Address) -> str:
    """The same login, by the system's own ``ssh``."""
    options = {
        "-p": str(connection.port) if connection.port != 22 else "",
        "-i": str(address.identity_file or ""),
        "-J": address.jump or "",
    }
    given = [word for flag, value in options.items() if value for word in (flag, value)]
    return shlex.join(["ssh", *given, f"{connection.user}@{connection.host}", "true"])


def _trust(connection: Any, address: Address, first: str = "") -> str:
    """What to type to come to trust a host key; ``first`` before it is added."""
    return (
        f"Compare before you trust it: ssh-keyscan -p {connection.port} {connection.host} | ssh-keygen -lf - here, "
        f"and on the host's console: for k in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $k; done. If they agree: "
        f"{first}ssh-keyscan -p {connection.port} {connection.host} >> {address.known_hosts_file}"
    )


def _bad_key(connection: Any, address: Address, known: KnownKeys, key: paramiko.PKey) -> str:
    seen = f"{key.get_name()} {fingerprint(key.asbytes())}"
    if key.asbytes() in known.revoked:
        return (
            f"{address.label}: the host key {seen} is marked @revoked for {known.name} in {known.file}: do not connect."
        )
    if not known.keys:
        return (
            f"{address.label}: the host key is not known: {known.file} has no entry for {known.name}; "
            f"seen: {seen}. {_trust(connection, address)}"
        )
    held = ", ".join(f"{kind} {fingerprint(blob)}" for kind, blob in known.keys)
    trust = _trust(connection, address, f"ssh-keygen -R '{known.name}' -f {known.file} && ")
    return (
        f"{address.label}: THE HOST KEY HAS CHANGED. {known.file} holds for {known.name}: {held}; seen: {seen}. The "
        f"host was set up anew, or another machine answers in its place. Do not go on before you know which. {trust}"
    )

"""HTTP/1.1 over TLS with JSON bodies, client and server, just enough for the lab's stand-ins and light to import."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
LIMIT = 64 << 20


class _Reader:
    """Buffered reading from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.file = sock.makefile("rb")

    def head(self) -> tuple[str, dict[str, str]]:
        """The first line and the headers (names in lower case); an end of file gives ("", {})."""
        first = self.file.readline(65536).decode("latin-1").strip()
        headers = {}
        while line := self.file.readline(65536).decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return first, headers

    def body(self, headers: dict[str, str]) -> bytes:
        """The message's body, by length or in chunks."""
        if headers.get("transfer-encoding", "").lower() != "chunked":
            length = int(headers.get("content-length") or 0)
            if length > LIMIT:
                raise OSError("message too long")
            data = self.file.read(length)
            if len(data) < length:
                raise OSError("connection closed in the middle of a message")
            return data
        parts = []
        while size := int(self.file.readline(100).split(b";")[0], 16):
            parts.append(self.file.read(size))
            self.file.readline(10)
        self.file.readline(10)
        return b"".join(parts)


class Client:
    """One kept-alive connection to one server; not for several threads at once."""

    def __init__(self, url: str, context: ssl.SSLContext, timeout: float = 5.0) -> None:
        split = urlsplit(url)
        self.host, self.port = split.hostname or "", split.port or 443
        self.context, self.timeout = context, timeout
        self.sock: ssl.SSLSocket | None = None
        self.reader: _Reader | None = None

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Json]:
        """Send and receive JSON; raises OSError where the server does not answer."""
        fresh = self.sock is None
        try:
            return self._once(method, path, body)
        except OSError:
            self.close()
            if fresh:
                raise
            return self._once(method, path, body)  # the server may have closed a connection that was kept

    def _once(self, method: str, path: str, body: Any) -> tuple[int, Json]:
        if self.sock is None or self.reader is None:
            plain = socket.create_connection((self.host, self.port), self.timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.sock = self.context.wrap_socket(plain, server_hostname=self.host)
            except OSError:
                plain.close()
                raise
            self.reader = _Reader(self.sock)
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAccept: application/json\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self.sock.sendall(head.encode() + data)
        first, headers = self.reader.head()
        if not first:
            raise ConnectionResetError("the server closed the connection")
        answer = self.reader.body(headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        status = int(first.split()[1])
        try:
            return status, json.loads(answer) if answer else {}
        except ValueError:
            return status, {"text": answer.decode(errors="replace")}

    def close(self) -> None:
        """Drop the connection."""
        if self.reader is not None:
            self.reader.file.close()
        if self.sock is not None:
            self.sock.close()
        self.sock = self.reader = None


class Request:
    """What a handler gets: `user` is the client certificate's common name, None without one."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes, user: str | None) -> None:
        self.method, self.headers, self.body, self.user = method, headers, body, user
        self.path, _, self.query = target.partition("?")


Handler = Callable[[Request], tuple[int, str, bytes]]  # status, content type, body


def serve(address: str, port: int, context: ssl.SSLContext, handler: Handler) -> None:
    """Serve for ever, one thread a connection."""
    listener = socket.create_server((address, port), backlog=128)
    while True:
        plain, _ = listener.accept()
        threading.Thread(target=_converse, args=(plain, context, handler), daemon=True).start()


def _converse(plain: socket.socket, context: ssl.SSLContext, handler: Handler) -> None:
    try:
        plain.settimeout(60)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_side=True) as sock:
            reader = _Reader(sock)
            user = _common_name(sock)
            while True:
                first, headers = reader.head()
                if not first:
                    return
                method, target, _ = first.split(" ", 2)
                status, kind, body = handler(Request(method, target, headers, reader.body(headers), user))
                head = f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}\r\nContent-Type: {kind}\r\n"
                sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    except (OSError, ValueError):
        return  # the client is gone, or speaks something else
    finally:
        plain.close()


def _common_name(sock: ssl.SSLSocket) -> str | None:
    certificate = sock.getpeercert() or {}
    for group in certificate.get("subject", ()):
        for pair in group:
            if pair[0] == "commonName":
                return str(pair[1])
    return None


def client_context(ca_file: str | None, cert: str, key: str, ca_data: str | None = None) -> ssl.SSLContext:
    """Trusts one CA, shows one client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=ca_file, cadata=ca_data)
    context.load_cert_chain(cert, key)
    return context

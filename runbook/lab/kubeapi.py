"""The stand-ins' way to an API server: a kubeconfig, and one connection that finds a server that answers."""

from __future__ import annotations

import base64
import os
import re
import tempfile
import time
from typing import Any

from runbook.lab.jsonhttp import Client, Json, client_context


class Api:
    """Requests to the API server of a kubeconfig; where it names several, to the first that answers."""

    def __init__(self, kubeconfig: str, timeout: float = 5.0) -> None:
        with open(kubeconfig) as file:
            text = file.read()
        servers = re.findall(r"^\s*server: (\S+)$", text, re.M)
        ca = _field(text, "certificate-authority-data")
        cert, key = _field(text, "client-certificate-data"), _field(text, "client-key-data")
        if cert and key:
            # ssl takes a chain from files only
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
                pem.write(cert + key)
                pem.flush()
                context = client_context(None, pem.name, pem.name, ca)
        else:
            files = re.findall(r"^\s*client-(?:certificate|key): (\S+)$", text, re.M)
            context = client_context(None, files[0], files[1], ca)
        self.clients = [Client(server, context, timeout) for server in servers]

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Json]:
        """As `Client.request`."""
        last: OSError = ConnectionError("the kubeconfig names no server")
        for client in list(self.clients):
            try:
                return client.request(method, path, body)
            except OSError as error:
                last = error
                self.clients.append(self.clients.pop(0))
        raise last

    def put(self, path: str, body: Json) -> bool:
        """Create or replace an object, whatever its version; False where the server refuses."""
        status, _ = self.request("PUT", path, body)
        return status < 300


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^\s*{name}: (\S+)$", text, re.M)
    return base64.b64decode(found[1]).decode() if found else None


def rfc3339(at: float | None = None, *, micro: bool = False) -> str:
    """A time as Kubernetes writes it; now, where none is given."""
    at = time.time() if at is None else at
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at % 1 * 1e6):06d}Z" if micro else f"{whole}Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch; 0 for what is no time."""
    found = re.fullmatch(r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(\.\d+)?Z", text or "")
    if not found:
        return 0.0
    import calendar

    return calendar.timegm(tuple(int(part) for part in found.groups()[:6])) + float(found[7] or 0)


def hostname() -> str:
    """This host's name, which is its node's."""
    return os.uname().nodename

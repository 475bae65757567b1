"""What the host's first process, the kubelet, `crictl` and `systemctl` have in common: files, a socket, words."""

from __future__ import annotations

import json
from typing import Any

SOCKET = "/run/runbook-lab/init.sock"
STATE = "/run/runbook-lab/containers"  # the containers, as JSON files
BOOTING = 5.0  # seconds in which a host that has just been given power begins to listen
RUNNING, EXITED = "CONTAINER_RUNNING", "CONTAINER_EXITED"
READY, NOTREADY = "SANDBOX_READY", "SANDBOX_NOTREADY"
Json = dict[str, Any]


def ask(request: Json) -> Json:
    """The other side: send one request to this host's first process and wait for the answer."""
    import socket  # not above: `crictl ps` is polled, and does without
    import time

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        limit = time.monotonic() + BOOTING
        while True:
            try:
                client.connect(SOCKET)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() >= limit:
                    raise
                time.sleep(0.05)
        client.sendall(json.dumps(request).encode() + b"\n")
        data = b""
        while chunk := client.recv(1 << 20):
            data += chunk
    answer: Json = json.loads(data) if data else {"error": "the host's first process did not answer"}
    return answer

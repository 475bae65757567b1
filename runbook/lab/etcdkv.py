"""etcd's key-value API through its JSON gateway: keys and values in base64, numbers as strings."""

from __future__ import annotations

import base64
from typing import Any

from runbook.lab.jsonhttp import Client, Json


class EtcdError(OSError):
    """etcd answered, and refused."""


def b64(data: bytes) -> str:
    """As the gateway wants bytes."""
    return base64.b64encode(data).decode()


def end_of(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Etcd:
    """Range, put, delete and compare-and-put on one member. Every method raises OSError where it does not answer."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def close(self) -> None:
        """Drop the connection."""
        self.client.close()

    def call(self, path: str, body: Json) -> Json:
        """One request."""
        status, answer = self.client.request("POST", path, body)
        if status != 200:
            raise EtcdError(f"etcd: {answer.get('message') or answer.get('error') or status}")
        return answer

    def range(
        self, key: bytes, *, prefix: bool = False, limit: int = 0, keys_only: bool = False
    ) -> tuple[list[Any], int]:
        """The key-value pairs (each with key, value, mod_revision), and the store's revision."""
        body: Json = {"key": b64(key), "limit": limit, "keys_only": keys_only}
        if prefix:
            body["range_end"] = b64(end_of(key))
        answer = self.call("/v3/kv/range", body)
        pairs = [
            (base64.b64decode(kv["key"]), base64.b64decode(kv.get("value", "")), int(kv["mod_revision"]))
            for kv in answer.get("kvs", [])
        ]
        return pairs, int(answer["header"]["revision"])

    def put(self, key: bytes, value: bytes) -> int:
        """Write; the new revision."""
        return int(self.call("/v3/kv/put", {"key": b64(key), "value": b64(value)})["header"]["revision"])

    def put_if(self, key: bytes, value: bytes, mod_revision: int) -> int | None:
        """Write if the key was last changed at this revision (0: does not exist); None where it was not."""
        body: Json = {
            "compare": [{"key": b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod_revision)}],
            "success": [{"request_put": {"key": b64(key), "value": b64(value)}}],
        }
        answer = self.call("/v3/kv/txn", body)
        return int(answer["header"]["revision"]) if answer.get("succeeded") else None

    def delete(self, key: bytes) -> int:
        """Remove; how many keys there were."""
        return int(self.call("/v3/kv/deleterange", {"key": b64(key)}).get("deleted", 0))

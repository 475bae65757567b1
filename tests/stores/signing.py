"""Requests to a store that no library of ours makes: a bucket, an object of a strange name, what is unfinished."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote


class Refused(Exception):
    """The server did not do it."""


def asked(port: int, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Raises Refused, with what it said."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        link.request(method, path + (f"?{query}" if query else ""), body, dict(headers))
        answer = link.getresponse()
        said = answer.read()
    finally:
        link.close()
    if answer.status >= 300:
        raise Refused(f"{method} {path}: {answer.status} {said[:300]!r}")
    return said


def s3(port: int, keys: tuple[str, str], method: str, path: str, query: str = "", body: bytes = b"") -> bytes:
    """Signed as AWS has it (version 4); ``path`` as it is, ``query`` sorted and encoded."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path, scope = quote(path), f"{now[:8]}/us-east-1/s3/aws4_request"
    headers = {"host": f"127.0.0.1:{port}", "x-amz-content-sha256": hashlib.sha256(body).hexdigest(), "x-amz-date": now}
    named = ";".join(sorted(headers))
    lines = [method, path, query, *(f"{key}:{headers[key]}" for key in sorted(headers)), "", named]
    request = "\n".join([*lines, headers["x-amz-content-sha256"]])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = b"AWS4" + keys[1].encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    proof = hmac.new(key, text.encode(), "sha256").hexdigest()
    told = f"AWS4-HMAC-SHA256 Credential={keys[0]}/{scope}, SignedHeaders={named}, Signature={proof}"
    return asked(port, method, path, query, headers | {"Authorization": told}, body)


def azure(
    port: int, account: tuple[str, str], method: str, path: str, query: Mapping[str, str], body: bytes = b""
) -> bytes:
    """Signed with the account's shared key; ``path`` is below the account."""
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    own = {"x-ms-blob-type": "BlockBlob", "x-ms-date": date, "x-ms-version": "2023-11-03"}
    path = f"/{account[0]}{quote(path)}"
    size = str(len(body)) if body else ""
    lines = [method, "", "", size, *[""] * 8, *(f"{key}:{own[key]}" for key in sorted(own))]
    resource = f"/{account[0]}{path}" + "".join(f"\n{key}:{query[key]}" for key in sorted(query))
    key = base64.b64decode(account[1])
    proof = base64.b64encode(hmac.digest(key, ("\n".join(lines) + "\n" + resource).encode(), "sha256")).decode()
    headers = {**own, "Authorization": f"SharedKey {account[0]}:{proof}", "Content-Length": str(len(body))}
    return asked(port, method, path, "&".join(f"{k}={v}" for k, v in query.items()), headers, body)


def azure_token(account: tuple[str, str], container: str, allowed: str) -> str:
    """A shared access signature of a container: ``allowed`` as Azure writes it, for instance ``rl``."""
    until, version = "2040-01-01T00:00:00Z", "2020-12-06"
    lines = [allowed, "", until, f"/blob/{account[0]}/{container}", "", "", "", version, "c", *[""] * 7]
    proof = hmac.digest(base64.b64decode(account[1]), "\n".join(lines).encode(), "sha256")
    signature = quote(base64.b64encode(proof).decode(), safe="")
    return f"sv={version}&sr=c&sp={allowed}&se={until}&sig={signature}"

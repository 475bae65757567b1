"""A stand-in for the kube-apiserver, started with its manifest's own flags. It is not the real one.

It needs etcd as the real one does (its own, over TLS, through etcd's JSON gateway), writes to it all the time (its
own lease), and serves health, discovery and plain get, list, create, update and delete of the resources in
`kubeobjects`, from etcd's own content below /registry. Values are JSON where real ones are mostly protobuf. It knows
no watches, no patches and no authorisation beyond "has a certificate of the cluster"; an update of what does not
exist creates it.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import sys
import threading
import time
from typing import Any

from runbook.lab import kernel
from runbook.lab import kubeobjects as objects
from runbook.lab.etcdkv import Etcd, b64
from runbook.lab.jsonhttp import Client, Request, client_context, serve
from runbook.lab.kubeapi import rfc3339

START_LIMIT = 20.0  # seconds in which etcd must answer; the real one gives up then
LEASE_EVERY, LEASE_TTL = 5.0, 15
NO_CERTIFICATE_NEEDED = ("/healthz", "/livez", "/readyz", "/version")
Json = dict[str, Any]
Answer = tuple[int, str, bytes]


class Refusal(Exception):
    """An answer other than 200: code and Status object."""

    def __init__(self, code: int, body: Json) -> None:
        super().__init__(code)
        self.code, self.body = code, body


class ApiServer:
    """Answers requests from etcd."""

    def __init__(self, flags: dict[str, str]) -> None:
        self.flags = flags
        self.local = threading.local()
        self.context = client_context(flags["etcd-cafile"], flags["etcd-certfile"], flags["etcd-keyfile"])

    @property
    def etcd(self) -> Etcd:
        """This thread's connection to etcd."""
        if not hasattr(self.local, "etcd"):
            self.local.etcd = Etcd(Client(self.flags["etcd-servers"].split(",")[0], self.context, timeout=5.0))
        etcd: Etcd = self.local.etcd
        return etcd

    def etcd_answers(self) -> bool:
        """The real one's own probe: a linearizable read of a key called health."""
        try:
            self.etcd.range(b"/registry/health", limit=1)
        except OSError:
            return False
        return True

    def handle(self, request: Request) -> Answer:
        """One request."""
        if request.path.split("/")[1] in ("healthz", "livez", "readyz"):
            return self.health(request)
        try:
            code, body = self.route(request)
        except Refusal as refusal:
            code, body = refusal.code, refusal.body
        except OSError as error:
            code, body = 500, objects.status_object(500, "InternalError", f"etcdserver: {error}")
        return code, "application/json", json.dumps(body).encode() + b"\n"

    def health(self, request: Request) -> Answer:
        """/livez, /readyz and /healthz, with ?verbose."""
        which = request.path.split("/")[1]
        good = self.etcd_answers()
        mark = "[+]etcd ok" if good else "[-]etcd failed: reason withheld"
        lines = ["[+]ping ok", "[+]log ok", mark]
        if which == "readyz":
            lines += [
                "[+]etcd-readiness ok" if good else "[-]etcd-readiness failed: reason withheld",
                "[+]informer-sync ok",
            ]
            lines += ["[+]shutdown ok"]
        lines += ["[+]poststarthook/rbac/bootstrap-roles ok", f"{which} check {'passed' if good else 'failed'}"]
        verbose = "verbose" in request.query or not good
        text = "\n".join(lines) + "\n" if verbose else "ok"
        return (200 if good else 500), "text/plain; charset=utf-8", text.encode()

    def route(self, request: Request) -> tuple[int, Json]:
        """Find out what is meant."""
        if request.user is None and request.path not in NO_CERTIFICATE_NEEDED:
            message = f'forbidden: User "system:anonymous" cannot {request.method.lower()} path "{request.path}"'
            raise Refusal(403, objects.status_object(403, "Forbidden", message))
        if request.path == "/version":
            return 200, {"major": "1", "minor": "30", "gitVersion": "v1.30.14+runbook-lab", "platform": "linux/amd64"}
        if (found := objects.discovery(request.path)) is not None:
            return 200, found
        target = objects.parse_path(request.path)
        if target is None:
            raise Refusal(404, objects.not_found(None))
        as_table = "as=Table" in request.headers.get("accept", "")
        if request.method == "GET":
            if "watch=1" in request.query or "watch=true" in request.query:
                raise Refusal(
                    405, objects.status_object(405, "MethodNotAllowed", "the lab's API server knows no watches")
                )
            return 200, self.get(target, as_table) if target.name else self.list(target, as_table)
        if request.method == "DELETE" and target.name:
            return 200, self.delete(target)
        if request.method in ("PUT", "POST"):
            return self.write(target, request)
        raise Refusal(
            405, objects.status_object(405, "MethodNotAllowed", f"the lab's API server knows no {request.method}")
        )

    def decode(self, key: bytes, value: bytes, revision: int) -> Json:
        """An object as the API shows it; Refusal where it cannot be read."""
        try:
            body: Json = json.loads(value)
            body["metadata"]["resourceVersion"] = str(revision)
        except (ValueError, KeyError, TypeError) as error:
            name = key.decode(errors="replace")
            message = f"Internal error occurred: unable to transform key {name!r}: no JSON object"
            raise Refusal(500, objects.status_object(500, "InternalError", message)) from error
        return body

    def get(self, target: objects.Target, as_table: bool) -> Json:
        """One object."""
        key = target.resource.key(target.namespace, target.name)
        pairs, revision = self.etcd.range(key)
        if not pairs:
            raise Refusal(404, objects.not_found(target))
        item = self.decode(*pairs[0])
        return objects.table(target.resource, [item], revision) if as_table else item

    def list(self, target: objects.Target, as_table: bool) -> Json:
        """All objects, or all of one namespace."""
        resource = target.resource
        pairs, revision = self.etcd.range(resource.key(target.namespace, ""), prefix=True)
        items = [self.decode(*pair) for pair in pairs]
        if as_table:
            return objects.table(resource, items, revision)
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return {**head, "metadata": {"resourceVersion": str(revision)}, "items": items}

    def delete(self, target: objects.Target) -> Json:
        """Remove one object."""
        if not self.etcd.delete(target.resource.key(target.namespace, target.name)):
            raise Refusal(404, objects.not_found(target))
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def write(self, target: objects.Target, request: Request) -> tuple[int, Json]:
        """Create or replace, under the version the object names, if it names one."""
        try:
            body: Json = json.loads(request.body)
            meta = body.setdefault("metadata", {})
            name = target.name or meta["name"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(400, objects.status_object(400, "BadRequest", f"not an object: {error}")) from error
        resource = target.resource
        key = resource.key(target.namespace, name)
        pairs, _ = self.etcd.range(key)
        old = self.decode(*pairs[0]) if pairs else None
        if request.method == "POST" and old:
            message = f'{resource.plural} "{name}" already exists'
            raise Refusal(409, objects.status_object(409, "AlreadyExists", message))
        expected = meta.pop("resourceVersion", None)
        known = old["metadata"] if old else {}
        known.pop("resourceVersion", None)
        if target.subresource == "status" and old:
            body = {**old, "status": body.get("status", {})}
            meta = body["metadata"] = {**known, "labels": {**meta.get("labels", {}), **known.get("labels", {})}}
        meta.update(
            name=name, uid=known.get("uid") or _uid(), creationTimestamp=known.get("creationTimestamp") or rfc3339()
        )
        if resource.namespaced:
            meta["namespace"] = target.namespace
        body.update(apiVersion=resource.api_version, kind=resource.kind)
        at = int(expected) if expected else (pairs[0][2] if pairs else 0)
        revision = self.etcd.put_if(key, json.dumps(body).encode(), at)
        if revision is None:
            message = f'Operation cannot be fulfilled on {resource.plural} "{name}": the object has been modified'
            raise Refusal(409, objects.status_object(409, "Conflict", message))
        meta["resourceVersion"] = str(revision)
        return (200 if old else 201), body

    def keep_lease(self) -> None:
        """Write the master lease again and again, as every real API server does; for ever."""
        address = self.flags["advertise-address"]
        value = {"kind": "Endpoints", "apiVersion": "v1", "subsets": [{"addresses": [{"ip": address}]}]}
        while True:
            try:
                lease = self.etcd.call("/v3/lease/grant", {"TTL": LEASE_TTL})["ID"]
                key = f"/registry/masterleases/{address}".encode()
                self.etcd.call(
                    "/v3/kv/put", {"key": b64(key), "value": b64(json.dumps(value).encode()), "lease": lease}
                )
            except OSError as error:
                print(f"master lease: {error}", flush=True)
            time.sleep(LEASE_EVERY)

    def wait_for_etcd(self) -> bool:
        """The real one does not listen before its storage answers."""
        limit = time.monotonic() + START_LIMIT
        while not self.etcd_answers():
            if time.monotonic() > limit:
                return False
            time.sleep(0.2)
        return True


def _uid() -> str:
    h = secrets.token_hex(16)
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def server_context(flags: dict[str, str]) -> ssl.SSLContext:
    """The server's certificate; a client may show one of the cluster's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(flags["tls-cert-file"], flags["tls-private-key-file"])
    context.load_verify_locations(flags["client-ca-file"])
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def parse_flags(argv: list[str]) -> dict[str, str]:
    """`--name=value` words."""
    return dict(word.removeprefix("--").split("=", 1) for word in argv if word.startswith("--") and "=" in word)


def give_up(error: str) -> int:
    """Exit code and last line as the real one's: klog's, on standard error."""
    stamp = f"{time.strftime('%m%d %H:%M:%S')}.000000 {os.getpid():7}"
    print(f'E{stamp} run.go:74] "command failed" err={json.dumps(error)}', file=sys.stderr, flush=True)
    return 1


def main(argv: list[str]) -> int:
    """Serve until killed; exit 1 where it has no certificate, or etcd does not answer in time."""
    kernel.set_process_name("kube-apiserver")
    server = ApiServer(parse_flags(argv))
    try:
        context = server_context(server.flags)
    except OSError as error:
        return give_up(f"open {server.flags['tls-cert-file']}: {(error.strerror or str(error)).lower()}")
    if not server.wait_for_etcd():
        return give_up("error while dialing etcd: context deadline exceeded")
    threading.Thread(target=server.keep_lease, daemon=True).start()
    print(f"pid {os.getpid()} serving on port {server.flags['secure-port']}", flush=True)
    serve("0.0.0.0", int(server.flags["secure-port"]), context, server.handle)  # noqa: S104 - as the real one
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

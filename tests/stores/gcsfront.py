"""What fake-gcs-server lacks of Google's XML interface, in front of it: uploads, whole and in parts.

``python -m tests.stores.gcsfront PORT UPSTREAM-PORT DIRECTORY``. Rust's object_store sends objects by the XML interface
alone, and fake-gcs-server takes them by the JSON interface alone. So an upload is translated here, with its condition
(``x-goog-if-generation-match``); parts wait in the directory until they are put together. All else is handed through.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, quote, unquote, urlsplit

UPSTREAM = 0
PARTS = Path()
_PASSED = ("range", "if-match", "if-none-match")


_ONE = threading.Lock()


@contextlib.contextmanager
def _upstream_link() -> Iterator[http.client.HTTPConnection]:
    """One request at a time: fake-gcs-server was once seen to answer nothing more, with several under way."""
    with _ONE, contextlib.closing(http.client.HTTPConnection("127.0.0.1", UPSTREAM, timeout=60)) as link:
        yield link


class Front(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        """A whole object, or a part."""
        bucket, name, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploadId" not in query:
            return self._stored(bucket, name, body, len(body))
        part = PARTS / query["uploadId"] / query["partNumber"]
        if not part.parent.is_dir():
            return self._wrong(404, "NoSuchUpload")
        part.write_bytes(body)
        return self._say(200, b"", {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})

    def do_POST(self) -> None:
        """Begin an upload in parts, or end it."""
        bucket, name, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in query:
            if self._upstream("GET", f"/storage/v1/b/{bucket}")[0] != 200:
                return self._wrong(404, "NoSuchBucket")
            upload = secrets.token_hex(8)
            (PARTS / upload).mkdir(parents=True)
            (PARTS / upload / "name").write_text(f"{bucket}/{name}")
            said = f"<Bucket>{bucket}</Bucket><Key>{name}</Key><UploadId>{upload}</UploadId>"
            return self._say(200, f"<InitiateMultipartUploadResult>{said}</InitiateMultipartUploadResult>".encode())
        return self._together(bucket, name, query["uploadId"], body.decode())

    def do_DELETE(self) -> None:
        """Give an upload up, or remove an object."""
        _, _, query = self._asked()
        if "uploadId" not in query:
            return self._handed_through()
        shutil.rmtree(PARTS / query["uploadId"], ignore_errors=True)
        return self._say(204, b"")

    def do_GET(self) -> None:
        """The uploads that are not finished; else what fake-gcs-server says."""
        bucket, _, query = self._asked()
        if "uploads" in query:
            keys = [path.read_text().partition("/")[2] for path in PARTS.glob("*/name")]
            said = "".join(f"<Upload><Key>{key}</Key></Upload>" for key in keys)
            return self._say(200, f"<ListMultipartUploadsResult>{said}</ListMultipartUploadsResult>".encode())
        if bucket and self._upstream("GET", f"/storage/v1/b/{bucket}")[0] != 200:
            return self._wrong(404, "NoSuchBucket")  # fake-gcs-server would not say that it is the bucket
        return self._handed_through()

    def do_HEAD(self) -> None:
        self._handed_through()

    def _asked(self) -> tuple[str, str, dict[str, str]]:
        url = urlsplit(self.path)
        bucket, _, name = url.path.lstrip("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        return bucket, unquote(name), query

    def _together(self, bucket: str, name: str, upload: str, told: str) -> None:
        home = PARTS / upload
        if not home.is_dir():
            self._wrong(404, "NoSuchUpload")
            return
        with (home / "whole").open("w+b") as whole:
            for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", told):
                with (home / number).open("rb") as part:
                    shutil.copyfileobj(part, whole)
            size = whole.tell()
            whole.seek(0)
            self._stored(bucket, name, whole, size, "CompleteMultipartUploadResult")
        shutil.rmtree(home)

    def _stored(self, bucket: str, name: str, body: bytes | IO[bytes], size: int, answer: str = "") -> None:
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
        if generation := self.headers.get("x-goog-if-generation-match"):
            path += f"&ifGenerationMatch={generation}"
        status, said = self._upstream("POST", path, body, size)
        if status != 200:
            return self._wrong(status, {404: "NoSuchBucket", 412: "PreconditionFailed"}.get(status, "InternalError"))
        told = json.loads(said)
        headers = {"ETag": self._tag(bucket, name), "x-goog-generation": str(told["generation"])}
        return self._say(
            200, f"<{answer}><ETag>{headers['ETag']}</ETag></{answer}>".encode() if answer else b"", headers
        )

    def _tag(self, bucket: str, name: str) -> str:
        """As it will be told of the object from now on."""
        with _upstream_link() as link:
            link.request("HEAD", f"/{bucket}/{quote(name, safe='')}")
            return link.getresponse().headers.get("ETag", "")

    def _upstream(self, method: str, path: str, body: bytes | IO[bytes] = b"", size: int = 0) -> tuple[int, bytes]:
        with _upstream_link() as link:
            link.request(method, path, body or None, {"Content-Length": str(size)})
            answer = link.getresponse()
            return answer.status, answer.read()

    def _handed_through(self) -> None:
        """All of the answer is taken first, for a client may be slow, and others wait."""
        with tempfile.TemporaryFile() as body:
            with _upstream_link() as link:
                passed = {k: v for k, v in self.headers.items() if k.lower() in _PASSED}
                link.request(self.command, self.path, headers=passed)
                answer = link.getresponse()
                shutil.copyfileobj(answer, body, 1 << 20)
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in ("transfer-encoding", "connection", "date", "server", "content-length"):
                    self.send_header(key, value)
            bodiless = self.command == "HEAD" or answer.status in (204, 304)
            self.send_header(
                "Content-Length", answer.headers.get("Content-Length", "0") if bodiless else str(body.tell())
            )
            self.end_headers()
            body.seek(0)
            shutil.copyfileobj(body, self.wfile, 1 << 16)

    def _wrong(self, status: int, code: str) -> None:
        self._say(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what it does."""


def main() -> None:
    """Serve until it is ended."""
    global UPSTREAM, PARTS
    port, UPSTREAM, PARTS = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    ThreadingHTTPServer(("127.0.0.1", port), Front).serve_forever()


if __name__ == "__main__":
    main()

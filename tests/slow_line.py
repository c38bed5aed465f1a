"""A slow line: a TCP proxy on loopback with a rate and a delay, since kernels without netem have none."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

PIECE_BYTES = 16_384
IDLE_S = 0.2
"""A pause after which the line's delay counts again."""


@dataclass(frozen=True)
class Line:
    """Bytes a second from the server to the client, and the delay of each direction in s."""

    bytes_s: float
    delay_s: float = 0.0


LTE = Line(bytes_s=150_000, delay_s=0.03)
"""1.2 Mbit/s and 60 ms there and back: the edge of a cell."""


@contextlib.contextmanager
def slow_line(target_port: int, line: Line) -> Iterator[int]:
    """The port through which `target_port` is as slow as `line`; each connection has the rate for itself."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=_accept, args=(listener, target_port, line, ended), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def _accept(listener: socket.socket, target_port: int, line: Line, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        server = socket.create_connection(("127.0.0.1", target_port))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)  # else it would take what does not leave
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)
        for source, sink, rate in ((client, server, float("inf")), (server, client, line.bytes_s)):
            threading.Thread(target=_pass_on, args=(source, sink, rate, line.delay_s), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, bytes_s: float, delay_s: float) -> None:
    """Everything from one to the other, no faster than the rate; the delay once, at the beginning of each burst."""
    due_s = 0.0
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            now_s = time.monotonic()
            if now_s > due_s + IDLE_S:
                due_s = now_s + delay_s
            due_s += len(piece) / bytes_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            sink.sendall(piece)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

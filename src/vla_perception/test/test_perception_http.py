"""MJPEG over real sockets: what a server may do, and what is said when it does not do it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from threading import Thread

import pytest

from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.sources import http
from vla_perception.sources.http import HttpSource, boundary_of
from vla_perception.sources.http_fake import StreamServer

WAIT_S = 10.0
JPEG = b"\xff\xd8 picture \xff\xd9"
OK_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


def stream_part(jpeg: bytes, *headers: str) -> bytes:
    return "\r\n".join(["--b", f"Content-Length: {len(jpeg)}", *headers, "", ""]).encode() + jpeg + b"\r\n"


@pytest.fixture
def server() -> Iterator[StreamServer]:
    with StreamServer() as running:
        yield running


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """Start a server that reads one request, sends these bytes and hangs up; returns its port."""
    listeners: list[socket.socket] = []
    threads: list[Thread] = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(Thread(target=serve, daemon=True))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(WAIT_S)
    for listener in listeners:
        listener.close()


def source_of(url: str) -> HttpSource:
    return HttpSource(CameraConfig("cam", url))


def failure(port: int, path: str = "/") -> str:
    source = source_of(f"http://127.0.0.1:{port}{path}")
    try:
        source.start()
        source.read()
    except SourceError as error:
        return str(error)
    finally:
        source.close()
    pytest.fail("the source accepted this server")


def test_frames_with_the_servers_capture_stamp(server: StreamServer) -> None:
    source = source_of(server.url("/front/stream.mjpg"))
    source.start()
    assert server.wait_watched("/front/stream.mjpg", WAIT_S)
    taken_ns = time.time_ns() - 7_000_000
    seconds, rest = divmod(taken_ns, 1_000_000_000)
    server.push("/front/stream.mjpg", JPEG, {"X-Timestamp": f"{seconds}.{rest:09d}"})
    frame = source.read()
    assert (frame.jpeg, frame.stamp_ns, frame.skipped, frame.corrupt) == (JPEG, taken_ns, 0, 0)
    source.close()


@pytest.mark.parametrize("headers", [{}, {"X-Timestamp": "12.5"}, {"X-Timestamp": "yesterday"}])
def test_arrival_is_the_stamp_where_the_server_gives_none(server: StreamServer, headers: dict[str, str]) -> None:
    source = source_of(server.url("/a"))
    source.start()
    assert server.wait_watched("/a", WAIT_S)
    before_ns = time.time_ns()
    server.push("/a", JPEG, headers)
    assert before_ns <= source.read().stamp_ns <= time.time_ns()
    source.close()


def test_of_frames_that_wait_the_newest_is_read(answering: Callable[[bytes], int]) -> None:
    newest = b"\xff\xd8 newest \xff\xd9"
    broken = JPEG[:-1]
    port = answering(OK_HEAD + stream_part(JPEG) + stream_part(broken) + stream_part(newest))
    source = source_of(f"http://127.0.0.1:{port}/")
    source.start()
    frames = [source.read()]
    while frames[-1].jpeg != newest:  # TCP may deliver in pieces
        frames.append(source.read())
    assert sum(frame.skipped for frame in frames) + len(frames) == 2
    assert sum(frame.corrupt for frame in frames) == 1
    source.close()


def test_ustreamers_picture_of_no_signal_is_no_frame(answering: Callable[[bytes], int]) -> None:
    port = answering(OK_HEAD + stream_part(JPEG, "X-UStreamer-Online: false"))
    assert "ended the stream" in failure(port)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404 Not Found; the server has no such stream"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "user:password@host"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "302 Found; open the address in a browser"),
        (b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n", "a snapshot's address will not do"),
        (b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n", "not a multipart stream"),
        (OK_HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), "chunks"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "which is no HTTP"),
        (b"", "does not speak HTTP"),
        (b"x" * 40_000, "does not speak HTTP"),
        (OK_HEAD, "the server ended the stream"),
    ],
)
def test_what_is_said_of_servers_that_send_no_stream(
    answering: Callable[[bytes], int], answer: bytes, expected: str
) -> None:
    assert expected in failure(answering(answer))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert f"cannot connect to 127.0.0.1:{port} (Connection refused); is the camera server running?" in failure(port)


def test_a_name_that_does_not_resolve() -> None:
    source = source_of("http://camera.invalid/stream")
    with pytest.raises(SourceError, match=r"cannot connect to camera\.invalid:80"):
        source.start()
    source.close()


def test_a_server_that_falls_silent(server: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "STALL_TIMEOUT_S", 0.05)
    assert "has sent nothing for 0.05 s" in failure(server.port)


def test_a_server_that_sends_only_nonsense(server: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes flow, so the socket never times out."""
    source = source_of(server.url("/a"))
    source.start()
    monkeypatch.setattr(http, "STALL_TIMEOUT_S", 0.0)
    assert server.wait_watched("/a", WAIT_S)
    server.push("/a", b"no picture")
    with pytest.raises(SourceError, match=r"no whole picture for 0 s \(1 broken ones\)"):
        source.read()
    source.close()


def test_interrupt_ends_a_read_that_waits(server: StreamServer) -> None:
    source = source_of(server.url("/a"))
    source.start()
    thread = Thread(target=source.interrupt)
    thread.start()
    with pytest.raises(SourceError):
        source.read()
    thread.join(WAIT_S)
    source.close()


def test_user_and_password_go_into_the_request_and_nowhere_else(answering: Callable[[bytes], int]) -> None:
    source = source_of("http://us%40er:se%3Acret@host/p?q=1")
    request = source._request("host", 80)
    assert request.startswith(b"GET /p?q=1 HTTP/1.0\r\nHost: host:80\r\n")
    assert b"Authorization: Basic dXNAZXI6c2U6Y3JldA==" in request
    source.close()


def test_quoted_boundary() -> None:
    head = b'HTTP/1.1 200 OK\r\nContent-type: multipart/x-mixed-replace;boundary="--my b"'
    assert boundary_of(head) == b"--my b"

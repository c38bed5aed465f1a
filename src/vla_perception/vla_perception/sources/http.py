"""MJPEG over HTTP: the simulator, µStreamer, mjpg-streamer, IP cameras."""

from __future__ import annotations

import socket
import ssl
import time
from base64 import b64encode
from email.message import Message
from urllib.parse import unquote, urlsplit

from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.frame import Frame, plausible_stamp, whole_jpeg
from vla_perception.source import STALL_TIMEOUT_S
from vla_perception.sources.multipart import MAX_HEAD_BYTES, MultipartParser, Part, capture_stamp_ns, is_placeholder

CONNECT_TIMEOUT_S = 3.0
"""Three times the first retransmission of a lost SYN."""

READ_BYTES = 256 * 1024
"""Holds a whole frame, so that one call fetches it; also what the kernel buffers at first."""

DEFAULT_PORTS = {"http": 80, "https": 443}

CURES = {
    401: "put the user and password into the address: http://user:password@host/…",
    403: "the server refuses this address; check its access rules",
    404: "the server has no such stream; check the path",
    503: "its camera is unplugged, or it takes no more viewers",
}


class HttpSource:
    """A stream over one connection. HTTP/1.0 is asked for, because a server may then not cut the stream into chunks."""

    def __init__(self, config: CameraConfig) -> None:
        self.notice = ""
        self._url = urlsplit(config.url)
        self._shown = config.shown_url
        self._socket: socket.socket | None = None
        self._interrupted = False
        self._scratch = bytearray(READ_BYTES)
        self._view = memoryview(self._scratch)
        self._parser: MultipartParser | None = None
        self._pending: list[Part] = []

    def start(self) -> None:
        """Connect, ask, and check that the answer is a stream."""
        host, port = self._url.hostname or "", self._url.port or DEFAULT_PORTS[self._url.scheme]
        try:
            self._socket = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._url.scheme == "https":
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
            self._socket.settimeout(STALL_TIMEOUT_S)
            if self._interrupted:
                raise SourceError("interrupted")
            self._socket.sendall(self._request(host, port))
            boundary, rest = self._read_head(self._socket)
        except ssl.SSLCertVerificationError as error:
            raise SourceError(
                f"{host} shows no certificate that this machine trusts ({error.verify_message}); add its authority to "
                "the system's, or use http:// inside your own network"
            ) from error
        except TimeoutError as error:
            raise SourceError(f"{host}:{port} does not answer; is the machine on, and the address right?") from error
        except OSError as error:
            reason = error.strerror or error
            raise SourceError(f"cannot connect to {host}:{port} ({reason}); is the camera server running?") from error
        self._parser = MultipartParser(boundary)
        self._pending = self._parser.feed(rest)

    def read(self) -> Frame:
        """The last whole frame of what has arrived."""
        deadline_ns = time.monotonic_ns() + int(STALL_TIMEOUT_S * 1e9)
        skipped = corrupt = 0
        while True:
            parts = self._pending or self._receive()
            self._pending = []
            arrival_ns = time.time_ns()
            newest: Frame | None = None
            for part in parts:
                if is_placeholder(part.headers):
                    continue
                jpeg = whole_jpeg(part.body)
                if jpeg is None:
                    corrupt += 1
                    continue
                skipped += 0 if newest is None else 1
                newest = Frame(jpeg, plausible_stamp(capture_stamp_ns(part.headers), arrival_ns))
            if newest is not None:
                if skipped or corrupt:
                    return Frame(newest.jpeg, newest.stamp_ns, skipped, corrupt)
                return newest
            if time.monotonic_ns() > deadline_ns:
                raise SourceError(
                    f"the server sent no whole picture for {STALL_TIMEOUT_S:g} s ({corrupt} broken ones); is its "
                    "camera plugged in?"
                )

    def interrupt(self) -> None:
        """Wake a thread that waits for bytes."""
        self._interrupted = True
        if self._socket is not None:
            _shut(self._socket)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            _shut(self._socket)
            self._socket.close()

    def _request(self, host: str, port: int) -> bytes:
        target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        name = f"[{host}]" if ":" in host else host
        lines = [f"GET {target} HTTP/1.0", f"Host: {name}:{port}", "User-Agent: evergreen", "Accept: */*"]
        if self._url.username is not None:
            user = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
            lines.append("Authorization: Basic " + b64encode(user.encode()).decode())
        return "\r\n".join([*lines, "", ""]).encode()

    def _read_head(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Boundary of the stream, and the bytes of it that came with the head."""
        data = b""
        while b"\r\n\r\n" not in data and b"\n\n" not in data:
            received = connection.recv(MAX_HEAD_BYTES)
            data += received
            if not received or len(data) > 2 * MAX_HEAD_BYTES:
                raise SourceError(f"{self._shown} does not speak HTTP; is the port right?")
        end = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
        head, rest = data.split(end, 1)
        return boundary_of(head), rest

    def _receive(self) -> list[Part]:
        if self._socket is None or self._parser is None:
            raise SourceError("read before start")
        try:
            count = self._socket.recv_into(self._view)
        except TimeoutError as error:
            raise SourceError(
                f"the server has sent nothing for {STALL_TIMEOUT_S:g} s; is its camera plugged in, and the network up?"
            ) from error
        except OSError as error:
            raise SourceError(f"the connection broke ({error.strerror or error}); is the server still up?") from error
        if count == 0:
            raise SourceError("the server ended the stream; is it still running?")
        return self._parser.feed(self._view[:count])


def boundary_of(head: bytes) -> bytes:
    """The multipart boundary that an HTTP answer's head announces.

    Raises:
        SourceError: the answer is not 200, or no multipart stream.
    """
    lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    version, _, status = lines[0].partition(" ")
    if not version.startswith("HTTP/") or not status[:3].isdigit():
        raise SourceError(f"the answer begins with {lines[0][:60]!r}, which is no HTTP; is the port right?")
    code = int(status[:3])
    if code != 200:
        cure = CURES.get(code, "open the address in a browser to see why")
        raise SourceError(f"the server answers {status.strip()}; {cure}")
    headers = Message()
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    if headers.get("Transfer-Encoding", "identity").lower() != "identity":
        raise SourceError("the server answers HTTP/1.0 with chunks, against the standard; use another one")
    boundary = headers.get_boundary()
    if headers.get_content_maintype() != "multipart" or not boundary:
        raise SourceError(
            f"the address sends {headers.get_content_type()}, not a multipart stream; a snapshot's address will not "
            "do, look for the one of the MJPEG stream"
        )
    return boundary.encode("latin-1")


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was never connected, or the peer was quicker

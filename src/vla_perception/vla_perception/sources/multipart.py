"""Parts of a `multipart/x-mixed-replace` stream, as MJPEG servers send them. Bytes in, parts out; no sockets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_PART_BYTES = 16 * 2**20
"""Above the JPEG of any camera (4K at quality 95 takes about 5 MB)."""

MAX_HEAD_BYTES = 8192
"""What HTTP servers commonly allow for all headers."""

NS_PER_S = 1_000_000_000
NS_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its headers, names in lower case, and its body."""

    headers: Mapping[bytes, bytes]
    body: bytes


class MultipartParser:
    """Push parser (RFC 2046) that takes what cameras send: with or without Content-Length, CRLF or bare LF.

    It begins at the first boundary, and after bytes that make no sense it goes on at the next one.
    """

    def __init__(self, boundary: bytes) -> None:
        # Some servers announce the boundary with the dashes that only belong into the stream.
        self._delimiter = b"--" + boundary.lstrip(b"-")
        self._buffer = bytearray()
        self._headers: dict[bytes, bytes] | None = None  # of the part whose body is being read
        self._in_head = False
        self._scanned = 0  # bytes of the buffer that hold no delimiter

    def feed(self, data: bytes | bytearray | memoryview) -> list[Part]:
        """Take bytes as they come, cut anywhere; return the parts that they complete."""
        self._buffer += data
        parts: list[Part] = []
        while True:
            if self._headers is not None:
                body = self._take_body(self._headers)
                if body is None:
                    return parts
                parts.append(Part(self._headers, body))
                self._headers = None
            elif not (self._take_head() if self._in_head else self._seek_delimiter()):
                return parts

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._scanned = 0

    def _seek_delimiter(self) -> bool:
        """Drop everything up to and with the next delimiter."""
        start = self._buffer.find(self._delimiter)
        if start < 0:
            self._drop(max(0, len(self._buffer) - len(self._delimiter) + 1))  # it may be cut in the middle
            return False
        self._drop(start + len(self._delimiter))
        self._in_head = True
        return True

    def _take_head(self) -> bool:
        """Read the headers up to the empty line."""
        crlf = self._buffer.find(b"\r\n\r\n")
        lf = self._buffer.find(b"\n\n", 0, crlf if crlf >= 0 else None)  # not through the whole picture
        end = crlf if lf < 0 else lf
        if end < 0:
            if len(self._buffer) <= MAX_HEAD_BYTES:
                return False
            self._in_head = False  # no headers at all: go on at the next delimiter
            return True
        head = bytes(self._buffer[:end])
        self._in_head = False
        self._drop(end + (4 if end == crlf else 2))
        if self._delimiter not in head:  # one inside would mean that this part had been cut off
            self._headers = _parse_headers(head)
        return True

    def _take_body(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) <= MAX_PART_BYTES:
            count = int(length)
            if len(self._buffer) < count:
                return None
            body = bytes(memoryview(self._buffer)[:count])
            self._drop(count)
            return body
        return self._take_body_to_delimiter()

    def _take_body_to_delimiter(self) -> bytes | None:
        end = self._buffer.find(self._delimiter, self._scanned)
        if end < 0:
            self._scanned = max(0, len(self._buffer) - len(self._delimiter) + 1)
            if len(self._buffer) > MAX_PART_BYTES:
                self._drop(len(self._buffer))
                return b""
            return None
        body = bytes(memoryview(self._buffer)[:end])
        self._drop(end)
        return body.removesuffix(b"\n").removesuffix(b"\r")


def _parse_headers(head: bytes) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


def capture_stamp_ns(headers: Mapping[bytes, bytes]) -> int | None:
    """When the server says that the camera took the picture, system time; None where it does not say.

    `X-Timestamp` is `<seconds>.<fraction>`. µStreamer puts the time of *sending* there, and behind `?extra_headers=1`
    also how old the picture was then (`X-UStreamer-Latency`), which is taken off.
    """
    stamp_ns = seconds_to_ns(headers.get(b"x-timestamp", b""))
    if stamp_ns is None:
        return None
    return stamp_ns - (seconds_to_ns(headers.get(b"x-ustreamer-latency", b"")) or 0)


def seconds_to_ns(text: bytes) -> int | None:
    """Decimal seconds to ns, exactly: a float would round a stamp to 200 ns. None where it is no such number."""
    whole, _, fraction = text.partition(b".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()):
        return None
    return int(whole) * NS_PER_S + int(fraction[:NS_DIGITS].ljust(NS_DIGITS, b"0"))


def is_placeholder(headers: Mapping[bytes, bytes]) -> bool:
    """µStreamer sends a picture of its own ("no signal") while its camera is away: nothing a robot may act on."""
    return headers.get(b"x-ustreamer-online", b"").lower() in (b"false", b"0")

"""The event-stream frames of Greengrass's inter-process calls, as bytes.

    total length u32 | length of headers u32 | CRC-32 of the 8 bytes before
    headers: (length of name u8 | name | type u8 | value) …   type 4: i32, type 7: length u16 and UTF-8 text
    payload
    CRC-32 of everything before

All numbers are big-endian. Types that no Greengrass client sends are refused.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from vla_core.errors import EvergreenError

HeaderValue: TypeAlias = int | str

_PRELUDE: Final = struct.Struct(">II")
_CHECKSUM: Final = struct.Struct(">I")
_INT32: Final = struct.Struct(">i")
_TEXT_LENGTH: Final = struct.Struct(">H")
_TYPE_INT32: Final = 4
_TYPE_TEXT: Final = 7
_OVERHEAD_BYTES: Final = _PRELUDE.size + 2 * _CHECKSUM.size
MAX_FRAME_BYTES: Final = 24 * 1024 * 1024
"""The client's own limit is 16 MiB of payload; anything larger is a length that was misread."""


class FrameError(EvergreenError):
    """Bytes that are no event-stream frame."""


class MessageType(enum.IntEnum):
    """The header `:message-type`."""

    APPLICATION_MESSAGE = 0
    APPLICATION_ERROR = 1
    PING = 2
    PING_RESPONSE = 3
    CONNECT = 4
    CONNECT_ACK = 5
    PROTOCOL_ERROR = 6
    INTERNAL_ERROR = 7


class Flags(enum.IntFlag):
    """The header `:message-flags`."""

    NONE = 0
    CONNECTION_ACCEPTED = 1
    TERMINATE_STREAM = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; `headers` without the three that have a field here."""

    type: MessageType
    stream: int = 0
    flags: Flags = Flags.NONE
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """The frame as bytes.

    Raises:
        FrameError: a header that does not fit.
    """
    headers = b"".join(
        _encode_header(name, value)
        for name, value in {
            ":message-type": int(frame.type),
            ":message-flags": int(frame.flags),
            ":stream-id": frame.stream,
            **frame.headers,
        }.items()
    )
    prelude = _PRELUDE.pack(_OVERHEAD_BYTES + len(headers) + len(frame.payload), len(headers))
    body = prelude + _CHECKSUM.pack(zlib.crc32(prelude)) + headers + frame.payload
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _encode_header(name: str, value: HeaderValue) -> bytes:
    raw_name = name.encode()
    if not 0 < len(raw_name) < 256:
        raise FrameError(f"header name {name!r} has {len(raw_name)} bytes; it must have 1 to 255")
    head = bytes([len(raw_name)]) + raw_name
    if isinstance(value, str):
        raw = value.encode()
        if len(raw) > 0x7FFF:
            raise FrameError(f"header {name} has {len(raw)} bytes; at most {0x7FFF} fit")
        return head + bytes([_TYPE_TEXT]) + _TEXT_LENGTH.pack(len(raw)) + raw
    try:
        return head + bytes([_TYPE_INT32]) + _INT32.pack(value)
    except struct.error as error:
        raise FrameError(f"header {name} is {value}, which is no 32-bit number") from error


class Decoder:
    """Cuts a stream of bytes into frames, however the bytes arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now.

        Raises:
            FrameError: the stream is broken; it cannot be read on.
        """
        self._buffer += data
        frames = []
        while len(self._buffer) >= _OVERHEAD_BYTES:
            total = self._length()
            if len(self._buffer) < total:
                break
            frames.append(_decode(bytes(self._buffer[:total])))
            del self._buffer[:total]
        return frames

    def _length(self) -> int:
        total, headers = _PRELUDE.unpack_from(self._buffer)
        (checksum,) = _CHECKSUM.unpack_from(self._buffer, _PRELUDE.size)
        if checksum != zlib.crc32(self._buffer[: _PRELUDE.size]):
            raise FrameError("the checksum of a frame's lengths is wrong")
        if not _OVERHEAD_BYTES + headers <= total <= MAX_FRAME_BYTES:
            raise FrameError(f"a frame of {total} bytes with {headers} bytes of headers cannot be")
        return int(total)


def _decode(raw: bytes) -> Frame:
    (checksum,) = _CHECKSUM.unpack_from(raw, len(raw) - _CHECKSUM.size)
    if checksum != zlib.crc32(raw[: -_CHECKSUM.size]):
        raise FrameError("the checksum of a frame is wrong")
    _, headers_length = _PRELUDE.unpack_from(raw)
    begin = _PRELUDE.size + _CHECKSUM.size
    headers = _decode_headers(raw[begin : begin + headers_length])
    try:
        return Frame(
            type=MessageType(_number(headers, ":message-type")),
            stream=_number(headers, ":stream-id"),
            flags=Flags(_number(headers, ":message-flags")),
            headers=headers,
            payload=raw[begin + headers_length : -_CHECKSUM.size],
        )
    except ValueError as error:
        raise FrameError(f"a frame with an unknown type or flag: {error}") from error


def _number(headers: dict[str, HeaderValue], name: str) -> int:
    value = headers.pop(name, None)
    if not isinstance(value, int):
        raise FrameError(f"header {name} is {value!r}; a number belongs there")
    return value


def _decode_headers(raw: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(raw):
            name_end = at + 1 + raw[at]
            name = raw[at + 1 : name_end].decode()
            kind = raw[name_end]
            at = name_end + 1
            if kind == _TYPE_INT32:
                (headers[name],) = _INT32.unpack_from(raw, at)
                at += _INT32.size
            elif kind == _TYPE_TEXT:
                (length,) = _TEXT_LENGTH.unpack_from(raw, at)
                at += _TEXT_LENGTH.size
                if at + length > len(raw):
                    raise FrameError(f"header {name} runs over the end of the headers")
                headers[name] = raw[at : at + length].decode()
                at += length
            else:
                raise FrameError(f"header {name} has type {kind}; only 4 (number) and 7 (text) are known")
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise FrameError(f"headers that cannot be read: {error}") from error
    return headers

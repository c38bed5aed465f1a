"""The event-stream frames of the stand-in, byte by byte."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gg_bridge.testing.frames import Decoder, Flags, Frame, FrameError, MessageType, encode

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda name: len(name.encode()) < 256 and name not in {":message-type", ":message-flags", ":stream-id"}
)
VALUES = st.one_of(st.integers(-(2**31), 2**31 - 1), st.text(st.characters(codec="utf-8"), max_size=50))
FRAMES = st.builds(
    Frame,
    type=st.sampled_from(MessageType),
    stream=st.integers(0, 2**31 - 1),
    flags=st.sampled_from(Flags),
    headers=st.dictionaries(NAMES, VALUES, max_size=4),
    payload=st.binary(max_size=200),
)


def test_a_frame_written_out_by_hand() -> None:
    headers = (
        b"\x0d:message-type\x04\x00\x00\x00\x05"
        b"\x0e:message-flags\x04\x00\x00\x00\x01"
        b"\x0a:stream-id\x04\x00\x00\x00\x00"
        b"\x08:version\x07\x00\x050.1.0"
    )
    prelude = (16 + len(headers) + 2).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    body = prelude + zlib.crc32(prelude).to_bytes(4, "big") + headers + b"{}"
    raw = body + zlib.crc32(body).to_bytes(4, "big")
    frame = Frame(MessageType.CONNECT_ACK, 0, Flags.CONNECTION_ACCEPTED, {":version": "0.1.0"}, b"{}")
    assert encode(frame) == raw
    assert Decoder().feed(raw) == [frame]


@given(st.lists(FRAMES, max_size=4), st.integers(1, 60))
def test_frames_come_back_however_the_bytes_are_cut(frames: list[Frame], size: int) -> None:
    raw = b"".join(map(encode, frames))
    decoder = Decoder()
    parts = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert [frame for part in parts for frame in decoder.feed(part)] == frames


@given(FRAMES, st.data())
def test_a_changed_byte_is_never_taken_for_another_frame(frame: Frame, data: st.DataObject) -> None:
    raw = bytearray(encode(frame))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        Decoder().feed(bytes(raw))


@given(st.binary(min_size=16, max_size=100))
def test_noise_is_refused_or_waited_for(raw: bytes) -> None:
    try:
        frames = Decoder().feed(raw)
    except FrameError:
        return
    assert frames == []


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"x" * 256: 1}, "256 bytes"),
        ({"x": 2**31}, "32-bit"),
        ({"x": "y" * 40_000}, "40000 bytes"),
        ({"": 1}, "0 bytes"),
    ],
)
def test_headers_that_do_not_fit_are_refused(headers: dict[str, int | str], message: str) -> None:
    with pytest.raises(FrameError, match=message):
        encode(Frame(MessageType.PING, headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x01x\x06\x00\x01y",  # bytes
        b"\x01x\x07\x00\x09y",  # a text longer than what is left
        b"\x01x\x07\x00\x01\xff",  # no UTF-8
        b"\x09x",  # a name longer than what is left
        b"\x01x\x04\x00",  # half a number
        b"",  # nothing of what must be there
        b"\x0d:message-type\x04\x00\x00\x00\x63\x0e:message-flags\x04\x00\x00\x00\x00\x0a:stream-id\x04\x00\x00\x00\x00",
    ],
)
def test_headers_that_cannot_be_read_are_refused(headers: bytes) -> None:
    prelude = (16 + len(headers)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    body = prelude + zlib.crc32(prelude).to_bytes(4, "big") + headers
    with pytest.raises(FrameError):
        Decoder().feed(body + zlib.crc32(body).to_bytes(4, "big"))


def test_a_frame_of_an_impossible_length_is_refused_before_it_arrives() -> None:
    prelude = (1 << 31).to_bytes(4, "big") + bytes(4)
    with pytest.raises(FrameError, match="cannot be"):
        Decoder().feed(prelude + zlib.crc32(prelude).to_bytes(4, "big") + bytes(4))

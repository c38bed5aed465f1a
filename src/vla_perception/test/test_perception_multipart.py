"""The MJPEG parser takes bytes cut anywhere, and finds its way after nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_perception.sources.multipart import (
    MAX_HEAD_BYTES,
    MAX_PART_BYTES,
    MultipartParser,
    Part,
    capture_stamp_ns,
    is_placeholder,
    seconds_to_ns,
)

BOUNDARY = b"frame"


def part(body: bytes, *headers: bytes, length: bool = True, eol: bytes = b"\r\n") -> bytes:
    lines = [b"--" + BOUNDARY, b"Content-Type: image/jpeg", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return eol.join([*lines, b"", b""]) + body + eol


def bodies(parts: list[Part]) -> list[bytes]:
    return [each.body for each in parts]


def fed(stream: bytes, step: int) -> list[Part]:
    parser = MultipartParser(BOUNDARY)
    return [done for start in range(0, len(stream), step) for done in parser.feed(stream[start : start + step])]


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "boundary only"])
@pytest.mark.parametrize("eol", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_parts_are_the_same_however_the_bytes_are_cut(step: int, eol: bytes, length: bool) -> None:
    sent = [b"\xff\xd8one\xff\xd9", b"\xff\xd8" + bytes(range(256)) + b"\xff\xd9", b"\xff\xd8\r\n\r\n--fram\xff\xd9"]
    stream = b"".join(part(body, length=length, eol=eol) for body in sent) + b"--" + BOUNDARY
    assert bodies(fed(stream, step)) == sent


@given(
    sent=st.lists(st.binary(max_size=300).map(lambda data: b"\xff\xd8" + data + b"\xff\xd9"), max_size=5),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=30),
)
def test_any_bodies_in_any_cuts(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(part(body) for body in sent)
    parser = MultipartParser(BOUNDARY)
    got: list[bytes] = []
    position = turn = 0
    while position < len(stream):
        step = cuts[turn % len(cuts)]
        got += bodies(parser.feed(stream[position : position + step]))
        position, turn = position + step, turn + 1
    assert got == sent


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_garbage_neither_raises_nor_makes_parts_without_a_boundary(pieces: list[bytes]) -> None:
    parser = MultipartParser(b"never-in-short-garbage")
    assert [done for piece in pieces for done in parser.feed(piece)] == []


def test_goes_on_at_the_next_boundary_after_garbage() -> None:
    stream = b"\x00HTTP junk\r\n\r\n" + part(b"first") + b"\xff\x00 junk between \r\n\r\n" + part(b"second")
    assert bodies(fed(stream, 5)) == [b"first", b"second"]


def test_a_wrong_length_costs_at_most_the_parts_it_touches() -> None:
    short = part(b"0123456789").replace(b"Content-Length: 10", b"Content-Length: 4")
    assert bodies(fed(short + part(b"next"), 6)) == [b"0123", b"next"]
    mad = part(b"0123456789").replace(b"Content-Length: 10", b"Content-Length: 99999999999")
    assert bodies(fed(mad + part(b"next"), 6)) == [b"0123456789", b"next"]


def test_a_head_that_never_ends_is_given_up() -> None:
    stream = b"--" + BOUNDARY + b"\r\n" + b"x" * (2 * MAX_HEAD_BYTES) + b"\r\n" + part(b"next")
    assert bodies(fed(stream, 1000)) == [b"next"]


def test_a_part_cut_off_by_the_next_one_is_skipped() -> None:
    stream = b"--" + BOUNDARY + b"\r\nContent-Type: image/jpeg\r\n" + part(b"next") + part(b"after")
    assert b"after" in bodies(fed(stream, 11))


def test_memory_is_bounded_without_lengths_and_boundaries() -> None:
    parser = MultipartParser(BOUNDARY)
    parser.feed(part(b"", length=False).removesuffix(b"\r\n"))
    block = bytes(2**20)
    for _ in range(3 * MAX_PART_BYTES // len(block)):
        parser.feed(block)
    assert len(parser._buffer) <= MAX_PART_BYTES + len(block)


def test_boundary_announced_with_its_dashes() -> None:
    assert bodies(MultipartParser(b"--frame").feed(part(b"body"))) == [b"body"]


def test_header_names_are_lower_case_and_values_stripped() -> None:
    (done,) = MultipartParser(BOUNDARY).feed(part(b"body", b"X-TimeStamp:  12.5 "))
    assert done.headers[b"x-timestamp"] == b"12.5"


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1700000000.5", 1_700_000_000_500_000_000),
        (b"7", 7_000_000_000),
        (b"1.1234567899", 1_123_456_789),
        (b"", None),
        (b"-1.0", None),
        (b"1.2.3", None),
        (b"1e9", None),
        (b"nan", None),
    ],
)
def test_seconds_are_read_exactly(text: bytes, ns: int | None) -> None:
    assert seconds_to_ns(text) == ns


def test_ustreamers_latency_is_taken_off_its_time_of_sending() -> None:
    headers = {b"x-timestamp": b"1700000000.500000", b"x-ustreamer-latency": b"0.040000"}
    assert capture_stamp_ns(headers) == 1_700_000_000_460_000_000
    assert capture_stamp_ns({}) is None


def test_ustreamers_picture_of_no_signal_is_known() -> None:
    assert is_placeholder({b"x-ustreamer-online": b"false"})
    assert not is_placeholder({b"x-ustreamer-online": b"true"})
    assert not is_placeholder({})

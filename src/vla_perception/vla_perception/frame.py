"""One picture of one camera, still compressed."""

from __future__ import annotations

from dataclasses import dataclass

JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"

MAX_STAMP_AGE_NS = 10_000_000_000
"""A stamp older than this comes from a clock that was never set. Younger ones are believed, because to stamp a delayed
frame anew would make an old picture look fresh; a clock that lags by seconds shows as age, and the policy holds."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole JPEG and when the camera took it.

    Attributes:
        jpeg: from SOI to EOI marker, nothing behind.
        stamp_ns: capture, system time.
        skipped: frames that the camera made since the last one read, and that were too late to be worth it.
        corrupt: pieces since the last one read that were no whole JPEG.
    """

    jpeg: bytes
    stamp_ns: int
    skipped: int = 0
    corrupt: int = 0


def whole_jpeg(data: bytes) -> bytes | None:
    """The JPEG in `data` without the padding that webcams append, or None where start or end is missing."""
    if not data.startswith(JPEG_START):
        return None
    end = data.rfind(JPEG_END)
    if end < 0:
        return None
    return data if end + len(JPEG_END) == len(data) else data[: end + len(JPEG_END)]


def plausible_stamp(stamp_ns: int | None, arrival_ns: int) -> int:
    """`stamp_ns` where a camera with a set clock may have sent it, else the time of arrival (both system time)."""
    if stamp_ns is not None and arrival_ns - MAX_STAMP_AGE_NS <= stamp_ns <= arrival_ns:
        return stamp_ns
    return arrival_ns

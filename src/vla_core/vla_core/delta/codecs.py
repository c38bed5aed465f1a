"""One block of a new file, made from a stretch of the old one and a payload."""

from __future__ import annotations

from enum import StrEnum

import zstandard

from vla_core.delta.floats import FORMATS, add, subtract
from vla_core.errors import DeltaError

LEVEL = 9
"""Of zstd. On differences of weights 3 takes 1 % more bytes in half the time, 19 takes 3 % less in ten times it."""
BLOCK_BYTES = 1 << 20
"""Of a new file: what is in memory at once. Larger ones did not shrink the deltas of weights measurably."""
REACH_BYTES = 2 << 20
"""How far before and behind its own place a block of bytes looks for likeness in the old file."""
MAX_BASE_BYTES = BLOCK_BYTES + 2 * REACH_BYTES


class Code(StrEnum):
    """How a block is made."""

    COPY = "copy"
    """It is the stretch of the old file; no payload."""
    ZSTD = "zstd"
    """It is compressed; no stretch of the old file."""
    PATCH = "patch"
    """It is compressed with the stretch of the old file as dictionary."""
    F16 = "F16"
    """Differences of numbers of this type to the stretch of the old file, which has the same length; see `floats`."""
    BF16 = "BF16"
    F32 = "F32"


class Encoder:
    """Finds the shortest way to say a block."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    def encode(self, new: bytes, base: bytes, dtype: str) -> tuple[Code, bytes]:
        """The code and the payload of a block that is not a copy; `dtype` as in `Region`."""
        best = Code.ZSTD, self._compressor.compress(new)
        if not base:
            return best
        if dtype and len(new) % FORMATS[dtype].size == 0:
            other = Code(dtype), self._compressor.compress(subtract(new, base, FORMATS[dtype]))
        else:
            dictionary = _dictionary(base)
            other = Code.PATCH, zstandard.ZstdCompressor(level=LEVEL, dict_data=dictionary).compress(new)
        return other if len(other[1]) < len(best[1]) else best


def decode(code: Code, payload: bytes, base: bytes, length: int) -> bytes:
    """A block of `length` bytes.

    Raises:
        DeltaError: the payload is damaged, or made for another length.
    """
    if code is Code.COPY:
        return base
    if code in (Code.ZSTD, Code.PATCH):
        return _decompress(payload, length, base if code is Code.PATCH else b"")
    form = FORMATS[code]
    if len(base) != length or length % form.size:
        raise DeltaError(f"a block of {length} bytes of {code} cannot be made from {len(base)}")
    return add(_decompress(payload, length, b""), base, form)


def _decompress(payload: bytes, length: int, base: bytes) -> bytes:
    try:
        if zstandard.get_frame_parameters(payload).content_size != length:  # it would be believed, however large
            raise DeltaError(f"a payload does not hold the {length} bytes that it should")
        decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary(base)) if base else zstandard.ZstdDecompressor()
        content = decompressor.decompress(payload, max_output_size=length)
    except zstandard.ZstdError as error:
        raise DeltaError(f"a payload is damaged: {error}") from error
    if len(content) != length:
        raise DeltaError(f"a payload holds {len(content)} bytes where {length} are due")
    return content


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)

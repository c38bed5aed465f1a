"""The header of a safetensors file: eight bytes of length, a JSON object of that length, then the tensors.

https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 8 << 20
"""Room for 60,000 tensors; the largest open vision-language-action models have about 1,500. The reference
implementation allows 100 MB, for which Python's JSON takes 1 GB: a quarter of a small robot's memory, for a file that
only says it is a model."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: safetensors' name of its type, its shape, and where in the file its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """Where the tensors begin, and each of them by its name, in the order of the file."""

    data_begin: int
    tensors: Mapping[str, Tensor]

    @property
    def end(self) -> int:
        """Size that the file should have."""
        return max((tensor.end for tensor in self.tensors.values()), default=self.data_begin)


def read_text(stream: BinaryIO) -> bytes:
    """The JSON text of the header.

    Raises:
        ValueError: too short for its header, or one that is too long.
    """
    size = os.fstat(stream.fileno()).st_size
    length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
    if not 2 <= length <= size - LENGTH_BYTES:
        raise ValueError(f"a header of {length} bytes cannot be in {size}")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
    return stream.read(length)


def read_header(stream: BinaryIO) -> Header:
    """Read the header of a file that stands at its beginning.

    Raises:
        ValueError: it is malformed; the tensors' bytes are not looked at.
    """
    text = read_text(stream)
    begin = LENGTH_BYTES + len(text)
    try:
        tensors = {name: _tensor(entry, begin) for name, entry in json.loads(text).items() if name != "__metadata__"}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its header is malformed") from error
    return Header(begin, dict(sorted(tensors.items(), key=lambda item: item[1].begin)))


def check_whole(stream: BinaryIO) -> None:
    """See that a file that stands at its beginning ends where its header says.

    Raises:
        ValueError: its header is malformed, or it is cut short or longer.
    """
    size = os.fstat(stream.fileno()).st_size
    expected = read_header(stream).end
    if size != expected:
        raise ValueError(f"it has {size} bytes where its header says {expected}; bring it here again")


def _tensor(entry: Any, begin: int) -> Tensor:
    first, last = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (first, last, *shape)) or last < first:
        raise ValueError("its header is malformed")
    return Tensor(str(entry["dtype"]), shape, begin + first, begin + last)

"""Which bytes of a new file are to be compared with which bytes of the old one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vla_core import safetensors
from vla_core.delta.floats import FORMATS


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a new file, and what it is compared with.

    Attributes:
        begin, end: in the new file.
        base_begin, base_end: in the old file; equal where there is nothing to compare it with.
        dtype: of the numbers in it, one of `FORMATS`; "" for bytes. Both stretches then have the same length.
    """

    begin: int
    end: int
    base_begin: int = 0
    base_end: int = 0
    dtype: str = ""


def regions(new: Path, base: Path | None) -> list[Region]:
    """The whole of `new`, in order: tensor by tensor where both are safetensors, else in one piece."""
    size = new.stat().st_size
    if base is None:
        return [Region(0, size)] if size else []
    if new.suffix == base.suffix == ".safetensors":
        try:
            return list(_by_tensor(_header(new), _header(base), size))
        except ValueError:
            pass  # malformed: bytes like any others
    return [Region(0, size, 0, base.stat().st_size)] if size else []


def _header(path: Path) -> safetensors.Header:
    with path.open("rb") as stream:
        return safetensors.read_header(stream)


def _by_tensor(new: safetensors.Header, base: safetensors.Header, size: int) -> Iterator[Region]:
    yield Region(0, new.data_begin, 0, base.data_begin)
    at = new.data_begin
    for name, tensor in new.tensors.items():
        if tensor.begin < at or tensor.end > size:
            raise ValueError("tensors overlap, or lie beyond the file's end")
        if tensor.begin > at:
            yield Region(at, tensor.begin)
        at = tensor.end
        old = base.tensors.get(name)
        if not tensor.size:
            continue
        if old is None or (old.dtype, old.size) != (tensor.dtype, tensor.size):
            yield Region(tensor.begin, tensor.end)
        else:
            yield Region(tensor.begin, tensor.end, old.begin, old.end, tensor.dtype if tensor.dtype in FORMATS else "")
    if at < size:
        yield Region(at, size)

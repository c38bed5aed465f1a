"""Delta and old model -> the files of the new one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from vla_core.delta import header as headers
from vla_core.delta.build import Reached, ignore
from vla_core.delta.codecs import BLOCK_BYTES, Code, decode
from vla_core.delta.header import Block, FilePlan, Header
from vla_core.errors import DeltaError


def read_header(delta: Path) -> Header:
    """What a delta says about itself.

    Raises:
        DeltaError: it is none, or damaged.
    """
    with delta.open("rb") as stream:
        return headers.read(stream, str(delta))


def is_whole(delta: Path) -> bool:
    """Whether the delta's payload is what its header says; reads all of it.

    Raises:
        DeltaError: it has no sound header.
    """
    with delta.open("rb") as stream:
        return headers.payload_is_right(stream, headers.read(stream, str(delta)))


def rebuild(delta: Path, base: Path, name: str, write: Callable[[bytes], object], reached: Reached = ignore) -> None:
    """Make one file of the new model.

    Args:
        delta: the delta's file.
        base: folder of the old model.
        name: of the file, one of the header's.
        write: is given the file's bytes, block by block.
        reached: told of the progress; may raise to end it.

    Raises:
        DeltaError: the delta is damaged, or what came out is not what the manifest lists: the delta or the old model is
            another; or the old model cannot be read, as if it were not there.
        OSError: the delta cannot be read.
    """
    with delta.open("rb") as stream:
        header = headers.read(stream, str(delta))
        if name not in header.files:
            raise DeltaError(f"{delta} has no {name}")
        stream.seek(sum(plan.payload_length for plan in _before(header, name)), 1)
        plan, digest, done = header.files[name], hashlib.sha256(), 0
        for content in _contents(stream, plan, base):
            write(content)
            digest.update(content)
            done += len(content)
            reached(name, done)
    if digest.hexdigest() != header.manifest.files[name].sha256:
        raise DeltaError(f"{name} came out otherwise than its manifest says: {delta.name} does not fit {base}")


def _before(header: Header, name: str) -> Iterator[FilePlan]:
    """The plans whose payloads come before that of `name`."""
    for other, plan in header.files.items():
        if other == name:
            return
        yield plan


def _contents(stream: BinaryIO, plan: FilePlan, base: Path) -> Iterator[bytes]:
    if not plan.base:
        yield from (_make(stream, block, b"") for block in plan.blocks)
        return
    with _open(base, plan.base) as old:
        for block in plan.blocks:
            if block.code is Code.COPY:
                yield from _copies(old, block)
            else:
                yield _make(stream, block, _read(old, block.base_offset, block.base_length))


def _open(base: Path, name: str) -> BinaryIO:
    try:
        return (base / name).open("rb")
    except FileNotFoundError as error:
        raise DeltaError(f"{base} has no {name}") from error
    except OSError as error:
        raise DeltaError(f"the old file {base / name} cannot be opened: {error.strerror}") from error


def _make(stream: BinaryIO, block: Block, base: bytes) -> bytes:
    payload = stream.read(block.payload_length)
    if len(payload) != block.payload_length:
        raise DeltaError("the delta is cut short")
    return decode(block.code, payload, base, block.length)


def _copies(old: BinaryIO, block: Block) -> Iterator[bytes]:
    """A copy may be as long as the file: in pieces."""
    for begin in range(0, block.length, BLOCK_BYTES):
        yield _read(old, block.base_offset + begin, min(BLOCK_BYTES, block.length - begin))


def _read(old: BinaryIO, offset: int, length: int) -> bytes:
    try:
        old.seek(offset)
        content = old.read(length)
    except OSError as error:  # a bad sector: it will be as bad next time
        raise DeltaError(f"the old file {old.name} cannot be read: {error.strerror}") from error
    if len(content) != length:
        raise DeltaError("the old file is shorter than the delta says")
    return content

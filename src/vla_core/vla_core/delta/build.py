"""Old and new model -> delta."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from vla_core import manifest as manifests
from vla_core import signing
from vla_core.delta import header as headers
from vla_core.delta.codecs import BLOCK_BYTES, REACH_BYTES, Code, Encoder
from vla_core.delta.header import Block, FilePlan, Header
from vla_core.delta.layout import Region, regions
from vla_core.manifest import Manifest

Reached = Callable[[str, int], None]
"""Told how many bytes of a new file are done."""


def ignore(_name: str, _done_bytes: int) -> None:
    """For those who do not watch."""


@dataclass(frozen=True, slots=True)
class Built:
    """A delta that was built.

    Attributes:
        header: what it says.
        size: of its file, in bytes.
    """

    header: Header
    size: int

    def costs(self, name: str) -> int:
        """Bytes of payload that a file of the new model takes; 0 where the old model has it."""
        plan = self.header.files.get(name)
        return plan.payload_length if plan else 0


def build(old: Path, new: Path, out: Path | None, *, whole: str = "", reached: Reached = ignore) -> Built:
    """Say the model in the folder `new` by the one in `old`; both must have been verified.

    Args:
        old: folder of the model that robots have.
        new: folder of the one that they shall get.
        out: the delta's file; None only measures it. Beside it a temporary file grows as large.
        whole: address of the whole new model, for robots that lack the old one.
        reached: told of the progress.

    Raises:
        ManifestError: one of them is no model.
        OSError: a file cannot be read or written.
    """
    before = manifests.load(old)
    with _open_payload(out) as payload:
        sink = _Sink(payload)
        after = manifests.load(new)
        files = {}
        for name in changed(before, after):
            base = name if name in before.files else ""
            blocks = encode(new / name, old / base if base else None)
            files[name] = FilePlan(base, tuple(_merged(blocks, sink, partial(reached, name))))
        header = Header(
            base_label=before.label,
            base_body=signing.body_digest(manifests.read_text(old / manifests.FILE_NAME)),
            manifest=after,
            text=manifests.read_text(new / manifests.FILE_NAME),
            files=files,
            payload_size=sink.size,
            payload_sha256=sink.digest.hexdigest(),
            whole=whole,
        )
        if out is not None:
            payload.seek(0)
            headers.write(out, header, payload)
    start = len(headers.MAGIC) + headers.LENGTH_BYTES
    return Built(header, start + len(header.to_json().encode()) + sink.size)


def changed(before: Manifest, after: Manifest) -> list[str]:
    """Files of the new model that the old one does not have under any name, sorted."""
    known = set(before.files.values())
    return sorted(name for name, entry in after.files.items() if entry not in known)


def _open_payload(out: Path | None) -> IO[bytes]:
    return Path(os.devnull).open("wb") if out is None else tempfile.TemporaryFile(dir=out.parent)


def _merged(blocks: Iterable[tuple[Block, bytes]], sink: _Sink, reached: Callable[[int], None]) -> list[Block]:
    """The blocks, with copies that follow each other made one; their payloads go to the sink."""
    merged: list[Block] = []
    done = 0
    for block, payload in blocks:
        sink.write(payload)
        done += block.length
        if merged and _continues(merged[-1], block):
            last = merged.pop()
            length = last.length + block.length
            merged.append(replace(last, length=length, base_length=length))
        else:
            merged.append(block)
        reached(done)
    return merged


def encode(new: Path, base: Path | None) -> Iterator[tuple[Block, bytes]]:
    """The blocks of a new file and their payloads, in order."""
    encoder = Encoder()
    with new.open("rb") as stream:
        if base is None:
            yield from _encode(encoder, stream, None, regions(new, None))
        else:
            with base.open("rb") as old:
                yield from _encode(encoder, stream, old, regions(new, base))


def _encode(
    encoder: Encoder, stream: BinaryIO, old: BinaryIO | None, parts: list[Region]
) -> Iterator[tuple[Block, bytes]]:
    for part in parts:
        for begin in range(part.begin, part.end, BLOCK_BYTES):
            end = min(begin + BLOCK_BYTES, part.end)
            content = _read(stream, begin, end)
            place = part.base_begin + begin - part.begin
            if old is None or part.base_begin == part.base_end:
                code, payload = encoder.encode(content, b"", "")
                yield Block(code, len(content), 0, 0, len(payload)), payload
            elif _read(old, place, min(place + len(content), part.base_end)) == content:
                yield Block(Code.COPY, len(content), place, len(content), 0), b""
            else:
                yield _compare(encoder, content, old, part, place)


def _compare(encoder: Encoder, content: bytes, old: BinaryIO, part: Region, place: int) -> tuple[Block, bytes]:
    begin, end = place, place + len(content)
    if not part.dtype:
        begin, end = max(part.base_begin, begin - REACH_BYTES), min(part.base_end, end + REACH_BYTES)
    base = _read(old, begin, end) if begin < end else b""
    code, payload = encoder.encode(content, base, part.dtype)
    if code is Code.ZSTD:
        return Block(code, len(content), 0, 0, len(payload)), payload
    return Block(code, len(content), begin, len(base), len(payload)), payload


def _continues(last: Block, block: Block) -> bool:
    return last.code is block.code is Code.COPY and last.base_offset + last.length == block.base_offset


def _read(stream: BinaryIO, begin: int, end: int) -> bytes:
    stream.seek(begin)
    return stream.read(max(0, end - begin))


class _Sink:
    """Where payloads go; counts and hashes them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.size, self.digest = stream, 0, hashlib.sha256()

    def write(self, payload: bytes) -> None:
        self._stream.write(payload)
        self.digest.update(payload)
        self.size += len(payload)

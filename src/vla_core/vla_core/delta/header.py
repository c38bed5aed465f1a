"""The file that a delta travels in.

```
8 bytes   EVGDELTA
4 bytes   length of the header, little-endian
header    JSON: {"format": 1, "base": {"label", "body"}, "manifest": the target's manifest.json as text,
           "files": {name: {"base": name in the old model or "", "blocks": [[code, bytes, base offset, base bytes,
           payload bytes], …]}}, "payload": {"size", "sha256"}, "whole": where the whole model is, or ""}
payload   of all blocks of all files, in the header's order
```
Files that the old model has too, under whatever name, are not in it: the manifest's hashes find them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from vla_core import manifest as manifests
from vla_core.delta.codecs import BLOCK_BYTES, MAX_BASE_BYTES, Code
from vla_core.errors import DeltaError, ManifestError
from vla_core.manifest import Manifest

SUFFIX = ".delta"
MAGIC = b"EVGDELTA"
FORMAT = 1
LENGTH_BYTES = 4
MAX_HEADER_BYTES = 8 << 20
"""15 GB of weights that all changed make 15,000 blocks, which take 0.7 MB; a manifest may have 4 MB."""
_MAX_PAYLOAD_BYTES = BLOCK_BYTES + (64 << 10)
"""What does not compress grows a little."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """How the next `length` bytes of a file are made: see `Code`; offsets and lengths in bytes."""

    code: Code
    length: int
    base_offset: int
    base_length: int
    payload_length: int

    def __post_init__(self) -> None:
        numbers = (self.length, self.base_offset, self.base_length, self.payload_length)
        if not all(type(number) is int and number >= 0 for number in numbers) or not self.length:
            raise DeltaError(f"block {numbers} is no whole number of bytes")
        if self.code is Code.COPY:
            if self.base_length != self.length or self.payload_length:
                raise DeltaError("a copy has the length of what it copies")
        elif self.length > BLOCK_BYTES or self.payload_length > _MAX_PAYLOAD_BYTES or self.base_length > MAX_BASE_BYTES:
            raise DeltaError(f"block {numbers} is longer than {BLOCK_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class FilePlan:
    """How a file is made: from which file of the old model ("" for none), by which blocks."""

    base: str
    blocks: tuple[Block, ...]

    @property
    def payload_length(self) -> int:
        """In bytes."""
        return sum(block.payload_length for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Header:
    """What a delta says about itself.

    Attributes:
        base_label, base_body: the old model, and the digest of what its manifest says (`signing.body_digest`).
        manifest, text: of the new model.
        files: how each file is made that the old model does not have.
        payload_size, payload_sha256: of all that follows the header.
        whole: address of the whole new model; "" where nobody gave one.
    """

    base_label: str
    base_body: str
    manifest: Manifest
    text: str
    files: Mapping[str, FilePlan]
    payload_size: int
    payload_sha256: str
    whole: str = ""

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.base_body) or not _DIGEST.fullmatch(self.payload_sha256):
            raise DeltaError("the digests of base and payload must be 64 hex digits")
        if not isinstance(self.whole, str) or (self.whole and not self.whole.isprintable()):
            raise DeltaError("'whole' must be an address")
        for name, plan in self.files.items():
            entry = self.manifest.files.get(name)
            if entry is None or sum(block.length for block in plan.blocks) != entry.size:
                raise DeltaError(f"{name!r} is not the file that the manifest lists")
            if plan.base:
                manifests.check_path(plan.base)
            elif any(block.base_length for block in plan.blocks):
                raise DeltaError(f"{name!r} is made from a file that is not named")
        if sum(plan.payload_length for plan in self.files.values()) != self.payload_size:
            raise DeltaError("the blocks and the payload differ in length")

    def to_json(self) -> str:
        """The header's text."""
        files = {
            name: {
                "base": plan.base,
                "blocks": [
                    [str(one.code), one.length, one.base_offset, one.base_length, one.payload_length]
                    for one in plan.blocks
                ],
            }
            for name, plan in self.files.items()
        }
        document = {
            "format": FORMAT,
            "base": {"label": self.base_label, "body": self.base_body},
            "manifest": self.text,
            "files": files,
            "payload": {"size": self.payload_size, "sha256": self.payload_sha256},
            "whole": self.whole,
        }
        return json.dumps(document, separators=(",", ":"))


def write(path: Path, header: Header, payload: IO[bytes]) -> None:
    """Write the file at one stroke; `payload` stands at its beginning."""
    text = header.to_json().encode()
    if len(text) > MAX_HEADER_BYTES:
        raise DeltaError(f"{path}: the header has {len(text)} bytes, more than {MAX_HEADER_BYTES}")
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as out:
        out.write(MAGIC + len(text).to_bytes(LENGTH_BYTES, "little") + text)
        while block := payload.read(_COPY_BYTES):
            out.write(block)
    temporary.replace(path)


def read(stream: BinaryIO, origin: str) -> Header:
    """Read the header of a delta; the stream then stands at the payload.

    Raises:
        DeltaError: it is none, damaged, or of a later release; the message starts with `origin`.
    """
    start = stream.read(len(MAGIC) + LENGTH_BYTES)
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if not start.startswith(MAGIC) or not 2 <= length <= MAX_HEADER_BYTES:
        raise DeltaError(f"{origin} is no delta of a model")
    text = stream.read(length)
    try:
        return _parse(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DeltaError(f"{origin}: its header is malformed: {error!r}") from error
    except (DeltaError, ManifestError) as error:
        raise DeltaError(f"{origin}: {error}") from error


def length_with_header(beginning: bytes | bytearray) -> int:
    """How many bytes of a delta `read` needs, as far as its beginning tells; no more than it accepts."""
    start = len(MAGIC) + LENGTH_BYTES
    return start + min(MAX_HEADER_BYTES, int.from_bytes(beginning[len(MAGIC) : start], "little"))


def _parse(raw: Mapping[str, Any]) -> Header:
    if raw["format"] != FORMAT:
        raise DeltaError(f"it has format {raw['format']!r}; this release reads {FORMAT}")
    return Header(
        base_label=str(raw["base"]["label"]),
        base_body=raw["base"]["body"],
        manifest=manifests.parse(raw["manifest"]),
        text=raw["manifest"],
        files={
            name: FilePlan(plan["base"], tuple(Block(Code(code), *numbers) for code, *numbers in plan["blocks"]))
            for name, plan in raw["files"].items()
        },
        payload_size=raw["payload"]["size"],
        payload_sha256=raw["payload"]["sha256"],
        whole=raw["whole"],
    )


def payload_is_right(stream: BinaryIO, header: Header) -> bool:
    """Whether what follows the header is what the header says; reads all of it, from where the stream stands."""
    digest, left = hashlib.sha256(), header.payload_size
    while left and (block := stream.read(min(left, _COPY_BYTES))):
        digest.update(block)
        left -= len(block)
    return not left and not stream.read(1) and digest.hexdigest() == header.payload_sha256

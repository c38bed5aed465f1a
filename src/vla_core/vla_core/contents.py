"""Whether a file of a model is what its suffix says; nothing is loaded for that.

A name alone proves little: a pickle called `weights.safetensors` would be refused by its loader, but only once the
robot tries to start it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

from vla_core import safetensors
from vla_core.errors import ManifestError

MAX_JSON_BYTES = 64 << 20
"""The largest tokenizers have 35 MB."""
ONNX_FIRST_BYTES = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72")
"""Tags of ModelProto's fields, with which every ONNX file begins; no pickle (80), zip (50) or ELF (7f) does.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""
_TEXT_BLOCK_BYTES = 1 << 20


def check_content(path: Path) -> None:
    """Look at the file behind the name.

    Raises:
        ManifestError: it is something else than its suffix says.
    """
    kind = path.suffix
    try:
        with path.open("rb") as stream:
            if kind == ".safetensors":
                _safetensors(stream)
            elif kind == ".onnx":
                _onnx(stream)
            elif kind == ".json":
                _json(stream)
            else:
                _text(stream)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is no {kind} file: {error}") from error


def _safetensors(stream: BinaryIO) -> None:
    if not isinstance(json.loads(safetensors.read_text(stream)), dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004  becomes a ManifestError above
    stream.seek(0)
    safetensors.check_whole(stream)


def _onnx(stream: BinaryIO) -> None:
    first = stream.read(1)
    if not first or first[0] not in ONNX_FIRST_BYTES:
        raise ValueError("does not begin as an ONNX graph does")


def _json(stream: BinaryIO) -> None:
    content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
    json.loads(content)


def _text(stream: BinaryIO) -> None:
    rest = b""
    while block := stream.read(_TEXT_BLOCK_BYTES):
        block = rest + block
        if b"\0" in block:
            raise ValueError("a zero byte is no text")
        try:
            block.decode()
            rest = b""
        except UnicodeDecodeError as error:
            rest = block[error.start :]
            if len(rest) >= 4:  # no character is cut by the block's end: it is none
                raise
    if rest:
        raise ValueError("ends within a character")

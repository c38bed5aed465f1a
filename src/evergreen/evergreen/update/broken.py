"""Broken models for the story: copies of a sound one that nobody should let drive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from vla_core import manifest as manifests
from vla_core.errors import ConfigError
from vla_core.manifest import Manifest

NAN: Final = "nan"
HASH: Final = "hash"
KINDS: Final = (NAN, HASH)
ONNX: Final = "policy.onnx"
CHECKPOINT: Final = "model.safetensors"
_FLOATING: Final = frozenset({"F64", "F32", "F16", "BF16"})
_GRAPH, _INITIALIZER, _DATA_TYPE, _FLOAT_DATA, _RAW_DATA = 7, 5, 2, 4, 9
"""Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, and three of TensorProto."""
_FLOAT = 1
"""TensorProto.DataType.FLOAT."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers (protobuf.dev/programming-guides/encoding)."""


def make(kind: str, sound: Path, folder: Path) -> Manifest:
    """Copy the model in `sound` to `folder` and break it.

    `nan`: all weights are NaN, hashes are right; only whoever asks it finds out. `hash`: a byte was changed after the
    manifest had been written, as a bad disk or a bad person would.

    Raises:
        ConfigError: there is no such kind, or this model has no weights.
    """
    breaks: dict[str, Callable[[Path], None]] = {NAN: _spoil_weights, HASH: lambda _: None}
    if kind not in breaks:
        raise ConfigError(f"broken {kind!r}: there are {', '.join(KINDS)}")
    model = manifests.load(sound)
    if ONNX not in model.files:
        raise ConfigError(f"{model.label} has no {ONNX} that could be broken; name another model")
    shutil.copytree(sound, folder)
    breaks[kind](folder)
    broken = replace(
        model, version=f"{model.version}-{kind}", files=manifests.list_files(folder), provenance={}, signature=None
    )
    manifests.write(folder, broken)
    if kind == HASH:
        _flip_last_byte(folder / ONNX)
    return broken


def _spoil_weights(folder: Path) -> None:
    """Of the graph, and of the checkpoint, where the graph may keep its own."""
    found = {ONNX: float_weights, CHECKPOINT: checkpoint_weights}
    spoilt = [_overwrite(folder / name, spans) for name, spans in found.items() if (folder / name).is_file()]
    if not any(spoilt):
        raise ConfigError(f"{folder}: no floating-point weights were found in it")


def _overwrite(path: Path, spans: Callable[[bytearray], Iterator[tuple[int, int]]]) -> int:
    """Fill them with ones, which are NaN in floating point of any width; returns how many there were."""
    data = bytearray(path.read_bytes())
    found = list(spans(data))
    for begin, end in found:
        data[begin:end] = b"\xff" * (end - begin)
    path.write_bytes(data)
    return len(found)


def _flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def float_weights(model: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where in an ONNX file its initializers of type float lie: begin and end of each."""
    for number, begin, end in _fields(model, 0, len(model)):
        if number == _GRAPH:
            for inner, first, last in _fields(model, begin, end):
                if inner == _INITIALIZER:
                    yield from _values(model, first, last)


def checkpoint_weights(checkpoint: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where in a safetensors file its tensors of floating point lie (huggingface.co/docs/safetensors, Format)."""
    begin = 8 + int.from_bytes(checkpoint[:8], "little")
    for name, tensor in json.loads(checkpoint[8:begin]).items():
        if name != "__metadata__" and tensor["dtype"] in _FLOATING:
            first, last = tensor["data_offsets"]
            yield begin + first, begin + last


def _values(model: bytes | bytearray, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Of one tensor."""
    fields = list(_fields(model, begin, end))
    is_float = any(number == _DATA_TYPE and _varint(model, first)[0] == _FLOAT for number, first, _ in fields)
    if is_float:
        yield from ((first, last) for number, first, last in fields if number in (_RAW_DATA, _FLOAT_DATA))


def _fields(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of the content of each field of a message."""
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _LENGTH:
            length, at = _varint(data, at)
        elif kind == _VARINT:
            length = _varint(data, at)[1] - at
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ConfigError(f"this is no ONNX file: wire type {kind} at byte {at}")
        yield tag >> 3, at, at + length
        at += length


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ConfigError("this is no ONNX file: it ends in the middle of a number")

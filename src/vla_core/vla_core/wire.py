"""MessagePack with numpy arrays, byte for byte as openpi's servers and clients speak it.

An array travels as `{b"__ndarray__": True, b"data": bytes, b"dtype": str, b"shape": tuple}`, a numpy scalar as
`{b"__npgeneric__": True, b"data": value, b"dtype": str}`. Source of the format: openpi-client, `msgpack_numpy.py`
(Apache-2.0). Arrays of Python objects are refused in both directions: they would mean unpickling.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import msgpack
import numpy as np

from vla_core.errors import WireError

_REFUSED_KINDS = "OVcMm"
"""Objects and structures (pickle), complex numbers and dates: nothing that a policy needs."""


def _encode(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in _REFUSED_KINDS:
        raise WireError(f"arrays of type {value.dtype} cannot be sent")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return value


def _dtype(text: object) -> np.dtype[Any]:
    try:
        dtype = np.dtype(text.decode() if isinstance(text, bytes) else str(text))
    except (TypeError, ValueError, SyntaxError) as error:
        raise WireError(f"unknown array type {text!r}") from error
    if dtype.kind in _REFUSED_KINDS:
        raise WireError(f"arrays of type {dtype} are refused")
    return dtype


def _decode(value: dict[Any, Any]) -> object:
    if b"__ndarray__" in value:
        dtype, shape, data = _dtype(value.get(b"dtype")), value.get(b"shape"), value.get(b"data")
        if not isinstance(data, bytes) or not isinstance(shape, list | tuple):
            raise WireError("array without data or shape")
        if not all(isinstance(side, int) and side >= 0 for side in shape):
            raise WireError(f"array with impossible shape {shape!r}")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise WireError(f"array of shape {tuple(shape)} and type {dtype} came with {len(data)} bytes")
        return np.frombuffer(data, dtype=dtype).reshape(shape)
    if b"__npgeneric__" in value:
        return _dtype(value.get(b"dtype")).type(value.get(b"data"))
    return value


def pack(message: object) -> bytes:
    """Serialise a message of dictionaries, lists, text, numbers and numpy arrays.

    Raises:
        WireError: something in it cannot be sent.
    """
    try:
        return bytes(msgpack.packb(message, default=_encode))
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"cannot be sent: {error}") from error


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Parse what `pack` wrote; arrays are read-only views into `data`.

    Raises:
        WireError: malformed or hostile bytes.
    """
    try:
        return _unpackb(data)
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise WireError(f"malformed message of {len(data)} bytes: {error}") from error


_unpackb = functools.partial(msgpack.unpackb, object_hook=_decode, raw=False, strict_map_key=False)

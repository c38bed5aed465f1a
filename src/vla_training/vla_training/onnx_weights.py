"""Lets an ONNX graph read its weights from the checkpoint beside it, so that a model stores and sends them once.

ONNX knows *external data*: a tensor may lie in another file of the same folder, at an offset. A safetensors file is a
header and then the tensors' plain bytes, so the graph can point straight into `model.safetensors`. Only what is found
there bit for bit is pointed to; everything else stays in the graph. Weights that the checkpoint stores as float16 are
followed by a Cast, which ONNX Runtime works out once, when it loads: the same numbers in float32 arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vla_core.checkpoint import check_whole

_HEADER_BYTES = 8
"""A safetensors file begins with its header's length, little-endian."""
_LEAST_BYTES = 1024
"""What is smaller stays: it saves nothing, and might be found by chance."""


def store_once(graph: onnx.ModelProto, weights: Path) -> int:
    """Make `graph` as small as it can be without losing anything.

    Args:
        graph: is changed; it has to be saved into the folder of `weights`.
        weights: a safetensors file.

    Returns:
        How many bytes it need not hold.

    Raises:
        ModelError: `weights` is no whole safetensors file.
    """
    saved = point_into(graph, weights)  # before halving, or exact halves of float32 weights would not be found
    store_half(graph)
    return saved + point_into(graph, weights)


def point_into(graph: onnx.ModelProto, weights: Path) -> int:
    """Replace tensors of `graph` by references into `weights`, a safetensors file in the folder it will be saved to.

    A matrix that the exporter transposed is referred to as it lies in the file, and transposed in the graph; ONNX
    Runtime does that once, when it loads.

    Returns:
        How many bytes the graph need not hold.

    Raises:
        ModelError: `weights` is no whole safetensors file.
    """
    check_whole(weights)
    raw = weights.read_bytes()
    begin = _HEADER_BYTES + int.from_bytes(raw[:_HEADER_BYTES], "little")
    turned: list[onnx.NodeProto] = []
    saved = 0
    for tensor, values in _held(graph):
        place, shape = _find(raw, begin, values), values.shape
        if place < 0 and values.ndim == 2:
            place, shape = _find(raw, begin, values.T), values.T.shape
            if place >= 0:
                stored = f"{tensor.name}.stored"
                turned.append(
                    helper.make_node("Transpose", [stored], [tensor.name], name=f"{stored}.turn", perm=[1, 0])
                )
                tensor.name = stored
        if place >= 0:
            _refer(tensor, weights.name, place, shape, values.nbytes)
            saved += values.nbytes
    _put_first(graph, turned)
    return saved


def store_half(graph: onnx.ModelProto) -> int:
    """Hold large float32 tensors as float16 where that loses nothing; returns how many were changed."""
    casts = []
    for tensor, values in _held(graph):
        if values.dtype != np.float32:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        stored = f"{name}.half"
        tensor.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    _put_first(graph, casts)
    return len(casts)


def _held(graph: onnx.ModelProto) -> Iterator[tuple[TensorProto, NDArray[np.generic]]]:
    """Tensors that are worth it and are in the graph itself."""
    for tensor in graph.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            values = numpy_helper.to_array(tensor)
            if values.nbytes >= _LEAST_BYTES:
                yield tensor, values


def _put_first(graph: onnx.ModelProto, first: list[onnx.NodeProto]) -> None:
    """A graph's nodes must come after what they use."""
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*first, *nodes])


def _find(raw: bytes, begin: int, values: NDArray[np.generic]) -> int:
    """Where the bytes of `values` lie, at a multiple of an element's size from the first tensor; -1 for nowhere."""
    wanted, size = values.tobytes(), values.dtype.itemsize
    place = raw.find(wanted, begin)
    while place >= 0 and (place - begin) % size:
        place = raw.find(wanted, place + 1)
    return place


def _refer(tensor: TensorProto, file: str, offset: int, shape: tuple[int, ...], nbytes: int) -> None:
    tensor.ClearField("raw_data")
    for name in ("float_data", "int32_data"):
        tensor.ClearField(name)
    del tensor.dims[:]
    tensor.dims.extend(shape)
    del tensor.external_data[:]
    for key, value in (("location", file), ("offset", str(offset)), ("length", str(nbytes))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    tensor.data_location = TensorProto.EXTERNAL

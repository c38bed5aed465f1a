"""A graph that reads its weights from the checkpoint's file beside it."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from vla_core.errors import ModelError
from vla_training.onnx_weights import point_into, store_half, store_once

pytestmark = pytest.mark.train

SQUARE, TALL, OTHER = (64, 64), (32, 48), (40, 40)


def model(tensors):
    """x @ square, and each of the other tensors summed and added."""
    nodes = [helper.make_node("MatMul", ["x", "square"], ["y0"])]
    for number, name in enumerate(list(tensors)[1:]):
        nodes.append(helper.make_node("ReduceSum", [name], [f"s{number}"], keepdims=0))
        nodes.append(helper.make_node("Add", [f"y{number}", f"s{number}"], [f"y{number + 1}"]))
    last = f"y{len(tensors) - 1}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_what_lies_in_the_file_is_pointed_to_and_the_answer_stays(tmp_path):
    rng = np.random.default_rng(0)
    square, tall, other = (rng.normal(size=size).astype(np.float32) for size in (SQUARE, TALL, OTHER))
    weights = {"a": torch.from_numpy(tall), "b": torch.from_numpy(np.vstack([square, square.T.copy()]))}
    save_file(weights, tmp_path / "model.safetensors")
    graph = model({"square": square, "turned": np.ascontiguousarray(tall.T), "other": other})
    x = {"x": rng.normal(size=(1, 64)).astype(np.float32)}
    expected = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, x)[0]
    assert point_into(graph, tmp_path / "model.safetensors") == square.nbytes + tall.nbytes
    onnx.save(graph, tmp_path / "policy.onnx")
    assert (tmp_path / "policy.onnx").stat().st_size < other.nbytes + 2000
    found = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx")).run(None, x)[0]
    assert np.allclose(found, expected, atol=1e-5)


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x10\0\0\0\0\0\0\0not a header at all")
    with pytest.raises(ModelError, match="is no safetensors file"):
        point_into(model({"square": np.ones(SQUARE, np.float32)}), path)


def test_lossy_tensors_keep_their_precision():
    exact, lossy = np.full(1000, 0.5, np.float32), np.full(1000, 0.1, np.float32)
    tensors = [numpy_helper.from_array(exact, "exact"), numpy_helper.from_array(lossy, "lossy")]
    node = helper.make_node("Add", ["exact", "lossy"], ["sum"])
    result = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1000])
    model = helper.make_model(helper.make_graph([node], "g", [], [result], tensors))
    assert store_half(model) == 1
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {"exact.half": TensorProto.FLOAT16, "lossy": TensorProto.FLOAT}
    onnx.checker.check_model(model)


def test_float32_weights_that_halves_could_hold_are_still_found(tmp_path):
    """Halving comes second: what the file stores as float32 must be looked for as float32."""
    square = np.random.default_rng(0).integers(-8, 8, SQUARE).astype(np.float32)
    save_file({"a": torch.from_numpy(square)}, tmp_path / "model.safetensors")
    graph = model({"square": square})
    assert store_once(graph, tmp_path / "model.safetensors") == square.nbytes
    assert graph.graph.initializer[0].data_type == TensorProto.FLOAT

"""Tiny ONNX models that a real policy server runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vla_core import manifest as manifests
from vla_core.joints import SO101_JOINTS
from vla_sim.scene import HOME_RAD

HEIGHT, WIDTH, HORIZON, RATE_HZ, OPEN_LOOP_S = 32, 64, 20, 10.0, 0.5
RADIUS_RAD, TURN_RAD_S, CENTRE_RAD = 0.3, 0.8, -0.1
"""Two joints go round a circle for ever: 0.24 rad/s. Its centre is not home, so that there is a way to turn."""
PAN, ROLL = 0, 4
WORK_SIZE = 1024
"""One product of such matrices takes 20 to 60 ms."""


def write_model(
    folder: Path,
    camera: str = "front",
    *,
    name: str = "",
    version: str = "1",
    ignored: float = 0.0,
    work: int = 0,
    **manifest: object,
) -> Path:
    """A model that sees `camera` and turns shoulder_pan and wrist_roll round a circle, the rest at home.

    `ignored` times the brightness is added to all of it: NaN spoils it. It multiplies matrices of WORK_SIZE `work`
    times before it answers. Its name is the folder's unless given.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    image, state = f"observation.images.{camera}", "observation.state"
    constants = {
        "pair": np.array([PAN, ROLL], np.int64),
        "centre": np.array([CENTRE_RAD, 0.0], np.float32),
        "tiny": np.array(1e-3, np.float32),
        "last": np.array([1], np.int64),
        "turns": _turns(),
        "rows": np.array([1, HORIZON, 2], np.int64),
        "select": np.eye(6, dtype=np.float32)[[PAN, ROLL]],
        "home": _home(),
        "pixels": np.array([1, 2, 3], np.int64),
        "nothing": np.array(ignored, np.float32),
        "work0": np.full((WORK_SIZE, WORK_SIZE), 1 / WORK_SIZE, np.float32) if work else np.zeros((1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Gather", [state, "pair"], ["two"], axis=1),
        helper.make_node("Sub", ["two", "centre"], ["arrow"]),
        helper.make_node("ReduceL2", ["arrow", "last"], ["length"], keepdims=1),
        helper.make_node("Add", ["length", "tiny"], ["divisor"]),
        helper.make_node("Div", ["arrow", "divisor"], ["direction"]),
        helper.make_node("MatMul", ["direction", "turns"], ["flat"]),
        helper.make_node("Reshape", ["flat", "rows"], ["circle"]),
        helper.make_node("MatMul", ["circle", "select"], ["moving"]),
        helper.make_node("Add", ["moving", "home"], ["still"]),
        helper.make_node("Cast", [image], ["picture"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["picture", "pixels"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["spoilt"]),
        helper.make_node("Add", ["work0", "spoilt"], ["square"]),  # by the picture, or it were worked out beforehand
        *(helper.make_node("MatMul", [f"work{n}", "square"], [f"work{n + 1}"]) for n in range(work)),
        helper.make_node("ReduceMax", [f"work{work}"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "spoilt"], ["ignored"]),
        helper.make_node("Add", ["still", "ignored"], ["action"]),
    ]
    graph = helper.make_graph(
        nodes,
        "circles",
        [
            helper.make_tensor_value_info(image, TensorProto.UINT8, [1, HEIGHT, WIDTH, 3]),
            helper.make_tensor_value_info(state, TensorProto.FLOAT, [1, 6]),
        ],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, HORIZON, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "policy.onnx")
    fields = {
        "joint_names": SO101_JOINTS,
        "cameras": {camera: manifests.CameraInput(WIDTH, HEIGHT)},
        "rate_hz": RATE_HZ,
        "chunk_size": HORIZON,
        "open_loop_s": OPEN_LOOP_S,
        "files": manifests.list_files(folder),
    } | manifest
    manifests.write(
        folder,
        manifests.Manifest(name=name or folder.name, version=version, policy_type="act", backend="onnx", **fields),
    )
    return folder


def with_weights(folder: Path, *, cut_bytes: int = 0) -> Path:
    """Let a model that multiplies matrices read them from `model.safetensors`, as exported models do.

    The file lacks its last `cut_bytes`, and the manifest says so: whoever compares hashes finds nothing wrong.
    """
    onnx = pytest.importorskip("onnx")
    from safetensors.numpy import save_file  # noqa: PLC0415

    from vla_training.onnx_weights import point_into  # noqa: PLC0415

    graph, weights = onnx.load(folder / "policy.onnx"), folder / "model.safetensors"
    (matrix,) = [tensor for tensor in graph.graph.initializer if tensor.name == "work0"]
    save_file({"matrix": onnx.numpy_helper.to_array(matrix)}, weights)
    assert point_into(graph, weights) > 0
    onnx.save(graph, folder / "policy.onnx")
    os.truncate(weights, weights.stat().st_size - cut_bytes)
    manifests.write(folder, replace(manifests.load(folder), files=manifests.list_files(folder)))
    return folder


def _turns() -> np.ndarray:
    """`(2, 2 * HORIZON)`: a direction times this is the circle's points at the times of the actions."""
    angles = TURN_RAD_S / RATE_HZ * np.arange(HORIZON)
    turns = np.array([[np.cos(angles), np.sin(angles)], [-np.sin(angles), np.cos(angles)]]).transpose(0, 2, 1)
    return (RADIUS_RAD * turns).reshape(2, -1).astype(np.float32)


def _home() -> np.ndarray:
    home = np.array(HOME_RAD, np.float32)
    home[[PAN, ROLL]] = CENTRE_RAD, 0.0
    return home[None, None]

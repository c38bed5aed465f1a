"""What several tests of this package use: a real, tiny ONNX model and real policy servers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from vla_core import manifest as manifests
from vla_core.joints import SO101_JOINTS
from vla_policy.serving.address import Address, parse_address
from vla_policy.serving.client import is_healthy

HORIZON, STEP_RAD = 20, 0.01
HEIGHT, WIDTH = 32, 64
WORK_SIZE = 1024
"""One product of such matrices takes 20 to 60 ms."""
WAIT_S = 60.0
FOLLOW = ("--parent-pid", str(os.getpid()))
"""A test run that is killed leaves no server behind."""
POLL_S = 0.02


def write_model(
    folder: Path,
    *,
    version: str = "1",
    camera: str = "front",
    graph_camera: str | None = None,
    dof: int = 6,
    horizon: int = HORIZON,
    offset: float = 0.0,
    work: int = 0,
    loading: int = 0,
    **manifest: object,
) -> Path:
    """A model that answers `state + 0.01 k + mean brightness / 1000 + offset` for action k: 20 actions at 10 Hz.

    It multiplies matrices of WORK_SIZE `work` times before it does, and `loading` times when it is loaded: ONNX Runtime
    works out beforehand what depends on no input.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    image, state = f"observation.images.{graph_camera or camera}", "observation.state"
    ramp = STEP_RAD * np.arange(horizon, dtype=np.float32)[None, :, None] * np.ones((1, 1, dof), np.float32)
    ramp += np.float32(offset)
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "scale": np.array(0.001, np.float32),
        "first": np.array([1], np.int64),
        "ramp": ramp,
        "nothing": np.array(0.0, np.float32),
        "loading0": _square(loading),
        "work0": _square(work),
    }
    nodes = [
        helper.make_node("Cast", [image], ["picture"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["picture", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),  # depends on the picture: not worked out beforehand
        helper.make_node("Add", ["work0", "zero"], ["square"]),
        *(helper.make_node("MatMul", [f"work{n}", "square"], [f"work{n + 1}"]) for n in range(work)),
        helper.make_node("ReduceMax", [f"work{work}"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["done"]),
        *(helper.make_node("MatMul", [f"loading{n}", "loading0"], [f"loading{n + 1}"]) for n in range(loading)),
        helper.make_node("ReduceMax", [f"loading{loading}"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "nothing"], ["loaded"]),
        helper.make_node("Add", ["done", "loaded"], ["finished"]),
        helper.make_node("Add", ["mean", "finished"], ["worked"]),
        helper.make_node("Mul", ["worked", "scale"], ["bright"]),
        helper.make_node("Unsqueeze", ["bright", "first"], ["column"]),
        helper.make_node("Add", [state, "column"], ["start"]),
        helper.make_node("Unsqueeze", ["start", "first"], ["row"]),
        helper.make_node("Add", ["row", "ramp"], ["action"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(image, TensorProto.UINT8, [1, HEIGHT, WIDTH, 3]),
            helper.make_tensor_value_info(state, TensorProto.FLOAT, [1, dof]),
        ],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, horizon, dof])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "policy.onnx")
    fields = {
        "joint_names": SO101_JOINTS[:dof],
        "cameras": {camera: manifests.CameraInput(WIDTH, HEIGHT)},
        "chunk_size": HORIZON,
        "open_loop_s": 1.0,
        "prompt": "put the black cube on the spot",
        "files": manifests.list_files(folder),
    } | manifest
    manifests.write(
        folder, manifests.Manifest(name="tiny", version=version, policy_type="act", backend="onnx", **fields)
    )
    return folder


def _square(times: int) -> np.ndarray:
    """What is multiplied so many times."""
    return np.full((WORK_SIZE, WORK_SIZE), 1 / WORK_SIZE, np.float32) if times else np.zeros((1, 1), np.float32)


class Server:
    """A policy_server process; its output is in `text`."""

    def __init__(self, address: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.address: Address = parse_address(address)
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vla_policy.serving.server", "--listen", address, *FOLLOW, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | (environment or {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def wait_healthy(self) -> Server:
        wait_for("the server to be healthy", lambda: is_healthy(self.address, 1.0), lambda: self.process.poll() is None)
        return self

    def wait(self) -> int:
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return code

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()


def wait_for(what: str, true: Callable[[], bool], alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until `true()`, with a deadline; fail at once when no longer `alive()`."""
    deadline = time.monotonic() + WAIT_S
    pause = threading.Event()
    while not true():
        assert alive(), f"ended while waiting for {what}"
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        pause.wait(POLL_S)


StartServer = Callable[..., Server]


def observation(brightness: int = 0, state: float = 0.0, dof: int = 6) -> dict[str, object]:
    return {
        "observation.images.front": np.full((HEIGHT, WIDTH, 3), brightness, np.uint8),
        "observation.state": np.full(dof, state, np.float32),
        "prompt": "put the black cube on the spot",
        "stamp_ns": 1_700_000_000_000_000_000,
    }

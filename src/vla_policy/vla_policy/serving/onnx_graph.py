"""Loads an ONNX graph that may read its weights from the checkpoint beside it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from vla_core.checkpoint import WEIGHTS_FILE, check_whole
from vla_core.errors import ModelError

_LOG_FATAL_ONLY = 4


def reads_checkpoint(path: Path) -> bool:
    """Whether a graph points into `model.safetensors` beside it: ONNX writes that name into the graph as it is.

    Raises:
        ModelError: the graph cannot be read.
    """
    try:
        return WEIGHTS_FILE.encode() in path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def load_graph(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A graph under ONNX Runtime on the CPU.

    Args:
        path: of the graph.
        threads: compute threads, which sleep when idle: the arm and the cameras share these cores.

    Raises:
        ModelError: it does not load, or the weights that it points to are not beside it.
    """
    weights = path.with_name(WEIGHTS_FILE)
    if reads_checkpoint(path):
        if not weights.is_file():
            raise ModelError(
                f"{path} reads its weights from {WEIGHTS_FILE} beside it, which is not there: "
                "a model moves as a whole folder"
            )
        check_whole(weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL_ONLY  # what is wrong is told below, in one line
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} is no ONNX graph that this machine can run: {reason}") from error

"""An exported policy under ONNX Runtime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vla_core.errors import ModelError

ONNX_FILE = "policy.onnx"
STATE = "observation.state"
IMAGES = "observation.images"
ACTION = "action"


class OnnxPolicy:
    """The exported graph under ONNX Runtime alone, on the CPU."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load `path`; `threads` compute threads, which sleep when idle."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        images = [name for name in inputs if name.startswith(f"{IMAGES}.")]
        if len(images) != 1 or STATE not in inputs:
            raise ModelError(f"{path} takes {', '.join(inputs)}; one {IMAGES}.<camera> and {STATE} are needed")
        self._image_key = images[0]
        self.camera = self._image_key.removeprefix(f"{IMAGES}.")
        _, self.height, self.width, _ = inputs[self._image_key]

    def __call__(self, image: NDArray[np.uint8], state: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """`image` `(h, w, 3)` uint8 RGB, `state` `(dof,)` rad -> actions `(chunk, dof)` rad."""
        feed = {self._image_key: image[None], STATE: np.asarray(state, dtype=np.float32)[None]}
        return np.asarray(self._session.run([ACTION], feed)[0][0], dtype=np.float64)

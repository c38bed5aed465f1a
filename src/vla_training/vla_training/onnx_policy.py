"""An exported policy under ONNX Runtime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ModelError
from vla_core.observation import ENVIRONMENT_KEY, IMAGE_KEY, STATE_KEY
from vla_policy.serving.onnx_graph import load_graph

ONNX_FILE = "policy.onnx"
STATE = STATE_KEY
IMAGES = IMAGE_KEY.removesuffix(".")
ACTION = "action"


class OnnxPolicy:
    """The exported graph under ONNX Runtime alone, on the CPU."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load `path`; `threads` compute threads, which sleep when idle.

        Raises:
            ModelError: it is no graph of ours, or the weights that it points to are not beside it.
        """
        self._path = path
        self._session = load_graph(path, threads)
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        images = [name for name in inputs if name.startswith(IMAGE_KEY)]
        if len(images) != 1 or STATE not in inputs:
            raise ModelError(f"{path} takes {', '.join(inputs)}; one {IMAGE_KEY}<camera> and {STATE} are needed")
        self._image_key = images[0]
        self.camera = self._image_key.removeprefix(IMAGE_KEY)
        _, self.height, self.width, _ = inputs[self._image_key]
        self.environment_dim = int(inputs[ENVIRONMENT_KEY][1]) if ENVIRONMENT_KEY in inputs else 0
        """Numbers in the vector that it takes beside picture and joints; 0: none."""

    def __call__(
        self,
        image: NDArray[np.uint8],
        state: NDArray[np.floating[Any]],
        environment: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.float64]:
        """Ask it.

        Args:
            image: `(h, w, 3)` uint8 RGB.
            state: `(dof,)` rad.
            environment: `(environment_dim,)`; None where it takes none.

        Returns:
            Actions `(chunk, dof)` rad.

        Raises:
            ModelError: `environment` is missing, superfluous or of another size.
        """
        given = 0 if environment is None else len(environment)
        if given != self.environment_dim:
            raise ModelError(f"{self._path} takes {self.environment_dim} numbers as {ENVIRONMENT_KEY}, not {given}")
        feed = {self._image_key: image[None], STATE: np.asarray(state, dtype=np.float32)[None]}
        if environment is not None:
            feed[ENVIRONMENT_KEY] = np.asarray(environment, dtype=np.float32)[None]
        return np.asarray(self._session.run([ACTION], feed)[0][0], dtype=np.float64)

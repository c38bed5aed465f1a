"""An exported policy with the prompt encoder before it, as the policy server runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core import manifest as manifests
from vla_core.errors import ModelError
from vla_policy.serving.prompt_encoder import Listener
from vla_training.onnx_policy import ONNX_FILE, OnnxPolicy


class HeardPolicy:
    """What `vla_training.prompted.PromptedPolicy` describes, for a model's folder."""

    def __init__(self, folder: Path) -> None:
        """Load both; what the policy was told last is the model's own prompt.

        Raises:
            EvergreenError: they cannot be loaded, do not belong together, or do not understand that prompt.
        """
        about = manifests.load(folder)
        self._policy = OnnxPolicy(folder / ONNX_FILE)
        self._listener = Listener.load(folder, about)
        if self._listener.phrases.dim != self._policy.environment_dim:
            raise ModelError(
                f"{folder}: its policy takes {self._policy.environment_dim} numbers of a prompt, its encoder gives "
                f"{self._listener.phrases.dim}; export it again"
            )
        self._vector = self._listener.phrases.vector_of(next(iter(self._listener.phrases.centroids)))

    def prompt(self, text: str) -> str:
        """Be told what to do; why that is not understood, or an empty string."""
        match = self._listener.understand(text)
        if not match.reason:
            self._vector = self._listener.phrases.vector_of(match.target)
        return match.reason

    def target_of(self, text: str) -> str:
        """What a prompt asks for.

        Raises:
            ModelError: it is not understood.
        """
        match = self._listener.understand(text)
        if match.reason:
            raise ModelError(f"the model does not act on this: {match.reason}")
        return match.target

    def __call__(self, picture: NDArray[np.uint8], state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Picture `(h, w, 3)` uint8 and state `(dof,)` rad to actions `(chunk, dof)` rad."""
        return self._policy(picture, state, self._vector)

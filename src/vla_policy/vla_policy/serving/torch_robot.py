"""One loaded policy in the robot's terms: its names of cameras, its joints in rad, row 0 at the observation's own time.

The torch backend serves it, and the exporter compares an ONNX graph with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ModelError, WireError
from vla_core.manifest import Manifest
from vla_core.observation import ENVIRONMENT_KEY, IMAGE_KEY, PROMPT_KEY, STATE_KEY
from vla_policy.serving.torch_checkpoint import Loaded
from vla_policy.serving.torch_policy import Batch, ChunkPolicy


class RobotPolicy:
    """A checkpoint and what its manifest says of the robot. Remembers nothing; one thread uses it."""

    def __init__(self, loaded: Loaded, manifest: Manifest) -> None:
        """Take a loaded checkpoint and the manifest that describes it."""
        self._manifest = manifest
        self._conversion = manifest.conversion()
        self._sees_state = loaded.info.state_dim > 0
        self._environment_dim = loaded.info.environment_dim
        self._policy = ChunkPolicy(loaded, manifest.chunk_size)

    def prepare(self, observation: Mapping[str, Any]) -> Batch:
        """One observation from the wire, as the policy's processor makes it.

        Raises:
            WireError: it lacks something, or something has another shape.
        """
        manifest = self._manifest
        images = {
            manifest.camera_key(name): _array(observation, IMAGE_KEY + name, (size.height, size.width, 3), "uint8")
            for name, size in manifest.cameras.items()
        }
        vectors = {}
        if self._sees_state:
            state = _array(observation, STATE_KEY, (manifest.dof,), "float32")
            vectors[STATE_KEY] = self._conversion.from_rad(state).astype(np.float32)
        if self._environment_dim:
            vectors[ENVIRONMENT_KEY] = _array(observation, ENVIRONMENT_KEY, (self._environment_dim,), "float32")
        prompt = observation.get(PROMPT_KEY) or manifest.prompt
        if not isinstance(prompt, str):
            raise WireError(f"observation {PROMPT_KEY!r} must be text, not {type(prompt).__name__}")
        return self._policy.prepare(images, vectors, prompt)

    def actions(self, steps: tuple[Batch, ...]) -> NDArray[np.float32]:
        """`(chunk_size, dof)`, rad; the first belongs to the newest observation's own time.

        Raises:
            ModelError: the policy gives fewer actions than the manifest says, or another number of joints.
        """
        rows = align(self._policy.chunk(steps), self._manifest.action_offset)
        wanted = (self._manifest.chunk_size, self._manifest.dof)
        if rows.shape[1] != wanted[1] or len(rows) < wanted[0]:
            raise ModelError(
                f"model {self._manifest.label} answers {rows.shape}, where its manifest says {wanted}: export it again"
            )
        return self._conversion.to_rad(rows[: wanted[0]]).astype(np.float32)


def align(actions: NDArray[np.float32], offset: int) -> NDArray[np.float32]:
    """Make row 0 belong to the observation's own time.

    Args:
        actions: `(n, dof)`.
        offset: periods from the observation to `actions[0]`: later ones are held back to it, earlier ones dropped.
    """
    if offset >= 0:
        return np.concatenate([np.repeat(actions[:1], offset, axis=0), actions])
    return actions[-offset:]


def _array(observation: Mapping[str, Any], name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    value = observation.get(name)
    if not isinstance(value, np.ndarray):
        raise WireError(f"observation lacks the array {name!r}; it has {', '.join(map(str, observation))}")
    if value.shape != shape or (dtype == "uint8" and value.dtype != np.uint8):
        raise WireError(f"observation {name!r} is {value.dtype} {value.shape}; this model wants {dtype} {shape}")
    return np.ascontiguousarray(value, dtype=dtype)

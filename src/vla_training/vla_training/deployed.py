"""The policy as the robot sees it: units, normalisation, network and their inverses in one torch module.

What the processors of a checkpoint do is found by asking them, so that every kind of normalisation that scales and
shifts is understood, and nothing of it is written a second time here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vla_core.errors import ModelError
from vla_core.manifest import Manifest
from vla_core.observation import ENVIRONMENT_KEY, STATE_KEY
from vla_policy.serving.torch_checkpoint import Loaded
from vla_training.onnx_policy import IMAGES

PIXEL_MAX = 255.0
_AFFINE_LIMIT = 1e-6
"""Relative: processors that bend more than this are no normalisation."""

Pair = tuple[Tensor, Tensor]
"""Scale and offset of `y = x * scale + offset`, float64."""


class Deployed(nn.Module):
    """A whole ACT policy: what the robot has goes in, what it needs comes out."""

    def __init__(self, loaded: Loaded, manifest: Manifest) -> None:
        """Take a loaded ACT policy and what its manifest says of this robot.

        Raises:
            ModelError: its processors do more than scale and shift.
        """
        super().__init__()
        self.model = loaded.policy.model
        features = list(loaded.policy.config.image_features)
        names = {manifest.camera_key(name): name for name in manifest.cameras}
        self.cameras = [names[key] for key in features]
        """The robot's cameras in the order of the policy's pictures."""
        self.environment_dim = loaded.info.environment_dim
        """Numbers in `observation.environment_state`; 0: it takes none."""
        self._offset, self._chunk_size = manifest.action_offset, manifest.chunk_size
        conversion = manifest.conversion()
        unit_scale, unit_offset = torch.from_numpy(conversion.scale), torch.from_numpy(conversion.offset)
        for number, key in enumerate(features):
            scale, offset = _normalisation(loaded, key, (3, 1, 1))
            self._keep(f"image_{number}", scale[None] / PIXEL_MAX, offset[None])
        scale, offset = _normalisation(loaded, STATE_KEY, (manifest.dof,))
        self._keep("state", scale / unit_scale, offset - unit_offset * scale / unit_scale)
        if self.environment_dim:
            self._keep("environment", *_normalisation(loaded, ENVIRONMENT_KEY, (self.environment_dim,)))
        scale, offset = affine_of(lambda value: loaded.after(value[None, None])[0, 0], (manifest.dof,))
        self._keep("action", scale * unit_scale, offset * unit_scale + unit_offset)

    def forward(self, *inputs: Tensor) -> Tensor:
        """One observation to one chunk.

        Args:
            inputs: a picture `(1, h, w, 3)` uint8 RGB for each of `cameras`, the joints `(1, dof)` float32 rad, and
                where `environment_dim` is not 0 that vector, `(1, environment_dim)` float32.

        Returns:
            `(1, chunk, dof)` float32 rad.
        """
        count = len(self.cameras)
        batch: dict[str, Tensor | list[Tensor]] = {STATE_KEY: self._apply("state", inputs[count])}
        if count:
            batch[IMAGES] = [
                self._apply(f"image_{number}", picture.permute(0, 3, 1, 2).to(torch.float32))
                for number, picture in enumerate(inputs[:count])
            ]
        if self.environment_dim:
            batch[ENVIRONMENT_KEY] = self._apply("environment", inputs[count + 1])
        actions = self._apply("action", self.model(batch)[0])
        if self._offset > 0:
            actions = torch.cat([actions[:, :1]] * self._offset + [actions], dim=1)
        return actions[:, max(0, -self._offset) :][:, : self._chunk_size]

    def _keep(self, name: str, scale: Tensor, offset: Tensor) -> None:
        self.register_buffer(f"{name}_scale", scale.float())
        self.register_buffer(f"{name}_offset", offset.float())

    def _apply(self, name: str, value: Tensor) -> Tensor:
        scaled: Tensor = value * getattr(self, f"{name}_scale") + getattr(self, f"{name}_offset")
        return scaled


def affine_of(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Pair:
    """What a normalisation does to each element, found by asking it.

    Args:
        function: a processor's work on a float64 tensor of `shape`.
        shape: of its input and output.

    Raises:
        ModelError: it is not of the form scale * x + offset.
    """
    ask = torch.ones(shape, dtype=torch.float64)
    offset = function(0 * ask).double()
    scale = function(ask).double() - offset
    bent = (function(0.37 * ask).double() - (0.37 * scale + offset)).abs().max()
    if not bent <= _AFFINE_LIMIT * (1 + scale.abs().max() + offset.abs().max()):
        raise ModelError("the processors do more than scale and shift: no ONNX graph can be made; give --no-onnx")
    return scale, offset


def _normalisation(loaded: Loaded, key: str, shape: tuple[int, ...]) -> Pair:
    """Of one input; pictures as values in 0..1."""
    return affine_of(lambda value: loaded.before({key: value, "task": ""})[key][0], shape)

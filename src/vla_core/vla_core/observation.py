"""What a policy sees at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError
from vla_core.pipeline import Image

IMAGE_KEY = "observation.images."
"""Prefix of a camera's key on the wire and in exported graphs, as in LeRobot's datasets."""
STATE_KEY = "observation.state"
ENVIRONMENT_KEY = "observation.environment_state"
"""LeRobot's name of a vector that is no joint's: in exported graphs, what the prompt was encoded to."""
PROMPT_KEY = "prompt"
STAMP_KEY = "stamp_ns"
OBSERVE_ONLY_KEY = "observe_only"
"""In a message to a server whose model looks back: remember this observation, and answer with no actions."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Images, joint state and prompt at one stamp.

    Attributes:
        stamp_ns: system time of the oldest image in it.
        images: camera name to `(height, width, 3)` uint8 RGB, at the size that the model wants.
        state: `(dof,)` measured joint positions in the model's joint order, rad.
        prompt: the language instruction in force.
    """

    stamp_ns: int
    images: Mapping[str, Image]
    state: NDArray[np.float32]
    prompt: str = ""

    def __post_init__(self) -> None:
        for name, image in self.images.items():
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ConfigError(f"image of camera {name!r} must be (h, w, 3) uint8, not {image.shape} {image.dtype}")
        if self.state.ndim != 1 or not np.isfinite(self.state).all():
            raise ConfigError(f"joint state must be one finite vector, not {self.state!r}")

    def to_wire(self) -> dict[str, object]:
        """The flat dictionary that travels to a policy server."""
        message: dict[str, object] = {IMAGE_KEY + name: image for name, image in self.images.items()}
        message[STATE_KEY] = self.state
        message[PROMPT_KEY] = self.prompt
        message[STAMP_KEY] = self.stamp_ns
        return message

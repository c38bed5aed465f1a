"""The shape of the policies that we train; without torch, so that a mistake in a configuration is told at once."""

from __future__ import annotations

from dataclasses import dataclass

from vla_core.errors import ConfigError
from vla_core.observation import IMAGE_KEY


@dataclass(frozen=True, slots=True)
class ActSettings:
    """Shape of the policy.

    Attributes:
        camera: the one camera that it sees.
        width, height: size of the picture in px.
        dof: joints in state and action.
        chunk_size: actions in a chunk.
        prompt_dim: numbers in the prompt's vector, LeRobot's `observation.environment_state`; 0: it takes no prompt.
        dim_model, n_heads, dim_feedforward, n_encoder_layers, n_decoder_layers: the transformer.
    """

    camera: str = "front"
    width: int = 192
    height: int = 96
    dof: int = 6
    chunk_size: int = 20
    prompt_dim: int = 0
    dim_model: int = 256
    n_heads: int = 4
    dim_feedforward: int = 512
    n_encoder_layers: int = 2
    n_decoder_layers: int = 1

    def __post_init__(self) -> None:
        if self.width % 32 or self.height % 32 or min(self.width, self.height) < 32:
            raise ConfigError(
                f"picture of {self.width}x{self.height} px: both must be multiples of 32, the ResNet's stride"
            )
        if self.dim_model % self.n_heads:
            raise ConfigError(f"dim_model {self.dim_model} must be a multiple of n_heads {self.n_heads}")
        if self.prompt_dim < 0:
            raise ConfigError(f"prompt_dim {self.prompt_dim} must be 0 or more")
        if self.chunk_size < 1 or self.dof < 1:
            raise ConfigError(f"chunk_size {self.chunk_size} and dof {self.dof} must be at least 1")

    @property
    def image_key(self) -> str:
        """LeRobot's name of the camera's feature."""
        return IMAGE_KEY + self.camera

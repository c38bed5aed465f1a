"""pi0's configuration with a tokenizer from the checkpoint's folder."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi0.configuration_pi0 import PI0Config


@PreTrainedConfig.register_subclass("tiny_pi0")
@dataclass
class TinyPI0Config(PI0Config):
    vlm_model_name: str = "vlm"

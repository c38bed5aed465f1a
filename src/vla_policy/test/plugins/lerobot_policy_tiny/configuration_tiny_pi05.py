"""pi05's configuration with a tokenizer from the checkpoint's folder."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig
from lerobot.policies.pi05.configuration_pi05 import PI05Config


@PreTrainedConfig.register_subclass("tiny_pi05")
@dataclass
class TinyPI05Config(PI05Config):
    vlm_model_name: str = "vlm"

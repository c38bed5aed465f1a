"""pi0 with layers small enough for a test."""

from types import ModuleType
from unittest import mock

from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.modeling_pi0 import PI0Policy

from lerobot_policy_tiny.configuration_tiny_pi0 import TinyPI0Config

WIDTH, VOCABULARY = 32, 300


def small(module: ModuleType):
    """What replaces the sizes that `module` knows only by the names of its variants."""
    paligemma, gemma = module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM

    def layers(_variant: str):
        return module.GemmaConfig(width=WIDTH, depth=2, mlp_dim=32, num_heads=2, num_kv_heads=1, head_dim=16)

    def vlm(config):
        config.text_config.vocab_size = VOCABULARY
        config.image_token_index = config.image_token_id = VOCABULARY - 1
        vision = config.vision_config
        vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads = 16, 1, 2
        vision.intermediate_size, vision.projection_dim, vision.vocab_size = 16, WIDTH, VOCABULARY
        return paligemma(config=config)

    def expert(config):
        config.vocab_size = VOCABULARY
        return gemma(config=config)

    return mock.patch.multiple(
        module,
        get_gemma_config=layers,
        PaliGemmaForConditionalGenerationWithPiGemma=vlm,
        PiGemmaForCausalLM=expert,
    )


class TinyPI0Policy(PI0Policy):
    config_class = TinyPI0Config
    name = "tiny_pi0"

    def __init__(self, config: TinyPI0Config, **kwargs):
        with small(modeling_pi0):
            super().__init__(config, **kwargs)

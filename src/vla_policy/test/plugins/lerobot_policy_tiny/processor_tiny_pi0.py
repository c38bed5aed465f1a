"""pi0's processors, with the tokenizer of the checkpoint instead of one from a hub."""

from unittest import mock

from lerobot.policies.pi0 import processor_pi0
from lerobot.processor import TokenizerProcessorStep


def make_tiny_pi0_pre_post_processors(config, dataset_stats=None):
    def tokenizer(**settings):
        return TokenizerProcessorStep(**(settings | {"tokenizer_name": config.vlm_model_name}))

    with mock.patch.object(processor_pi0, "TokenizerProcessorStep", tokenizer):
        return processor_pi0.make_pi0_pre_post_processors(config, dataset_stats)

"""pi05's processors, with the tokenizer of the checkpoint instead of one from a hub."""

from unittest import mock

from lerobot.policies.pi05 import processor_pi05
from lerobot.processor import TokenizerProcessorStep


def make_tiny_pi05_pre_post_processors(config, dataset_stats=None):
    def tokenizer(**settings):
        return TokenizerProcessorStep(**(settings | {"tokenizer_name": config.vlm_model_name}))

    with mock.patch.object(processor_pi05, "TokenizerProcessorStep", tokenizer):
        return processor_pi05.make_pi05_pre_post_processors(config, dataset_stats)

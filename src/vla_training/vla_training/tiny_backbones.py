"""Folders of vision-language models in miniature: configuration, processors, and a tokenizer of single bytes.

LeRobot's policies look at such a folder beside their own weights. None has weights of its own, except for CLIP, which
LeRobot loads before it puts the policy's into it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

VLM_FOLDER: Final = "vlm"
CLIP_FOLDER: Final = "clip"
"""multi_task_dit takes no encoder without this in its name."""
SPECIAL_TOKENS: Final = (
    "<|endoftext|>", "<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>",
)  # fmt: skip
END_ID: Final = 0
"""Ends a text, begins it and fills it up."""
IMAGE_ID: Final = SPECIAL_TOKENS.index("<image>")
VOCABULARY: Final = len(SPECIAL_TOKENS) + 256
"""One token a byte, and the special ones."""
_PICTURE_PX: Final = 32
_CLIP_PX: Final = 64
_TEXT_TOKENS: Final = 77
"""As many as multi_task_dit's tokenizer fills up to."""


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415  only with LeRobot's extras
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *letters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end, fake, whole, image, utterance = SPECIAL_TOKENS
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, bos_token=end, pad_token=end, unk_token=end,
        extra_special_tokens={
            "fake_image_token": fake, "global_image_token": whole, "image_token": image,
            "end_of_utterance_token": utterance,
        },
    ).save_pretrained(folder)  # fmt: skip


def write_vlm(folder: Path) -> None:
    """SmolVLM with two layers, without weights."""
    from transformers import SmolVLMConfig  # noqa: PLC0415  only with LeRobot's extras

    write_tokenizer(folder)
    SmolVLMConfig(
        text_config={
            "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "max_position_embeddings": 256, "pad_token_id": END_ID, "bos_token_id": END_ID, "eos_token_id": END_ID,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": _PICTURE_PX, "patch_size": 8, "max_image_size": {"longest_edge": _PICTURE_PX},
        },
        scale_factor=2, image_token_id=IMAGE_ID, pad_token_id=END_ID,
    ).save_pretrained(folder)  # fmt: skip
    side = {"longest_edge": _PICTURE_PX}
    common = {"processor_class": "SmolVLMProcessor", "size": side, "max_image_size": side}
    sampling = {"fps": 1, "max_frames": 2, "video_size": side}
    documents = {
        "preprocessor_config.json": {"image_processor_type": "SmolVLMImageProcessor", **common},
        "video_preprocessor_config.json": {
            "video_processor_type": "SmolVLMVideoProcessor", **common, "num_frames": 2, "fps": 1,
            "video_sampling": sampling,
        },
        "processor_config.json": {"image_seq_len": 4, "processor_class": "SmolVLMProcessor"},
    }  # fmt: skip
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def write_clip(folder: Path) -> None:
    """CLIP with one layer a side, and random weights, which the policy's own replace."""
    from transformers import CLIPConfig, CLIPModel  # noqa: PLC0415  only with LeRobot's extras

    write_tokenizer(folder)
    layer = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **layer, "vocab_size": VOCABULARY, "max_position_embeddings": _TEXT_TOKENS, "pad_token_id": END_ID,
            "bos_token_id": END_ID, "eos_token_id": END_ID,
        },
        vision_config={**layer, "image_size": _CLIP_PX, "patch_size": 16},
        projection_dim=16,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)

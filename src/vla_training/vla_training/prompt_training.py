"""Trains the prompt encoder's head on the known phrases and on those of a grammar, refusals among them.

Every target has a direction of its own, `phrases.vector`. Phrases that ask for it are drawn towards it, past a margin;
phrases that ask for nothing are pushed away from all directions. The pretrained layers stay as they are: training them
too did no better. So each phrase goes through them once, and the rest takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  torch's own name for it
from numpy.typing import NDArray
from torch import Tensor

from vla_core.errors import ConfigError
from vla_core.prompt_spelling import plain
from vla_training import phrases, phrases_grammar
from vla_training.phrases_grammar import Part
from vla_training.prompt_network import PromptNetwork, batch_of, source_tokens

SHARPNESS = 16.0
MARGIN = 0.2
NOWHERE = 0.3
"""The cosine at which a phrase that asks for something competes with asking for nothing."""
FAR = 0.1
"""The cosine to every target under which phrases that ask for nothing are left alone."""
PER_TARGET, KNOWN_PER_TARGET, PER_KIND = 8, 4, 7
"""In a batch: of the grammar, of the known phrases, and of each kind that asks for nothing."""
RATE = 2e-3
DROPPED = 0.1
"""Of the numbers that the pretrained layers give."""
TYPED_SHARE, KNOWN_TYPED_SHARE = 0.2, 0.5
"""Of the sentences come a second time with slips of the typing hand."""
LONGEST_LEARNT = 36
"""Word pieces; the longest sentence has fewer."""
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the encoder is made; the defaults made the shipped one.

    Attributes:
        layers: of the pretrained encoder's six.
        steps: of training.
        seed: of everything that is drawn.
        sentences: of the grammar, a `phrases_grammar.Part`: `learnt` for a trial to choose thresholds with.
    """

    layers: int = 2
    steps: int = 1800
    seed: int = 0
    sentences: str = Part.ALL.value


@dataclass(frozen=True, slots=True)
class _Group:
    """Sentences of one kind: `count` of them are in every batch; a target beyond the last asks for nothing."""

    texts: tuple[str, ...]
    target: int
    count: int


def train(recipe: Recipe, tell: Callable[[int, float], None]) -> PromptNetwork:
    """A network whose head was trained by `recipe`; `tell` hears the loss of every hundredth step.

    Raises:
        ConfigError: the pretrained encoder is not installed, or there are no such sentences.
    """
    torch.manual_seed(recipe.seed)
    random = np.random.default_rng(recipe.seed)
    groups = _examples(recipe, random)
    network = PromptNetwork(recipe.layers, phrases.DIM).eval()
    words, counts = _read(network, list(chain.from_iterable(group.texts for group in groups)))
    directions = torch.from_numpy(np.array([phrases.vector(target) for target in phrases.TARGETS]))
    trained = [*network.queries.parameters(), *network.values.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=recipe.steps, pct_start=0.1)
    network.values.train()
    for step in range(recipe.steps):
        rows, targets = _draw(random, groups)
        present = counts[rows]
        longest = int(present.sum(dim=1).max())
        seen = F.dropout(words[rows, :longest].float(), DROPPED)
        loss = _loss(network.head(seen, present[:, :longest]) @ directions.T, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            tell(step, float(loss.detach()))
    network.eval()
    return network


def _examples(recipe: Recipe, random: np.random.Generator) -> list[_Group]:
    """What is drawn from, target by target and kind by kind: the known phrases, and those of the grammar."""
    part = _part(recipe)
    drawn = phrases_grammar.refusals(phrases_grammar.PER_KIND, recipe.seed, part)
    known = phrases.known_refusals()
    groups = []
    for index, target in enumerate(phrases.TARGETS):
        grammar = phrases_grammar.requests(target, phrases_grammar.PER_TARGET, recipe.seed, part)
        groups.append(_group(phrases.known(target), KNOWN_TYPED_SHARE, index, KNOWN_PER_TARGET, random))
        groups.append(_group(grammar, TYPED_SHARE, index, PER_TARGET, random))
    for kind in dict.fromkeys([*drawn, *known]):
        texts = (*drawn.get(kind, ()), *known.get(kind, ()))
        groups.append(_group(texts, TYPED_SHARE, len(phrases.TARGETS), PER_KIND, random))
    return groups


def _part(recipe: Recipe) -> Part:
    try:
        return Part(recipe.sentences)
    except ValueError as error:
        raise ConfigError(
            f"sentences {recipe.sentences!r} is none of {', '.join(part.value for part in Part)}"
        ) from error


def _group(texts: Sequence[str], typed_share: float, target: int, count: int, random: np.random.Generator) -> _Group:
    """`texts`, and some of them a second time with slips."""
    typed = [_typed(text, random) for text in texts if random.random() < typed_share]
    return _Group(tuple(plain(text) for text in (*texts, *typed)), target, count)


def _typed(text: str, random: np.random.Generator) -> str:
    """With a slip: two letters exchanged, one left out, or one twice."""
    if len(text) < 5:
        return text
    at, kind = int(random.integers(1, len(text) - 1)), random.random()
    if kind < 0.4:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :] if kind < 0.7 else text[:at] + text[at] + text[at:]


def _read(network: PromptNetwork, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """What the pretrained layers make of each word piece `(n, LONGEST_LEARNT, width)`, and which count."""
    tokens, width = source_tokens(), network.queries.in_features
    words = torch.zeros(len(texts), LONGEST_LEARNT, width, dtype=torch.float16)
    counts = torch.zeros(len(texts), LONGEST_LEARNT, dtype=torch.long)
    by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for begin in range(0, len(texts), _AT_ONCE):
        rows = by_length[begin : begin + _AT_ONCE]
        ids, present = (part[:, :LONGEST_LEARNT] for part in batch_of([texts[row] for row in rows], tokens))
        with torch.no_grad():
            words[rows, : ids.shape[1]] = network.read(ids, present).half()
        counts[rows, : ids.shape[1]] = present
    return words, counts


def _draw(random: np.random.Generator, groups: Sequence[_Group]) -> tuple[NDArray[np.int64], Tensor]:
    """Rows of one batch and their targets; a target beyond the last asks for nothing."""
    ends = np.cumsum([len(group.texts) for group in groups])
    rows = [random.integers(end - len(group.texts), end, group.count) for group, end in zip(groups, ends, strict=True)]
    targets = [np.full(group.count, group.target) for group in groups]
    return np.concatenate(rows), torch.from_numpy(np.concatenate(targets))


def _loss(cosines: Tensor, targets: Tensor) -> Tensor:
    """Of `(n, targets)` cosines; a target beyond the last asks for nothing."""
    asks = targets < cosines.shape[1]
    wanted = cosines[asks] - MARGIN * F.one_hot(targets[asks], cosines.shape[1])
    nowhere = torch.full((len(wanted), 1), NOWHERE)
    drawn = F.cross_entropy(SHARPNESS * torch.cat([wanted, nowhere], dim=1), targets[asks])
    pushed = F.softplus(SHARPNESS * (cosines[~asks].max(dim=1).values - FAR)).mean()
    return drawn + pushed / 3

"""Noisy, normalised batches, drawn from demonstrations or from cached picture features."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vla_core.errors import ConfigError
from vla_sim.legs import GRIPPER, HOLDING_RAD
from vla_sim.scene import CAMERA_ASPECT
from vla_training import act, dataset
from vla_training.config import Phase
from vla_training.onnx_policy import ACTION, STATE
from vla_training.optimise import Batch, arithmetic, disturb_pictures, disturb_states, generator

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]

PHASE_A, PHASE_B, CACHE = 0, 1, 2
_MIN_STD_RAD = 0.01
"""A joint that hardly moves in the data must not have its noise blown up."""
_STATS_PICTURES = 1000
_CACHE_BATCH = 64
PROMPT_NOISE = 0.02
"""Standard deviation of each number of a prompt's vector, which has length 1: more than a rounded encoder changes."""


CHANGED_FRAMES = 10
"""After a change of the prompt; a second at 10 Hz. The arm leaves a cube as it lies, or puts down the one it holds."""

ASKED_AT_ONCE = 3
"""Cubes that one picture is asked about: seeing costs ten times what answering does."""


class PromptVectors(NamedTuple):
    """What a policy that listens is fed.

    Attributes:
        colours: for each colour of `vla_sim.layout.NAMED`, `(colours, dim)`.
        asked: which of these each text of a data set asks for, `(texts,)`.
    """

    colours: NDArray[np.float32]
    asked: NDArray[np.int64]


def _noisy(vectors: NDArray[np.float32], rng: np.random.Generator) -> Tensor:
    noise = rng.standard_normal(vectors.shape, dtype=np.float32) * PROMPT_NOISE
    return torch.from_numpy(vectors + noise)


def compute_stats(data: dataset.Dataset, image_key: str) -> act.Stats:
    """Mean and standard deviation of pictures (a sample of them), states and actions."""
    picked = np.linspace(0, len(data) - 1, min(len(data), _STATS_PICTURES)).astype(int)
    pixels = data.images[picked].reshape(-1, 3).astype(np.float64) / 255
    joints = {STATE: data.states, ACTION: data.chunks.reshape(-1, data.chunks.shape[-1])}
    found = {image_key: _moments(pixels.mean(0).reshape(3, 1, 1), pixels.std(0).reshape(3, 1, 1))}
    for key, values in joints.items():
        found[key] = _moments(values.mean(0), np.maximum(values.std(0), _MIN_STD_RAD))
    return found


def _moments(mean: Floats, std: Floats) -> dict[str, Tensor]:
    return {"mean": torch.from_numpy(mean.astype(np.float32)), "std": torch.from_numpy(std.astype(np.float32))}


def in_cropped(cubes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Labels `(k, colours, 4)` of whole 4:3 pictures as labels of the middle that `cover_resize` keeps; NaN outside."""
    wide, tall = max(1.0, CAMERA_ASPECT * height / width), max(1.0, width / height / CAMERA_ASPECT)
    found = cubes.copy()
    found[..., 0] = (found[..., 0] - 0.5) * wide + 0.5
    found[..., 1] = (found[..., 1] - 0.5) * tall + 0.5
    found[((found[..., :2] < 0) | (found[..., :2] > 1)).any(-1)] = np.nan
    return found


def about_to_close(chunks: NDArray[np.float32], told: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Samples `(samples,)` whose jaws are commanded open now, and shut in the part of the chunk that counts."""
    jaws = chunks[..., GRIPPER]
    counts = np.arange(jaws.shape[1]) < told[:, None]
    found: NDArray[np.bool_] = (jaws[:, 0] > HOLDING_RAD) & ((jaws < HOLDING_RAD) & counts).any(1)
    return found


class Batches:
    """Draws batches; every random choice follows from the seed, the phase and the step."""

    def __init__(
        self,
        data: dataset.Dataset,
        stats: act.Stats,
        image_key: str,
        seed: int,
        vectors: PromptVectors | None = None,
        *,
        pointing: bool = False,
    ) -> None:
        """Draw from `data`; `vectors` where the policy takes a prompt, and `pointing` where it also learns to point."""
        self._data, self._seed, self._vectors, self._pointing = data, seed, vectors, pointing
        self._image, self._state, self._action = stats[image_key], stats[STATE], stats[ACTION]

    @cached_property
    def _approaches(self) -> Indices:
        return np.flatnonzero(about_to_close(self._data.chunks, self._data.told))

    @cached_property
    def _changed(self) -> Indices:
        return np.flatnonzero(self._data.since < CHANGED_FRAMES)

    def pictures(self, index: Indices, phase: Phase, rng: np.random.Generator) -> Tensor:
        """Noisy, normalised pictures `(batch, 3, h, w)` in channels-last memory."""
        raw = torch.from_numpy(self._data.images[index]).permute(0, 3, 1, 2).to(torch.float32) / 255
        noisy = disturb_pictures(raw, phase, rng)
        return ((noisy - self._image["mean"]) / self._image["std"]).contiguous(memory_format=torch.channels_last)

    def end_to_end(self, phase: Phase, step: int) -> Batch:
        """Phase S's, A's, R's or F's batch for a step.

        Raises:
            ConfigError: a share of the batch is to be drawn from frames that the data does not have.
        """
        rng = generator(self._seed, PHASE_A, step)
        index = self._drawn(phase, rng)
        batch = self._batch(self.pictures(index, phase, rng), index, phase, rng)
        return self._ask_for_several(batch, index, rng, pointing=self._pointing)

    def _drawn(self, phase: Phase, rng: np.random.Generator) -> Indices:
        index = rng.integers(0, len(self._data), phase.batch)
        approaches, chosen = (round(share * phase.batch) for share in (phase.approach_share, phase.chosen_share))
        if approaches:
            if not len(self._approaches):
                raise ConfigError("approach_share: in no frame of the data are the jaws about to close; leave it out")
            index[:approaches] = rng.choice(self._approaches, approaches)
        if chosen > approaches:
            if not len(self._changed):
                raise ConfigError("change_share: in no demonstration of the data does the prompt change; leave it out")
            index[approaches:chosen] = rng.choice(self._changed, chosen - approaches)
        return index

    def cached(self, phase: Phase, step: int, features: Tensor, samples: Indices) -> Batch:
        """Phase H's or B's batch for a step; `features` `(variants, k, …)` of what `samples` `(k,)` number."""
        rng = generator(self._seed, PHASE_B, step)
        chosen = rng.integers(0, len(samples), phase.batch)
        variant = rng.integers(0, len(features), phase.batch)
        found, index = features[variant, chosen].to(torch.float32), samples[chosen]
        return self._ask_for_several(self._batch(found, index, phase, rng), index, rng, pointing=False)

    def _batch(self, seen: Tensor, index: Indices, phase: Phase, rng: np.random.Generator) -> Batch:
        states = disturb_states(torch.from_numpy(self._data.states[index]), phase, rng)
        chunks = torch.from_numpy(self._data.chunks[index])
        prompts = cubes = asked = None
        if self._vectors is not None:
            asked = self._vectors.asked[self._data.prompts[index]]
            prompts = _noisy(self._vectors.colours[asked], rng)
            cubes = torch.from_numpy(in_cropped(self._data.cubes[index], *self._data.images.size))
        return Batch(
            seen,
            (states - self._state["mean"]) / self._state["std"],
            self._normalised(chunks),
            torch.from_numpy(self._data.told[index]),
            prompts,
            cubes,
            None if asked is None else torch.from_numpy(asked),
        )

    def _normalised(self, chunks: Tensor) -> Tensor:
        return (chunks - self._action["mean"]) / self._action["std"]

    def _ask_for_several(self, batch: Batch, index: Indices, rng: np.random.Generator, *, pointing: bool) -> Batch:
        """The batch with `ASKED_AT_ONCE` prompts a picture, for cubes that are there.

        Random scenes have an answer to each. Demonstrations have one to their own prompt, which comes first: of the
        chunks that the other prompts get, no action counts. They are asked only for `pointing`.
        """
        goals, vectors = self._data.goals, self._vectors
        if vectors is None or batch.cubes is None or (goals is None and not pointing):
            return batch
        known = batch.cubes.numpy() if goals is None else goals[index]
        turn = np.where(np.isnan(known[..., 0]), np.inf, rng.random(known.shape[:2]))
        if goals is None:
            turn[np.arange(len(index)), vectors.asked[self._data.prompts[index]]] = -1.0
        colours = np.argsort(turn, axis=1)[:, :ASKED_AT_ONCE]
        colours = np.where(np.take_along_axis(turn, colours, axis=1) < np.inf, colours, colours[:, :1])
        several = batch._replace(
            states=batch.states.repeat_interleave(ASKED_AT_ONCE, 0),
            prompts=_noisy(vectors.colours[colours.ravel()], rng),
            asked=torch.from_numpy(colours.ravel()),
        )
        length = batch.chunks.shape[1]
        if goals is not None:
            answers = torch.from_numpy(np.take_along_axis(goals[index], colours[..., None], axis=1)).flatten(0, 1)
            return several._replace(
                chunks=self._normalised(answers[:, None].expand(-1, length, -1)),
                told=torch.full((len(answers),), length),
            )
        told = self._data.told[index, None] * (np.arange(ASKED_AT_ONCE) == 0)
        return several._replace(
            chunks=batch.chunks.repeat_interleave(ASKED_AT_ONCE, 0), told=torch.from_numpy(told.ravel())
        )

    def subset(self, count: int) -> Indices:
        """The samples that a cache holds: `count` at random, or all where that is 0."""
        if not 0 < count < len(self._data):
            return np.arange(len(self._data))
        rng = generator(self._seed, CACHE, len(self._data))
        return np.sort(rng.choice(len(self._data), count, replace=False))

    @torch.inference_mode()
    def features(self, backbone: nn.Module, phase: Phase, samples: Indices, variants: int) -> Tensor:
        """The backbone's output for the pictures of `samples`, with noise: `(variants, samples, …)` float16."""
        backbone.eval()
        whole = torch.empty(0)
        for variant in range(variants):
            for start in range(0, len(samples), _CACHE_BATCH):
                rng = generator(self._seed, CACHE + variant, start)
                with arithmetic(phase):
                    found = backbone(self.pictures(samples[start : start + _CACHE_BATCH], phase, rng))["feature_map"]
                if not len(whole):
                    whole = torch.empty((variants, len(samples), *found.shape[1:]), dtype=torch.float16)
                whole[variant, start : start + len(found)] = found
            print(f"cached the features of {len(samples)} pictures ({variant + 1} of {variants})", flush=True)
        return whole

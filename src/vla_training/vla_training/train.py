"""Train an ACT policy from demonstrations: `python -m vla_training.train --config …`.

Phase A trains everything end to end; phase B freezes the ResNet, computes its features once, and trains the
transformer on them, which is thirty times faster a step. The result is a LeRobot checkpoint with an ONNX graph and a
manifest. Run it again with the same output folder and it continues where it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vla_core.errors import EvergreenError
from vla_training import act, dataset, export
from vla_training.config import Phase, TrainConfig, load_config
from vla_training.loss_plot import plot_loss
from vla_training.onnx_policy import ACTION, IMAGES, STATE
from vla_training.optimise import Batch, Trainer, disturb_pictures, disturb_states, generator

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]

PHASE_A, PHASE_B, CACHE = 0, 1, 2
SEED_STEP = 1000
"""Keeps phase S's random numbers apart from phase A's."""
_MIN_STD_RAD = 0.01
"""A joint that hardly moves in the data must not have its noise blown up."""
_STATS_PICTURES = 1000
_CACHE_BATCH = 64


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


class Batches:
    """Draws noisy, normalised batches."""

    def __init__(self, data: dataset.Dataset, stats: act.Stats, image_key: str, seed: int) -> None:
        self._data, self._seed = data, seed
        self._image, self._state, self._action = stats[image_key], stats[STATE], stats[ACTION]

    def pictures(self, index: Indices, phase: Phase, rng: np.random.Generator) -> Tensor:
        """Noisy, normalised pictures `(batch, 3, h, w)` in channels-last memory."""
        raw = torch.from_numpy(self._data.images[index]).permute(0, 3, 1, 2).to(torch.float32) / 255
        noisy = disturb_pictures(raw, phase, rng)
        return ((noisy - self._image["mean"]) / self._image["std"]).contiguous(memory_format=torch.channels_last)

    def joints(self, index: Indices, phase: Phase, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Noisy, normalised states `(batch, dof)` and normalised chunks `(batch, chunk, dof)`."""
        states = disturb_states(torch.from_numpy(self._data.states[index]), phase, rng)
        chunks = torch.from_numpy(self._data.chunks[index])
        return (
            (states - self._state["mean"]) / self._state["std"],
            (chunks - self._action["mean"]) / self._action["std"],
        )

    def end_to_end(self, phase: Phase, step: int) -> Batch:
        """Phase A's batch for a step."""
        rng = generator(self._seed, PHASE_A, step)
        index = rng.integers(0, len(self._data), phase.batch)
        return (self.pictures(index, phase, rng), *self.joints(index, phase, rng))

    def cached(self, phase: Phase, step: int, features: Tensor) -> Batch:
        """Phase B's batch for a step; `features` `(variants, samples, …)`."""
        rng = generator(self._seed, PHASE_B, step)
        index = rng.integers(0, len(self._data), phase.batch)
        variant = rng.integers(0, len(features), phase.batch)
        return (features[variant, index].to(torch.float32), *self.joints(index, phase, rng))

    @torch.inference_mode()
    def features(self, backbone: nn.Module, phase: Phase, variants: int) -> Tensor:
        """The backbone's output for every picture, with noise: `(variants, samples, …)` float16."""
        backbone.eval()
        blocks: list[list[Tensor]] = [[] for _ in range(variants)]
        for variant in range(variants):
            for start in range(0, len(self._data), _CACHE_BATCH):
                index = np.arange(start, min(start + _CACHE_BATCH, len(self._data)))
                rng = generator(self._seed, CACHE + variant, start)
                found = backbone(self.pictures(index, phase, rng))["feature_map"]
                blocks[variant].append(found.contiguous().to(torch.float16))
            print(f"cached the features of {len(self._data)} pictures ({variant + 1} of {variants})", flush=True)
        return torch.stack([torch.cat(block) for block in blocks])


class PassThrough(nn.Module):
    """Stands where the backbone was while features come from the cache."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """LeRobot expects a dictionary from torchvision's layer getter."""
        return {"feature_map": features}


def loss_of(policy: ACTPolicy, batch: Batch) -> Tensor:
    """Mean absolute error of the normalised chunk: ACT's loss without its variational part."""
    pictures, states, chunks = batch
    predicted = policy.model({IMAGES: [pictures], STATE: states})[0]
    return functional.l1_loss(predicted, chunks)


class Run:
    """One training run in one output folder."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.policy = act.build(config.policy)
        self.policy.to(memory_format=torch.channels_last)

    def see(self, data: dataset.Dataset) -> Iterator[int]:
        """Phase S: learn to see on random scenes; yields the step now and then."""
        phase, key = self.config.see, self.config.policy.image_key
        if phase is None:
            return
        batches = Batches(data, compute_stats(data, key), key, self.config.seed + SEED_STEP)
        yield from self._whole("S", phase, batches).run()

    def open(self, data: dataset.Dataset) -> None:
        """Take the demonstrations for the phases to come."""
        key = self.config.policy.image_key
        self.stats = compute_stats(data, key)
        self._data = data

    def end_to_end(self) -> Iterator[Path]:
        """Phase A; yields a checkpoint folder now and then."""
        batches = Batches(self._data, self.stats, self.config.policy.image_key, self.config.seed)
        for step in self._whole("A", self.config.end_to_end, batches, after="S").run():
            yield self._checkpoint(f"A-{step:05d}", act.folded(self.policy))

    def _whole(self, name: str, phase: Phase, batches: Batches, after: str = "") -> Trainer:
        self.policy.train()
        trainer = Trainer(
            name,
            self.policy,
            phase,
            loss_of=lambda batch: loss_of(self.policy, batch),
            batch_of=lambda step: batches.end_to_end(phase, step),
            folder=self.folder,
        )
        if not trainer.restore() and after:
            trainer.start_from(after)
        return trainer

    def head(self) -> Iterator[Path]:
        """Phase B, from where phase A ended; yields a checkpoint folder now and then."""
        phase = self.config.head
        policy = act.folded(self.policy)
        backbone = policy.model.backbone
        batches = Batches(self._subset(), self.stats, self.config.policy.image_key, self.config.seed)
        features = batches.features(backbone, phase, self.config.cached_variants)
        policy.model.backbone = PassThrough()
        policy.train()
        trainer = Trainer(
            "B",
            policy,
            phase,
            loss_of=lambda batch: loss_of(policy, batch),
            batch_of=lambda step: batches.cached(phase, step, features),
            folder=self.folder,
        )
        trainer.restore()
        for step in trainer.run():
            yield self._checkpoint(f"B-{step:05d}", self._assembled(policy, backbone, trainer))

    def _subset(self) -> dataset.Dataset:
        """The samples that phase B uses."""
        count = self.config.cached_pictures
        if not 0 < count < len(self._data):
            return self._data
        rng = generator(self.config.seed, CACHE, len(self._data))
        index = np.sort(rng.choice(len(self._data), count, replace=False))
        data = self._data
        return dataset.Dataset(data.images[index], data.states[index], data.chunks[index], data.episodes)

    def _assembled(self, policy: ACTPolicy, backbone: nn.Module, trainer: Trainer) -> ACTPolicy:
        weights = dict(policy.state_dict())
        if trainer.average:
            weights |= trainer.average.values
        weights |= {f"model.backbone.{key}": value for key, value in backbone.state_dict().items()}
        whole = ACTPolicy(policy.config)
        whole.load_state_dict(weights)
        return whole.eval()

    def _checkpoint(self, name: str, policy: ACTPolicy) -> Path:
        folder = self.folder / "checkpoints" / name
        act.save_checkpoint(policy, self.stats, folder)
        return folder


def manifest_settings(config: TrainConfig) -> export.ManifestSettings:
    """What the run's configuration says about the model."""
    return export.ManifestSettings(config.name, config.version, config.prompt, config.rate_hz, config.open_loop_s)


def train(config: TrainConfig, folder: Path, provenance: dict[str, Any]) -> Path:
    """Run both phases, export the result, and return the model's folder.

    Raises:
        ConfigError: no data.
        ModelError: the output folder belongs to another network.
    """
    run = Run(config, folder)
    if config.see:
        for _ in run.see(_load(config.see_data, config)):
            plot_loss(folder / "log.jsonl", folder / "loss.png")
    data = _load(config.data, config)
    run.open(data)
    last = folder
    for checkpoint in chain(run.end_to_end(), run.head()):
        last = checkpoint
        plot_loss(folder / "log.jsonl", folder / "loss.png")
    export.export_onnx(last)
    found = {"episodes": data.episodes, "frames": len(data), "seed": config.seed, **provenance}
    export.write_manifest(last, manifest_settings(config), found)
    return last


def _load(folders: Sequence[Path], config: TrainConfig) -> dataset.Dataset:
    data = dataset.load(folders, config.policy.chunk_size)
    print(f"{data.episodes} episodes, {len(data)} frames with pictures", flush=True)
    return data


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vla_training.train", description="Train an ACT policy.")
    default = Path(__file__).parent / "configs" / "act_black.yaml"
    parser.add_argument("--config", type=Path, default=default, help="YAML file (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="output folder; an interrupted run in it continues")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 0 on success, 2 where the configuration or the data cannot work."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    try:
        config = load_config(options.config)
        print(f"model: {train(config, options.out, {'config': options.config.name})}")
    except EvergreenError as error:
        print(f"train: {error}")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

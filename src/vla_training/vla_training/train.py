"""Train an ACT policy from demonstrations: `python -m vla_training.train --config …`.

Phase A trains everything end to end; phase B freezes the ResNet, computes its features once, and trains the
transformer on them, which is thirty times faster a step. The result is a LeRobot checkpoint with an ONNX graph and a
manifest. Run it again with the same output folder and it continues where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from torch import Tensor, nn
from torch.nn import functional

from vla_core.errors import EvergreenError
from vla_training import act, dataset, export
from vla_training.config import Phase, TrainConfig, load_config
from vla_training.onnx_policy import ACTION, IMAGES, STATE
from vla_training.optimise import Batch, Trainer, disturb_pictures, disturb_states, generator

PHASE_A, PHASE_B, CACHE = 0, 1, 2
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


def _moments(mean: np.ndarray, std: np.ndarray) -> dict[str, Tensor]:
    return {"mean": torch.from_numpy(mean.astype(np.float32)), "std": torch.from_numpy(std.astype(np.float32))}


class Batches:
    """Draws noisy, normalised batches."""

    def __init__(self, data: dataset.Dataset, stats: act.Stats, image_key: str, seed: int) -> None:
        self._data, self._seed = data, seed
        self._image, self._state, self._action = stats[image_key], stats[STATE], stats[ACTION]

    def pictures(self, index: np.ndarray, phase: Phase, rng: np.random.Generator) -> Tensor:
        """Noisy, normalised pictures `(batch, 3, h, w)` in channels-last memory."""
        raw = torch.from_numpy(self._data.images[index]).permute(0, 3, 1, 2).to(torch.float32) / 255
        noisy = disturb_pictures(raw, phase, rng)
        return ((noisy - self._image["mean"]) / self._image["std"]).contiguous(memory_format=torch.channels_last)

    def joints(self, index: np.ndarray, phase: Phase, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
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

    def __init__(self, config: TrainConfig, data: dataset.Dataset, folder: Path) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.stats = compute_stats(data, config.policy.image_key)
        self._batches = Batches(data, self.stats, config.policy.image_key, config.seed)
        torch.manual_seed(config.seed)
        self.policy = act.build(config.policy)
        self.policy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def end_to_end(self) -> Iterator[Path]:
        """Phase A; yields a checkpoint folder now and then."""
        phase = self.config.end_to_end
        self.policy.train()
        trainer = Trainer(
            "A", self.policy, phase, lambda batch: loss_of(self.policy, batch),
            lambda step: self._batches.end_to_end(phase, step), self.folder,
        )  # fmt: skip
        trainer.restore()
        for step in trainer.run():
            yield self._checkpoint(f"A-{step:05d}", act.folded(self.policy))

    def head(self) -> Iterator[Path]:
        """Phase B, from where phase A ended; yields a checkpoint folder now and then."""
        phase = self.config.head
        policy = act.folded(self.policy)
        backbone = policy.model.backbone
        features = self._batches.features(backbone, phase, self.config.cached_variants)
        policy.model.backbone = PassThrough()
        policy.train()
        trainer = Trainer(
            "B", policy, phase, lambda batch: loss_of(policy, batch),
            lambda step: self._batches.cached(phase, step, features), self.folder,
        )  # fmt: skip
        trainer.restore()
        for step in trainer.run():
            yield self._checkpoint(f"B-{step:05d}", self._assembled(policy, backbone, trainer))

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


def plot_loss(log: Path, picture: Path) -> None:
    """Draw the losses of `log.jsonl` as a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if not lines:
        return
    phases = sorted({line["phase"] for line in lines})
    figure, axes = pyplot.subplots(1, len(phases), figsize=(5 * len(phases), 3.2), squeeze=False, sharey=True)
    for axis, phase in zip(axes[0], phases, strict=True):
        chosen = [line for line in lines if line["phase"] == phase]
        axis.semilogy([line["step"] for line in chosen], [line["loss"] for line in chosen], linewidth=0.8)
        axis.set(title=f"phase {phase}", xlabel="step", ylabel="L1 of the normalised chunk")
        axis.grid(visible=True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
    pyplot.close(figure)


def manifest_settings(config: TrainConfig) -> export.ManifestSettings:
    """What the run's configuration says about the model."""
    return export.ManifestSettings(
        config.name, config.version, config.prompt, config.rate_hz, config.open_loop_s
    )


def train(config: TrainConfig, folder: Path, provenance: dict[str, Any]) -> Path:
    """Run both phases, export the result, and return the model's folder.

    Raises:
        ConfigError: no data.
        ModelError: the output folder belongs to another network.
    """
    data = dataset.load(config.data, config.policy.chunk_size)
    print(f"{data.episodes} episodes, {len(data)} frames with pictures", flush=True)
    run = Run(config, data, folder)
    last = folder
    for last in run.end_to_end():
        plot_loss(folder / "log.jsonl", folder / "loss.png")
    for last in run.head():
        plot_loss(folder / "log.jsonl", folder / "loss.png")
    export.export_onnx(last)
    found = {"episodes": data.episodes, "frames": len(data), "seed": config.seed, **provenance}
    export.write_manifest(last, manifest_settings(config), found)
    return last


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

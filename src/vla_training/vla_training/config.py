"""What a training run is made of: a YAML file checked when it is read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from vla_core.errors import ConfigError
from vla_training.act import ActSettings


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of optimisation with AdamW.

    Attributes:
        steps, batch: how long, and how many frames a step.
        learning_rate: reached after `warmup_steps`, kept for the share `constant` of the steps, then a half cosine
            down to nothing. Without that decay success was 2 of 40.
        weight_decay, clip_norm: of AdamW, and of the gradient.
        state_noise_rad: standard deviation added to the joint positions, so that the policy does not simply
            continue what the arm does.
        brightness, pixel_noise: half width of a random factor, and standard deviation; of pictures in 0..1.
        averaging: weight of the past in the running average of the weights; 0 is off.
        checkpoint_every: steps between checkpoints.
    """

    steps: int
    batch: int
    learning_rate: float = 5e-4
    warmup_steps: int = 50
    constant: float = 0.5
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    state_noise_rad: float = 0.01
    brightness: float = 0.1
    pixel_noise: float = 0.02
    averaging: float = 0.0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or self.checkpoint_every < 1:
            raise ConfigError(
                f"a phase needs steps >= 1, batch >= 2 and checkpoint_every >= 1, "
                f"not {self.steps}, {self.batch} and {self.checkpoint_every}"
            )
        if not (0 <= self.constant <= 1 and 0 <= self.averaging < 1):
            raise ConfigError(f"constant {self.constant} must be in 0..1 and averaging {self.averaging} in 0..1")
        if min(self.learning_rate, self.clip_norm) <= 0:
            raise ConfigError(f"learning_rate {self.learning_rate} and clip_norm {self.clip_norm} must be positive")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole run.

    Attributes:
        name, version, prompt: of the model that comes out.
        seed: of weights, batches and noise.
        data: folders of demonstrations.
        rate_hz: rate at which they were recorded.
        open_loop_s: how much of a chunk to play, for the manifest.
        policy: shape of the network.
        see: phase S, everything, on pictures of random scenes (see `vla_training.reach`); may be left out.
        see_data: its folders.
        end_to_end: phase A, everything, on demonstrations.
        head: phase B, the transformer alone on cached picture features.
        cached_variants: noisy copies of each picture in phase B's cache.
        cached_pictures: how many pictures phase B draws at random for its cache; 0 is all.
    """

    name: str
    version: str
    prompt: str
    data: tuple[Path, ...]
    end_to_end: Phase
    head: Phase
    seed: int = 0
    rate_hz: float = 10.0
    open_loop_s: float = 0.5
    policy: ActSettings = field(default_factory=ActSettings)
    cached_variants: int = 1
    cached_pictures: int = 0
    see: Phase | None = None
    see_data: tuple[Path, ...] = ()


def load_config(path: Path) -> TrainConfig:
    """Read a YAML file; data folders in it are relative to the working directory.

    Raises:
        ConfigError: missing, not YAML, or with keys that mean nothing; the message names the file and the key.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold keys and values")
    try:
        for key in ("data", "see_data"):
            raw[key] = tuple(Path(folder) for folder in raw.get(key, ()))
        for key, kind in (("see", Phase), ("end_to_end", Phase), ("head", Phase), ("policy", ActSettings)):
            if key in raw:
                raw[key] = _build(kind, raw[key], key)
        made: TrainConfig = _build(TrainConfig, raw, "the file")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return made


def _build(kind: type[Any], raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise ConfigError(f"{where} must hold keys and values, not {raw!r}")
    known = {entry.name for entry in fields(kind)}
    if unknown := raw.keys() - known:
        raise ConfigError(f"{where} has unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    try:
        return kind(**raw)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error

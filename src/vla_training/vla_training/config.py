"""What a training run is made of: a YAML file checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from vla_core.errors import ConfigError
from vla_training.evaluate import HELD_OUT_SEED, VALIDATION_SEED
from vla_training.shape import ActSettings

PRECISIONS = ("float32", "bfloat16")
RESNET_STAGES = 4


@dataclass(frozen=True, slots=True)
class Selection:
    """How the best checkpoint is found: by closed-loop success.

    Its scenes are neither for training nor for the final measurement.

    Attributes:
        episodes: scenes a checkpoint; 0 keeps the last checkpoint.
        after: share of the phase's steps from which on checkpoints are played: earlier ones fail.
        first_seed: of these scenes.
        variety: see `vla_sim.layout`.
        limit_s: simulated time given to an episode.
    """

    episodes: int = 40
    first_seed: int = VALIDATION_SEED
    variety: str = "training"
    limit_s: float = 20.0
    after: float = 0.8

    def __post_init__(self) -> None:
        if self.episodes < 0 or not VALIDATION_SEED <= self.first_seed < HELD_OUT_SEED - self.episodes:
            raise ConfigError(
                f"episodes {self.episodes} from seed {self.first_seed}: scenes for choosing lie between seeds "
                f"{VALIDATION_SEED} and {HELD_OUT_SEED}"
            )


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
        approach_share: share of each batch that is drawn from frames in which the open jaws are about to close: there
            it matters most where the cube is. For phases A, R and F, as is the next.
        change_share: share that is drawn from the ten frames after a change of the prompt, in which the arm must leave
            a cube as it lies, or put down the one that it holds. What remains is drawn from all frames.
        frozen_stages: stages of the ResNet that stay as they are, with what comes before them; they cost the most. For
            phases S, A, R and F.
        averaging: weight of the past in the running average of the weights; 0 is off.
        checkpoint_every: steps between checkpoints.
        precision: `float32`, or `bfloat16` for the arithmetic of forward and backward pass: on processors that have it
            twice as fast. Weights and their updates are float32 either way.
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
    approach_share: float = 0.0
    change_share: float = 0.0
    frozen_stages: int = 0
    averaging: float = 0.0
    checkpoint_every: int = 200
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or self.checkpoint_every < 1:
            raise ConfigError(
                f"a phase needs steps >= 1, batch >= 2 and checkpoint_every >= 1, "
                f"not {self.steps}, {self.batch} and {self.checkpoint_every}"
            )
        if not (0 <= self.constant <= 1 and 0 <= self.averaging < 1):
            raise ConfigError(
                f"constant {self.constant} and averaging {self.averaging} must be in 0..1, and averaging below 1"
            )
        if min(self.approach_share, self.change_share) < 0 or self.chosen_share > 1:
            raise ConfigError(
                f"approach_share {self.approach_share} and change_share {self.change_share} are shares of a batch: "
                "0 or more, and together 1 at most"
            )
        if not 0 <= self.frozen_stages <= RESNET_STAGES:
            raise ConfigError(f"frozen_stages {self.frozen_stages}: the ResNet has {RESNET_STAGES} stages")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r} must be one of {', '.join(PRECISIONS)}")
        if min(self.learning_rate, self.clip_norm) <= 0:
            raise ConfigError(f"learning_rate {self.learning_rate} and clip_norm {self.clip_norm} must be positive")

    @property
    def chosen_share(self) -> float:
        """Share of each batch that is not drawn from all frames."""
        return self.approach_share + self.change_share


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole run.

    Attributes:
        name, version, prompt: of the model that comes out.
        target: the cube that it places; where it takes prompts, the one that `prompt` asks for.
        prompt_encoder: folder of a prompt encoder (see docs/prompts.md); None: the policy takes no prompt.
        data: folders of demonstrations.
        see_data: folders of random scenes (see `vla_training.reach`).
        start: folder of a checkpoint whose weights the first phase begins with; None: random ones.
        seed: of weights, batches and noise.
        rate_hz: rate at which demonstrations were recorded.
        open_loop_s: how much of a chunk to play, for the manifest.
        policy: shape of the network.
        see: phase S, everything, on pictures of random scenes; may be left out.
        end_to_end: phase A, everything, on demonstrations.
        refine: phase R, everything again from where phase A ended; may be left out.
        hear: phase H, a new transformer on cached features of random scenes, in each of which several cubes are asked
            for at once; before phase B, and only there. May be left out.
        head: phase B, the transformer alone on cached picture features; may be left out.
        finish: phase F, everything once more from where phase B ended; may be left out.
        pointing: in phases S, A, R and F, also learn to point at the cube that a prompt asks for, see
            `vla_training.eyes`; every picture is asked about several cubes. For a policy with a prompt_encoder.
        cached_variants: noisy copies of each picture in the cache of phases H and B.
        cached_pictures: how many pictures each of these draws at random for its cache; 0 is all.
        selection: how the best checkpoint of the last phase is found.
    """

    name: str
    version: str
    prompt: str
    target: str
    data: tuple[Path, ...]
    end_to_end: Phase
    head: Phase | None = None
    see_data: tuple[Path, ...] = ()
    seed: int = 0
    rate_hz: float = 10.0
    open_loop_s: float = 0.5
    policy: ActSettings = field(default_factory=ActSettings)
    cached_variants: int = 1
    cached_pictures: int = 0
    see: Phase | None = None
    selection: Selection = field(default_factory=Selection)
    prompt_encoder: Path | None = None
    refine: Phase | None = None
    hear: Phase | None = None
    finish: Phase | None = None
    start: Path | None = None
    pointing: bool = False

    def __post_init__(self) -> None:
        if bool(self.prompt_encoder) != bool(self.policy.prompt_dim):
            raise ConfigError("prompt_encoder and policy.prompt_dim go together: name both, or neither")
        if not self.data or ((self.see or self.hear) and not self.see_data):
            raise ConfigError("data, and with phase see or hear also see_data, must name folders")
        if self.hear and not (self.head and self.prompt_encoder):
            raise ConfigError("phase hear prepares phase head of a policy with a prompt_encoder; name these too")
        if self.pointing and not self.prompt_encoder:
            raise ConfigError("pointing is for a policy with a prompt_encoder; name that too")
        if any(phase and phase.chosen_share for phase in (self.see, self.hear, self.head)):
            raise ConfigError(
                "approach_share and change_share are for end_to_end, refine and finish: the other phases draw from all "
                "frames"
            )
        if any(phase and phase.frozen_stages for phase in (self.hear, self.head)):
            raise ConfigError(
                "frozen_stages is for see, end_to_end, refine and finish: hear and head freeze the ResNet"
            )
        if self.finish and not self.head:
            raise ConfigError("phase finish goes on from phase head; name that too, or use refine")


def load_config(path: Path) -> TrainConfig:
    """Read a YAML file; data folders in it are relative to the working directory.

    Its key `like` names another file beside it, whose keys hold where this one is silent.

    Raises:
        ConfigError: missing, not YAML, or with keys that mean nothing; the message names the file and the key.
    """
    raw = _read(path)
    try:
        for key in ("data", "see_data"):
            raw[key] = _folders(raw.get(key, []), key)
        for key, kind in PARTS.items():
            if raw.get(key) is not None:  # null leaves out what `like` names
                raw[key] = _build(kind, raw[key], key)
        for key in ("prompt_encoder", "start"):
            if raw.get(key):
                raw[key] = Path(raw[key])
        made: TrainConfig = _build(TrainConfig, raw, "the file")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return made


PARTS: Mapping[str, type[Any]] = {
    "see": Phase,
    "end_to_end": Phase,
    "refine": Phase,
    "hear": Phase,
    "finish": Phase,
    "head": Phase,
    "policy": ActSettings,
    "selection": Selection,
}


def _folders(raw: Any, where: str) -> tuple[Path, ...]:
    if not isinstance(raw, list):
        raise ConfigError(f"{where} must be a list of folders, not {raw!r}")
    return tuple(Path(folder) for folder in raw)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold keys and values")
    like = raw.pop("like", None)
    if like == path.name:
        raise ConfigError(f"{path}: like names the file itself")
    return {**_read(path.with_name(str(like))), **raw} if like else raw


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

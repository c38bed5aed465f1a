"""LeRobot's ACT policy, built from scratch and small enough to learn on a CPU.

Stock LeRobot freezes the batch normalisation of ACT's ResNet, which suits pretrained weights. Started from random ones,
a frozen normalisation is no normalisation at all, and the policy localises objects about twice as badly. So
`thaw_batchnorm` puts real batch normalisation in for training, and `fold_batchnorm` writes what it learnt into the
frozen form: the checkpoint is a plain LeRobot one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from vla_core.errors import ModelError
from vla_core.observation import ENVIRONMENT_KEY
from vla_training.onnx_policy import ACTION, STATE
from vla_training.shape import ActSettings

PROMPT_GAIN = 30.0
"""Of the prompt's random projection. A prompt's vector has length 1, spread over all its numbers: beside the token's
position (standard deviation 1) its 0.1 is hardly heard. docs/prompts.md has what was tried."""
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_MODE = 0o644  # safetensors writes 0600, which another user's policy server could not read

Stats = Mapping[str, Mapping[str, Tensor]]
"""Feature name to `mean` and `std`: images `(3, 1, 1)` of values in 0..1, state and action `(dof,)` in rad."""


def make_config(settings: ActSettings) -> ACTConfig:
    """LeRobot's configuration for `settings`: no variational encoder, no dropout, no pretrained weights."""
    prompt = {ENVIRONMENT_KEY: PolicyFeature(FeatureType.ENV, (settings.prompt_dim,))} if settings.prompt_dim else {}
    return ACTConfig(
        input_features={
            settings.image_key: PolicyFeature(FeatureType.VISUAL, (3, settings.height, settings.width)),
            STATE: PolicyFeature(FeatureType.STATE, (settings.dof,)),
            **prompt,
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (settings.dof,))},
        chunk_size=settings.chunk_size,
        n_action_steps=settings.chunk_size,
        pretrained_backbone_weights=None,
        dim_model=settings.dim_model,
        n_heads=settings.n_heads,
        dim_feedforward=settings.dim_feedforward,
        n_encoder_layers=settings.n_encoder_layers,
        n_decoder_layers=settings.n_decoder_layers,
        use_vae=False,
        dropout=0.0,
        device="cpu",
        push_to_hub=False,
    )


def build(settings: ActSettings) -> ACTPolicy:
    """A policy with random weights and real batch normalisation, ready to be trained."""
    policy = ACTPolicy(make_config(settings))
    thaw_batchnorm(policy)
    if settings.prompt_dim:
        with torch.no_grad():
            policy.model.encoder_env_state_input_proj.weight.mul_(PROMPT_GAIN)
    return policy


def warm_start(policy: ACTPolicy, folder: Path) -> None:
    """Begin with the weights of the checkpoint in `folder`, whatever `policy` has more than that keeps its own.

    A policy that takes a prompt has a token more: its part of the table of positions, the last row, stays as it is.

    Raises:
        ModelError: no checkpoint, or one of another shape.
    """
    try:
        given = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE} cannot be read: {error}") from error
    own = policy.state_dict()
    for key, value in given.items():
        mine = own.get(key)
        if mine is None or mine.shape[1:] != value.shape[1:] or len(mine) < len(value):
            shape = "nothing of that name" if mine is None else f"{tuple(mine.shape)}"
            raise ModelError(f"{folder} is of another network: its {key} is {tuple(value.shape)}, here {shape}")
        mine[: len(value)] = value


def _modules_of(root: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                yield parent, name, child


def thaw_batchnorm(policy: nn.Module) -> None:
    """Replace every frozen batch normalisation below `policy` by a real one with the same statistics, in place."""
    for parent, name, frozen in _modules_of(policy, FrozenBatchNorm2d):
        live = nn.BatchNorm2d(frozen.weight.numel(), eps=frozen.eps)
        live.load_state_dict(frozen.state_dict(), strict=False)
        setattr(parent, name, live)


def fold_batchnorm(policy: nn.Module) -> None:
    """Replace every real batch normalisation below `policy` by LeRobot's frozen one, in place.

    In evaluation mode the outputs stay the same.
    """
    for parent, name, live in _modules_of(policy, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(live.num_features, eps=live.eps)
        state = {key: value for key, value in live.state_dict().items() if key != "num_batches_tracked"}
        frozen.load_state_dict(state)
        setattr(parent, name, frozen)


@contextmanager
def frozen_stages(policy: ACTPolicy, count: int) -> Iterator[None]:
    """Within, the ResNet's first convolution and `count` of its stages stay as they are; 0 freezes nothing.

    Nothing is computed backwards through them, which with two stages saves a quarter of a step for 256x128 px.
    """
    held = [module for name, module in policy.model.backbone.named_children() if count and _stage_of(name) <= count]
    for module in held:
        module.requires_grad_(False).eval()
    try:
        yield
    finally:
        for module in held:
            module.requires_grad_(True).train()


def _stage_of(name: str) -> int:
    """Number of the stage that a ResNet's part belongs to; 0 for what comes before the first."""
    return int(name.removeprefix("layer")) if name.startswith("layer") else 0


def folded(policy: ACTPolicy) -> ACTPolicy:
    """A copy of `policy` in LeRobot's stock form, in evaluation mode; `policy` itself stays as it is."""
    stock = ACTPolicy(policy.config)
    state = {key: value for key, value in policy.state_dict().items() if not key.endswith("num_batches_tracked")}
    stock.load_state_dict(state)
    stock.eval()
    return stock


def save_checkpoint(policy: ACTPolicy, stats: Stats, folder: Path, *, half: bool = True) -> None:
    """Write a stock LeRobot checkpoint: configuration, weights, both processors.

    Args:
        policy: in stock form (see `folded`).
        stats: what the processors normalise by.
        folder: is made where it is missing.
        half: store matrices and kernels as float16, which halves the file. LeRobot loads them into float32. Vectors
            (normalisation statistics, biases) stay float32: they are small, and rounding them costs most.
    """
    if any(isinstance(module, nn.BatchNorm2d) for module in policy.modules()):
        raise ModelError("the policy still has real batch normalisation; pass folded(policy)")
    folder.mkdir(parents=True, exist_ok=True)
    policy.config.save_pretrained(folder)
    weights = {key: _storage(value, half) for key, value in policy.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    before, after = make_pre_post_processors(policy.config, dataset_stats={k: dict(v) for k, v in stats.items()})
    before.save_pretrained(folder)
    after.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(WEIGHTS_MODE)


def _storage(value: Tensor, half: bool) -> Tensor:
    value = value.detach().contiguous().clone()
    return value.half() if half and value.ndim >= 2 and value.is_floating_point() else value


Processors = tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]


def load_checkpoint(folder: Path) -> tuple[ACTPolicy, Processors]:
    """Load a checkpoint as LeRobot itself does, on the CPU and without a network.

    Raises:
        ModelError: not a checkpoint, not ACT, or its weights do not fit.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no LeRobot checkpoint: it has no config.json")
    config = PreTrainedConfig.from_pretrained(folder)
    if not isinstance(config, ACTConfig):
        raise ModelError(f"{folder} holds a {config.type} policy; this exporter knows act")
    config.device = "cpu"
    config.pretrained_backbone_weights = None
    try:
        policy = ACTPolicy(config)
        policy.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (RuntimeError, OSError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE}: {error}") from error
    policy.eval()
    device = {"device_processor": {"device": "cpu"}}
    processors = make_pre_post_processors(config, pretrained_path=str(folder), preprocessor_overrides=device)
    return policy, processors


def stats_of(processors: Processors, image_key: str) -> Stats:
    """The normalisation that a checkpoint's processors hold, for the same features as `Stats`."""
    before, after = processors
    found: dict[str, dict[str, Tensor]] = {}
    for step in (*before.steps, *after.steps):
        for feature, values in getattr(step, "_tensor_stats", {}).items():
            if feature in (image_key, STATE, ACTION):
                found[feature] = {kind: values[kind].float() for kind in ("mean", "std")}
    missing = {image_key, STATE, ACTION} - found.keys()
    if missing:
        raise ModelError(f"the processors hold no mean and std of {', '.join(sorted(missing))}")
    return found

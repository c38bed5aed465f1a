"""Fine-tunes of a shipped model by real gradient steps, for `deltas.py`.

Each kind trains what such fine-tunes train, with AdamW, on demonstrations of the other cube, and is saved as LeRobot
saves it, exported and packed. What is there is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vla_core import manifest as manifests
from vla_training import act, dataset, export
from vla_training.batches import Batches
from vla_training.config import Phase
from vla_training.train import loss_of

BATCH, SEED, RANK = 16, 7, 8


@dataclass(frozen=True, slots=True)
class Kind:
    """A fine-tune: which parameters learn, how fast, and after how many steps it is kept; as float32 too, if asked."""

    name: str
    learns: Callable[[str], bool]
    learning_rate: float
    steps: Sequence[int]
    low_rank: bool = False
    whole: bool = False


KINDS = (
    Kind("frozen", lambda name: "backbone" not in name, 1e-4, (100, 300)),
    Kind("expert", lambda name: "decoder" in name or "action_head" in name, 1e-4, (100,)),
    Kind("lora", lambda name: ".decrease" in name or ".increase" in name, 1e-3, (100,), low_rank=True),
    Kind("full", lambda _name: True, 1e-5, (10, 110), whole=True),
)


class LowRank(nn.Module):
    """What LoRA adds to a matrix; https://arxiv.org/abs/2106.09685."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.decrease = nn.Parameter(torch.randn(RANK, columns) / columns**0.5)
        self.increase = nn.Parameter(torch.zeros(rows, RANK))

    def forward(self, weight: Tensor) -> Tensor:
        """The matrix with what was learnt."""
        return weight + self.increase @ self.decrease


def make(base: Path, data: Path, folder: Path) -> None:
    """Make all kinds below `folder`: `<kind>-<steps>`, with `-float32` where the weights are kept so."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found: dataset.Dataset | None = None
    for kind in KINDS:
        if all((folder / f"{kind.name}-{steps}" / manifests.FILE_NAME).is_file() for steps in kind.steps):
            continue
        policy, processors = act.load_checkpoint(base)
        key = next(iter(policy.config.image_features))
        stats = act.stats_of(processors, key)
        found = found or dataset.load([data], policy.config.chunk_size)
        keep = partial(_keep, policy, kind, stats, base=base, below=folder)
        _train(policy, kind, Batches(found, stats, key, SEED), keep)


def _train(policy: ACTPolicy, kind: Kind, batches: Batches, keep: Callable[..., None]) -> None:
    if kind.low_rank:
        _adapt(policy)
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(kind.learns(name))
    learning = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=kind.learning_rate, weight_decay=1e-4)
    phase = Phase(steps=max(kind.steps), batch=BATCH, learning_rate=kind.learning_rate)
    policy.train()
    for step in range(1, max(kind.steps) + 1):
        loss = loss_of(policy, batches.end_to_end(phase, step))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learning, phase.clip_norm)
        optimiser.step()
        if step in kind.steps:
            print(f"{kind.name}: step {step}, loss {loss.item():.3f}", flush=True)
            keep(step=step)
            policy.train()


def _adapt(policy: ACTPolicy) -> None:
    for module in list(policy.model.encoder.modules()) + list(policy.model.decoder.modules()):
        if isinstance(module, nn.MultiheadAttention):
            parametrize.register_parametrization(module, "in_proj_weight", LowRank(module.in_proj_weight))
        elif type(module) is nn.Linear:
            parametrize.register_parametrization(module, "weight", LowRank(module.weight))


def _keep(policy: ACTPolicy, kind: Kind, stats: act.Stats, *, base: Path, below: Path, step: int) -> None:
    policy.eval()
    if kind.low_rank:
        for module in list(policy.modules()):
            for name in list(getattr(module, "parametrizations", {})):
                parametrize.remove_parametrizations(module, name)
    folder = below / f"{kind.name}-{step}"
    act.save_checkpoint(policy, stats, folder)
    export.export_onnx(folder)
    _pack(base, folder)
    if kind.whole:
        act.save_checkpoint(policy, stats, folder.with_name(f"{folder.name}-float32"), half=False)
        _pack(base, folder.with_name(f"{folder.name}-float32"))


def _pack(base: Path, folder: Path) -> None:
    manifest = manifests.load(base)
    files = manifests.list_files(folder)
    manifests.write(folder, replace(manifest, version=f"{manifest.version}-{folder.name}", files=files, signature=None))

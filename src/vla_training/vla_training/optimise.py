"""One phase of training: batches, noise, AdamW, a running average and a state on disk to go on from.

Every random choice comes from the run's seed, the phase and the step, so a run that was interrupted continues as if it
had not been.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vla_core.errors import ModelError
from vla_training.config import Phase

ADAM_BETAS = (0.9, 0.999)
_LOG_EVERY_STEPS = 10


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        pictures: or their features, with the batch first. There may be fewer than states: then each is that of the same
            number of states, one after another.
        states: normalised, `(batch, dof)`.
        chunks: normalised, `(batch, chunk, dof)`.
        told: `(batch,)`, how many actions of each chunk count; the others answer another prompt. None: all.
        prompts: vectors `(batch, dim)`; None where the policy takes none.
        cubes: where each colour lies in each picture `(pictures, colours, 4)`, see `vla_training.eyes`.
        asked: number of the colour in `vla_sim.layout.NAMED` that each prompt asks for, `(batch,)`.
    """

    pictures: Tensor
    states: Tensor
    chunks: Tensor
    told: Tensor | None = None
    prompts: Tensor | None = None
    cubes: Tensor | None = None
    asked: Tensor | None = None


def arithmetic(phase: Phase) -> torch.autocast:
    """The context for a phase's forward passes, in its precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=phase.precision == "bfloat16")


def learning_rate(phase: Phase, step: int) -> float:
    """Warm up linearly, stay, then fall by half a cosine; `step` counts from 0."""
    warm = min(1.0, (step + 1) / max(1, phase.warmup_steps))
    hold = phase.constant * phase.steps
    if step <= hold:
        return phase.learning_rate * warm
    return phase.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * (step - hold) / (phase.steps - hold)))


class Average:
    """Running average of a module's floating-point parameters and buffers, corrected for its start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.values = {
            key: torch.zeros_like(value) for key, value in module.state_dict().items() if value.is_floating_point()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module's present weights."""
        self.count += 1
        # A short memory at first, or the first steps would weigh on the result for thousands.
        decay = min(self.decay, self.count / (self.count + 10))
        present = module.state_dict()
        for key, value in self.values.items():
            value.lerp_(present[key], 1 - decay)


@dataclass(slots=True)
class Progress:
    """Where a phase stands."""

    step: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """What is to fall."""
        return sum(self.losses.values())


class Losses:
    """Means over some steps."""

    def __init__(self) -> None:
        self._steps: list[Mapping[str, float]] = []

    def add(self, losses: Mapping[str, float]) -> None:
        """Take in a step's."""
        self._steps.append(losses)

    def take(self) -> Mapping[str, float]:
        """The means since the last time."""
        found = {name: float(np.mean([step[name] for step in self._steps])) for name in self._steps[0]}
        self._steps.clear()
        return found


class Trainer:
    """Runs one phase over a module, and can save and restore itself.

    Args:
        name: of the phase, for files and log lines.
        module: what is trained; only parameters that require gradients change.
        loss_of: batch to scalar losses by name, of which the sum is to fall.
        batch_of: step to a batch; must depend on nothing but the step.
        folder: for the state and the log.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        phase: Phase,
        *,
        loss_of: Callable[[Batch], Mapping[str, Tensor]],
        batch_of: Callable[[int], Batch],
        folder: Path,
    ) -> None:
        self.name, self.module, self.phase = name, module, phase
        self._loss_of, self._batch_of = loss_of, batch_of
        self._folder = folder
        self._state_path = folder / f"{name}.state.safetensors"
        self._named = {key: value for key, value in module.named_parameters() if value.requires_grad}
        self._optimiser = torch.optim.AdamW(
            list(self._named.values()),
            lr=phase.learning_rate,
            betas=ADAM_BETAS,
            weight_decay=phase.weight_decay,
            fused=True,
        )
        self.average = Average(module, phase.averaging) if phase.averaging else None
        self.progress = Progress()

    def run(self) -> Iterator[int]:
        """Train to the end of the phase; yields the step after each checkpoint and, even if all is done, at the end."""
        if self.progress.step == self.phase.steps:
            yield self.progress.step
            return
        log = (self._folder / "log.jsonl").open("a", encoding="utf-8")
        started, first, losses = time.monotonic(), self.progress.step, Losses()
        with log, _bar() as bar:
            task = bar.add_task(f"phase {self.name}", total=self.phase.steps, completed=first, loss="")
            while self.progress.step < self.phase.steps:
                losses.add(self._step())
                step = self.progress.step
                known = f"loss {self.progress.loss:.3f}" if self.progress.losses else ""
                bar.update(task, completed=step, loss=known)
                if step % _LOG_EVERY_STEPS == 0 or step == self.phase.steps:
                    self.progress.losses = losses.take()
                    seconds = (time.monotonic() - started) / (step - first)
                    self._report(log.write, seconds, show=not bar.console.is_terminal)
                    log.flush()
                if step % self.phase.checkpoint_every == 0 or step == self.phase.steps:
                    self.save()
                    yield step

    def _step(self) -> Mapping[str, float]:
        rate = learning_rate(self.phase, self.progress.step)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        batch = self._batch_of(self.progress.step)
        with arithmetic(self.phase):
            losses = self._loss_of(batch)
            loss = torch.stack(list(losses.values())).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(list(self._named.values()), self.phase.clip_norm)
        self._optimiser.step()
        if self.average:
            self.average.update(self.module)
        self.progress.step += 1
        return {name: value.item() for name, value in losses.items()}

    def _report(self, write: Callable[[str], int], seconds_per_step: float, *, show: bool) -> None:
        step, total = self.progress.step, self.phase.steps
        rate = learning_rate(self.phase, step - 1)
        line = {"phase": self.name, "step": step, "loss": round(self.progress.loss, 6), "learning_rate": rate}
        if len(self.progress.losses) > 1:
            line |= {f"{name}_loss": round(value, 6) for name, value in self.progress.losses.items()}
        write(json.dumps({**line, "seconds_per_step": round(seconds_per_step, 4)}) + "\n")
        if not show:
            return
        left_min = (total - step) * seconds_per_step / 60
        print(
            f"{self.name} {step}/{total}  loss {self.progress.loss:.4f}{_parts(self.progress.losses)}  "
            f"rate {rate:.1e}  {seconds_per_step:.2f} s a step, {left_min:.0f} min left",
            flush=True,
        )

    def save(self) -> None:
        """Write everything needed to go on, whole or not at all."""
        tensors = {f"module.{key}": value.detach().contiguous() for key, value in self.module.state_dict().items()}
        for key, parameter in self._named.items():
            for kind, value in self._optimiser.state[parameter].items():
                tensors[f"adam.{kind}.{key}"] = torch.as_tensor(value).contiguous()
        if self.average:
            tensors |= {f"average.{key}": value.contiguous() for key, value in self.average.values.items()}
        temporary = self._state_path.with_suffix(".partial")
        counts = {"step": str(self.progress.step), "averaged": str(self.average.count if self.average else 0)}
        save_file({key: value.clone() for key, value in tensors.items()}, temporary, metadata=counts)
        temporary.replace(self._state_path)

    def start_from(self, other: str) -> None:
        """Begin with the weights that phase `other` ended with; does nothing where that phase left no state.

        Raises:
            ModelError: the state belongs to another network.
        """
        path = self._folder / f"{other}.state.safetensors"
        if path.is_file():
            self._load(state_weights(path), path)

    def restore(self) -> bool:
        """Go on from the state on disk, if there is one.

        Raises:
            ModelError: the state belongs to another network.
        """
        if not self._state_path.is_file():
            return False
        with safe_open(self._state_path, framework="pt") as state:
            counts = state.metadata()
            tensors = {key: state.get_tensor(key) for key in state.keys()}  # noqa: SIM118 (no mapping)
        self._load(_below(tensors, "module."), self._state_path)
        if new := [key for key in self._named if f"adam.step.{key}" not in tensors]:
            raise ModelError(
                f"{self._state_path} has nothing of {new[0]}, which was frozen when this phase began: "
                "give frozen_stages as it was, or use another output folder"
            )
        for key, parameter in self._named.items():
            # The fused kernel walks through memory: moments must lie as their parameter does, channels last or not.
            moments = {
                kind: torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"adam.{kind}.{key}"])
                for kind in ("exp_avg", "exp_avg_sq")
            }
            self._optimiser.state[parameter] = {"step": tensors[f"adam.step.{key}"], **moments}
        if self.average:
            self.average.values = _below(tensors, "average.")
            self.average.count = int(counts["averaged"])
        self.progress.step = int(counts["step"])
        return True

    def _load(self, weights: dict[str, Tensor], path: Path) -> None:
        try:
            self.module.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError(f"{path} is of another network; use another output folder: {error}") from error


def state_weights(path: Path) -> dict[str, Tensor]:
    """The network's weights in the state that a phase left."""
    with safe_open(path, framework="pt") as state:
        return _below({key: state.get_tensor(key) for key in state.keys()}, "module.")  # noqa: SIM118 (no mapping)


def _parts(losses: Mapping[str, float]) -> str:
    named = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
    return f" ({named})" if len(losses) > 1 else ""


def _bar() -> RichProgress:
    """A progress bar on a terminal; elsewhere, lines are printed instead."""
    console = Console(stderr=True)
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[loss]}"), TimeElapsedColumn(), TimeRemainingColumn()),
    )
    return RichProgress(*columns, console=console, disable=not console.is_terminal)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def generator(seed: int, phase: int, step: int) -> np.random.Generator:
    """The random numbers of one step."""
    return np.random.default_rng([seed, phase, step])


def disturb_pictures(pictures: Tensor, phase: Phase, rng: np.random.Generator) -> Tensor:
    """Vary brightness and add pixel noise to `(batch, 3, h, w)` pictures in 0..1.

    One factor a picture and colour, near to one another: light changes more than white balance does.
    """
    count = len(pictures)
    level = rng.uniform(1 - phase.brightness, 1 + phase.brightness, (count, 1, 1, 1))
    tint = rng.uniform(1 - phase.brightness / 5, 1 + phase.brightness / 5, (count, 3, 1, 1))
    factor = torch.from_numpy((level * tint).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(pictures.shape, dtype=np.float32)) * phase.pixel_noise
    return (pictures * factor + noise).clamp_(0, 1)


def disturb_states(states: Tensor, phase: Phase, rng: np.random.Generator) -> Tensor:
    """Add noise to joint positions `(batch, dof)` in rad."""
    noise = torch.from_numpy(rng.standard_normal(tuple(states.shape), dtype=np.float32))
    return states + noise * phase.state_noise_rad

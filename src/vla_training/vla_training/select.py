"""Closed-loop success of checkpoints, by which the best is chosen: a lower loss is no better grasp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from vla_core.prompt_phrases import FILE_NAME, Phrases
from vla_sim.world import World
from vla_training import export
from vla_training.config import TrainConfig
from vla_training.evaluate import EpisodeResult, LoopSettings, evaluate
from vla_training.phrases import TARGETS, known
from vla_training.prompted import Kind, Row, Trial, run_trial

CHANGES: Final = (("black", "white"), ("yellow", "blue"))
"""What is asked for first and then, where the prompt changes."""


@dataclass(frozen=True, slots=True)
class Score:
    """How a checkpoint did: successes of episodes, and how often a wrong object was lifted."""

    successes: int
    episodes: int
    wrong: int

    def __str__(self) -> str:
        return f"{self.successes} of {self.episodes} placed, wrong object lifted {self.wrong} times"

    @property
    def merit(self) -> tuple[int, int]:
        """Sorts checkpoints, the best last."""
        return self.successes - self.wrong, -self.wrong

    def to_json(self) -> dict[str, int]:
        """The constructor's arguments."""
        return asdict(self)


def play(checkpoint: Path, config: TrainConfig) -> Score:
    """Play the configuration's scenes for choosing with a checkpoint."""
    shape, selection = config.policy, config.selection
    settings = LoopSettings(
        camera=shape.camera,
        width=shape.width,
        height=shape.height,
        rate_hz=config.rate_hz,
        replan_s=config.open_loop_s,
        limit_s=selection.limit_s,
        target=config.target,
        variety=selection.variety,
    )
    seeds = range(selection.first_seed, selection.first_seed + selection.episodes)
    if config.prompt_encoder:
        policy = Told(checkpoint, Phrases.load(config.prompt_encoder / FILE_NAME))
        results = list(_tell(policy, seeds, settings))
    else:
        results = list(evaluate(torch_policy(checkpoint), seeds, settings))
    return Score(
        sum(result.success for result in results), len(results), sum(result.wrong_lifted for result in results)
    )


def rows() -> list[Row]:
    """What a policy that listens is asked in turn: every target, one that is not there, and changes of the prompt."""
    said = {target: known(target)[0] for target in TARGETS}
    alone = [(Kind.KNOWN, (target,)) for target in TARGETS] + [(Kind.ABSENT, (target,)) for target in TARGETS[:2]]
    changes = [(kind, pair) for pair in CHANGES for kind in (Kind.BEFORE_GRASP, Kind.CARRYING)]
    return [Row(kind, tuple(said[name] for name in names), names) for kind, names in (*alone, *changes)]


def _tell(policy: Told, seeds: Sequence[int], settings: LoopSettings) -> Iterator[EpisodeResult]:
    asked, world = rows(), World(cameras=(settings.camera,))
    try:
        for number, seed in enumerate(seeds):
            yield run_trial(world, policy, Trial(asked[number % len(asked)], seed), settings)
    finally:
        world.close()


class Told:
    """A checkpoint that takes a prompt's vector, told a target by its plainest phrase."""

    def __init__(self, checkpoint: Path, phrases: Phrases) -> None:
        """Load the checkpoint."""
        self._policy = torch_policy(checkpoint)
        self._vectors = {known(target)[0]: phrases.vector_of(target) for target in TARGETS}
        self._vector = next(iter(self._vectors.values()))

    def prompt(self, text: str) -> str:
        """Take it; every prompt of `rows` is understood."""
        self._vector = self._vectors[text]
        return ""

    def __call__(self, picture: NDArray[np.uint8], state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Picture `(h, w, 3)` uint8 and state `(dof,)` rad to actions `(chunk, dof)` rad."""
        return self._policy(picture, state, self._vector)


def torch_policy(checkpoint: Path) -> Callable[..., NDArray[np.float64]]:
    """A checkpoint under torch.

    Returns:
        A function from a picture `(h, w, 3)` uint8, joints `(dof,)` rad and, where the policy takes one, the vector
        `(dim,)` of a prompt to actions `(chunk, dof)` rad.
    """
    deployed = export.load_deployed(checkpoint)

    def call(image: NDArray[np.uint8], *vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        rest = [torch.from_numpy(vector.astype(np.float32))[None] for vector in vectors]
        with torch.inference_mode():
            answer = deployed(torch.from_numpy(image.copy())[None], *rest)
        return answer[0].numpy().astype(np.float64)

    return call

"""Demonstrations by the scripted expert: `python -m vla_training.record --out out/data/black --episodes 900`.

Physics and pictures are those of the simulator; the loop is in-process and faster than real time. Three things make the
demonstrations teach more than the perfect path (the first is DART, Laskey et al. 2017):

- correlated noise on what is executed, while the labels stay clean: the policy sees how to come back to the path;
- starts near HOME, anywhere else, and with the jaws just closed beside the cube, for trying again;
- the arm holds still at the end, so that the policy learns to stop.

Only successes are kept.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError, EvergreenError
from vla_sim.expert import Expert, Miss, Stage
from vla_sim.world import HOME_RAD, TIMESTEP_S, World
from vla_training.dataset import Episode, write_shard
from vla_training.evaluate import LoopSettings, refuse_held_out, see, to_ticks

SETPOINTS_PER_ACTION = 10
"""The driver's 100 Hz over the policy's 10 Hz: setpoints lie on straight lines between actions."""
HOLD_FRAMES = 10
START_NOISE_RAD = 0.04
SETTLE_STEPS = 250  # 0.5 s of physics to be somewhere
LONGEST_S = 16.0
NOISE_RAD = 0.02
"""5 mm at the finger tips; three times the servo's own error."""
NOISE_MEMORY = 0.8
"""Share of the noise that lasts from one action to the next: half a second of drift, not a tremor."""
CALM = frozenset({Stage.DESCEND, Stage.CLOSE, Stage.LOWER, Stage.OPEN})
CALM_SHARE = 0.4
"""Of the noise, while the jaws are around the cube: the grasp tolerates about 6 mm."""
ANYWHERE_SHARE = 0.15
MISSED_SHARE = 0.15
MISS_M = 0.03
"""Far enough for the jaws to close on nothing, or on an edge."""
_ANYWHERE_LOW_RAD = np.array([-0.7, -0.6, -0.4, 0.9, 0.9, 0.0])
_ANYWHERE_HIGH_RAD = np.array([0.9, 0.3, 0.8, 1.65, 2.4, 0.6])
_BLOCK_EPISODES = 50
"""Episodes a shard: what a killed process loses."""


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What is recorded; `picture_every` frames one has a picture, the others only joints."""

    loop: LoopSettings = LoopSettings()  # noqa: RUF009 (frozen)
    picture_every: int = 2

    def __post_init__(self) -> None:
        if self.picture_every < 1:
            raise ConfigError(f"picture_every {self.picture_every} must be at least 1")


class Demonstrator:
    """One world and one expert; makes one episode after another."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._world = World(cameras=(settings.loop.camera,))
        self._expert = Expert(self._world.model, settings.loop.target)
        self._period_s = 1 / settings.loop.rate_hz
        self._substeps = round(self._period_s / SETPOINTS_PER_ACTION / TIMESTEP_S)

    def close(self) -> None:
        """Free the renderer."""
        self._world.close()

    def episode(self, seed: int) -> Episode | None:
        """The demonstration of one scene, or None where noise made it fail."""
        rng = np.random.default_rng([seed, 2])
        self._world.reset(seed)
        self._start(rng)
        # Another target and back: the expert drops what it planned before this episode.
        self._expert = Expert(self._world.model, self._settings.loop.target)
        return self._follow(seed, rng)

    def _start(self, rng: np.random.Generator) -> None:
        """Bring the arm to where the demonstration begins."""
        kind = rng.random()
        if kind < MISSED_SHARE:
            self._miss(rng)
        elif kind < MISSED_SHARE + ANYWHERE_SHARE:
            self._ramp(rng.uniform(_ANYWHERE_LOW_RAD, _ANYWHERE_HIGH_RAD), 4 * SETTLE_STEPS)
        else:
            self._ramp(np.array(HOME_RAD) + rng.normal(0, START_NOISE_RAD, len(HOME_RAD)), SETTLE_STEPS)

    def _ramp(self, goal: NDArray[np.float64], steps: int) -> None:
        start = self._world.joint_positions()
        for share in np.linspace(0, 1, steps // self._substeps):
            self._world.step(start + share * (goal - start), self._substeps)

    def _miss(self, rng: np.random.Generator) -> None:
        """Grasp beside the cube, up to some moment of the empty lift."""
        angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1.0) * MISS_M
        miss = Miss(far * math.cos(angle), far * math.sin(angle), rng.uniform(-0.4, 0.4))
        plan = self._expert.plan(self._world.truth(), self._world.joint_positions(), miss)
        ends = dict(plan.stages)
        until_s = rng.uniform(ends[Stage.DESCEND] + 0.2, ends[Stage.LIFT])
        for time_s in np.arange(0, until_s, self._period_s / SETPOINTS_PER_ACTION):
            self._world.step(plan.at(time_s)[0], self._substeps)

    def _follow(self, seed: int, rng: np.random.Generator) -> Episode | None:
        world, loop = self._world, self._settings.loop
        states, actions, pictured, images = [], [], [], []
        offset = int(rng.integers(self._settings.picture_every))
        noise: NDArray[np.float64] = np.zeros(len(HOME_RAD))
        still = 0
        for frame in range(round(LONGEST_S * loop.rate_hz)):
            time_s = frame * self._period_s
            state = to_ticks(world.joint_positions())
            if (frame + offset) % self._settings.picture_every == 0:
                pictured.append(frame)
                images.append(see(world, loop))
            here, there = self._expert.chunk(world.truth(), state, time_s, 2, loop.rate_hz)
            states.append(state)
            actions.append(here)
            noise_before, noise = noise, self._next_noise(noise, time_s, rng)
            for share in np.arange(1, SETPOINTS_PER_ACTION + 1) / SETPOINTS_PER_ACTION:
                target = here + share * (there - here) + noise_before + share * (noise - noise_before)
                world.step(to_ticks(target), self._substeps)
            at_rest = np.array_equal(here, there) and frame > 0
            still = still + 1 if at_rest else 0
            if still >= HOLD_FRAMES:
                break
        if not world.outcome(loop.target).success:
            return None
        return Episode(
            seed, np.array(states, np.float32), np.array(actions, np.float32), np.array(pictured), np.array(images)
        )

    def _next_noise(self, noise: NDArray[np.float64], time_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """A first-order random walk that forgets, calmer while the jaws are around the cube."""
        size = NOISE_RAD * (CALM_SHARE if self._expert.stage(time_s + self._period_s) in CALM else 1.0)
        return NOISE_MEMORY * noise + math.sqrt(1 - NOISE_MEMORY**2) * rng.normal(0, size, len(noise))


def record(folder: Path, seeds: Sequence[int], settings: RecordSettings) -> tuple[int, int]:
    """Record the scenes of `seeds` in shards; returns how many were kept and how many tried.

    Raises:
        ConfigError: a seed that is kept for evaluation.
    """
    refuse_held_out(seeds)
    demonstrator = Demonstrator(settings)
    kept, started = 0, time.monotonic()
    for start in range(0, len(seeds), _BLOCK_EPISODES):
        block = seeds[start : start + _BLOCK_EPISODES]
        episodes = [episode for seed in block if (episode := demonstrator.episode(seed)) is not None]
        kept += len(episodes)
        if episodes:
            write_shard(folder, f"{settings.loop.target}-{block[0]:06d}", episodes)
        done = start + len(block)
        print(f"{kept} of {done} kept, {(time.monotonic() - started) / done:.2f} s each", flush=True)
    demonstrator.close()
    return kept, len(seeds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vla_training.record", description="Record demonstrations.")
    parser.add_argument("--out", type=Path, required=True, help="data folder")
    parser.add_argument("--episodes", type=int, default=900, help="scenes to try (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the scenes (default %(default)s)")
    parser.add_argument("--target", default="black", help="cube to place (default %(default)s)")
    parser.add_argument("--picture-every", type=int, default=2, help="frames a picture (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Record; 2 where that cannot work."""
    options = _parser().parse_args(arguments)
    try:
        settings = RecordSettings(LoopSettings(target=options.target), options.picture_every)
        seeds = range(options.first_seed, options.first_seed + options.episodes)
        size = math.ceil(len(seeds) / options.jobs)
        parts = [(options.out, seeds[at : at + size], settings) for at in range(0, len(seeds), size)]
        if len(parts) == 1:
            counts = [record(*parts[0])]
        else:
            with get_context("spawn").Pool(len(parts)) as pool:
                counts = pool.starmap(record, parts)
    except EvergreenError as error:
        print(f"record: {error}")
        return 2
    kept, tried = (sum(column) for column in zip(*counts, strict=True))
    print(f"{options.out}: {kept} of {tried} demonstrations succeeded and were kept")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

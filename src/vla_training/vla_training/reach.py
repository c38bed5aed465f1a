"""Pictures of random scenes with the pose in which the arm would reach the target: `python -m vla_training.reach`.

Teaches the ResNet to see before a single demonstration exists: ten pictures of this kind cost as much as one second of
a demonstration, and every one shows another scene. The arm stands anywhere; the "action" is one posture, the grasp
point above the target cube with the jaws along its faces, so that position and turn must both be found.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import EvergreenError
from vla_sim.kinematics import ArmKinematics
from vla_sim.world import HOME_RAD, World
from vla_training.dataset import Episode, write_shard
from vla_training.evaluate import LoopSettings, refuse_held_out, see, to_ticks

HOVER_M = 0.05
"""Height of the grasp point above the table."""
_SETTLE_STEPS = 200  # 0.4 s: enough to be somewhere else, not to arrive
_HOME_SHARE = 0.25
_SPREAD_RAD = np.array([0.5, 0.35, 0.35, 0.35, 0.7, 0.4])
_QUARTER = math.pi / 2


def hover_pose(kinematics: ArmKinematics, position: Sequence[float], yaw_rad: float) -> NDArray[np.float64]:
    """Joints `(6,)` with the jaws above a cube, turned along the faces that need least turning."""
    seed = np.array([math.atan2(-position[1], position[0]), -0.3, 0.3, 1.5, 0.0])
    direction = math.atan2(position[1], position[0]) + _QUARTER
    turn = (yaw_rad - direction + _QUARTER / 2) % _QUARTER - _QUARTER / 2
    solution = kinematics.solve((position[0], position[1], HOVER_M), direction + turn, seed)
    return np.append(solution.joints, HOME_RAD[-1])


def scene(world: World, kinematics: ArmKinematics, seed: int, settings: LoopSettings) -> Episode:
    """One scene as an episode of a single frame."""
    rng = np.random.default_rng([seed, 1])
    world.reset(seed)
    black = world.truth().cubes[settings.target]
    if rng.random() > _HOME_SHARE:
        around = hover_pose(kinematics, (rng.uniform(0.16, 0.28), rng.uniform(-0.18, 0.13)), 0.0)
        world.step(around + rng.normal(0, 1, 6) * _SPREAD_RAD, _SETTLE_STEPS)
        black = world.truth().cubes[settings.target]
    goal = hover_pose(kinematics, (black.x, black.y), black.yaw).astype(np.float32)
    state = to_ticks(world.joint_positions()).astype(np.float32)
    return Episode(seed, state[None], goal[None], np.zeros(1, np.int64), see(world, settings)[None])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one shard of scenes."""
    parser = argparse.ArgumentParser(prog="python -m vla_training.reach", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="data folder")
    parser.add_argument("--scenes", type=int, default=6000, help="how many (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=500_000, help="of the scenes (default %(default)s)")
    options = parser.parse_args(arguments)
    settings = LoopSettings()
    try:
        world = World(cameras=(settings.camera,))
        kinematics = ArmKinematics(world.model)
        seeds = range(options.first_seed, options.first_seed + options.scenes)
        refuse_held_out(seeds)
        write_shard(options.out, f"reach-{options.first_seed}", [scene(world, kinematics, s, settings) for s in seeds])
        world.close()
    except EvergreenError as error:
        print(f"reach: {error}")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

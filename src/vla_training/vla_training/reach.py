"""Pictures of random scenes with the pose in which the arm would reach the target: `python -m vla_training.reach`.

Teaches the ResNet to see before a single demonstration exists: ten pictures of this kind cost as much as one second of
a demonstration, and every one shows another scene. The arm stands anywhere; the "action" is one posture, the grasp
point above the target cube with the jaws along its faces, so that position and turn must both be found. A policy that
listens learns it for every cube of a scene at once: nothing but the prompt tells these answers apart.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import EvergreenError
from vla_sim.casting import draw_names
from vla_sim.kinematics import ArmKinematics
from vla_sim.layout import NAMED, REACH_M, SECTOR_RAD, TRAINING, VARIETIES
from vla_sim.world import HOME_RAD, World
from vla_training.dataset import Episode, write_shard
from vla_training.evaluate import LoopSettings, refuse_held_out, see, to_ticks
from vla_training.localisation import locate
from vla_training.phrases import known

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


def scene(
    world: World, kinematics: ArmKinematics, seed: int, settings: LoopSettings, targets: Sequence[str] = ()
) -> Episode:
    """One scene as an episode of a single frame; `targets` are asked for in turn, among cubes of any colour."""
    rng = np.random.default_rng([seed, 1])
    target = targets[seed % len(targets)] if targets else settings.target
    names = draw_names(np.random.default_rng([seed, 4]), [target]) if targets else None
    world.reset(seed, variety=settings.variety, target=target, names=names)
    if rng.random() > _HOME_SHARE:
        far, angle = rng.uniform(*REACH_M), rng.uniform(-SECTOR_RAD, SECTOR_RAD)
        around = hover_pose(kinematics, (far * math.cos(angle), far * math.sin(angle)), 0.0)
        world.step(around + rng.normal(0, 1, 6) * _SPREAD_RAD, _SETTLE_STEPS)
    asked = NAMED if targets else (target,)
    goals = np.full((len(asked), len(HOME_RAD)), np.nan, np.float32)
    for row, cube in zip(goals, map(world.truth().cubes.get, asked), strict=True):
        if cube is not None:
            row[:] = hover_pose(kinematics, (cube.x, cube.y), cube.yaw)
    state = to_ticks(world.joint_positions()).astype(np.float32)
    return Episode(
        seed,
        state[None],
        goals[asked.index(target)][None],
        np.zeros(1, np.int64),
        see(world, settings)[None],
        prompts=(known(target)[0],) if targets else (),
        cubes=locate(world, settings.camera)[None] if targets else None,
        goals=goals[None] if targets else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one shard of scenes."""
    parser = argparse.ArgumentParser(prog="python -m vla_training.reach", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="data folder")
    parser.add_argument("--scenes", type=int, default=6000, help="how many (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=500_000, help="of the scenes (default %(default)s)")
    parser.add_argument("--target", default="black", help="cube to find (default %(default)s)")
    parser.add_argument(
        "--targets",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="COLOUR,…",
        help="instead: cubes of any colour, of which these are asked for in turn",
    )
    parser.add_argument(
        "--variety", choices=VARIETIES, default=TRAINING, help="how much scenes differ (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    settings = LoopSettings(target=options.target, variety=options.variety)
    try:
        world = World(cameras=(settings.camera,))
        kinematics = ArmKinematics(world.model)
        seeds = range(options.first_seed, options.first_seed + options.scenes)
        refuse_held_out(seeds)
        name = f"reach-{'prompted' if options.targets else options.target}-{options.first_seed}"
        episodes = [scene(world, kinematics, seed, settings, options.targets) for seed in seeds]
        write_shard(options.out, name, episodes)
        world.close()
    except EvergreenError as error:
        print(f"reach: {error}")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

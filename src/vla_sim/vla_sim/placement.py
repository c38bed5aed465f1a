"""Where a seed puts the cubes."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from vla_core.errors import ConfigError
from vla_sim.scene import CUBE_SIZE_M, CUBES, SPOT_XY
from vla_sim.truth import CubePose

X_RANGE_M: Final = (0.16, 0.28)
Y_RANGE_M: Final = (-0.13, 0.13)
YAW_RANGE_RAD: Final = (-math.pi / 4, math.pi / 4)
"""A cube looks the same after a quarter turn: this is every way it can lie."""
APART_M: Final = 0.06
"""Between centres, and from the spot: the open jaws fit between two cubes."""
_TRIES: Final = 1000  # about one in two fits


def place_cubes(seed: int) -> dict[str, CubePose]:
    """Poses for all cubes; the same for the same seed, on every machine.

    Raises:
        ConfigError: the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"a seed must be 0 or more, not {seed}")
    random = np.random.default_rng(seed)
    for _ in range(_TRIES):
        cubes = {
            name: CubePose(
                float(random.uniform(*X_RANGE_M)),
                float(random.uniform(*Y_RANGE_M)),
                CUBE_SIZE_M / 2,
                float(random.uniform(*YAW_RANGE_RAD)),
            )
            for name in CUBES
        }
        if _fits(list(cubes.values())):
            return cubes
    raise ConfigError(f"seed {seed} finds no room for {len(CUBES)} cubes: make the area larger or the cubes fewer")


def _fits(cubes: list[CubePose]) -> bool:
    clear_of_spot = all(cube.distance_to(SPOT_XY) >= APART_M for cube in cubes)
    pairs = ((a, b) for index, a in enumerate(cubes) for b in cubes[index + 1 :])
    return clear_of_spot and all(a.distance_to((b.x, b.y)) >= APART_M for a, b in pairs)

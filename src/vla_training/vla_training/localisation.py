"""Where the cubes lie in a picture: another thing that a network can learn from demonstrations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from vla_sim.layout import NAMED, colour_of

if TYPE_CHECKING:
    from vla_sim.world import World

NUMBERS: Final = ("u", "v", "cos 4 yaw", "sin 4 yaw")
"""Of each colour. Place in the whole 4:3 picture, (0, 0) at the upper left and (1, 1) at the lower right; the turn
about the vertical in the base's frame, four times, because a cube looks the same after a quarter turn."""
COLUMN: Final = "cubes"
"""Of a LeRobotDataset; not an observation, so that no policy takes it for one."""
COLUMN_NAMES: Final = tuple(f"{colour} {number}" for colour in NAMED for number in NUMBERS)


def locate(world: World, camera: str) -> NDArray[np.float32]:
    """`(len(NAMED), 4)`: NUMBERS of each colour; NaN where it is not on the table, or is there twice."""
    found = np.full((len(NAMED), len(NUMBERS)), np.nan, np.float32)
    cubes, seen = world.truth().cubes, world.in_picture(camera)
    for row, colour in enumerate(NAMED):
        names = [name for name in cubes if colour_of(name) == colour]
        if names == [colour] and colour in seen:
            turn = 4 * cubes[colour].yaw
            found[row] = (*seen[colour], math.cos(turn), math.sin(turn))
    return found

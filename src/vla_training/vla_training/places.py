"""How a cube lies that is asked for, as far as that makes it harder to fetch (docs/prompts.md has by how much)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from vla_sim import layout
from vla_sim.truth import CubePose

CROWDED_M: Final = 0.10
"""A neighbour within this lies in the same cell of the ResNet's last map as the cube that is asked for, or the next; of
192x96 px, for which it was chosen."""
END_RAD: Final = math.radians(70)
END_M: Final = 0.25
"""Beyond both, a cube lies at an end of the half disc."""


class Place(StrEnum):
    """Where a cube lies; the first that is true counts."""

    CROWDED = "crowded"
    END = "end"
    ELSEWHERE = "elsewhere"


def place_of(cubes: Mapping[str, CubePose], name: str) -> Place:
    """How the cube `name` lies among `cubes`."""
    if layout.neighbour_m(cubes, name) < CROWDED_M:
        return Place.CROWDED
    cube = cubes[name]
    is_end = abs(math.atan2(cube.y, cube.x)) > END_RAD and math.hypot(cube.x, cube.y) > END_M
    return Place.END if is_end else Place.ELSEWHERE

"""What the simulation knows and the robot does not: where things are, and whether the task succeeded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vla_core.errors import ConfigError
from vla_sim.scene import CUBE_SIZE_M


@dataclass(frozen=True, slots=True)
class CubePose:
    """A cube's centre in metres, table frame, its turn about the vertical, rad, within (-pi, pi], and its edge, m."""

    x: float
    y: float
    z: float
    yaw: float
    size: float = CUBE_SIZE_M

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x, self.y, self.z, self.yaw, self.size))):
            raise ConfigError(f"a cube's pose must be finite, not {self}")

    def distance_to(self, xy: tuple[float, float]) -> float:
        """Horizontal distance to a point, metres."""
        return math.hypot(self.x - xy[0], self.y - xy[1])

    @property
    def height(self) -> float:
        """Of the centre above where it would be at rest on the table, metres."""
        return self.z - self.size / 2


@dataclass(frozen=True, slots=True)
class Truth:
    """The scene at one moment.

    `time_s` is simulated time since the world began (it never jumps back); `episode` counts resets; `joints` are
    measured, rad, in `vla_sim.scene.JOINTS` order. `cubes` holds those that are on the table.
    """

    time_s: float
    episode: int
    seed: int
    cubes: Mapping[str, CubePose]
    spot: tuple[float, float]
    joints: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """For the control socket; `from_json` reads it back."""
        return {
            "time_s": self.time_s,
            "episode": self.episode,
            "seed": self.seed,
            "cubes": {
                name: {"x": cube.x, "y": cube.y, "z": cube.z, "yaw": cube.yaw, "size": cube.size}
                for name, cube in self.cubes.items()
            },
            "spot": list(self.spot),
            "joints": list(self.joints),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Truth:
        """Read what `to_json` wrote; other keys are ignored.

        Raises:
            ConfigError: a key is missing or has the wrong shape.
        """
        try:
            x, y = data["spot"]
            return cls(
                time_s=float(data["time_s"]),
                episode=int(data["episode"]),
                seed=int(data["seed"]),
                cubes={
                    str(name): CubePose(*(float(cube[key]) for key in ("x", "y", "z", "yaw", "size")))
                    for name, cube in data["cubes"].items()
                },
                spot=(float(x), float(y)),
                joints=tuple(float(value) for value in data["joints"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the simulator's truth is malformed ({type(error).__name__}: {error})") from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the task stands: the target cube lifted, put on the spot and let go, the others left alone.

    Distances in metres: the target from the spot; the largest shift of any other cube since the reset.
    `wrong_lifted`: another cube was lifted at some time.
    """

    success: bool
    placed: bool
    released: bool
    lifted: bool
    distance_m: float
    others_moved_m: float
    wrong_lifted: bool

    def to_json(self) -> dict[str, bool | float]:
        """For the control socket and for reports."""
        return {name: getattr(self, name) for name in self.__slots__}

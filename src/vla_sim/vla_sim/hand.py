"""A hand that leads the limp arm: paths through joint space, as a person moves it to calibrate or to teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError
from vla_sim.scene import JOINTS, joint_limits

OVERTRAVEL_RAD: Final = 0.3
"""A soft hand pulls this far past an end stop, or friction and weight would keep the joint off it."""
MAX_DURATION_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Path:
    """Straight lines between poses.

    times_s: `(n,)`, rising, from 0. poses: `(n, 6)`, rad.
    """

    times_s: NDArray[np.float64]
    poses: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.poses.shape != (len(self.times_s), len(JOINTS)) or (np.diff(self.times_s) <= 0).any():
            raise ConfigError("a hand's path needs a pose for each of its rising times")
        if self.duration_s > MAX_DURATION_S:
            raise ConfigError(f"a hand leads for {MAX_DURATION_S:g} s at most, not {self.duration_s:g} s")

    @property
    def duration_s(self) -> float:
        """Time to the last pose."""
        return float(self.times_s[-1])

    def at(self, elapsed_s: float) -> NDArray[np.float64]:
        """Where the hand is, `(6,)`, rad; at the end it stays."""
        return np.array([np.interp(elapsed_s, self.times_s, column) for column in self.poses.T])


def reach(start: NDArray[np.float64], target: NDArray[np.float64], duration_s: float) -> Path:
    """Straight from one pose to another."""
    return Path(np.array([0.0, max(duration_s, 1e-3)]), np.stack([start, target]))


def sweep(start: NDArray[np.float64], joints: Sequence[str], seconds_per_joint: float) -> Path:
    """One joint after the other to both its end stops and back, as LeRobot's calibration asks."""
    times, poses = [0.0], [start]
    for name in joints:
        index = JOINTS.index(name)
        limit = joint_limits()[index]
        for share, angle in (
            (0.25, limit.lower_rad - OVERTRAVEL_RAD),
            (0.5, limit.upper_rad + OVERTRAVEL_RAD),
            (0.25, start[index]),
        ):
            pose = start.copy()
            pose[index] = angle
            times.append(times[-1] + share * seconds_per_joint)
            poses.append(pose)
    return Path(np.array(times), np.stack(poses))


def pose_with(named: Mapping[str, float], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """`base` `(6,)` with the named joints replaced, rad.

    Raises:
        ConfigError: a name is no joint.
    """
    pose = base.copy()
    for name, angle in named.items():
        if name not in JOINTS:
            raise ConfigError(f"no joint '{name}': the arm has {', '.join(JOINTS)}")
        pose[JOINTS.index(name)] = angle
    return pose

"""How the simulated arm's joints sit on their servos: ids, ticks and radians.

Servo 1 is the first joint. Tick 2048 is 0 rad, but for the gripper, where it is the middle of the URDF's range
(its 0 is nearly closed). `launch/config/so101_sim_calibration.json` says the same to drivers.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_sim.scene import DOF, JOINTS, joint_limits
from vla_sim.sts3215 import CENTRE_TICK, TICKS_PER_TURN

TICKS_PER_RAD: Final = TICKS_PER_TURN / (2.0 * math.pi)
GRIPPER_CENTRE_RAD: Final = 0.785398
CENTRE_RAD: Final = np.array([GRIPPER_CENTRE_RAD if name == "gripper" else 0.0 for name in JOINTS])
"""Joint angles at tick 2048, rad, in `JOINTS` order."""
SERVO_IDS: Final = tuple(range(1, DOF + 1))


def to_ticks(joints: ArrayLike) -> NDArray[np.float64]:
    """Raw encoder ticks `(6,)`, unrounded, of joint angles `(6,)`, rad."""
    ticks: NDArray[np.float64] = CENTRE_TICK + (np.asarray(joints, np.float64) - CENTRE_RAD) * TICKS_PER_RAD
    return ticks


def to_rad(ticks: ArrayLike) -> NDArray[np.float64]:
    """Inverse of `to_ticks`."""
    return CENTRE_RAD + (np.asarray(ticks, np.float64) - CENTRE_TICK) / TICKS_PER_RAD


def position_limits() -> tuple[tuple[int, int], ...]:
    """Lowest and highest tick of each servo: symmetrical about 2048 and wide enough for the joint's whole range."""
    ranges = []
    for centre, limit in zip(CENTRE_RAD, joint_limits(), strict=True):
        reach = max(abs(limit.lower_rad - centre), abs(limit.upper_rad - centre)) * TICKS_PER_RAD
        half = min(math.ceil(reach), CENTRE_TICK - 1)
        ranges.append((CENTRE_TICK - half, CENTRE_TICK + half))
    return tuple(ranges)


def calibration() -> dict[str, dict[str, int]]:
    """The arm's calibration, as LeRobot stores it."""
    return {
        name: {"id": servo_id, "drive_mode": 0, "homing_offset": 0, "range_min": low, "range_max": high}
        for name, servo_id, (low, high) in zip(JOINTS, SERVO_IDS, position_limits(), strict=True)
    }

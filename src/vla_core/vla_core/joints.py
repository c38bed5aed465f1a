"""Joint names, and the only place where joint vectors are mapped and converted.

ROS speaks radians (REP-103). A checkpoint speaks the units of the data it was trained on; its manifest says which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_core.errors import ConfigError

SO101_JOINTS: tuple[str, ...] = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
"""LeRobot's names and order for the SO-100 and SO-101 arms."""


class Units(StrEnum):
    """Units of a checkpoint's joint vectors."""

    RAD = "rad"
    DEG = "deg"
    PERCENT = "percent"
    """LeRobot's -100..100 over each joint's calibrated range."""


@dataclass(frozen=True, slots=True)
class JointLimits:
    """Position range of one joint, rad."""

    lower_rad: float
    upper_rad: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower_rad) and math.isfinite(self.upper_rad)):
            raise ConfigError(f"joint limits must be finite, not {self.lower_rad}..{self.upper_rad} rad")
        if self.lower_rad >= self.upper_rad:
            raise ConfigError(f"lower joint limit {self.lower_rad} rad must be below the upper, {self.upper_rad} rad")


def reorder(names: Sequence[str], values: ArrayLike, order: Sequence[str]) -> NDArray[np.float64]:
    """Pick `values`, which belong to `names`, in `order`.

    Args:
        names: joint names, one for each column.
        values: `(..., len(names))`.
        order: the names wanted; each must be in `names`, which may hold more.

    Returns:
        `(..., len(order))`, float64.

    Raises:
        ConfigError: a wanted joint is missing, or the widths differ.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape[-1] != len(names):
        raise ConfigError(f"{len(names)} joint names came with {array.shape[-1]} values: {', '.join(names)}")
    index = {name: column for column, name in enumerate(names)}
    missing = [name for name in order if name not in index]
    if missing:
        raise ConfigError(f"joint(s) {', '.join(missing)} not among {', '.join(names)}")
    return array[..., [index[name] for name in order]]


def to_rad(values: ArrayLike, units: Units, limits: Sequence[JointLimits]) -> NDArray[np.float64]:
    """Convert joint vectors `(..., dof)` from a checkpoint's units to rad."""
    array = np.asarray(values, dtype=np.float64)
    if units is Units.RAD:
        return array
    if units is Units.DEG:
        return np.deg2rad(array)
    lower, upper = _bounds(limits)
    return lower + (array + 100.0) / 200.0 * (upper - lower)


def from_rad(values: ArrayLike, units: Units, limits: Sequence[JointLimits]) -> NDArray[np.float64]:
    """Convert joint vectors `(..., dof)` from rad to a checkpoint's units; the inverse of `to_rad`."""
    array = np.asarray(values, dtype=np.float64)
    if units is Units.RAD:
        return array
    if units is Units.DEG:
        return np.rad2deg(array)
    lower, upper = _bounds(limits)
    return (array - lower) / (upper - lower) * 200.0 - 100.0


def _bounds(limits: Sequence[JointLimits]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return (
        np.array([limit.lower_rad for limit in limits]),
        np.array([limit.upper_rad for limit in limits]),
    )

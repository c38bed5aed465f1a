"""Joint names, and the only place where joint vectors are mapped and converted.

ROS speaks radians (REP-103). A checkpoint speaks the units of the data it was trained on; its manifest says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    PERCENT_FROM_ZERO = "percent_from_zero"
    """LeRobot's 0..100 over a joint's calibrated range, as for the SO-101's gripper."""

    @property
    def needs_range(self) -> bool:
        """Whether they say nothing without the joint's range in rad."""
        return self in (Units.PERCENT, Units.PERCENT_FROM_ZERO)


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
    return Conversion.of([units] * len(limits), limits).to_rad(array)


def from_rad(values: ArrayLike, units: Units, limits: Sequence[JointLimits]) -> NDArray[np.float64]:
    """Convert joint vectors `(..., dof)` from rad to a checkpoint's units; the inverse of `to_rad`."""
    array = np.asarray(values, dtype=np.float64)
    if units is Units.RAD:
        return array
    if units is Units.DEG:
        return np.rad2deg(array)
    return Conversion.of([units] * len(limits), limits).from_rad(array)


@dataclass(frozen=True, slots=True)
class Conversion:
    """Between a checkpoint's joint vectors and rad, column by column: rad = value * `scale` + `offset`.

    Attributes:
        scale, offset: `(dof,)`, float64; a scale is never 0.
    """

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def of(cls, units: Sequence[Units], ranges: Sequence[JointLimits | None]) -> Conversion:
        """From each joint's units and, where these are percent of it, its calibrated range.

        Raises:
            ConfigError: percent without a range.
        """
        pairs = [_scale_and_offset(unit, limits) for unit, limits in zip(units, ranges, strict=True)]
        return cls(np.array([scale for scale, _ in pairs]), np.array([offset for _, offset in pairs]))

    @classmethod
    def by_name(
        cls, names: Sequence[str], units: Units, exceptions: Mapping[str, Units], ranges: Mapping[str, JointLimits]
    ) -> Conversion:
        """For `names`, all in `units` but the `exceptions`.

        Raises:
            ConfigError: a joint speaks percent of a range that is not in `ranges`.
        """
        for name in names:
            if exceptions.get(name, units).needs_range and name not in ranges:
                raise ConfigError(f"joint {name!r} speaks {exceptions.get(name, units)} of a range that is not given")
        return cls.of([exceptions.get(name, units) for name in names], [ranges.get(name) for name in names])

    def to_rad(self, values: ArrayLike) -> NDArray[np.float64]:
        """Convert `(..., dof)` to rad."""
        return np.asarray(values, dtype=np.float64) * self.scale + self.offset

    def from_rad(self, values: ArrayLike) -> NDArray[np.float64]:
        """Convert `(..., dof)` from rad; the inverse of `to_rad`."""
        return (np.asarray(values, dtype=np.float64) - self.offset) / self.scale


def _scale_and_offset(units: Units, limits: JointLimits | None) -> tuple[float, float]:
    if units is Units.RAD:
        return 1.0, 0.0
    if units is Units.DEG:
        return math.pi / 180.0, 0.0
    if limits is None:
        raise ConfigError(f"units {units} are of a joint's range, which is not given")
    span = limits.upper_rad - limits.lower_rad
    if units is Units.PERCENT:
        return span / 200.0, limits.lower_rad + span / 2.0
    return span / 100.0, limits.lower_rad

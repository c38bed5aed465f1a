"""LeRobot's calibration files, and the mapping between servo ticks and joint angles.

A file maps each joint to ``{"id", "drive_mode", "homing_offset", "range_min", "range_max"}``, all whole numbers;
ticks are 4096 to a turn, after the homing offset. LeRobot writes it to
``~/.cache/huggingface/lerobot/calibration/robots/<type>/<id>.json``.

    rad = (ticks - (range_min + range_max) / 2) * 2 pi / 4096 * (-1 if drive_mode else 1) + centre_rad

`centre_rad` is the joint's angle (URDF `so101_new_calib`) in the middle of its range: 0, and for the gripper,
whose URDF zero is nearly closed, 0.785398.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from arm_driver.errors import CalibrationError
from arm_driver.feetech.protocol import MAX_ID
from arm_driver.feetech.registers import RAD_PER_TICK, TICKS_PER_TURN
from vla_core.joints import JointLimits

GRIPPER_CENTRE_RAD = 0.785398
MAX_HOMING_OFFSET_TICKS = 2047
"""Eleven bits and a sign."""
CURE = "calibrate the arm with `lerobot-calibrate` and point parameter `calibration` at the file that it writes"


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """One joint's servo. Positions are ticks; `range_min` and `range_max` belong to the range."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("id", self.id, 0, MAX_ID),
            ("drive_mode", self.drive_mode, 0, 1),
            ("homing_offset", self.homing_offset, -MAX_HOMING_OFFSET_TICKS, MAX_HOMING_OFFSET_TICKS),
            ("range_min", self.range_min, 0, TICKS_PER_TURN - 1),
            ("range_max", self.range_max, 0, TICKS_PER_TURN - 1),
        ):
            if not low <= value <= high:
                raise CalibrationError(f"{name} is {value}, allowed is {low}..{high}")
        if self.range_min >= self.range_max:
            raise CalibrationError(f"range_min {self.range_min} must be below range_max {self.range_max}")


class Calibration:
    """Servos of an arm in joint order, and the conversions.

    Args:
        joints: joint name to servo; the order is that of every joint vector here.
        centre_rad: angle in the middle of a joint's range; joints that are not named have 0.

    Raises:
        CalibrationError: two joints share a servo id.
    """

    def __init__(self, joints: Mapping[str, JointCalibration], centre_rad: Mapping[str, float]) -> None:
        self.joints = dict(joints)
        self.names = tuple(joints)
        self.ids = tuple(servo.id for servo in joints.values())
        if len(set(self.ids)) != len(self.ids):
            raise CalibrationError(f"two joints share a servo id: {dict(zip(self.names, self.ids, strict=True))}")
        self._scale = tuple(-RAD_PER_TICK if servo.drive_mode else RAD_PER_TICK for servo in joints.values())
        self._middle = tuple((servo.range_min + servo.range_max) / 2 for servo in joints.values())
        self._centre = tuple(centre_rad.get(name, 0.0) for name in joints)
        self._per_rad = tuple(1.0 / scale for scale in self._scale)
        self._zero = tuple(
            middle - centre / scale
            for middle, centre, scale in zip(self._middle, self._centre, self._scale, strict=True)
        )
        self._lowest = tuple(servo.range_min for servo in joints.values())
        self._highest = tuple(servo.range_max for servo in joints.values())

    def to_rad(self, ticks: Iterable[int]) -> tuple[float, ...]:
        """Angles (rad) of servo positions (ticks), both in joint order."""
        return tuple(
            [
                (tick - middle) * scale + centre
                for tick, middle, scale, centre in zip(ticks, self._middle, self._scale, self._centre, strict=True)
            ]
        )

    def to_ticks(self, positions_rad: Iterable[float]) -> list[int]:
        """Servo positions (ticks, within each joint's range) of angles (rad), both in joint order."""
        return [
            low if (tick := rad * per_rad + zero) <= low else high if tick >= high else int(tick + 0.5)
            for rad, per_rad, zero, low, high in zip(
                positions_rad, self._per_rad, self._zero, self._lowest, self._highest, strict=True
            )
        ]

    def ticks_outside(self, positions_rad: Iterable[float]) -> tuple[int, ...]:
        """How many ticks each angle (rad, joint order) lies outside its joint's range; 0 within."""
        return tuple(
            [
                max(low - tick, tick - high, 0)
                for rad, per_rad, zero, low, high in zip(
                    positions_rad, self._per_rad, self._zero, self._lowest, self._highest, strict=True
                )
                for tick in [round(rad * per_rad + zero)]
            ]
        )

    def velocity_rad_s(self, ticks_s: Iterable[float]) -> tuple[float, ...]:
        """Joint velocities (rad/s) of servo velocities (ticks/s)."""
        return tuple([speed * scale for speed, scale in zip(ticks_s, self._scale, strict=True)])

    def direction(self, values: Iterable[float]) -> tuple[float, ...]:
        """Signed servo quantities (such as load) with the sign of the joint's direction."""
        return tuple([-value if scale < 0 else value for value, scale in zip(values, self._scale, strict=True)])

    def limits(self) -> tuple[JointLimits, ...]:
        """What each joint can reach, rad."""
        ends = zip(self.to_rad(self._lowest), self.to_rad(self._highest), strict=True)
        return tuple(JointLimits(min(pair), max(pair)) for pair in ends)


def load(path: Path, names: Sequence[str], centre_rad: Mapping[str, float]) -> Calibration:
    """Read a LeRobot calibration file; joints are taken by name, in the order of `names`.

    Raises:
        CalibrationError: names the file, the joint, the value, what is allowed and the cure.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CalibrationError(f"parameter calibration: there is no file {str(path)!r}; {CURE}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CalibrationError(f"parameter calibration: cannot read {str(path)!r}: {error}; {CURE}") from error
    try:
        return parse(document, names, centre_rad)
    except CalibrationError as error:
        raise CalibrationError(f"calibration file {path}: {error}; {CURE}") from error


def parse(document: Any, names: Sequence[str], centre_rad: Mapping[str, float]) -> Calibration:
    """Validate the content of a calibration file; see `load`."""
    if not isinstance(document, dict):
        raise CalibrationError(f"the file must hold an object of joints, not {type(document).__name__}")
    if missing := [name for name in names if name not in document]:
        found = ", ".join(document) or "none"
        raise CalibrationError(f"joint(s) {', '.join(missing)} are missing; the file has {found}")
    return Calibration({name: _joint(name, document[name]) for name in names}, centre_rad)


def _joint(name: str, entry: Any) -> JointCalibration:
    keys = [field.name for field in fields(JointCalibration)]
    if not isinstance(entry, dict) or any(key not in entry for key in keys):
        raise CalibrationError(f"joint {name} must be an object with {', '.join(keys)}")
    for key in keys:
        if isinstance(entry[key], bool) or not isinstance(entry[key], int):
            raise CalibrationError(f"joint {name}: {key} must be a whole number, not {entry[key]!r}")
    try:
        return JointCalibration(**{key: entry[key] for key in keys})
    except CalibrationError as error:
        raise CalibrationError(f"joint {name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Difference:
    """A servo register that contradicts the file."""

    joint: str
    register: str
    servo_value: int
    file_value: int

    def __str__(self) -> str:
        return f"{self.joint} {self.register}: servo {self.servo_value}, file {self.file_value}"


def differences(calibration: Calibration, registers: Mapping[str, tuple[int, int, int]]) -> tuple[Difference, ...]:
    """Compare the file with the servos' minimum, maximum and homing offset (registers 9, 11, 31), by joint name."""
    found: list[Difference] = []
    for name, servo in calibration.joints.items():
        expected = (servo.range_min, servo.range_max, servo.homing_offset)
        labels = ("minimum position", "maximum position", "homing offset")
        found += [
            Difference(name, label, actual, wanted)
            for label, actual, wanted in zip(labels, registers[name], expected, strict=True)
            if actual != wanted
        ]
    return tuple(found)


def mismatch_message(found: Sequence[Difference]) -> str:
    """What to tell the user, with the cure."""
    details = "; ".join(map(str, found))
    return (
        f"the servos disagree with the calibration file ({details}). If the file is right for this arm, start once with"
        f" `write_calibration: true`; else {CURE}"
    )

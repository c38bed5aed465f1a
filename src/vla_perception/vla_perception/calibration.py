"""Calibration files as `camera_calibration` and `camera_calibration_parsers` write them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_core.errors import ConfigError
from vla_perception import located_yaml

DISTORTION_COEFFICIENTS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
"""Distortion model (sensor_msgs/distortion_models.hpp) to the coefficient counts that OpenCV takes for it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A pinhole camera, in the meaning of `sensor_msgs/CameraInfo`.

    Attributes:
        width, height: px of the pictures that it was made from.
        distortion_model, d: name and coefficients.
        k: intrinsics, 3x3 row-major, px.
        r: rectification, 3x3 row-major.
        p: projection, 3x4 row-major, px.
    """

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]

    def __post_init__(self) -> None:
        for key, size in (("image_width", self.width), ("image_height", self.height)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ConfigError(f"{key} is {size!r}; it must be a whole number of px, at least 1")
        if self.distortion_model not in DISTORTION_COEFFICIENTS:
            allowed = ", ".join(DISTORTION_COEFFICIENTS)
            raise ConfigError(f"distortion_model is {self.distortion_model!r}; allowed: {allowed}")
        counts = DISTORTION_COEFFICIENTS[self.distortion_model]
        if len(self.d) not in counts:
            allowed = " or ".join(map(str, counts))
            raise ConfigError(
                f"distortion_coefficients has {len(self.d)} numbers; {self.distortion_model} takes {allowed}"
            )
        if self.k[0] <= 0 or self.k[4] <= 0:
            raise ConfigError(f"camera_matrix has focal lengths {self.k[0]}, {self.k[4]}; both must be above 0 px")


def load(path: Path) -> Calibration:
    """Read a calibration file. Keys that it does not need are ignored: tools add their own.

    Raises:
        ConfigError: the file cannot be read, or lacks a key, or a number is none.
    """
    data = located_yaml.load(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds no keys; make it with `ros2 run camera_calibration cameracalibrator`")
    try:
        return Calibration(
            width=_required(data, "image_width"),
            height=_required(data, "image_height"),
            distortion_model=_required(data, "distortion_model"),
            d=_numbers(data, "distortion_coefficients", None),
            k=_numbers(data, "camera_matrix", 9),
            r=_numbers(data, "rectification_matrix", 9),
            p=_numbers(data, "projection_matrix", 12),
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _required(data: dict[str, Any], key: str) -> Any:
    if key not in data:
        raise ConfigError(f"{key} is missing; a calibration file of camera_calibration has it")
    return data[key]


def _numbers(data: dict[str, Any], key: str, count: int | None) -> tuple[float, ...]:
    matrix = _required(data, key)
    numbers = matrix.get("data") if isinstance(matrix, dict) else None
    if not isinstance(numbers, list) or (count is not None and len(numbers) != count):
        wanted = "" if count is None else f"{count} "
        raise ConfigError(f"{key} needs `data`, a list of {wanted}numbers, not {numbers!r}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ConfigError(f"{key} holds {number!r}, which is no finite number")
    return tuple(float(number) for number in numbers)

"""A taught trajectory: where a hand led the arm, to be played again as it was. One JSON file; pure but for reading it.

{"format": "evergreen-taught-1", "joint_names": […], "rate_hz": 50, "positions": [[rad, …], …]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError

FORMAT = "evergreen-taught-1"
RATE_HZ = 50.0
"""The arm's joint states come at this rate; a hand has nothing faster to say."""
STILL_RAD = 0.01
"""A hand that waits moves the arm by less than this."""
REST_S = 0.3
"""Standing still that is left at both ends."""
MAX_SPEED_RAD_S = 3.0
"""An SO-101's driver allows 4, a loaded servo reaches 4.7: a trajectory at the limit would lag behind its own times."""
SQUEEZE_RAD = 0.15
"""A limp gripper led onto a thing stops at its surface; played again with no more than that it would not hold it."""
GRIPPER = "gripper"
_LONGEST_S = 600.0


@dataclass(frozen=True, slots=True)
class Taught:
    """Positions `(n, dof)` rad, `rate_hz` rows a second from 0 s on."""

    joint_names: tuple[str, ...]
    rate_hz: float
    positions: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = self.positions.shape
        if len(shape) != 2 or shape[0] < 2 or shape[1] != len(self.joint_names):
            raise ConfigError(f"a taught trajectory of shape {shape} needs two rows of {len(self.joint_names)} joints")
        if len(set(self.joint_names)) != len(self.joint_names) or not np.isfinite(self.positions).all():
            raise ConfigError("a taught trajectory needs different joint names and finite positions")
        if not 1.0 <= self.rate_hz <= 1000.0 or self.duration_s > _LONGEST_S:
            raise ConfigError(
                f"a taught trajectory of {self.rate_hz} Hz and {self.duration_s:.0f} s: allowed are 1 to 1000 Hz and"
                f" {_LONGEST_S:.0f} s"
            )

    @property
    def duration_s(self) -> float:
        """Time from the first to the last row."""
        return (len(self.positions) - 1) / self.rate_hz

    def at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions `(k, dof)` at `(k,)` times; before the beginning and after the end, those."""
        rows = np.arange(len(self.positions)) / self.rate_hz
        return np.column_stack([np.interp(times_s, rows, column) for column in self.positions.T])

    def fastest_rad_s(self) -> float:
        """The greatest speed of any joint."""
        return float(np.abs(np.diff(self.positions, axis=0)).max() * self.rate_hz)

    def played(self, speed: float, squeeze_rad: float) -> Taught:
        """How it is played: `speed` times as fast, slower where a joint could not follow; the gripper closes further.

        Raises:
            ConfigError: a speed that is not above 0, or a squeeze that is negative.
        """
        if not 0.0 < speed <= 4.0 or not 0.0 <= squeeze_rad <= 1.0:
            raise ConfigError(f"speed {speed} must be above 0 and up to 4, squeeze {squeeze_rad} from 0 to 1 rad")
        possible = MAX_SPEED_RAD_S / max(self.fastest_rad_s(), 1e-9)
        factor = min(speed, possible)
        squeezing = replace(self, positions=self._squeezed(squeeze_rad))
        count = int(np.ceil(self.duration_s / factor * RATE_HZ)) + 1
        return Taught(self.joint_names, RATE_HZ, squeezing.at(np.arange(count) / RATE_HZ * factor))

    def _squeezed(self, squeeze_rad: float) -> NDArray[np.float64]:
        """The whole squeeze where the gripper is most closed, none where it is most open: there it must not narrow."""
        positions = self.positions.copy()
        if GRIPPER in self.joint_names:
            column = positions[:, self.joint_names.index(GRIPPER)]
            open_rad, closed_rad = column.max(), column.min()
            opens = open_rad - closed_rad > STILL_RAD
            column -= squeeze_rad * ((open_rad - column) / (open_rad - closed_rad) if opens else 1.0)
        return positions


def from_samples(joint_names: Sequence[str], times_s: Sequence[float], positions: Sequence[Sequence[float]]) -> Taught:
    """Make one of joint states as they came: even steps, and no long waiting at the ends.

    Args:
        joint_names: of the columns.
        times_s: rising, from any origin.
        positions: a row for each time, rad.

    Raises:
        ConfigError: too few samples, or the arm did not move.
    """
    times, rows = np.asarray(times_s, np.float64), np.asarray(positions, np.float64)
    if len(times) < 2 or times[-1] <= times[0]:
        raise ConfigError(f"{len(times)} joint states are too few to play again")
    order = np.argsort(times, kind="stable")
    times, rows = times[order] - times[order[0]], rows[order]
    even = np.arange(int(times[-1] * RATE_HZ) + 1) / RATE_HZ
    steps = np.column_stack([np.interp(even, times, column) for column in rows.T])
    away = np.flatnonzero((np.abs(steps - steps[0]) > STILL_RAD).any(axis=1))
    if not len(away):
        raise ConfigError("the arm did not move: nothing was taught")
    last = np.flatnonzero((np.abs(steps - steps[-1]) > STILL_RAD).any(axis=1))[-1]
    rest = round(REST_S * RATE_HZ)
    return Taught(tuple(joint_names), RATE_HZ, steps[max(0, away[0] - rest) : last + 1 + rest])


def save(taught: Taught, path: Path) -> None:
    """Write the file as a whole, or leave what is there.

    Raises:
        ConfigError: it cannot be written, or the disk is full.
    """
    content = {
        "format": FORMAT,
        "joint_names": list(taught.joint_names),
        "rate_hz": taught.rate_hz,
        "positions": np.round(taught.positions, 5).tolist(),
    }
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def load(path: Path) -> Taught:
    """Read a file.

    Raises:
        ConfigError: it is missing, or holds no taught trajectory.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no taught trajectory: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"{path} is no taught trajectory of format {FORMAT}; make one with `evergreen teach record`")
    try:
        positions = np.array(content["positions"], np.float64)
        return Taught(tuple(map(str, content["joint_names"])), float(content["rate_hz"]), positions)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error

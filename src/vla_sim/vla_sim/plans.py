"""Joint targets over time, made of legs: what the scripted expert plans and follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SAMPLE_S: Final = 0.01


class Stage(StrEnum):
    """What the arm is doing in a leg of the plan."""

    RISE = "rise"
    MOVE = "move"
    DESCEND = "descend"
    CLOSE = "close"
    LIFT = "lift"
    CARRY = "carry"
    LOWER = "lower"
    OPEN = "open"
    LEAVE = "leave"
    HOME = "home"


@dataclass(frozen=True, slots=True)
class Miss:
    """A deliberate error in where the cube is believed to be: outward, to the left (metres), and in yaw (rad).

    To measure what the grasp tolerates, and to make demonstrations of recovery.
    """

    outward_m: float = 0.0
    left_m: float = 0.0
    yaw_rad: float = 0.0


@dataclass(frozen=True, slots=True)
class Aim:
    """What a plan is for.

    Attributes:
        episode: in which it was made.
        target: colour of the cube that is wanted.
        cube: name of the cube that is taken for it; empty where there is none.
        aside: name of a cube that the hand held and that is put down first; empty where there is none.
        aside_until_s: when it has been let go, on the plan's clock.
    """

    episode: int
    target: str
    cube: str = ""
    aside: str = ""
    aside_until_s: float = 0.0

    def in_hand(self, time_s: float) -> str:
        """Name of the cube that the hand has to do with at a time of the plan."""
        return self.aside if time_s < self.aside_until_s else self.cube


@dataclass(frozen=True, slots=True)
class JointPlan:
    """Joint targets over time.

    `times_s` `(n,)` from 0; `positions` `(n, 6)`, rad; `stages` with the time at which each ends, in order.
    """

    aim: Aim
    times_s: NDArray[np.float64]
    positions: NDArray[np.float64]
    stages: tuple[tuple[Stage, float], ...]

    @property
    def duration_s(self) -> float:
        """Time from the first to the last target; the last is held afterwards."""
        return float(self.times_s[-1])

    def at(self, times_s: ArrayLike) -> NDArray[np.float64]:
        """Targets at `(k,)` times: `(k, 6)`; the ends are held."""
        times = np.atleast_1d(np.asarray(times_s, np.float64))
        return np.column_stack([np.interp(times, self.times_s, column) for column in self.positions.T])

    def stage(self, time_s: float) -> Stage:
        """The leg at a time."""
        return next((stage for stage, end_s in self.stages if time_s < end_s), self.stages[-1][0])


@dataclass(slots=True)
class Draft:
    """A plan in the making: targets sampled every 10 ms.

    `joints` are the last targets `(6,)`, `point` is where they bring the grasp point: a little lower than the
    targets themselves would, because gravity pulls.
    """

    joints: NDArray[np.float64]
    point: NDArray[np.float64]
    samples: list[NDArray[np.float64]] = field(default_factory=list)
    stages: list[tuple[Stage, float]] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """So far."""
        return len(self.samples) * _SAMPLE_S

    def leg(self, stage: Stage, knots: Sequence[NDArray[np.float64]], duration_s: float) -> None:
        """Pass from the present joints through `knots` `(6,)`, evenly spaced along the way."""
        way = np.array([self.joints, *knots])
        count = max(2, round(duration_s / _SAMPLE_S))
        share = np.arange(1, count + 1) / count
        along = share * share * (3 - 2 * share) * (len(way) - 1)
        columns = [np.interp(along, np.arange(len(way)), column) for column in way.T]
        self.samples.extend(np.column_stack(columns))
        self.stages.append((stage, self.duration_s))
        self.joints = way[-1]

    def finish(self, aim: Aim, start: NDArray[np.float64]) -> JointPlan:
        """The plan, from the joints `(6,)` that it began with."""
        positions = np.array([start, *self.samples])
        times_s = _SAMPLE_S * np.arange(len(positions), dtype=np.float64)
        return JointPlan(aim, times_s, positions, tuple(self.stages))

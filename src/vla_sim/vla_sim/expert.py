"""A scripted expert: from the truth about the scene to joint targets that put a cube on the spot.

It plans once for an episode and then follows its plan; it plans anew when the arm is far from the plan (it started
elsewhere, or somebody pushed it), when the cube slipped, and when a plan ended without success. It neither reads a
clock nor touches the simulation: truth, joints and time are arguments, so that it also runs in a policy server.

A plan is a list of legs, each with a smoothstep in time. Free legs interpolate joints; straight ones move the grasp
point along a vertical or a short horizontal line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_core.errors import ConfigError
from vla_sim.kinematics import ArmKinematics
from vla_sim.scene import CUBE_SIZE_M, CUBES, HOME_RAD, JOINTS, SPOT_RADIUS_M, load_arm
from vla_sim.truth import CubePose, Truth

HOVER_M: Final = 0.080
"""Height of the grasp point while moving sideways: a carried cube clears another one by 4 cm."""
GRIP_M: Final = 0.009
"""The finger tips are 7 mm below the grasp point: they stay 2 mm above the table."""
RELEASE_M: Final = 0.011
"""A little higher than the grip, so that the cube is let go, not pressed down."""
OPEN_RAD: Final = HOME_RAD[JOINTS.index("gripper")]
"""Jaws 50 mm apart: 12 mm of room on each side of a cube, and still narrow enough to pass one 6 cm away."""
CLOSED_RAD: Final = 0.0
"""Commanded while holding: 0.2 rad further than a cube allows, which saturates the servo's torque limit."""
_SIDE_ROOM_M: Final = 0.0125

_HOLDING_RAD: Final = 0.30
"""The jaws hold a cube at 0.2 rad, and are open at 0.46."""
_CONTACT_RAD: Final = 0.25
"""Commanded beyond this while opening, the jaws have let go: they lag by 0.05 rad."""
_HELD_WITHIN_M: Final = 0.020
_LIFTED_M: Final = 0.006
_LOW_M: Final = 0.055
"""Below this a hand first goes straight up before it moves sideways among the cubes."""
_OFF_PLAN_RAD: Final = 0.25
"""Farther than this from the plan, in any arm joint: plan anew. Following lags by up to 0.1 rad."""
_LAG_S: Final = 0.30
"""How far behind its plan the arm may be and still count as following it."""
_SPOT_TAKEN_M: Final = 0.040
_REACH_M: Final = (0.10, 0.32)
"""Distance from the base at which a cube on the table is worth trying for."""
_SAMPLE_S: Final = 0.01
_WHOLE_TURN_RAD: Final = math.radians(30)
_LINE_KNOTS: Final = 6
_GRIPPER: Final = JOINTS.index("gripper")
_SEED_RAD: Final = (0.0, 0.0, 0.3, 1.2, 1.6)
_PAN_AXIS_X_M: Final = 0.0388
_PEAK_SPEED_RAD_S: Final = 2.2
"""Of free legs; an unloaded servo could do 5."""


_Point = tuple[float, float, float]


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


_LEG_S: Final = {
    Stage.RISE: 0.5,
    Stage.DESCEND: 0.8,
    Stage.CLOSE: 0.5,
    Stage.LIFT: 0.6,
    Stage.LOWER: 0.6,
    Stage.OPEN: 0.4,
    Stage.LEAVE: 0.5,
}
_SHORTEST_FREE_LEG_S: Final = 0.6
_AFTER_GRIP: Final = frozenset({Stage.CARRY, Stage.LOWER})


@dataclass(frozen=True, slots=True)
class Miss:
    """A deliberate error in where the cube is believed to be: outward, to the left (metres), and in yaw (rad).

    To measure what the grasp tolerates, and to make demonstrations of recovery.
    """

    outward_m: float = 0.0
    left_m: float = 0.0
    yaw_rad: float = 0.0


@dataclass(frozen=True, slots=True)
class JointPlan:
    """Joint targets over time.

    `times_s` `(n,)` from 0; `positions` `(n, 6)`, rad; `stages` with the time at which each ends, in order.
    """

    episode: int
    target: str
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
class _Draft:
    """A plan in the making: targets sampled every `_SAMPLE_S`.

    `joints` are the last targets `(6,)`, `point` is where they bring the grasp point: a little lower than the
    targets themselves would, because gravity pulls.
    """

    joints: NDArray[np.float64]
    point: NDArray[np.float64]
    samples: list[NDArray[np.float64]] = field(default_factory=list)
    stages: list[tuple[Stage, float]] = field(default_factory=list)

    def leg(self, stage: Stage, knots: Sequence[NDArray[np.float64]], duration_s: float) -> None:
        """Pass from the present joints through `knots` `(6,)`, evenly spaced along the way."""
        way = np.array([self.joints, *knots])
        count = max(2, round(duration_s / _SAMPLE_S))
        share = np.arange(1, count + 1) / count
        along = share * share * (3 - 2 * share) * (len(way) - 1)
        columns = [np.interp(along, np.arange(len(way)), column) for column in way.T]
        self.samples.extend(np.column_stack(columns))
        self.stages.append((stage, len(self.samples) * _SAMPLE_S))
        self.joints = way[-1]

    def finish(self, truth: Truth, target: str, start: NDArray[np.float64]) -> JointPlan:
        positions = np.array([start, *self.samples])
        return JointPlan(
            truth.episode,
            target,
            _SAMPLE_S * np.arange(len(positions), dtype=np.float64),
            positions,
            tuple(self.stages),
        )


class Expert:
    """Plans and follows; one instance for one arm. Not safe for use by several threads at once."""

    def __init__(self, model: mujoco.MjModel | None = None, target: str = "black") -> None:
        """Make an expert.

        Args:
            model: the scene for kinematics, from `load_arm` or `load_scene`; the former if not given.
            target: the cube to place.

        Raises:
            ConfigError: no such cube, or the arm's assets are not installed.
        """
        self._kinematics = ArmKinematics(load_arm() if model is None else model)
        self._target = _checked(target)
        self._plan: JointPlan | None = None
        self._started_s = 0.0

    @property
    def target(self) -> str:
        """The cube to place. Setting another one abandons the plan."""
        return self._target

    @target.setter
    def target(self, name: str) -> None:
        if _checked(name) != self._target:
            self._target = name
            self._plan = None

    def stage(self, time_s: float) -> Stage | None:
        """What the present plan does at a time; `None` before the first plan."""
        return None if self._plan is None else self._plan.stage(time_s - self._started_s)

    def chunk(
        self, truth: Truth, joints: ArrayLike, time_s: float, horizon: int, rate_hz: float
    ) -> NDArray[np.float64]:
        """The next targets `(horizon, 6)`; row `k` is for `time_s + k / rate_hz`.

        Args:
            truth: the scene now.
            joints: measured `(6,)`, rad.
            time_s: now, on the clock of `truth.time_s` or any other that does not jump.
            horizon: number of targets.
            rate_hz: targets a second.
        """
        measured = np.asarray(joints, np.float64)
        plan = self._plan
        if plan is None or self._must_replan(plan, truth, measured, time_s):
            plan = self.plan(truth, measured)
            self._plan, self._started_s = plan, time_s
        return plan.at(time_s - self._started_s + np.arange(horizon) / rate_hz)

    def plan(self, truth: Truth, joints: ArrayLike, miss: Miss | None = None) -> JointPlan:
        """Plan from `joints` `(6,)` to the cube placed and the arm at HOME; or only to HOME, if that is all to do."""
        start = np.asarray(joints, np.float64)
        draft = _Draft(start, np.array(self._kinematics.pose(start).position))
        cube = truth.cubes[self._target]
        if self._holds(cube, start):
            self._place(draft, truth)
        elif is_placed(cube, truth.spot) or not _can_try(truth, self._target):
            self._clear(draft)
        else:
            self._clear(draft)
            self._pick(draft, cube, miss or Miss())
            self._place(draft, truth)
        home = np.array(HOME_RAD)
        draft.leg(Stage.HOME, [home], _free_leg_s(draft.joints, home))
        return draft.finish(truth, self._target, start)

    # --- when to plan anew

    def _must_replan(self, plan: JointPlan, truth: Truth, measured: NDArray[np.float64], time_s: float) -> bool:
        elapsed_s = time_s - self._started_s
        if truth.episode != plan.episode or plan.target != self._target or elapsed_s < 0:
            return True
        if _off_plan(plan, measured, elapsed_s):
            return True
        cube = truth.cubes[self._target]
        if plan.stage(elapsed_s) in _AFTER_GRIP and not self._near_hand(cube, measured):
            return True
        ended = elapsed_s > plan.duration_s
        return ended and not is_placed(cube, truth.spot) and _can_try(truth, self._target)

    def _holds(self, cube: CubePose, joints: NDArray[np.float64]) -> bool:
        lifted = cube.z > CUBE_SIZE_M / 2 + _LIFTED_M
        return lifted and joints[_GRIPPER] < _HOLDING_RAD and self._near_hand(cube, joints)

    def _near_hand(self, cube: CubePose, joints: NDArray[np.float64]) -> bool:
        return math.dist(self._kinematics.pose(joints).position, (cube.x, cube.y, cube.z)) < _HELD_WITHIN_M

    # --- legs

    def _clear(self, draft: _Draft) -> None:
        """From a low start: open where the hand is, then straight up."""
        if draft.point[2] >= _LOW_M:
            return
        opened = draft.joints.copy()
        opened[_GRIPPER] = OPEN_RAD
        if draft.joints[_GRIPPER] < _HOLDING_RAD:
            draft.leg(Stage.OPEN, [opened], _LEG_S[Stage.OPEN])
        yaw = self._kinematics.pose(draft.joints).yaw_rad
        self._line(draft, Stage.RISE, (draft.point[0], draft.point[1], HOVER_M), yaw, OPEN_RAD)

    def _pick(self, draft: _Draft, cube: CubePose, miss: Miss) -> None:
        x, y = _displaced(cube, miss)
        yaw = _jaw_yaw(x, y, cube.yaw + miss.yaw_rad)
        # The cube in the middle between the open jaws; closing shifts it towards the fixed one.
        x, y = x - _SIDE_ROOM_M * math.cos(yaw), y - _SIDE_ROOM_M * math.sin(yaw)
        self._free(draft, Stage.MOVE, (x, y, HOVER_M), yaw, OPEN_RAD)
        self._line(draft, Stage.DESCEND, (x, y, GRIP_M), yaw, OPEN_RAD)
        closed = draft.joints.copy()
        closed[_GRIPPER] = CLOSED_RAD
        draft.leg(Stage.CLOSE, [closed], _LEG_S[Stage.CLOSE])
        self._line(draft, Stage.LIFT, (x, y, HOVER_M), yaw, CLOSED_RAD)

    def _place(self, draft: _Draft, truth: Truth) -> None:
        """From a held cube: over the spot without turning the wrist, down, let go, up."""
        x, y = truth.spot
        yaw = self._yaw_with_roll(x, y, draft.joints)
        self._free(draft, Stage.CARRY, (x, y, HOVER_M), yaw, CLOSED_RAD)
        self._line(draft, Stage.LOWER, (x, y, RELEASE_M), yaw, CLOSED_RAD)
        x, y = x - _SIDE_ROOM_M * math.cos(yaw), y - _SIDE_ROOM_M * math.sin(yaw)
        self._let_go(draft, (x, y), yaw)
        self._line(draft, Stage.LEAVE, (x, y, HOVER_M), yaw, OPEN_RAD)

    def _let_go(self, draft: _Draft, free: tuple[float, float], yaw: float) -> None:
        """Open the jaws; from where they stop pressing, the hand moves so that both leave the cube alike."""
        shift = np.array([*free, draft.point[2]]) - draft.point
        knots = []
        for gripper in np.linspace(CLOSED_RAD, OPEN_RAD, _LINE_KNOTS + 1)[1:]:
            share = max(0.0, (gripper - _CONTACT_RAD) / (OPEN_RAD - _CONTACT_RAD))
            knots.append(self._reach(draft.point + share * shift, yaw, float(gripper), draft.joints))
        draft.leg(Stage.OPEN, knots, _LEG_S[Stage.OPEN])
        draft.point = draft.point + shift

    def _yaw_with_roll(self, x: float, y: float, joints: NDArray[np.float64]) -> float:
        """The jaws' yaw at a place when the wrist's roll stays as it is: the whole hand turns with the pan joint."""
        here = self._kinematics.pose(joints)
        turn = math.atan2(y, x - _PAN_AXIS_X_M) - math.atan2(here.position[1], here.position[0] - _PAN_AXIS_X_M)
        return here.yaw_rad + turn

    def _free(self, draft: _Draft, stage: Stage, goal: _Point, yaw: float, gripper: float) -> None:
        """Interpolate joints: the way between is no line, but high above the table."""
        joints = self._reach(goal, yaw, gripper, np.array(_SEED_RAD))
        draft.leg(stage, [joints], _free_leg_s(draft.joints, joints))
        draft.point = np.array(goal)

    def _line(self, draft: _Draft, stage: Stage, goal: _Point, yaw: float, gripper: float) -> None:
        """Move the grasp point along a straight line."""
        opening = draft.joints[_GRIPPER]
        knots = []
        seed = draft.joints
        for index in range(1, _LINE_KNOTS + 1):
            share = index / _LINE_KNOTS
            point = draft.point + share * (np.array(goal) - draft.point)
            seed = self._reach(point, yaw, opening + share * (gripper - opening), seed)
            knots.append(seed)
        draft.leg(stage, knots, _LEG_S[stage])
        draft.point = np.array(goal)

    def _reach(self, point: ArrayLike, yaw: float, gripper: float, seed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint *targets* `(6,)` that hold the grasp point there, gravity included."""
        joints = np.array([*self._kinematics.solve(point, yaw, seed).joints, gripper])
        joints[:_GRIPPER] += self._kinematics.gravity_sag(joints)[:_GRIPPER]
        return joints


def is_placed(cube: CubePose, spot: tuple[float, float]) -> bool:
    """Whether a cube lies on the spot."""
    return cube.distance_to(spot) < SPOT_RADIUS_M and cube.z < CUBE_SIZE_M / 2 + _LIFTED_M


def _checked(target: str) -> str:
    if target not in CUBES:
        raise ConfigError(f"no cube '{target}': the expert can place {' or '.join(CUBES)}")
    return target


def _can_try(truth: Truth, target: str) -> bool:
    """Whether the cube lies within reach and the spot is free."""
    cube = truth.cubes[target]
    others = (other for name, other in truth.cubes.items() if name != target)
    if any(other.distance_to(truth.spot) < _SPOT_TAKEN_M for other in others):
        return False
    return _REACH_M[0] < math.hypot(cube.x, cube.y) < _REACH_M[1] and abs(cube.z - CUBE_SIZE_M / 2) < _LIFTED_M


def _off_plan(plan: JointPlan, measured: NDArray[np.float64], elapsed_s: float) -> bool:
    """Whether the arm (without the gripper, which a cube stops) is far from all of the recent plan."""
    recent = plan.at(np.linspace(elapsed_s - _LAG_S, elapsed_s, 7))[:, :_GRIPPER]
    return float(np.abs(recent - measured[:_GRIPPER]).max(axis=1).min()) > _OFF_PLAN_RAD


def _jaw_yaw(x: float, y: float, cube_yaw: float) -> float:
    """Which way the jaws face: towards square to the cube, from tangential about the base.

    A cube looks the same after a quarter turn, so the turn that squares the jaws jumps from +45 to -45 degrees, and a
    pupil that sees a cube near 45 degrees learns the useless mean. This turn does not jump: it is whole up to 30
    degrees and then falls back to 0 at 45. The closing jaws square the cube by themselves: they tolerate 40 degrees.
    """
    tangential = math.atan2(y, x - _PAN_AXIS_X_M) + math.pi / 2
    eighth = math.pi / 4
    off = (cube_yaw - tangential + eighth) % (2 * eighth) - eighth
    falling = (eighth - abs(off)) * _WHOLE_TURN_RAD / (eighth - _WHOLE_TURN_RAD)
    return tangential + math.copysign(min(abs(off), falling), off)


def _displaced(cube: CubePose, miss: Miss) -> tuple[float, float]:
    direction = math.atan2(cube.y, cube.x - _PAN_AXIS_X_M)
    x = cube.x + miss.outward_m * math.cos(direction) - miss.left_m * math.sin(direction)
    y = cube.y + miss.outward_m * math.sin(direction) + miss.left_m * math.cos(direction)
    return x, y


def _free_leg_s(start: NDArray[np.float64], goal: NDArray[np.float64]) -> float:
    """A smoothstep's peak speed is 1.5 times its mean."""
    return max(_SHORTEST_FREE_LEG_S, 1.5 * float(np.abs(goal - start).max()) / _PEAK_SPEED_RAD_S)

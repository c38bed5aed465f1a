"""How the arm picks a cube up, puts it on the spot or aside, and gets out of the way, as legs of a plan.

Free legs interpolate joints; straight ones move the grasp point along a vertical or a short horizontal line. Each leg
has a smoothstep in time.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_sim.kinematics import ArmKinematics
from vla_sim.plans import Draft, Miss, Stage
from vla_sim.scene import HOME_RAD, JOINTS
from vla_sim.truth import CubePose

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
HOLDING_RAD: Final = 0.30
"""The jaws hold a cube at 0.2 rad, and are open at 0.46."""
GRIPPER: Final = JOINTS.index("gripper")
_SIDE_ROOM_M: Final = 0.0125
_CONTACT_RAD: Final = 0.25
"""Commanded beyond this while opening, the jaws have let go: they lag by 0.05 rad."""
_LOW_M: Final = 0.055
"""Below this a hand first goes straight up before it moves sideways among the cubes."""
_HERE_M: Final = 0.01
"""Nearer than this, what is held is put down where it is, straight."""
_WHOLE_TURN_RAD: Final = math.radians(30)
_LINE_KNOTS: Final = 6
_SEED_RAD: Final = (0.0, 0.0, 0.3, 1.2, 1.6)
_PAN_AXIS_X_M: Final = 0.0388
_PEAK_SPEED_RAD_S: Final = 2.2
"""Of free legs; an unloaded servo could do 5."""
_SHORTEST_FREE_LEG_S: Final = 0.6
_LEG_S: Final = {
    Stage.RISE: 0.5,
    Stage.DESCEND: 0.8,
    Stage.CLOSE: 0.5,
    Stage.LIFT: 0.6,
    Stage.LOWER: 0.6,
    Stage.OPEN: 0.4,
    Stage.LEAVE: 0.5,
}

_Point = tuple[float, float, float]


class Legs:
    """Adds legs to drafts; keeps the kinematics' scratch data, so one instance a thread."""

    def __init__(self, kinematics: ArmKinematics) -> None:
        self._kinematics = kinematics

    def begin(self, joints: NDArray[np.float64]) -> Draft:
        """A draft that starts at `joints` `(6,)`."""
        return Draft(joints, np.array(self._kinematics.pose(joints).position))

    def clear(self, draft: Draft) -> None:
        """From a low start: open where the hand is, then straight up."""
        if draft.point[2] >= _LOW_M:
            return
        opened = draft.joints.copy()
        opened[GRIPPER] = OPEN_RAD
        if draft.joints[GRIPPER] < HOLDING_RAD:
            draft.leg(Stage.OPEN, [opened], _LEG_S[Stage.OPEN])
        self._rise(draft, OPEN_RAD)

    def pick(self, draft: Draft, cube: CubePose, miss: Miss) -> None:
        """Over the cube, down, close, up."""
        x, y = _displaced(cube, miss)
        yaw = jaw_yaw(x, y, cube.yaw + miss.yaw_rad)
        # The cube in the middle between the open jaws; closing shifts it towards the fixed one.
        x, y = x - _SIDE_ROOM_M * math.cos(yaw), y - _SIDE_ROOM_M * math.sin(yaw)
        self._free(draft, Stage.MOVE, (x, y, HOVER_M), yaw, OPEN_RAD)
        self._line(draft, Stage.DESCEND, (x, y, GRIP_M), yaw, OPEN_RAD)
        closed = draft.joints.copy()
        closed[GRIPPER] = CLOSED_RAD
        draft.leg(Stage.CLOSE, [closed], _LEG_S[Stage.CLOSE])
        self._line(draft, Stage.LIFT, (x, y, HOVER_M), yaw, CLOSED_RAD)

    def place(self, draft: Draft, spot: tuple[float, float]) -> None:
        """From a held cube: over the spot without turning the wrist, down, let go, up."""
        x, y = spot
        yaw = self._yaw_with_roll(x, y, draft.joints)
        self._free(draft, Stage.CARRY, (x, y, HOVER_M), yaw, CLOSED_RAD)
        self._set_down(draft, x, y, yaw)

    def put_aside(self, draft: Draft, xy: tuple[float, float]) -> None:
        """From a held cube that is not wanted: to a free place on the table, down, let go, up."""
        x, y = xy
        if math.dist((x, y), draft.point[:2]) > _HERE_M:
            if draft.point[2] < _LOW_M:
                self._rise(draft, CLOSED_RAD)
            yaw = self._yaw_with_roll(x, y, draft.joints)
            self._free(draft, Stage.CARRY, (x, y, HOVER_M), yaw, CLOSED_RAD)
        self._set_down(draft, x, y, self._yaw_with_roll(x, y, draft.joints))

    def home(self, draft: Draft) -> None:
        """To rest."""
        home = np.array(HOME_RAD)
        draft.leg(Stage.HOME, [home], _free_leg_s(draft.joints, home))

    def _set_down(self, draft: Draft, x: float, y: float, yaw: float) -> None:
        self._line(draft, Stage.LOWER, (x, y, RELEASE_M), yaw, CLOSED_RAD)
        x, y = x - _SIDE_ROOM_M * math.cos(yaw), y - _SIDE_ROOM_M * math.sin(yaw)
        self._let_go(draft, (x, y), yaw)
        self._line(draft, Stage.LEAVE, (x, y, HOVER_M), yaw, OPEN_RAD)

    def _rise(self, draft: Draft, gripper: float) -> None:
        yaw = self._kinematics.pose(draft.joints).yaw_rad
        self._line(draft, Stage.RISE, (draft.point[0], draft.point[1], HOVER_M), yaw, gripper)

    def _let_go(self, draft: Draft, free: tuple[float, float], yaw: float) -> None:
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

    def _free(self, draft: Draft, stage: Stage, goal: _Point, yaw: float, gripper: float) -> None:
        """Interpolate joints: the way between is no line, but high above the table."""
        joints = self._reach(goal, yaw, gripper, np.array(_SEED_RAD))
        draft.leg(stage, [joints], _free_leg_s(draft.joints, joints))
        draft.point = np.array(goal)

    def _line(self, draft: Draft, stage: Stage, goal: _Point, yaw: float, gripper: float) -> None:
        """Move the grasp point along a straight line."""
        opening = draft.joints[GRIPPER]
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
        joints[:GRIPPER] += self._kinematics.gravity_sag(joints)[:GRIPPER]
        return joints


def jaw_yaw(x: float, y: float, cube_yaw: float) -> float:
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

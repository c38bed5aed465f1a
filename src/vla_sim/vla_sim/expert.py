"""A scripted expert: from the truth about the scene to joint targets that put a cube on the spot.

It plans once for an episode and then follows its plan; it plans anew when another cube is wanted, when the arm is far
from the plan (it started elsewhere, or somebody pushed it), when the cube slipped, and when a plan ended without
success. It neither reads a clock nor touches the simulation: truth, joints and time are arguments, so that it also runs
in a policy server.

It is asked for a colour. Of two cubes of that colour it takes the one nearest to the hand. Where none lies, or the spot
is taken, it rests at HOME. A cube of another colour that it holds when it is asked anew, it puts down first, at the
nearest free place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_core.errors import ConfigError
from vla_sim.kinematics import ArmKinematics
from vla_sim.layout import NAMED, SECTOR_RAD, colour_of
from vla_sim.legs import GRIPPER, HOLDING_RAD, OPEN_RAD, Legs
from vla_sim.plans import Aim, JointPlan, Miss, Stage
from vla_sim.scene import SPOT_RADIUS_M, load_arm
from vla_sim.truth import CubePose, Truth

__all__ = ["OPEN_RAD", "Expert", "JointPlan", "Miss", "Stage", "free_place", "is_placed"]

_HELD_WITHIN_M: Final = 0.020
_LIFTED_M: Final = 0.006
_OFF_PLAN_RAD: Final = 0.25
"""Farther than this from the plan, in any arm joint: plan anew. Following lags by up to 0.1 rad."""
_LAG_S: Final = 0.30
"""How far behind its plan the arm may be and still count as following it."""
_SPOT_TAKEN_M: Final = 0.040
_REACH_M: Final = (0.10, 0.32)
"""Distance from the base at which a cube on the table is worth trying for."""
_AFTER_GRIP: Final = frozenset({Stage.CARRY, Stage.LOWER})
ASIDE_APART_M: Final = 0.06
"""Of a cube that is put aside, from the spot and from others: the open jaws fit between, as in every scene."""
_ASIDE_REACH_M: Final = (0.14, 0.29)
"""Well within reach, so that the cube can be fetched again."""
_ASIDE_RINGS: Final = 31
_ASIDE_DIRECTIONS: Final = 61


class Expert:
    """Plans and follows; one instance for one arm. Not safe for use by several threads at once."""

    def __init__(self, model: mujoco.MjModel | None = None, target: str = "black", *, tidy: bool = True) -> None:
        """Make an expert.

        Args:
            model: the scene for kinematics, from `load_arm` or `load_scene`; the former if not given.
            target: colour of the cube to place.
            tidy: put down with care what the hand holds and should not; otherwise just open the jaws.

        Raises:
            ConfigError: no such cube, or the arm's assets are not installed.
        """
        self._kinematics = ArmKinematics(load_arm() if model is None else model)
        self._legs = Legs(self._kinematics)
        self._target = _checked(target)
        self._tidy = tidy
        self._plan: JointPlan | None = None
        self._started_s = 0.0

    @property
    def target(self) -> str:
        """Colour of the cube to place. Setting another one abandons the plan."""
        return self._target

    @target.setter
    def target(self, colour: str) -> None:
        if _checked(colour) != self._target:
            self._target = colour
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
        draft = self._legs.begin(start)
        wanted = _of_colour(truth, self._target)
        held = self._held(truth, start)
        aside, aside_until_s = "", 0.0
        if held is not None and held not in wanted and self._tidy:
            aside = held
            self._legs.put_aside(draft, free_place(truth, held, (float(draft.point[0]), float(draft.point[1]))))
            aside_until_s = draft.duration_s
        cube = held if held in wanted else self._nearest(truth, wanted, start)
        if cube is not None and cube == held:
            self._legs.place(draft, truth.spot)
        elif cube is None or _any_placed(truth, wanted) or not _can_try(truth, cube):
            self._legs.clear(draft)
        else:
            self._legs.clear(draft)
            self._legs.pick(draft, truth.cubes[cube], miss or Miss())
            self._legs.place(draft, truth.spot)
        self._legs.home(draft)
        return draft.finish(Aim(truth.episode, self._target, cube or "", aside, aside_until_s), start)

    # --- when to plan anew

    def _must_replan(self, plan: JointPlan, truth: Truth, measured: NDArray[np.float64], time_s: float) -> bool:
        elapsed_s, aim = time_s - self._started_s, plan.aim
        if truth.episode != aim.episode or aim.target != self._target or elapsed_s < 0:
            return True
        if _off_plan(plan, measured, elapsed_s):
            return True
        cube = truth.cubes.get(aim.in_hand(elapsed_s))
        if plan.stage(elapsed_s) in _AFTER_GRIP and cube is not None and not self._near_hand(cube, measured):
            return True
        wanted = _of_colour(truth, self._target)
        ended = elapsed_s > plan.duration_s
        return ended and not _any_placed(truth, wanted) and any(_can_try(truth, name) for name in wanted)

    def _held(self, truth: Truth, joints: NDArray[np.float64]) -> str | None:
        """Name of the cube in the hand."""
        return next((name for name, cube in truth.cubes.items() if self._holds(cube, joints)), None)

    def _holds(self, cube: CubePose, joints: NDArray[np.float64]) -> bool:
        lifted = cube.height > _LIFTED_M
        return lifted and joints[GRIPPER] < HOLDING_RAD and self._near_hand(cube, joints)

    def _near_hand(self, cube: CubePose, joints: NDArray[np.float64]) -> bool:
        return math.dist(self._kinematics.pose(joints).position, (cube.x, cube.y, cube.z)) < _HELD_WITHIN_M

    def _nearest(self, truth: Truth, wanted: Mapping[str, CubePose], joints: NDArray[np.float64]) -> str | None:
        """Of the cubes that can be tried for, the one nearest to the hand; of none, simply the nearest."""
        x, y, _ = self._kinematics.pose(joints).position
        return min(wanted, key=lambda name: (not _can_try(truth, name), wanted[name].distance_to((x, y))), default=None)


def is_placed(cube: CubePose, spot: tuple[float, float]) -> bool:
    """Whether a cube lies on the spot."""
    return cube.distance_to(spot) < SPOT_RADIUS_M and cube.height < _LIFTED_M


def free_place(truth: Truth, name: str, near: tuple[float, float]) -> tuple[float, float]:
    """The place nearest to `near` where the cube `name` can be put down, metres; `near` itself where all is taken."""
    x, y = np.asarray(near)
    far, angle = np.meshgrid(
        np.linspace(*_ASIDE_REACH_M, _ASIDE_RINGS), np.linspace(-SECTOR_RAD, SECTOR_RAD, _ASIDE_DIRECTIONS)
    )
    places = np.column_stack([(far * np.cos(angle)).ravel(), (far * np.sin(angle)).ravel()])
    if _ASIDE_REACH_M[0] <= math.hypot(x, y) <= _ASIDE_REACH_M[1] and abs(math.atan2(y, x)) <= SECTOR_RAD:
        places = np.vstack([[x, y], places])
    taken = [truth.spot, *((cube.x, cube.y) for other, cube in truth.cubes.items() if other != name)]
    gaps = np.linalg.norm(places[:, None] - np.array(taken), axis=2).min(axis=1)
    free = places[gaps >= ASIDE_APART_M]
    if not len(free):
        return near
    best = free[np.linalg.norm(free - [x, y], axis=1).argmin()]
    return float(best[0]), float(best[1])


def _checked(target: str) -> str:
    if target not in NAMED:
        raise ConfigError(f"no cube '{target}': the expert can place {' or '.join(NAMED)}")
    return target


def _of_colour(truth: Truth, colour: str) -> dict[str, CubePose]:
    return {name: cube for name, cube in truth.cubes.items() if colour_of(name) == colour}


def _any_placed(truth: Truth, wanted: Mapping[str, CubePose]) -> bool:
    return any(is_placed(cube, truth.spot) for cube in wanted.values())


def _can_try(truth: Truth, name: str) -> bool:
    """Whether the cube lies within reach and the spot is free."""
    cube = truth.cubes[name]
    others = (other for each, other in truth.cubes.items() if each != name)
    if any(other.distance_to(truth.spot) < _SPOT_TAKEN_M for other in others):
        return False
    return _REACH_M[0] < math.hypot(cube.x, cube.y) < _REACH_M[1] and abs(cube.height) < _LIFTED_M


def _off_plan(plan: JointPlan, measured: NDArray[np.float64], elapsed_s: float) -> bool:
    """Whether the arm (without the gripper, which a cube stops) is far from all of the recent plan."""
    recent = plan.at(np.linspace(elapsed_s - _LAG_S, elapsed_s, 7))[:, :GRIPPER]
    return float(np.abs(recent - measured[:GRIPPER]).max(axis=1).min()) > _OFF_PLAN_RAD

"""The simulated world: an arm with six position servos, two cubes, a spot; stepped, measured, judged.

One thread steps a `World`. Another may draw it: take a `snapshot()` in the stepping thread (or under the caller's
lock) and hand it to a `CameraRig` made with `World.model` in the drawing thread. `World.render` is the short way for
single-threaded programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_core.errors import ConfigError
from vla_sim import placement
from vla_sim.rig import CameraRig, Snapshot
from vla_sim.scene import (
    CAMERAS,
    CUBE_SIZE_M,
    CUBES,
    DOF,
    HOME_RAD,
    JOINTS,
    MAX_TORQUE_NM,
    SPOT_XY,
    TIMESTEP_S,
    load_scene,
)
from vla_sim.truth import CubePose, Outcome, Truth

__all__ = ["HOME_RAD", "JOINTS", "MAX_TORQUE_NM", "SPOT_XY", "TIMESTEP_S", "World"]

PLACED_WITHIN_M: Final = 0.03
LIFTED_ABOVE_M: Final = 0.05
"""Rise of a cube's centre over its rest that counts as lifted: pushing and tipping do not reach it."""
OTHERS_MAY_MOVE_M: Final = 0.01
_RESTING_SPEED_M_S: Final = 0.01
_RESTING_HEIGHT_M: Final = 0.004
"""A cube on the table has its centre this near to half its size."""
_UPRIGHT: Final = 0.7
"""Vertical part of an axis below which its heading is well defined."""
_HAND_STIFFNESS_NM_RAD: Final = 8.0
_HAND_DAMPING_NMS_RAD: Final = 0.3
_HAND_TORQUE_NM: Final = 1.0
"""A hand leads the arm like a soft spring: it overcomes a limp servo, but none that holds (1.2 to 3.35 Nm)."""


class World:
    """A simulated table with an arm. All vectors `(6,)` are in `JOINTS` order, rad."""

    def __init__(self, cameras: Sequence[str] | None = None, width: int = 320, height: int = 240) -> None:
        """Load the scene and reset it to seed 0.

        Args:
            cameras: the cameras that `render` allows; all eight if not given.
            width: default width of pictures, pixels.
            height: default height of pictures, pixels.

        Raises:
            ConfigError: the arm's assets are not installed, or a camera is unknown.
        """
        self.cameras = tuple(CAMERAS) if cameras is None else tuple(cameras)
        unknown = [name for name in self.cameras if name not in CAMERAS]
        if unknown:
            raise ConfigError(f"no camera '{unknown[0]}': the simulation has {', '.join(CAMERAS)}")
        self._size = (width, height)
        self.model: Final = load_scene()
        self._data = mujoco.MjData(self.model)
        self._rig: CameraRig | None = None
        self._cube_qpos = {name: int(self.model.joint(name).qposadr[0]) for name in CUBES}
        self._cube_dof = {name: int(self.model.joint(name).dofadr[0]) for name in CUBES}
        self._cube_geom = {name: int(self.model.geom(name).id) for name in CUBES}
        self._arm_bodies = frozenset(range(int(self.model.body("shoulder").id), int(self.model.body(CUBES[0]).id)))
        self._lower, self._upper = self.model.actuator_ctrlrange.T.copy()
        self._gain = self.model.actuator_gainprm.copy()
        self._bias = self.model.actuator_biasprm.copy()
        self._hand: NDArray[np.float64] | None = None
        self._clock_offset_s = 0.0
        self._episode = 0
        self.reset(0)

    # --- acting

    def reset(self, seed: int, keep_arm: bool = False) -> None:
        """Begin an episode: cubes where `seed` puts them, the arm at rest at HOME unless it is kept as it is."""
        self._clock_offset_s = self.time_s
        data = self._data
        arm = (data.qpos[:DOF].copy(), data.qvel[:DOF].copy(), data.ctrl.copy())
        mujoco.mj_resetData(self.model, data)
        if keep_arm:
            data.qpos[:DOF], data.qvel[:DOF], data.ctrl[:] = arm
        else:
            data.qpos[:DOF] = data.ctrl[:] = HOME_RAD
        for name, cube in placement.place_cubes(seed).items():
            start = self._cube_qpos[name]
            half = cube.yaw / 2
            data.qpos[start : start + 7] = (cube.x, cube.y, cube.z, math.cos(half), 0, 0, math.sin(half))
        mujoco.mj_forward(self.model, data)
        self._seed = seed
        self._episode += 1
        self._started = {name: self._cube_xyz(name) for name in CUBES}
        self._highest = {name: self._started[name][2] for name in CUBES}

    def step(self, targets: ArrayLike, n: int = 1) -> None:
        """Advance by `n` physics steps of 2 ms with position targets `(6,)`, clipped to the joints' limits.

        Raises:
            ConfigError: the targets are not six finite numbers.
        """
        wanted = np.asarray(targets, np.float64)
        if wanted.shape != (DOF,) or not np.isfinite(wanted).all():
            raise ConfigError(f"targets must be {DOF} finite angles in rad, not {targets!r}")
        self._data.ctrl[:] = np.clip(wanted, self._lower, self._upper)
        if self._hand is None:
            mujoco.mj_step(self.model, self._data, n)
        else:
            for _ in range(n):
                self._pull()
                mujoco.mj_step(self.model, self._data)
        for name in CUBES:
            self._highest[name] = max(self._highest[name], self._data.qpos[self._cube_qpos[name] + 2])

    def set_torque(self, enabled: ArrayLike) -> None:
        """Switch servos `(6,)` on or limp. A limp servo keeps its gear's friction and damping."""
        on = np.broadcast_to(np.asarray(enabled, bool), (DOF,))[:, None]
        self.model.actuator_gainprm[:] = np.where(on, self._gain, 0.0)
        self.model.actuator_biasprm[:] = np.where(on, self._bias, 0.0)

    def guide(self, joints: ArrayLike | None) -> None:
        """Let a hand draw the arm softly towards `joints` `(6,)`, or let go (`None`)."""
        self._hand = None if joints is None else np.array(joints, np.float64)
        self._data.qfrc_applied[:DOF] = 0.0

    # --- measuring

    @property
    def time_s(self) -> float:
        """Simulated seconds since this world began; resets do not turn it back."""
        return self._clock_offset_s + float(self._data.time)

    @property
    def episode_time_s(self) -> float:
        """Simulated seconds since the last reset."""
        return float(self._data.time)

    def joint_positions(self) -> NDArray[np.float64]:
        """`(6,)`, rad."""
        return np.array(self._data.qpos[:DOF])

    def joint_velocities(self) -> NDArray[np.float64]:
        """`(6,)`, rad/s."""
        return np.array(self._data.qvel[:DOF])

    def joint_loads(self) -> NDArray[np.float64]:
        """Torque of each servo `(6,)`, Nm; `MAX_TORQUE_NM` is stall."""
        return np.array(self._data.actuator_force[:DOF])

    def truth(self) -> Truth:
        """Where everything is."""
        return Truth(
            time_s=self.time_s,
            episode=self._episode,
            seed=self._seed,
            cubes={name: self._cube_pose(name) for name in CUBES},
            spot=SPOT_XY,
            joints=tuple(float(value) for value in self._data.qpos[:DOF]),
        )

    def outcome(self, target: str = "black") -> Outcome:
        """Judge the episode so far, with `target` as the cube to be placed.

        Raises:
            ConfigError: no such cube.
        """
        if target not in CUBES:
            raise ConfigError(f"no cube '{target}': the simulation has {' and '.join(CUBES)}")
        others = [name for name in CUBES if name != target]
        distance = self._cube_pose(target).distance_to(SPOT_XY)
        moved = max(math.dist(self._cube_xyz(name), self._started[name]) for name in others)
        lifted = self._rise(target) > LIFTED_ABOVE_M
        wrong_lifted = any(self._rise(name) > LIFTED_ABOVE_M for name in others)
        placed = distance < PLACED_WITHIN_M and self._rests(target)
        released = not self._touched(target)
        success = placed and released and lifted and not wrong_lifted and moved <= OTHERS_MAY_MOVE_M
        return Outcome(success, placed, released, lifted, distance, moved, wrong_lifted)

    # --- seeing

    def snapshot(self) -> Snapshot:
        """What a `CameraRig`, also one in another thread, needs to draw this moment."""
        return Snapshot(self.time_s, self._episode, self._data.qpos.copy())

    def render(self, camera: str, width: int | None = None, height: int | None = None) -> NDArray[np.uint8]:
        """Draw one picture `(height, width, 3)` RGB; always from the same thread, which opens the OpenGL context.

        Raises:
            ConfigError: the camera is not one of `cameras`, or the size is impossible.
        """
        if camera not in self.cameras:
            raise ConfigError(f"no camera '{camera}': this world was made with {', '.join(self.cameras)}")
        if self._rig is None:
            self._rig = CameraRig(self.model, *self._size)
        return self._rig.render(self.snapshot(), camera, width, height)

    def close(self) -> None:
        """Free the OpenGL context, if `render` opened one; in the same thread."""
        if self._rig is not None:
            self._rig.close()
            self._rig = None

    # --- inside

    def _pull(self) -> None:
        data = self._data
        pull = _HAND_STIFFNESS_NM_RAD * (self._hand - data.qpos[:DOF]) - _HAND_DAMPING_NMS_RAD * data.qvel[:DOF]
        data.qfrc_applied[:DOF] = np.clip(pull, -_HAND_TORQUE_NM, _HAND_TORQUE_NM)

    def _cube_xyz(self, name: str) -> NDArray[np.float64]:
        start = self._cube_qpos[name]
        return np.array(self._data.qpos[start : start + 3])

    def _cube_pose(self, name: str) -> CubePose:
        start = self._cube_qpos[name]
        x, y, z = (float(value) for value in self._data.qpos[start : start + 3])
        axes = self._data.xmat[self.model.geom_bodyid[self._cube_geom[name]]].reshape(3, 3)
        # A cube that toppled stands on its x axis: then its y axis tells how it lies.
        side = axes[:, 0] if abs(axes[2, 0]) < _UPRIGHT else axes[:, 1]
        yaw = math.atan2(float(side[1]), float(side[0]))
        return CubePose(x, y, z, yaw)

    def _rise(self, name: str) -> float:
        return float(self._highest[name] - self._started[name][2])

    def _rests(self, name: str) -> bool:
        start = self._cube_dof[name]
        slow = float(np.linalg.norm(self._data.qvel[start : start + 3])) < _RESTING_SPEED_M_S
        return bool(slow and abs(self._cube_xyz(name)[2] - CUBE_SIZE_M / 2) < _RESTING_HEIGHT_M)

    def _touched(self, name: str) -> bool:
        """Whether any part of the arm touches this cube."""
        geom = self._cube_geom[name]
        body = self.model.geom_bodyid
        return any(
            geom in (contact.geom1, contact.geom2)
            and bool(self._arm_bodies & {int(body[contact.geom1]), int(body[contact.geom2])})
            for contact in self._data.contact[: self._data.ncon]
        )

"""The simulated world: an arm with six position servos, cubes, a spot; stepped, measured, judged.

One thread steps a `World`. Another may draw it: take a `snapshot()` in the stepping thread (or under the caller's
lock) and hand it to a `CameraRig` made with `World.model` in the drawing thread. `World.render` is the short way for
single-threaded programs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_core.errors import ConfigError
from vla_sim import layout
from vla_sim.dressing import Dressing, assign
from vla_sim.rig import CameraRig, Snapshot
from vla_sim.scene import (
    CAMERA_ASPECT,
    CAMERAS,
    CUBES,
    DOF,
    HOME_RAD,
    JOINTS,
    MAX_TORQUE_NM,
    OBJECTS,
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
        self._dressing = Dressing(self.model)
        self._cube_qpos = {name: int(self.model.joint(name).qposadr[0]) for name in OBJECTS}
        self._cube_dof = {name: int(self.model.joint(name).dofadr[0]) for name in OBJECTS}
        self._cube_geom = {name: int(self.model.geom(name).id) for name in OBJECTS}
        self._arm_bodies = np.arange(int(self.model.body("shoulder").id), int(self.model.body(CUBES[0]).id))
        self._lower, self._upper = self.model.actuator_ctrlrange.T.copy()
        self._gain = self.model.actuator_gainprm.copy()
        self._bias = self.model.actuator_biasprm.copy()
        self._hand: NDArray[np.float64] | None = None
        self._clock_offset_s = 0.0
        self._episode = 0
        self.reset(0)

    # --- acting

    def reset(
        self,
        seed: int,
        keep_arm: bool = False,
        variety: str = layout.PLAIN,
        target: str = CUBES[0],
        cubes_of: int | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        """Begin an episode with the scene that `vla_sim.layout.draw` makes of these arguments.

        The arm is at rest where the layout has it, near HOME, unless it is kept as it is.

        Raises:
            ConfigError: no such seed, variety, target or name; nothing has changed then.
        """
        drawn = layout.draw(seed, variety, target, cubes_of, names)
        self._clock_offset_s = self.time_s
        data = self._data
        arm = (data.qpos[:DOF].copy(), data.qvel[:DOF].copy(), data.ctrl.copy())
        mujoco.mj_resetData(self.model, data)
        if keep_arm:
            data.qpos[:DOF], data.qvel[:DOF], data.ctrl[:] = arm
        else:
            data.qpos[:DOF] = data.ctrl[:] = np.clip(np.add(HOME_RAD, drawn.start_rad), self._lower, self._upper)
        self._dressing.apply(drawn, data)
        mujoco.mj_forward(self.model, data)
        self._seed = seed
        self._episode += 1
        self._players = assign(drawn.cubes)
        self._sizes = {name: cube.size for name, cube in drawn.cubes.items()}
        self._started = {name: self._cube_xyz(name) for name in drawn.cubes}
        self._highest = {name: self._started[name][2] for name in drawn.cubes}

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
        for name in self._highest:
            self._highest[name] = max(self._highest[name], self._cube_xyz(name)[2])

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
            cubes={name: self._cube_pose(name) for name in self._sizes},
            spot=SPOT_XY,
            joints=tuple(float(value) for value in self._data.qpos[:DOF]),
        )

    def outcome(self, target: str = "black", excused: Collection[str] = ()) -> Outcome:
        """Judge the episode so far, with `target` as the colour of the cube to be placed.

        Of two cubes of that colour either will do: the one that is placed is judged, or else the one nearest to the
        spot. `excused` are colours of cubes that may have been lifted and moved: they were asked for before.

        Raises:
            ConfigError: no such cube on the table.
        """
        candidates = self._of_colour(target) if target in layout.NAMED else []
        if not candidates:
            here = dict.fromkeys(layout.colour_of(name) for name in self._sizes)
            named = [colour for colour in layout.NAMED if colour in here]
            raise ConfigError(f"no cube '{target}' here: there are {' and '.join(named)}")
        judged = [self._judge(name, target, excused) for name in candidates]
        return min(judged, key=lambda each: (not each.success, each.distance_m))

    def moved_m(self, name: str) -> float:
        """How far a cube is from where it was at the reset, metres."""
        return math.dist(self._cube_xyz(name), self._started[name])

    def was_lifted(self, name: str) -> bool:
        """Whether a cube was lifted at some time since the reset."""
        return self._rise(name) > LIFTED_ABOVE_M

    def touches_other(self, target: str, excused: Collection[str] = ()) -> bool:
        """Whether the arm touches an object of another colour than `target` now, but for those `excused`."""
        others = {self._geom(name) for name in self._sizes if layout.colour_of(name) not in (target, *excused)}
        return bool(others & self._touched_by_arm())

    def _judge(self, name: str, target: str, excused: Collection[str]) -> Outcome:
        """The outcome if the cube `name` is the one to be placed."""
        others = [other for other in self._sizes if other != name and layout.colour_of(other) not in excused]
        distance = self._cube_pose(name).distance_to(SPOT_XY)
        moved = max((self.moved_m(other) for other in others), default=0.0)
        lifted = self.was_lifted(name)
        wrong = [other for other in others if layout.colour_of(other) != target]
        wrong_lifted = any(map(self.was_lifted, wrong))
        placed = distance < PLACED_WITHIN_M and self._rests(name)
        released = not self._touched(name)
        success = placed and released and lifted and not wrong_lifted and moved <= OTHERS_MAY_MOVE_M
        return Outcome(success, placed, released, lifted, distance, moved, wrong_lifted)

    def _of_colour(self, colour: str) -> list[str]:
        return [name for name in self._sizes if layout.colour_of(name) == colour]

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

    def in_picture(self, camera: str) -> dict[str, tuple[float, float]]:
        """Where the centre of each cube lies in a camera's whole 4:3 picture, seen or hidden.

        The camera is where this episode has it. `(u, v)` run from (0, 0) at the upper left to (1, 1) at the lower
        right; a cube beside the picture has others, one behind the camera is left out.

        Raises:
            ConfigError: there is no such camera.
        """
        if camera not in CAMERAS:
            raise ConfigError(f"no camera '{camera}': the simulation has {', '.join(CAMERAS)}")
        number = self.model.camera(camera).id
        axes, centre = self._data.cam_xmat[number].reshape(3, 3), self._data.cam_xpos[number]
        half = math.tan(math.radians(float(self.model.cam_fovy[number])) / 2)
        found = {}
        for name in self._sizes:
            right, up, back = axes.T @ (self._cube_xyz(name) - centre)
            if back < 0:
                found[name] = (float(0.5 - right / back / half / CAMERA_ASPECT / 2), float(0.5 + up / back / half / 2))
        return found

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

    def _geom(self, name: str) -> int:
        return self._cube_geom[self._players[name]]

    def _cube_xyz(self, name: str) -> NDArray[np.float64]:
        start = self._cube_qpos[self._players[name]]
        return np.array(self._data.qpos[start : start + 3])

    def _cube_pose(self, name: str) -> CubePose:
        x, y, z = (float(value) for value in self._cube_xyz(name))
        axes = self._data.xmat[self.model.geom_bodyid[self._geom(name)]].reshape(3, 3)
        # A cube that toppled stands on its x axis: then its y axis tells how it lies.
        side = axes[:, 0] if abs(axes[2, 0]) < _UPRIGHT else axes[:, 1]
        yaw = math.atan2(float(side[1]), float(side[0]))
        return CubePose(x, y, z, yaw, self._sizes[name])

    def _rise(self, name: str) -> float:
        return float(self._highest[name] - self._started[name][2])

    def _rests(self, name: str) -> bool:
        start = self._cube_dof[self._players[name]]
        slow = float(np.linalg.norm(self._data.qvel[start : start + 3])) < _RESTING_SPEED_M_S
        return bool(slow and abs(self._cube_xyz(name)[2] - self._sizes[name] / 2) < _RESTING_HEIGHT_M)

    def _touched(self, name: str) -> bool:
        """Whether any part of the arm touches this cube."""
        return bool(self._touched_by_arm() & {self._geom(name)})

    def _touched_by_arm(self) -> set[int]:
        """Geoms that something of the arm touches."""
        pairs = self._data.contact.geom[: self._data.ncon]
        on_arm = np.isin(self.model.geom_bodyid[pairs], self._arm_bodies)
        return set(pairs[on_arm[:, ::-1]].tolist())

"""Forward and inverse kinematics of the SO-101, and what gravity does to its servos.

The grasp point lies between the pads of the closed jaws. Its frame: x across the jaws (towards the moving one),
-z along the fingers. "Vertical" means fingers pointing down at the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_sim.scene import DOF, GRASP_POINT_M, SERVO_STIFFNESS_NM_RAD

_ARM_DOF: Final = DOF - 1
_WEIGHTS_M_RAD: Final = np.array([0.03, 0.03, 0.05])
"""Metres of position error worth one radian of tilt, tilt, and yaw: at the edge of reach the fingers lean before they
miss."""
_DAMPING_M2: Final = 1e-5 * np.eye(6)
"""Levenberg's term: small against J J^T (about 0.04 m^2), large enough near a stretched elbow."""
_MAX_STEP_RAD: Final = 0.3
_ITERATIONS: Final = 60
_CONVERGED: Final = 1e-5


@dataclass(frozen=True, slots=True)
class GraspPose:
    """Where the grasp point is, and how it points.

    `position` in metres, table frame; `yaw_rad` of the axis across the jaws; `tilt_rad` of the fingers from vertical.
    """

    position: tuple[float, float, float]
    yaw_rad: float
    tilt_rad: float


@dataclass(frozen=True, slots=True)
class Solution:
    """Arm joints `(5,)` that reach for a pose, and what they miss it by."""

    joints: NDArray[np.float64]
    position_error_m: float
    tilt_rad: float


class ArmKinematics:
    """Kinematics on a MuJoCo model of the scene; keeps scratch data, so one instance a thread."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._gripper = model.body("gripper").id
        self._lower = model.jnt_range[:_ARM_DOF, 0]
        self._upper = model.jnt_range[:_ARM_DOF, 1]
        self._point = np.array(GRASP_POINT_M)
        self._jacobian = np.zeros((2, 3, model.nv))

    def pose(self, joints: ArrayLike) -> GraspPose:
        """Forward kinematics of joints `(5,)` or `(6,)`, rad."""
        point, axes = self._forward(np.asarray(joints, np.float64))
        across = axes[:, 0]
        return GraspPose(
            (float(point[0]), float(point[1]), float(point[2])),
            math.atan2(across[1], across[0]),
            math.acos(float(np.clip(axes[2, 2], -1.0, 1.0))),
        )

    def solve(self, position: ArrayLike, yaw_rad: float, seed: ArrayLike) -> Solution:
        """Damped least squares: the grasp point at `position`, fingers down, jaws across at `yaw_rad`.

        Args:
            position: `(3,)`, metres, table frame.
            yaw_rad: direction of the axis across the jaws, table frame.
            seed: joints `(5,)` or more to start from; the nearest branch is found.
        """
        goal = np.asarray(position, np.float64)
        wanted = np.array([math.cos(yaw_rad), math.sin(yaw_rad), 0.0])
        joints = np.array(seed, np.float64)[:_ARM_DOF]
        for _ in range(_ITERATIONS):
            error, jacobian = self._task(joints, goal, wanted)
            moved = np.clip(joints + self._step(joints, error, jacobian), self._lower, self._upper)
            converged = float(np.abs(moved - joints).max()) < _CONVERGED
            joints = moved
            if converged:
                break
        point, axes = self._forward(joints)
        tilt = math.acos(float(np.clip(axes[2, 2], -1.0, 1.0)))
        return Solution(joints, float(np.linalg.norm(goal - point)), tilt)

    def _step(
        self, joints: NDArray[np.float64], error: NDArray[np.float64], jacobian: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """One damped step `(5,)`; a joint that would be pushed beyond its limit stays, and the others take over."""
        free = np.ones(_ARM_DOF, bool)
        step = np.zeros(_ARM_DOF)
        for _ in range(_ARM_DOF):
            part = jacobian * free
            step = part.T @ np.linalg.solve(part @ part.T + _DAMPING_M2, error)
            step *= min(1.0, _MAX_STEP_RAD / max(float(np.abs(step).max()), 1e-12))
            blocked = ((joints >= self._upper) & (step > 0)) | ((joints <= self._lower) & (step < 0))
            if not (blocked & free).any():
                break
            free &= ~blocked
        return step

    def gravity_sag(self, joints: ArrayLike) -> NDArray[np.float64]:
        """How far each servo `(6,)` must be commanded beyond `joints` `(6,)` to hold them against gravity, rad."""
        self._data.qvel[:] = 0
        self._forward(np.asarray(joints, np.float64))
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_comVel(self._model, self._data)
        torque = np.zeros(self._model.nv)
        mujoco.mj_rne(self._model, self._data, 0, torque)
        return torque[:DOF] / SERVO_STIFFNESS_NM_RAD

    def _forward(self, joints: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The grasp point `(3,)` and the gripper's axes `(3, 3)`, in columns."""
        self._data.qpos[: len(joints)] = joints
        mujoco.mj_kinematics(self._model, self._data)
        axes = self._data.xmat[self._gripper].reshape(3, 3)
        return self._data.xpos[self._gripper] + axes @ self._point, axes

    def _task(
        self, joints: NDArray[np.float64], goal: NDArray[np.float64], wanted: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weighted error `(6,)` in metres and its Jacobian `(6, 5)`: position, tilt about x and y, yaw about z."""
        point, axes = self._forward(joints)
        mujoco.mj_comPos(self._model, self._data)
        linear, angular = self._jacobian
        mujoco.mj_jac(self._model, self._data, linear, angular, point, self._gripper)
        across, along = axes[:, 0], axes[:, 2]
        turn = math.atan2(across[0] * wanted[1] - across[1] * wanted[0], float(across @ wanted))
        error = np.concatenate([goal - point, _WEIGHTS_M_RAD * (along[1], -along[0], turn)])  # tilt: along x up
        jacobian = np.concatenate([linear[:, :_ARM_DOF], _WEIGHTS_M_RAD[:, None] * angular[:, :_ARM_DOF]])
        return error, jacobian

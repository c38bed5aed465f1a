"""Whether a new model may drive: its answers to a real observation, judged before the arm hears of any of them.

Pure: answers and durations in, an objection out. An empty objection lets it pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_policy.following import GRIPPER
from vla_policy.model import ModelSpec
from vla_policy.schedule import MARGIN_S

SO101_LOWER_RAD = (-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.174533)
SO101_UPPER_RAD = (1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.74533)
"""Of so101_new_calib.urdf, as the arm controller has them."""
MARGIN_RAD = 0.1
"""Models answer a few hundredths beyond where their demonstrations ended; the driver clips that. Wrong units or joints
are off by more."""
IN_TIME_SHARE = 0.8
"""A fifth of the time that there is stays for a machine that is busier than while it was judged."""
MS_PER_S = 1e3


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What an answer must keep to.

    Attributes:
        joint_names: of the robot.
        lower_rad, upper_rad: range of each.
        pose_rad: how far the first action may be from where the arm is: joining makes a way of it, so that only another
            unit or another joint's value is meant. The gripper's may be anywhere, as it closes on things.
        velocity_rad_s: how fast the actions may move a joint; our models' reach 3 rad/s. The gripper's snap.
    """

    joint_names: tuple[str, ...] = SO101_JOINTS
    lower_rad: tuple[float, ...] = SO101_LOWER_RAD
    upper_rad: tuple[float, ...] = SO101_UPPER_RAD
    pose_rad: float = 1.0
    velocity_rad_s: float = 8.0

    def __post_init__(self) -> None:
        for name, values in (("lower_rad", self.lower_rad), ("upper_rad", self.upper_rad)):
            if len(values) != len(self.joint_names):
                raise ConfigError(
                    f"parameter {name} has {len(values)} values for {len(self.joint_names)} joints: give one for each "
                    f"of {', '.join(self.joint_names)}"
                )
        for name, lower, upper in zip(self.joint_names, self.lower_rad, self.upper_rad, strict=True):
            if not lower < upper:
                raise ConfigError(f"parameters lower_rad and upper_rad: joint {name} has {lower} and {upper}")

    def of(self, joint_names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper limits, `(dof,)` each, in the order of `joint_names`."""
        index = [self.joint_names.index(name) for name in joint_names]
        return np.array(self.lower_rad)[index], np.array(self.upper_rad)[index]


def object_to_actions(
    actions: NDArray[np.float64], spec: ModelSpec, pose: NDArray[np.float64], limits: GateLimits
) -> str:
    """What is wrong with an answer; empty where nothing is.

    Args:
        actions: `(horizon, dof)`, rad, the first of them due at the observation's stamp.
        spec: of the model that answered.
        pose: `(dof,)`, where the arm was then, rad.
        limits: what to keep to.
    """
    dof, needed = len(spec.joint_names), math.ceil(spec.open_loop_s * spec.rate_hz)
    if actions.ndim != 2 or actions.shape[1] != dof or not needed <= len(actions) <= spec.chunk_size:
        return f"it answered {actions.shape} where {spec.label} promises ({spec.chunk_size}, {dof})"
    if not np.isfinite(actions).all():
        return "it answered with numbers that are not finite"
    lower, upper = limits.of(spec.joint_names)
    beyond = np.maximum(lower - actions, actions - upper).max(axis=0)
    if reason := _worst(spec, beyond, MARGIN_RAD, "it sends {joint} {value:.2f} rad beyond its limit"):
        return reason
    watched = np.array([name != GRIPPER for name in spec.joint_names])
    away = np.abs(actions[0] - pose) * watched
    if reason := _worst(spec, away, limits.pose_rad, "its first action has {joint} {value:.2f} rad from where it is"):
        return reason
    speed = np.abs(np.diff(actions, axis=0)).max(axis=0, initial=0.0) * spec.rate_hz * watched
    return _worst(spec, speed, limits.velocity_rad_s, "it moves {joint} with {value:.1f} rad/s")


def _worst(spec: ModelSpec, values: NDArray[np.float64], limit: float, text: str) -> str:
    worst = int(values.argmax())
    if values[worst] <= limit:
        return ""
    said = text.format(joint=spec.joint_names[worst], value=values[worst])
    return f"{said}; {limit:g} are allowed"


def time_for_answer_s(open_loop_s: float, max_chunk_age_s: float) -> float:
    """How long an answer may take so that the next is there before the last is played, and is not too old then."""
    return IN_TIME_SHARE * min(open_loop_s - MARGIN_S, max_chunk_age_s)


def object_to_latency(times_ms: Sequence[float], open_loop_s: float, max_chunk_age_s: float) -> str:
    """Whether answers come too late, by the 95th percentile of those that were tried; empty where they do not."""
    limit_ms = time_for_answer_s(open_loop_s, max_chunk_age_s) * MS_PER_S
    p95_ms = float(np.percentile(times_ms, 95))
    if p95_ms <= limit_ms:
        return ""
    return (
        f"it is too slow: an answer takes {p95_ms:.0f} ms where at most {limit_ms:.0f} ms keep the arm moving "
        f"(open_loop_s {open_loop_s:g}, max_chunk_age_s {max_chunk_age_s:g})"
    )

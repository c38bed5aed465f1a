"""From what arrived to what the policy sees; or why the policy must not act on it.

Reasons do not carry ages or counts: one that lasts is the same text throughout, and is reported once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError, ImageError
from vla_core.image import decode_resize
from vla_core.joints import reorder
from vla_core.observation import Observation
from vla_policy.clock import NS_PER_S, Moment
from vla_policy.inbox import Frame, JointSample
from vla_policy.model import ModelSpec

FUTURE_TOLERANCE_NS = 50_000_000
"""As for chunks: more than this means that a clock was set, or that two computers' clocks disagree."""


@dataclass(frozen=True, slots=True)
class AgeLimits:
    """How old an input may be, s: what a policy has not seen for longer, it must not act on."""

    image_s: float
    state_s: float


@dataclass(frozen=True, slots=True)
class Stale:
    """There is nothing fresh to act on, and why.

    Attributes:
        reason: for people.
        arm_lost: whether it is the arm that does not report: nobody knows what it holds when it comes back.
    """

    reason: str
    arm_lost: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest inputs of one moment, not yet decoded.

    Attributes:
        frames: camera name to its picture, for the cameras that the model wants.
        state: `(dof,)` measured positions in the model's joint order, rad.
        stamp_ns: system time of the oldest picture; of the joint state where the model sees none.
        stamp_mono_ns: the same on the monotonic clock.
        oldest: the oldest picture, None where the model sees none.
        since_mono_ns: when the last missing input arrived.
        state_mono_ns: when `state` was measured, monotonic.
    """

    frames: Mapping[str, Frame]
    state: NDArray[np.float64]
    stamp_ns: int
    stamp_mono_ns: int
    oldest: Frame | None
    since_mono_ns: int
    state_mono_ns: int


def observe(
    spec: ModelSpec, frames: Mapping[str, Frame], joints: JointSample | None, now: Moment, limits: AgeLimits
) -> Snapshot | Stale:
    """Pick what the model wants from the newest inputs.

    Args:
        spec: the cameras and joints that it wants.
        frames: newest frame of each camera.
        joints: newest joint sample.
        now: the present.
        limits: how old each may be.
    """
    for name in spec.cameras:
        if reason := _frame_fault(name, frames.get(name), now, limits.image_s):
            return Stale(reason)
    if joints is None:
        return Stale("no joint states yet on topic joint_states: does the arm driver run?", arm_lost=True)
    if reason := _joints_fault(joints, now, limits.state_s):
        return Stale(reason, arm_lost=True)
    try:
        state = reorder(joints.names, joints.positions, spec.joint_names)
    except ConfigError as error:
        return Stale(f"joint_states do not fit model {spec.label}: {error}")
    wanted = {name: frames[name] for name in spec.cameras}
    oldest = min(wanted.values(), key=lambda frame: frame.arrived.to_mono(frame.stamp_ns), default=None)
    source = joints if oldest is None else oldest
    return Snapshot(
        frames=wanted,
        state=state,
        stamp_ns=source.stamp_ns,
        stamp_mono_ns=source.arrived.to_mono(source.stamp_ns),
        oldest=oldest,
        since_mono_ns=min((frame.arrived.mono_ns for frame in wanted.values()), default=joints.arrived.mono_ns),
        state_mono_ns=joints.arrived.to_mono(joints.stamp_ns),
    )


def _joints_fault(joints: JointSample, now: Moment, limit_s: float) -> str:
    age_s = (now.mono_ns - joints.arrived.to_mono(joints.stamp_ns)) / NS_PER_S
    if age_s > limit_s:
        return f"no joint state for more than {limit_s:g} s (parameter max_state_age_s)"
    if age_s < -FUTURE_TOLERANCE_NS / NS_PER_S:
        return "joint states are stamped in the future: clocks disagree, or one was set"
    if not all(map(math.isfinite, joints.positions)):
        return "measured joint positions are not finite"
    return ""


def _frame_fault(name: str, frame: Frame | None, now: Moment, limit_s: float) -> str:
    if frame is None:
        return f"camera {name}: no picture yet on topic camera/{name}/image_raw/compressed: does the camera run?"
    age_s = (now.mono_ns - frame.arrived.to_mono(frame.stamp_ns)) / NS_PER_S
    if age_s > limit_s:
        return f"camera {name}: no picture newer than {limit_s:g} s (parameter max_image_age_s)"
    if age_s < -FUTURE_TOLERANCE_NS / NS_PER_S:
        return f"camera {name}: pictures are stamped in the future: clocks disagree, or one was set"
    return ""


def decode(snapshot: Snapshot, spec: ModelSpec, prompt: str) -> Observation:
    """Decode and resize the pictures as the model was trained.

    Raises:
        ImageError: a camera sent what is no JPEG.
    """
    images = {}
    for name, size in spec.cameras.items():
        try:
            images[name] = decode_resize(snapshot.frames[name].jpeg, size.width, size.height)
        except ImageError as error:
            raise ImageError(f"camera {name}: {error}") from error
    return Observation(snapshot.stamp_ns, images, snapshot.state.astype(np.float32), prompt)

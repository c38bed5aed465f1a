"""Inputs for tests of the policy's logic: a model, moments, frames and joint samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vla_core.image import encode_jpeg
from vla_core.joints import SO101_JOINTS
from vla_core.manifest import CameraInput
from vla_policy.clock import Moment
from vla_policy.inbox import Frame, JointSample
from vla_policy.model import ModelSpec

S = 1_000_000_000
T0 = 1_700_000_000 * S
MONO0 = 5_000 * S
JPEG = encode_jpeg(np.full((240, 320, 3), 100, np.uint8))


@dataclass(frozen=True, slots=True)
class Spec(ModelSpec):
    def with_cameras(self, *names: str) -> Spec:
        return replace(self, cameras={name: CameraInput(64, 32) for name in names})


SPEC = Spec(
    name="tiny",
    version="1",
    joint_names=SO101_JOINTS,
    cameras={"front": CameraInput(64, 32)},
    rate_hz=10.0,
    chunk_size=20,
    open_loop_s=1.0,
    prompt="put the black cube on the spot",
)


def at(seconds: float) -> Moment:
    offset_ns = round(seconds * S)
    return Moment(MONO0 + offset_ns, T0 + offset_ns)


def frame(seconds: float, jpeg: bytes = JPEG) -> Frame:
    """Captured then, published 4 ms later, here after 6 ms, seen after 10 ms."""
    stamp_ns = at(seconds).system_ns
    return Frame(jpeg, stamp_ns, stamp_ns + 4_000_000, stamp_ns + 6_000_000, at(seconds + 0.01))


def joints(seconds: float) -> JointSample:
    return JointSample(SO101_JOINTS, tuple(k / 10 for k in range(6)), at(seconds).system_ns, at(seconds))

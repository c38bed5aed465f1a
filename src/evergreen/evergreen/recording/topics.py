"""Which topics belong into a recording, by their names below the robot's namespace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

IMAGE = "sensor_msgs/msg/CompressedImage"
JOINT_STATES = "joint_states"
TRAJECTORY = "arm_controller/joint_trajectory"
PROMPT = "prompt"
STATUS = "policy/status"
_OTHERS = {
    JOINT_STATES: "sensor_msgs/msg/JointState",
    TRAJECTORY: "trajectory_msgs/msg/JointTrajectory",
    PROMPT: "std_msgs/msg/String",
    STATUS: "diagnostic_msgs/msg/DiagnosticStatus",
}
LASTING = frozenset({TRAJECTORY, PROMPT, STATUS})
"""Their last message says how things stand, so every file begins with it."""
_CAMERA = re.compile(r"camera/([^/]+)/image_raw/compressed")


def camera_of(topic: str) -> str | None:
    """The camera whose pictures a topic carries."""
    match = _CAMERA.fullmatch(topic)
    return match[1] if match else None


def camera_topic(name: str) -> str:
    """The topic of a camera's pictures."""
    return f"camera/{name}/image_raw/compressed"


@dataclass(frozen=True, slots=True)
class Topics:
    """What to record; no `cameras` means all that there are."""

    cameras: Sequence[str] = ()

    def wanted(self, topic: str) -> str | None:
        """The message type of a topic that is recorded, or None."""
        camera = camera_of(topic)
        if camera is not None:
            return IMAGE if not self.cameras or camera in self.cameras else None
        return _OTHERS.get(topic)

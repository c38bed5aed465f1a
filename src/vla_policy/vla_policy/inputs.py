"""What the policy hears of ROS: pictures, joint states, prompts and the driver's reports, into the inbox."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, JointState

from vla_policy import messages
from vla_policy.clock import Clock
from vla_policy.inbox import Inbox
from vla_policy.stages import Meter
from vla_ros import diagnostics, qos


class Inputs:
    """Subscriptions of one node; callbacks run in its executor's thread."""

    def __init__(self, node: Any, inbox: Inbox, meter: Meter, clock: Clock) -> None:
        """Listen to the driver's reports; the rest comes with a model."""
        self._node = node
        self._inbox = inbox
        self._meter = meter
        self._clock = clock
        self._joints: Any = None
        self._cameras: dict[str, Any] = {}
        node.create_subscription(DiagnosticStatus, "arm_controller/latency", self._on_driver_latency, qos.LATENCY)

    def listen(self, cameras: Collection[str]) -> None:
        """Listen to the joint states and to these cameras, beside those that are heard already."""
        if self._joints is None:
            self._joints = self._node.create_subscription(
                JointState, "joint_states", self._on_joints, qos.JOINT_STATES_SUB
            )
        for name in cameras:
            if name not in self._cameras:
                self._cameras[name] = self._node.create_subscription(
                    CompressedImage,
                    f"camera/{name}/image_raw/compressed",
                    partial(self._on_frame, name),
                    qos.CAMERA_SUB,
                )

    def only(self, cameras: Collection[str]) -> None:
        """Stop listening to all other cameras."""
        for name in [name for name in self._cameras if name not in cameras]:
            self._node.destroy_subscription(self._cameras.pop(name))

    def put_prompt(self, prompt: str) -> None:
        """A prompt arrived, now."""
        self._inbox.put_prompt(prompt, self._clock.now())

    def close(self) -> None:
        """Stop listening to cameras and joints."""
        self.only(())
        if self._joints is not None:
            self._node.destroy_subscription(self._joints)
            self._joints = None

    def _on_frame(self, camera: str, message: CompressedImage, info: dict[str, int]) -> None:
        self._inbox.put_frame(camera, messages.to_frame(message, info, self._clock.now()))

    def _on_joints(self, message: JointState) -> None:
        self._inbox.put_joints(messages.to_joints(message, self._clock.now()))

    def _on_driver_latency(self, message: DiagnosticStatus) -> None:
        if (stamp_ns := self._meter.add_report(diagnostics.values(message))) is not None:
            self._inbox.put_report(stamp_ns)

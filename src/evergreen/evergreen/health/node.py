"""The ROS node of `evergreen health`: listens. Decides nothing."""

from __future__ import annotations

import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState

from evergreen.health.judge import Heard
from vla_ros import qos
from vla_ros.diagnostics import values


class HealthNode(Node):
    """`heard` is read from another thread."""

    def __init__(self, heard: Heard) -> None:
        super().__init__("health")
        self._heard = heard
        self._prefix = f"{self.get_namespace().strip('/')}/".lstrip("/")
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES_SUB)
        self.create_subscription(DiagnosticStatus, "policy/status", self._on_policy, qos.POLICY_STATUS)
        self.create_subscription(DiagnosticStatus, "gg_bridge/status", self._on_bridge, qos.STATUS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)

    def _on_joints(self, _: JointState) -> None:
        self._heard.joints = True

    def _on_policy(self, message: DiagnosticStatus) -> None:
        self._heard.policy = values(message)

    def _on_bridge(self, message: DiagnosticStatus) -> None:
        self._heard.bridge = values(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node = status.name.split(":")[0]
            if node.startswith(self._prefix):
                self._heard.beats.add(node.removeprefix(self._prefix))

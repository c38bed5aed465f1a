"""The node of the story: the demo's, which also notes what bridge and policy say and what the arm is sent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from evergreen.demo.graph import Graph
from evergreen.demo.node import DemoNode
from evergreen.update.timeline import BridgeSaid, Said
from evergreen.update.witness import Witness
from vla_core.setpoints import Commanded
from vla_core.swap import parse_status
from vla_ros import qos
from vla_ros.diagnostics import values
from vla_ros.stamps import to_ns


def commanded(message: JointTrajectory, info: Mapping[str, Any]) -> Commanded:
    """When it was published, by the publisher's own clock, and when it ends: monotonic, ns."""
    to_monotonic_ns = time.monotonic_ns() - time.time_ns()
    last = message.points[-1].time_from_start if message.points else None
    lasts_ns = 0 if last is None else last.sec * 1_000_000_000 + last.nanosec
    end_ns = to_ns(message.header.stamp) + lasts_ns + to_monotonic_ns
    return Commanded(int(info["source_timestamp"]) + to_monotonic_ns, end_ns)


class UpdateNode(DemoNode):
    """Feeds a `Graph` and a `Witness`."""

    def __init__(self, graph: Graph, filmed: Sequence[str], witness: Witness) -> None:
        self._witness = witness
        super().__init__(graph, filmed)
        self.create_subscription(
            JointTrajectory, "arm_controller/joint_trajectory", self._on_trajectory, qos.TRAJECTORY
        )
        self.create_subscription(DiagnosticStatus, "gg_bridge/status", self._on_bridge_status, qos.POLICY_STATUS)

    def _on_policy_status(self, message: DiagnosticStatus) -> None:
        self._witness.on_policy(Said(time.monotonic(), parse_status(values(message))))
        super()._on_policy_status(message)

    def _on_bridge_status(self, message: DiagnosticStatus) -> None:
        self._witness.on_bridge(BridgeSaid(time.monotonic(), values(message)))

    def _on_trajectory(self, message: JointTrajectory, info: Mapping[str, Any]) -> None:
        self._witness.on_trajectory(commanded(message, info))

    def _on_joints(self, message: JointState) -> None:
        super()._on_joints(message)
        self._witness.on_speed(time.monotonic(), max(map(abs, message.velocity), default=0.0))

"""The ROS node of `evergreen teach`: hears the arm, calls its services, sends it trajectories. Decides nothing."""

from __future__ import annotations

import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
from collections import deque
from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_ros import diagnostics, qos
from vla_ros.stamps import to_ns
from vla_ros.trajectories import trajectory

LONGEST_SAMPLES = 60_000
"""Ten minutes at 100 Hz; the rest would be no lesson."""


class TeachNode(Node):
    """Attributes are read from another thread.

    Attributes:
        samples: stamp (ns) and positions by joint name, as they come; the reader empties it.
        newest: the last of them.
        arm: what the driver reports about its state.
    """

    def __init__(self) -> None:
        super().__init__("teach")
        self.samples: deque[tuple[int, Mapping[str, float]]] = deque(maxlen=LONGEST_SAMPLES)
        self.newest: tuple[int, Mapping[str, float]] | None = None
        self.arm: Mapping[str, str] = {}
        self._arm_name = self.get_namespace().strip("/")
        self._arm_name = f"{self._arm_name}/arm_controller: state" if self._arm_name else "arm_controller: state"
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self._trajectories = self.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", qos.TRAJECTORY)
        self._triggers = {name: self.create_client(Trigger, f"arm_controller/{name}") for name in ("release", "resume")}

    def trigger(self, name: str, timeout_s: float) -> tuple[bool, str]:
        """Call `arm_controller/<name>` from another thread than the executor's; whether it was done, and a sentence."""
        client = self._triggers[name]
        if not client.wait_for_service(timeout_sec=timeout_s):
            return False, f"service arm_controller/{name} did not appear within {timeout_s:.0f} s"
        response = client.call(Trigger.Request(), timeout_sec=timeout_s)
        if response is None:
            return False, f"service arm_controller/{name} did not answer within {timeout_s:.0f} s"
        return response.success, response.message

    def send(self, stamp_ns: int, names: Sequence[str], after_ns: Sequence[int], rows: NDArray) -> None:
        """Send one trajectory: `rows` (rad) are due `after_ns` after the stamp."""
        self._trajectories.publish(trajectory(stamp_ns, names, after_ns, rows))

    def heard_by(self) -> int:
        """How many subscribe to the trajectories."""
        return self._trajectories.get_subscription_count()

    def _on_joints(self, message: JointState) -> None:
        sample = to_ns(message.header.stamp), dict(zip(message.name, message.position, strict=True))
        self.samples.append(sample)
        self.newest = sample

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._arm_name:
                self.arm = {**diagnostics.values(status), "reason": status.message}

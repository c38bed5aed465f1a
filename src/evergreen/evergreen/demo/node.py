"""The demo's own ROS node: watches the graph, brings the arm home, starts and stops the policy."""

from __future__ import annotations

import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import time
from collections.abc import Mapping, Sequence
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from evergreen.demo.graph import Graph
from vla_ros import qos
from vla_ros.diagnostics import values
from vla_ros.stamps import to_ns

SWEEP_S = 0.25


class DemoNode(Node):
    """Feeds a `Graph` with what the topics say."""

    def __init__(self, graph: Graph, filmed: Sequence[str]) -> None:
        super().__init__("demo")
        self._graph = graph
        self._filmed = frozenset(filmed)
        self._stills: dict[str, Subscription] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self.create_subscription(DiagnosticStatus, "policy/status", self._on_policy_status, qos.POLICY_STATUS)
        self.create_subscription(DiagnosticStatus, "policy/latency", self._on_policy_latency, qos.LATENCY)
        self.create_subscription(DiagnosticStatus, "arm_controller/latency", self._on_arm_latency, qos.LATENCY)
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES_SUB)
        for camera in filmed:
            self._watch(camera, film=True)
        self._trajectory = self.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", qos.TRAJECTORY)
        self._prompts = self.create_publisher(String, "prompt", qos.PROMPT)
        self._configure = self.create_client(ChangeState, "policy/change_state")
        self._triggers = {name: self.create_client(Trigger, f"policy/{name}") for name in ("start", "stop")}

    def trigger(self, name: str, timeout_s: float) -> str | None:
        """Call `policy/start` or `policy/stop` from another thread than the executor's.

        Returns:
            None when it was done, else why not.
        """
        client = self._triggers[name]
        if not client.wait_for_service(timeout_sec=timeout_s):
            return f"service policy/{name} did not appear within {timeout_s:.0f} s"
        response = client.call(Trigger.Request(), timeout_sec=timeout_s)
        if response is None:
            return f"service policy/{name} did not answer within {timeout_s:.0f} s"
        return None if response.success else response.message

    def configure(self, timeout_s: float) -> bool:
        """Let the policy load its model; False when it could not, or nobody answered."""
        if not self._configure.wait_for_service(timeout_sec=timeout_s):
            return False
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        response = self._configure.call(request, timeout_sec=timeout_s)
        return response is not None and bool(response.success)

    def move(self, target: Mapping[str, float], seconds: float) -> None:
        """Send the arm to one pose (joint name to rad), from where it is, within `seconds`."""
        message = JointTrajectory(joint_names=list(target))
        message.header.stamp = self.get_clock().now().to_msg()
        point = JointTrajectoryPoint(positions=[float(value) for value in target.values()])
        point.time_from_start.sec, fraction = int(seconds), seconds % 1
        point.time_from_start.nanosec = int(fraction * 1e9)
        message.points = [point]
        self._trajectory.publish(message)

    def say(self, prompt: str) -> None:
        """Give the policy another instruction."""
        self._prompts.publish(String(data=prompt))

    def photograph(self, cameras: Sequence[str]) -> None:
        """Take one picture with every camera that is not filmed anyway."""
        for camera in cameras:
            if camera not in self._filmed and camera not in self._stills:
                self._stills[camera] = self._watch(camera, film=False)
        self._sweeper = self.create_timer(SWEEP_S, self._sweep)

    def _watch(self, camera: str, *, film: bool) -> Subscription:
        return self.create_subscription(
            CompressedImage,
            f"camera/{camera}/image_raw/compressed",
            partial(self._on_frame, camera, film),
            qos.CAMERA_SUB,
        )

    def _sweep(self) -> None:
        """Stop listening to the cameras whose one picture has come: eight streams would cost CPU."""
        for camera in [name for name in self._stills if not self._graph.wants(name)]:
            self.destroy_subscription(self._stills.pop(camera))
        if not self._stills:
            self._sweeper.cancel()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._graph.on_diagnostic(status.name, values(status), time.monotonic())

    def _on_policy_status(self, message: DiagnosticStatus) -> None:
        found = values(message)
        self._graph.policy_reason = found.get("reason", "")
        self._graph.active_model = found.get("active_model", "")
        self._graph.policy_state = found.get("state", "")
        self._graph.prompt, self._graph.prompt_target = found.get("prompt", ""), found.get("prompt_target", "")

    def _on_policy_latency(self, message: DiagnosticStatus) -> None:
        self._graph.on_policy_latency(values(message))

    def _on_arm_latency(self, message: DiagnosticStatus) -> None:
        self._graph.on_arm_latency(values(message))

    def _on_joints(self, message: JointState) -> None:
        self._graph.joints = dict(zip(message.name, message.position, strict=True))

    def _on_frame(self, camera: str, film: bool, message: CompressedImage) -> None:
        self._graph.on_frame(camera, to_ns(message.header.stamp), bytes(message.data), film=film)

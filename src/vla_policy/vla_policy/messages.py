"""ROS messages to and from what the policy's logic knows; needs rclpy's message packages, and no node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, JointState
from trajectory_msgs.msg import JointTrajectory

from vla_core.chunk import Plan
from vla_policy.clock import Moment
from vla_policy.inbox import Frame, JointSample
from vla_ros import diagnostics
from vla_ros.stamps import to_ns
from vla_ros.trajectories import trajectory


def to_frame(message: CompressedImage, info: Mapping[str, int], now: Moment) -> Frame:
    """A picture that arrives `now`; `info` is the middleware's, whose times are 0 where it does not know them."""
    source_ns = info["source_timestamp"] or now.system_ns
    received_ns = info["received_timestamp"] or now.system_ns
    return Frame(message.data.tobytes(), to_ns(message.header.stamp), source_ns, received_ns, now)


def to_joints(message: JointState, now: Moment) -> JointSample:
    """Joint positions that arrive `now`."""
    return JointSample(tuple(message.name), tuple(message.position), to_ns(message.header.stamp), now)


def from_plan(plan: Plan, stamp_ns: int, joint_names: Sequence[str]) -> JointTrajectory:
    """`stamp_ns` is plan.stamp_ns in system time; the points' times count from there."""
    return trajectory(stamp_ns, joint_names, (plan.times_ns - plan.stamp_ns).tolist(), plan.positions)


def report(node_name: str, part: str, well: bool, sentence: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """All nodes of all namespaces meet on /diagnostics, so a status names its node in full, then its `part`."""
    name = node_name.lstrip("/") + (f": {part}" if part else "")
    return diagnostics.status(name, diagnostics.OK if well else diagnostics.WARN, sentence, values)

"""Building `trajectory_msgs/JointTrajectory`: positions only, as Evergreen's arm driver takes them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_ros.stamps import NS_PER_S, to_msg


def trajectory(
    stamp_ns: int, joint_names: Sequence[str], after_ns: Iterable[int], positions: Iterable[Iterable[float]]
) -> JointTrajectory:
    """A trajectory of one point for each of `after_ns` (ns after the stamp, not negative) and `positions` (rad)."""
    message = JointTrajectory(joint_names=list(joint_names))
    message.header.stamp = to_msg(stamp_ns)
    for offset_ns, row in zip(after_ns, positions, strict=True):
        seconds, nanoseconds = divmod(offset_ns, NS_PER_S)
        point = JointTrajectoryPoint(positions=array("d", row))  # a list would be checked value by value
        point.time_from_start = Duration(sec=seconds, nanosec=nanoseconds)
        message.points.append(point)
    return message

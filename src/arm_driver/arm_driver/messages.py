"""Between ROS messages and the driver's own types, without importing ROS: messages are read by their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arm_driver.trajectory import NS_PER_S, Message, Rejected

LATEST_ARRIVAL_NS = NS_PER_S
"""A middleware stamp that lies further back than this, or ahead, comes from another clock and is not used."""


def read_trajectory(message: Any, info: Mapping[str, Any], now_ns: int, offset_ns: int) -> Message | Rejected:
    """Take a `trajectory_msgs/JointTrajectory` apart.

    Args:
        message: the message.
        info: rclpy's message info; its `received_timestamp` and `source_timestamp` are system ns.
        now_ns: monotonic.
        offset_ns: system minus monotonic time.
    """
    for index, point in enumerate(message.points):
        for name in ("velocities", "accelerations", "effort"):
            if len(getattr(point, name)) not in (0, len(message.joint_names)):
                return Rejected(
                    f"point {index} has {len(getattr(point, name))} {name} for {len(message.joint_names)} joints"
                )
    arrived_ns = int(info.get("received_timestamp") or 0)
    waited_ns = now_ns + offset_ns - arrived_ns
    if not 0 <= waited_ns <= LATEST_ARRIVAL_NS:
        waited_ns = 0
    sent_ns = int(info.get("source_timestamp") or 0)
    return Message(
        stamp_ns=message.header.stamp.sec * NS_PER_S + message.header.stamp.nanosec,
        joint_names=tuple(message.joint_names),
        times_ns=tuple([p.time_from_start.sec * NS_PER_S + p.time_from_start.nanosec for p in message.points]),
        positions=tuple([tuple(point.positions) for point in message.points]),
        received_ns=now_ns - waited_ns,
        clock_offset_ns=offset_ns,
        transport_ns=max(0, now_ns - waited_ns + offset_ns - sent_ns) if sent_ns else 0,
    )

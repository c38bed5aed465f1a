"""ROS stamps to integers and back: system time, nanoseconds since 1970."""

from __future__ import annotations

from builtin_interfaces.msg import Time

NS_PER_S = 1_000_000_000


def to_ns(stamp: Time) -> int:
    """Nanoseconds of a stamp."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def to_msg(stamp_ns: int) -> Time:
    """Stamp of nanoseconds."""
    seconds, nanoseconds = divmod(stamp_ns, NS_PER_S)
    return Time(sec=seconds, nanosec=nanoseconds)

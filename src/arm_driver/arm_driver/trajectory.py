"""Joint trajectories: validation of what a message says, joining, and sampling. Pure; times are arguments.

Times are monotonic nanoseconds unless a name says `stamp_ns` (system time). Positions are rad, in the driver's
joint order. Only positions are used; between two points the setpoint moves on the straight line.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vla_core.joints import JointLimits

NS_PER_S = 1_000_000_000

MAX_POINTS = 10_000
"""One and a half minutes at 100 Hz: more is a mistake, and would block the executor while it is checked."""
OVERSHOOT_RAD = 0.5
"""A point this far beyond a limit is clamped, since policies overshoot a little; beyond that the message means
something else (degrees, another arm) and is refused."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a trajectory message says, without ROS.

    Attributes:
        stamp_ns: header stamp, system time; 0 means "from now on".
        joint_names: any order.
        times_ns: `time_from_start` of each point.
        positions: `(points, len(joint_names))`, rad.
        received_ns: monotonic time of arrival.
        clock_offset_ns: system minus monotonic time at arrival.
        transport_ns: from the publisher's call to arrival, both system time.
    """

    stamp_ns: int
    joint_names: tuple[str, ...]
    times_ns: tuple[int, ...]
    positions: tuple[Sequence[float], ...]
    received_ns: int
    clock_offset_ns: int
    transport_ns: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """What a trajectory must obey.

    Attributes:
        joint_names: the driver's joints, in its order.
        limits: position limits in that order.
        max_horizon_s: how far in the future the last point may lie.
        max_stale_s: how long ago the last point may have been due.
    """

    joint_names: tuple[str, ...]
    limits: tuple[JointLimits, ...]
    max_horizon_s: float
    max_stale_s: float


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A valid trajectory: `times_ns` strictly increasing, `points` of shape `(len(times_ns), dof)`, at least one.

    `stamp_ns` is the header stamp (0: none), `transport_ns` and `clock_offset_ns` are as in `Message`.
    """

    times_ns: tuple[int, ...]
    points: tuple[tuple[float, ...], ...]
    stamp_ns: int
    received_ns: int
    clock_offset_ns: int
    transport_ns: int

    @property
    def end_ns(self) -> int:
        """When the last point is due."""
        return self.times_ns[-1]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a message is refused: what is wrong, its value, and what is allowed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a trajectory is at one time: `positions` (rad), `velocities` (rad/s), each `(dof,)`."""

    positions: tuple[float, ...]
    velocities: tuple[float, ...]


def validate(message: Message, rules: Rules) -> Trajectory | Rejected:
    """Check a message and bring it into the driver's joint order and time."""
    columns = _columns(message.joint_names, rules.joint_names)
    if isinstance(columns, Rejected):
        return columns
    if fault := _shape_fault(message) or _times_fault(message.times_ns):
        return fault
    start_ns = message.stamp_ns - message.clock_offset_ns if message.stamp_ns else message.received_ns
    times_ns = tuple(start_ns + offset_ns for offset_ns in message.times_ns)
    if fault := _clock_fault(times_ns[-1], message.received_ns, rules):
        return fault
    points = tuple(tuple([row[column] for column in columns]) for row in message.positions)
    if fault := _range_fault(points, rules):
        return fault
    return Trajectory(
        times_ns, points, message.stamp_ns, message.received_ns, message.clock_offset_ns, message.transport_ns
    )


def joined(trajectory: Trajectory, now_ns: int, setpoint: tuple[float, ...]) -> Trajectory:
    """Begin at the present setpoint where the first point still lies ahead; otherwise leave as it is."""
    if trajectory.times_ns[0] <= now_ns:
        return trajectory
    return replace(trajectory, times_ns=(now_ns, *trajectory.times_ns), points=(setpoint, *trajectory.points))


def sample(trajectory: Trajectory, now_ns: int) -> Sample:
    """Position on the trajectory; before its first point that point, after its last point that one, at rest."""
    times, points = trajectory.times_ns, trajectory.points
    after = bisect_right(times, now_ns)
    if after in (0, len(times)):
        end = points[0] if after == 0 else points[-1]
        return Sample(end, (0.0,) * len(end))
    begin_ns, end_ns = times[after - 1], times[after]
    begin, end = points[after - 1], points[after]
    share = (now_ns - begin_ns) / (end_ns - begin_ns)
    per_s = NS_PER_S / (end_ns - begin_ns)
    return Sample(
        tuple([a + (b - a) * share for a, b in zip(begin, end, strict=True)]),
        tuple([(b - a) * per_s for a, b in zip(begin, end, strict=True)]),
    )


def _columns(names: Sequence[str], wanted: Sequence[str]) -> list[int] | Rejected:
    """Column of each wanted joint in the message."""
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        return Rejected(f"joint_names repeats {', '.join(repeated)}")
    unknown = [name for name in names if name not in wanted]
    missing = [name for name in wanted if name not in names]
    if unknown or missing:
        what = f"unknown joint(s) {', '.join(unknown)}" if unknown else f"missing joint(s) {', '.join(missing)}"
        return Rejected(f"joint_names: {what}; all of {', '.join(wanted)} are wanted, in any order")
    return [names.index(name) for name in wanted]


def _shape_fault(message: Message) -> Rejected | None:
    count, width = len(message.positions), len(message.joint_names)
    if not 1 <= count <= MAX_POINTS:
        return Rejected(f"the trajectory has {count} points; allowed are 1..{MAX_POINTS}")
    if count != len(message.times_ns):
        return Rejected(f"{count} points came with {len(message.times_ns)} times")
    for index, row in enumerate(message.positions):
        if len(row) != width:
            return Rejected(f"point {index} has {len(row)} positions for {width} joints")
        for name, value in zip(message.joint_names, row, strict=True):
            if not math.isfinite(value):
                return Rejected(f"point {index}: {name} is {value}; positions must be finite")
    return None


def _times_fault(times_ns: Sequence[int]) -> Rejected | None:
    if times_ns[0] < 0:
        return Rejected(f"time_from_start of point 0 is {times_ns[0] / NS_PER_S} s; it must not be negative")
    for index, (before, after) in enumerate(pairwise(times_ns), start=1):
        if after <= before:
            return Rejected(
                f"time_from_start of point {index} is {after / NS_PER_S} s, not after point {index - 1}"
                f" ({before / NS_PER_S} s); times must increase"
            )
    return None


def _clock_fault(end_ns: int, received_ns: int, rules: Rules) -> Rejected | None:
    ahead_s = (end_ns - received_ns) / NS_PER_S
    cure = "are the clocks of publisher and driver the same (chrony, header.stamp in system time)?"
    if ahead_s > rules.max_horizon_s:
        return Rejected(
            f"the last point lies {ahead_s:.3f} s in the future; allowed are {rules.max_horizon_s:g} s; {cure}"
        )
    if ahead_s < -rules.max_stale_s:
        return Rejected(f"the trajectory ended {-ahead_s:.3f} s ago; allowed are {rules.max_stale_s:g} s; {cure}")
    return None


def _range_fault(points: Sequence[Sequence[float]], rules: Rules) -> Rejected | None:
    for column, (name, limit) in enumerate(zip(rules.joint_names, rules.limits, strict=True)):
        low, high = limit.lower_rad - OVERSHOOT_RAD, limit.upper_rad + OVERSHOOT_RAD
        for index, row in enumerate(points):
            if not low <= row[column] <= high:
                return Rejected(
                    f"point {index}: {name} is {row[column]:g} rad, over {OVERSHOOT_RAD} rad outside"
                    f" {limit.lower_rad:g}..{limit.upper_rad:g}; positions are radians in this robot's zero pose"
                )
    return None

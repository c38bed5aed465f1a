import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_driver.trajectory import (
    MAX_POINTS,
    NS_PER_S,
    OVERSHOOT_RAD,
    Message,
    Rejected,
    Rules,
    Trajectory,
    joined,
    sample,
    validate,
)
from vla_core.joints import JointLimits

NAMES = ("a", "b")
RULES = Rules(NAMES, (JointLimits(-1.0, 1.0), JointLimits(0.0, 2.0)), max_horizon_s=10.0, max_stale_s=1.0)
NOW_NS = 5_000 * NS_PER_S
OFFSET_NS = 1_700_000_000 * NS_PER_S
STAMP_NS = NOW_NS + OFFSET_NS
TENTH_NS = NS_PER_S // 10


def message(**changes) -> Message:
    whole = Message(
        stamp_ns=STAMP_NS,
        joint_names=NAMES,
        times_ns=(TENTH_NS, 2 * TENTH_NS, 4 * TENTH_NS),
        positions=((0.0, 1.0), (0.1, 1.1), (0.5, 1.5)),
        received_ns=NOW_NS,
        clock_offset_ns=OFFSET_NS,
    )
    return replace(whole, **changes)


def valid(**changes) -> Trajectory:
    found = validate(message(**changes), RULES)
    assert isinstance(found, Trajectory), found
    return found


def test_stamps_become_monotonic_times():
    found = valid(stamp_ns=STAMP_NS - NS_PER_S // 5)
    assert found.times_ns[0] == NOW_NS - TENTH_NS
    assert found.end_ns == NOW_NS + 2 * TENTH_NS
    assert found.stamp_ns == STAMP_NS - NS_PER_S // 5


def test_without_a_stamp_it_begins_on_arrival():
    assert valid(stamp_ns=0).times_ns[0] == NOW_NS + TENTH_NS


def test_joints_are_mapped_by_name():
    found = valid(joint_names=("b", "a"), positions=((1.0, 0.0), (1.1, 0.1), (1.5, 0.5)))
    assert found.points == valid().points


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"joint_names": ("a",)}, "missing joint.s. b"),
        ({"joint_names": ("a", "b", "c")}, "unknown joint.s. c; all of a, b"),
        ({"joint_names": ("a", "a")}, "repeats a"),
        ({"joint_names": ()}, "missing joint.s. a, b"),
        ({"times_ns": (), "positions": ()}, "has 0 points"),
        ({"times_ns": (0,)}, "3 points came with 1 times"),
        ({"positions": ((0.0,), (0.1,), (0.2,))}, "point 0 has 1 positions for 2 joints"),
        ({"positions": ((0.0, 1.0), (math.nan, 1.0), (0.0, 1.0))}, "point 1: a is nan"),
        ({"positions": ((0.0, 1.0), (0.0, 1.0), (0.0, math.inf))}, "point 2: b is inf"),
        ({"times_ns": (-1, 1, 2)}, "must not be negative"),
        ({"times_ns": (0, 2, 1)}, "time_from_start of point 2 .* must increase"),
        ({"times_ns": (0, 2, 2)}, "must increase"),
        ({"positions": ((0.0, 1.0), (57.3, 1.0), (0.0, 1.0))}, "point 1: a is 57.3 rad.*-1..1; positions are radians"),
        ({"positions": ((0.0, 1.0), (0.0, -0.6), (0.0, 1.0))}, "point 1: b is -0.6 rad"),
        ({"stamp_ns": STAMP_NS + 60 * NS_PER_S}, r"60.400 s in the future; allowed are 10 s; .*clocks"),
        ({"stamp_ns": STAMP_NS - 60 * NS_PER_S}, r"ended 59.600 s ago; allowed are 1 s"),
        ({"stamp_ns": 1}, "ago"),
        (
            {"times_ns": tuple(range(MAX_POINTS + 1)), "positions": ((0.0, 1.0),) * (MAX_POINTS + 1)},
            "has 10001 points",
        ),
    ],
)
def test_what_is_refused_and_why(changes, reason):
    found = validate(message(**changes), RULES)
    assert isinstance(found, Rejected)
    assert re.search(reason, found.reason), found.reason


def test_a_little_outside_the_limits_is_left_to_the_limiter():
    valid(positions=((1.0 + OVERSHOOT_RAD, 1.0), (0.0, 1.0), (0.0, 1.0)))


def test_one_point_is_a_trajectory():
    found = valid(times_ns=(0,), positions=((0.3, 0.4),))
    assert sample(found, NOW_NS).positions == (0.3, 0.4)
    assert sample(found, NOW_NS).velocities == (0.0, 0.0)


def test_sampling():
    found = valid()
    assert sample(found, found.times_ns[0] - 1).positions == (0.0, 1.0)
    middle = sample(found, NOW_NS + 3 * TENTH_NS)
    assert middle.positions == pytest.approx((0.3, 1.3))
    assert middle.velocities == pytest.approx((2.0, 2.0))
    after = sample(found, found.end_ns)
    assert (after.positions, after.velocities) == ((0.5, 1.5), (0.0, 0.0))


def test_before_its_first_point_it_joins_the_setpoint():
    found = joined(valid(), NOW_NS, (-0.2, 0.6))
    assert sample(found, NOW_NS).positions == (-0.2, 0.6)
    assert sample(found, NOW_NS + TENTH_NS // 2).positions == pytest.approx((-0.1, 0.8))
    assert sample(found, NOW_NS + TENTH_NS).positions == (0.0, 1.0)


def test_a_past_stamp_enters_at_the_present_point():
    found = valid(stamp_ns=STAMP_NS - 3 * TENTH_NS)
    assert joined(found, NOW_NS, (-0.2, 0.6)) is found
    assert sample(found, NOW_NS).positions == pytest.approx((0.3, 1.3))


points = st.lists(st.tuples(st.integers(1, 10**9), st.floats(-1, 1), st.floats(0, 2)), min_size=1, max_size=12)


@given(points, st.integers(-(10**9), 10**10))
def test_samples_stay_between_the_points_and_are_continuous(steps, later_ns):
    times, total = [], 0
    for gap, _, _ in steps:
        total += gap
        times.append(total)
    found = valid(times_ns=tuple(times), positions=tuple((a, b) for _, a, b in steps))
    for offset_ns in (0, 1000):
        now = sample(found, NOW_NS + later_ns + offset_ns)
        for column in range(2):
            values = [point[column] for point in found.points]
            assert min(values) - 1e-9 <= now.positions[column] <= max(values) + 1e-9
            assert math.isfinite(now.velocities[column])


@given(points)
def test_every_point_is_passed(steps):
    times = tuple(sum(gap for gap, _, _ in steps[: i + 1]) for i in range(len(steps)))
    found = valid(times_ns=times, positions=tuple((a, b) for _, a, b in steps))
    for time_ns, point in zip(found.times_ns, found.points, strict=True):
        assert sample(found, time_ns).positions == pytest.approx(point)


@given(st.binary(max_size=8), st.lists(st.floats(), max_size=6), st.lists(st.integers(), max_size=6), st.integers())
def test_nonsense_is_refused_and_never_raises(name, values, times, stamp):
    names = (name.hex(), "b")
    rows = tuple((value, value) for value in values)
    found = validate(message(joint_names=names, positions=rows, times_ns=tuple(times), stamp_ns=stamp), RULES)
    assert isinstance(found, Rejected)
    found = validate(message(positions=rows, times_ns=tuple(times), stamp_ns=stamp), RULES)
    assert isinstance(found, Rejected | Trajectory)

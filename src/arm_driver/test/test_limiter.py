import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_driver.limiter import MAX_DT_S, JointRule, Limiter, braking_speed
from vla_core.errors import ConfigError
from vla_core.joints import JointLimits

DT = 0.01
RULE = JointRule(JointLimits(-1.0, 1.0), velocity_rad_s=2.0, acceleration_rad_s2=20.0, step_rad=0.05)
targets = st.lists(st.floats(-2, 2), min_size=1, max_size=80)
periods = st.floats(0.0001, 0.3)


def limiter(*start, rule=RULE):
    made = Limiter([rule] * len(start))
    made.reset(start)
    return made


@given(st.floats(-1, 1), st.lists(st.tuples(st.floats(-2, 2), st.floats(-5, 5), periods), max_size=80))
def test_no_limit_is_ever_broken(start, steps):
    arm = limiter(start)
    for target, speed, dt in steps:
        (before,) = arm.positions
        (after,) = arm.step((target,), (speed,), dt)
        counted = min(dt, MAX_DT_S)
        assert -1.0 <= after <= 1.0
        assert abs(after - before) <= RULE.step_rad + 1e-12
        assert abs(after - before) <= RULE.velocity_rad_s * counted + 1e-12


@given(st.floats(-1, 1), targets)
def test_acceleration_is_bounded_at_a_steady_rate(start, aims):
    arm = limiter(start, rule=JointRule(RULE.position, 2.0, 20.0, 1.0))
    for target in aims:
        (before,) = arm.velocities
        arm.step((target,), (0.0,), DT)
        assert abs(arm.velocities[0] - before) <= 20.0 * DT + 1e-9


@given(st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=50)
def test_a_standing_target_is_reached_without_overshoot(start, target):
    arm = limiter(start)
    low, high = min(start, target) - 1e-9, max(start, target) + 1e-9
    for _ in range(250):
        (position,) = arm.step((target,), (0.0,), DT)
        assert low <= position <= high
    assert position == pytest.approx(target, abs=1e-6)
    assert arm.velocities[0] == pytest.approx(0.0, abs=1e-4)


@given(st.floats(0.5, 1.5))
@settings(max_examples=25)
def test_a_moving_target_is_followed_without_lag(period_s):
    """A plain braking limit would trail a moving target by v^2/2a."""
    arm = limiter(0.0)
    rate = 2 * math.pi / period_s
    amplitude = min(0.8, 15.0 / rate**2, 1.8 / rate)
    worst = 0.0
    for k in range(1, 400):
        t = k * DT
        (x,) = arm.step((amplitude * math.sin(rate * t),), (amplitude * rate * math.cos(rate * t),), DT)
        if k > 100:
            worst = max(worst, abs(x - amplitude * math.sin(rate * t)))
    assert worst < 1e-3


def test_an_irregular_period_does_not_disturb_a_steady_motion():
    arm = limiter(-0.5)
    t = 0.0
    for k in range(200):
        dt = 0.002 if k % 3 else 0.013
        t += dt
        (x,) = arm.step((-0.5 + 0.4 * t,), (0.4,), dt)
    assert x == pytest.approx(-0.5 + 0.4 * t, abs=1e-6)


def test_a_late_cycle_does_not_leap():
    arm = limiter(0.0)
    for _ in range(50):
        arm.step((0.9,), (0.0,), DT)
        if arm.velocities[0] > 1.0:
            break
    (before,) = arm.positions
    (after,) = arm.step((0.9,), (0.0,), 3.0)
    assert after - before <= RULE.step_rad


def test_it_starts_where_it_is_even_outside_and_only_moves_inwards():
    arm = limiter(1.3)
    (x,) = arm.step((1.5,), (1.0,), DT)
    assert x == 1.3
    trail = [arm.step((0.5,), (0.0,), DT)[0] for _ in range(200)]
    assert all(after <= before + 1e-9 for before, after in pairwise(trail))
    assert trail[-1] == pytest.approx(0.5, abs=1e-6)
    assert arm.step((1.5,), (0.0,), DT)[0] <= 1.0


def test_a_target_beyond_the_limit_stops_at_it():
    arm = limiter(0.0)
    for _ in range(300):
        arm.step((1.4,), (1.0,), DT)
    assert arm.positions == (1.0,)


def test_the_stopping_point_is_where_it_stops():
    arm = limiter(-0.8)
    for k in range(30):
        arm.step((-0.8 + 1.5 * (k + 1) * DT,), (1.5,), DT)
    (stop,) = arm.stopping_point()
    trail = [arm.step((stop,), (0.0,), DT)[0] for _ in range(100)]
    assert all(after >= before - 1e-9 for before, after in pairwise(trail))
    assert trail[-1] == pytest.approx(stop, abs=1e-6)


def test_no_time_no_motion():
    arm = limiter(0.2)
    assert arm.step((1.0,), (0.0,), 0.0) == (0.2,)
    assert arm.step((1.0,), (0.0,), -1.0) == (0.2,)


def test_one_joint_can_be_set_alone():
    arm = limiter(0.0, 0.5)
    arm.step((0.5, 0.0), (0.0, 0.0), DT)
    arm.reset_joint(1, 0.4)
    assert arm.positions[1] == 0.4
    assert arm.velocities[1] == 0.0
    assert arm.velocities[0] > 0.0


def test_the_braking_speed_stops_in_time():
    distance, change = 0.3, 20.0 * DT
    speeds = []
    while distance > 1e-9:
        speeds.append(braking_speed(distance, change, DT))
        distance -= speeds[-1] * DT
    assert distance == pytest.approx(0.0, abs=1e-9)
    assert all(before - after == pytest.approx(change) for before, after in pairwise(speeds))
    assert 0.0 <= speeds[-1] <= change + 1e-9
    assert braking_speed(0.0, change, DT) == 0.0


@pytest.mark.parametrize("field", ["velocity_rad_s", "acceleration_rad_s2", "step_rad"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_rules_are_checked(field, value):
    values = {"velocity_rad_s": 1.0, "acceleration_rad_s2": 1.0, "step_rad": 1.0} | {field: value}
    with pytest.raises(ConfigError, match=field):
        JointRule(JointLimits(-1, 1), **values)

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_driver.control import Controller, ControlRules, Measured, State
from arm_driver.limiter import JointRule
from arm_driver.protection import FollowRule, Severity, StallRule
from arm_driver.trajectory import NS_PER_S, Rejected, Trajectory
from vla_core.errors import ConfigError
from vla_core.joints import JointLimits

MS = 1_000_000
TICK_NS = 10 * MS
OFFSET_NS = 1_700_000_000 * NS_PER_S
JOINT = JointRule(JointLimits(-1.5, 1.5), velocity_rad_s=2.0, acceleration_rad_s2=20.0, step_rad=0.05)
FOLLOW = FollowRule(0.35, 0.5)
RULES = ControlRules(
    ("a", "b"), (JOINT, JOINT), (StallRule(0.8, 0.15, 0.5), StallRule(0.0, 0.15, 0.5)), FOLLOW, max_start_error_rad=0.5
)


class Bench:
    """A controller and its time; the arm follows the setpoint exactly unless `held` says where it is."""

    def __init__(self, start=(0.1, -0.2)):
        self.controller = Controller(RULES)
        self.now_ns = 1000 * NS_PER_S
        self.offset_ns = OFFSET_NS
        self.start = start
        self.held = None
        self.load = (0.0, 0.0)
        self.alarms = {}
        self.events = []
        self.started = []

    def connect(self):
        self.controller.connected(self.now_ns, self.start)
        return self

    def measured(self):
        positions = self.held or self.controller.setpoint
        return Measured(0, positions, (0.0, 0.0), self.load, (12.0, 12.0), (30.0, 30.0), self.alarms)

    def step(self):
        self.now_ns += TICK_NS
        cycle = self.controller.step(self.now_ns, self.offset_ns, self.measured())
        self.events += cycle.events
        if cycle.started:
            self.started.append(cycle.started)
        return cycle.setpoint

    def run(self, seconds):
        return [self.step() for _ in range(round(seconds * NS_PER_S / TICK_NS))]

    def play(self, *points, after_s=0.0, gap_s=0.1):
        times = tuple(self.now_ns + int((after_s + i * gap_s) * NS_PER_S) for i in range(len(points)))
        return self.controller.offer(self.now_ns, trajectory(times, points, self.now_ns))


def trajectory(times, points, now_ns):
    return Trajectory(tuple(times), tuple(points), now_ns + OFFSET_NS, now_ns, OFFSET_NS, 0)


def test_nothing_is_commanded_before_the_arm_is_there():
    bench = Bench()
    assert bench.controller.state is State.CONNECTING
    assert bench.step() is None
    assert "connecting" in bench.play((0.0, 0.0)).reason
    bench.connect()
    assert bench.controller.state is State.HOLD
    assert bench.run(0.1) == [bench.start] * 10


def test_it_plays_and_holds_the_last_point():
    bench = Bench().connect()
    assert bench.play((0.15, -0.25), (0.2, -0.3), after_s=0.1) is None
    assert bench.controller.state is State.ACTIVE
    trail = bench.run(0.5)
    assert bench.controller.state is State.HOLD
    assert bench.controller.reason == "the trajectory ended"
    assert trail[-1] == pytest.approx((0.2, -0.3), abs=1e-6)
    assert bench.run(1.0)[-1] == pytest.approx((0.2, -0.3), abs=1e-9)
    assert len(bench.started) == 1


def test_a_trajectory_ahead_is_joined_from_the_setpoint_without_a_jump():
    bench = Bench().connect()
    bench.play((0.4, -0.2), after_s=0.5)
    trail = [bench.start, *bench.run(0.5)]
    steps = [after[0] - before[0] for before, after in pairwise(trail)]
    assert max(steps) < 0.01
    assert all(point[1] == pytest.approx(-0.2) for point in trail)


def test_a_late_trajectory_is_entered_through_the_limiter():
    bench = Bench().connect()
    bench.play((0.0, 0.0), (1.0, 0.0), after_s=-0.05)
    first = bench.step()
    assert abs(first[0] - bench.start[0]) <= JOINT.acceleration_rad_s2 * (TICK_NS / NS_PER_S) ** 2 + 1e-9


def test_the_newest_trajectory_replaces():
    bench = Bench().connect()
    bench.play((1.0, -0.2), after_s=1.0)
    bench.run(0.2)
    assert bench.play((0.1, -0.2), after_s=0.5) is None
    bench.run(1.0)
    assert bench.controller.setpoint == pytest.approx((0.1, -0.2), abs=1e-6)
    assert len(bench.started) == 2


def test_a_stop_is_latched_brakes_and_holds():
    bench = Bench().connect()
    bench.play((1.4, -0.2), after_s=0.8)
    bench.run(0.4)
    bench.controller.stop("stopped by hand")
    trail = bench.run(1.0)
    assert bench.controller.state is State.STOPPED
    assert bench.controller.at_rest
    assert trail[-1] == trail[-20]
    assert "stopped by hand" in bench.play((0.0, 0.0)).reason
    assert bench.controller.resume() == (True, "resumed; waiting for a trajectory")
    assert bench.controller.state is State.HOLD
    assert bench.step() == trail[-1]
    assert bench.play((0.5, 0.0), after_s=1.0) is None


def test_a_stop_outlives_a_lost_connection():
    bench = Bench().connect()
    bench.controller.stop("by hand")
    bench.controller.disconnected("cable")
    assert bench.controller.state is State.STOPPED
    assert bench.controller.wants_connection
    bench.connect()
    assert bench.controller.state is State.STOPPED
    assert bench.controller.reason == "by hand"


def test_resume_without_a_stop_changes_nothing():
    bench = Bench().connect()
    assert bench.controller.resume() == (True, "nothing to resume: the arm is in state hold")
    bench.play((0.2, 0.0), after_s=1.0)
    bench.controller.resume()
    assert bench.controller.state is State.ACTIVE


def test_after_an_unplugging_it_starts_where_the_arm_is():
    bench = Bench().connect()
    bench.play((1.0, 0.0), after_s=1.0)
    bench.run(0.5)
    bench.controller.disconnected("port went away")
    assert bench.controller.state is State.CONNECTING
    assert bench.controller.reason == "port went away"
    assert bench.step() is None
    bench.start = (0.3, -0.4)
    bench.connect()
    assert bench.run(0.5)[-1] == (0.3, -0.4), "the old trajectory is gone"


def test_servos_that_do_not_fit_are_not_tried_again_until_resume():
    bench = Bench()
    bench.controller.disconnected("wrong calibration", final=True)
    assert bench.controller.state is State.FAULT
    assert not bench.controller.wants_connection
    assert bench.controller.resume() == (True, "resumed; connecting")
    assert bench.controller.wants_connection


@pytest.mark.parametrize("step_s", [-0.2, 0.2, 1e6])
def test_a_clock_step_ends_the_trajectory_in_a_hold(step_s):
    bench = Bench().connect()
    bench.play((1.0, 0.0), after_s=1.0)
    bench.run(0.3)
    bench.offset_ns += int(step_s * NS_PER_S)
    trail = bench.run(0.6)
    assert bench.controller.state is State.HOLD
    assert "clock stepped" in bench.controller.reason
    assert trail[-1] == trail[-10]
    assert [event.severity for event in bench.events] == [Severity.WARN]


def test_a_slewing_clock_is_no_step():
    bench = Bench().connect()
    bench.play((1.0, 0.0), after_s=1.0)
    for _ in range(50):
        bench.offset_ns += 5_000  # 500 ppm
        bench.step()
    assert bench.controller.state is State.ACTIVE
    assert bench.events == []


def test_a_trajectory_from_before_a_clock_step_is_refused():
    bench = Bench().connect()
    bench.step()
    old = trajectory([bench.now_ns + NS_PER_S], [(0.0, 0.0)], bench.now_ns)
    rejected = bench.controller.offer(bench.now_ns, replace(old, clock_offset_ns=OFFSET_NS + NS_PER_S))
    assert isinstance(rejected, Rejected)
    assert "stepped by +1.000 s" in rejected.reason


def test_a_stalled_joint_is_held_where_it_is():
    bench = Bench((0.0, 0.0)).connect()
    bench.play((1.0, 0.0), after_s=0.5)
    bench.held, bench.load = (0.05, 0.0), (0.95, 0.0)
    bench.run(1.5)
    assert bench.controller.state is State.FAULT
    assert "a (load +95%" in bench.controller.reason
    assert [event.severity for event in bench.events] == [Severity.ERROR]
    assert bench.controller.setpoint == pytest.approx((0.05, 0.0))
    assert "fault" in bench.play((1.0, 0.0)).reason
    bench.controller.resume()
    assert bench.controller.state is State.HOLD
    assert bench.step() == pytest.approx((0.05, 0.0))


def test_a_gripper_may_squeeze_for_as_long_as_it_likes():
    bench = Bench((0.0, 0.0)).connect()
    bench.play((0.0, 1.0), after_s=0.5)
    bench.held, bench.load = (0.0, 0.1), (0.0, 1.0)
    bench.run(3.0)
    assert bench.controller.state is State.HOLD
    assert bench.controller.setpoint[1] == pytest.approx(1.0)


def test_a_limp_joint_is_a_fault_although_it_has_no_load():
    """It was driven on for ever: with a load of 0 the stall watch never fires."""
    bench = Bench((0.0, 0.0)).connect()
    bench.play((1.0, 0.0), after_s=1.0)
    bench.held = (-0.1, 0.0)
    bench.run(2.0)
    assert bench.controller.state is State.FAULT
    assert "does not follow: a (load +0%" in bench.controller.reason
    assert "lost its torque" in bench.controller.reason
    assert bench.controller.setpoint == pytest.approx((-0.1, 0.0))
    assert [event.severity for event in bench.events] == [Severity.ERROR]
    assert bench.controller.resume()[0]
    assert bench.run(1.0)[-1] == pytest.approx((-0.1, 0.0))
    assert bench.controller.state is State.HOLD


def test_an_arm_that_lags_in_the_fastest_motion_is_no_fault():
    bench = Bench((-1.4, 0.0)).connect()
    trail = [bench.start] * 8
    for target in (1.4, -1.4, 1.4):
        bench.play((target, 0.0), after_s=0.1)
        for _ in range(200):
            bench.held = trail[-8]  # 2 rad/s, 80 ms late: 0.16 rad
            trail.append(bench.step())
    assert bench.controller.state is State.HOLD
    assert bench.events == []


def test_what_a_servo_complains_about_is_a_fault_that_says_so_once():
    """Alarms went to the diagnostics only; the arm played on with a servo that was about to let go."""
    bench = Bench((0.0, 0.0)).connect()
    bench.play((1.0, 0.0), after_s=2.0)
    bench.alarms = {"b": ("too hot",)}
    bench.run(0.1)
    assert bench.controller.state is State.ACTIVE, "a moment's complaint is none"
    bench.run(0.5)
    assert bench.controller.state is State.FAULT
    assert "servo alarm: b: too hot" in bench.controller.reason
    assert len(bench.events) == 1
    bench.controller.resume()
    bench.run(0.5)
    assert bench.controller.state is State.FAULT, "it still does"
    bench.alarms = {}
    bench.controller.resume()
    bench.run(0.5)
    assert bench.controller.state is State.HOLD


def test_revived_joints_are_held_where_they_stand():
    """Resume went on with the old setpoint: a servo whose torque came back leapt there."""
    bench = Bench((0.5, 0.0)).connect()
    bench.play((0.9, 0.0), after_s=1.0)
    bench.run(0.3)
    bench.controller.revived({})
    assert bench.controller.state is State.ACTIVE
    bench.controller.revived({0: 0.2})
    assert bench.controller.state is State.HOLD
    assert bench.step()[0] == 0.2


def test_the_first_reason_of_a_fault_stands():
    bench = Bench((0.0, 0.0)).connect()
    bench.alarms = {"b": ("too hot",)}
    bench.run(0.5)
    bench.play((1.0, 0.0))
    bench.held = (0.5, 0.0)
    bench.run(1.0)
    assert "b: too hot" in bench.controller.reason
    assert len(bench.events) == 2


def test_after_a_stall_and_a_lost_cable_it_connects_again_and_keeps_the_reason():
    """One flag meant both a latched stall and servos that do not fit: it stayed disconnected, without the reason."""
    bench = Bench((0.0, 0.0)).connect()
    bench.play((1.0, 0.0), after_s=0.5)
    bench.held, bench.load = (0.05, 0.0), (0.95, 0.0)
    bench.run(1.5)
    bench.controller.disconnected("port went away")
    assert bench.controller.state is State.FAULT
    assert bench.controller.wants_connection
    assert "stalled" in bench.controller.reason or "does not follow" in bench.controller.reason
    reason = bench.controller.reason
    bench.connect()
    assert (bench.controller.state, bench.controller.reason) == (State.FAULT, reason)
    bench.controller.disconnected("wrong calibration", final=True)
    assert not bench.controller.wants_connection
    assert bench.controller.reason == f"{reason}; moreover wrong calibration"


def test_a_trajectory_that_begins_elsewhere_is_refused():
    """It was chased at the limiter's full speed."""
    bench = Bench((0.0, 0.0)).connect()
    refused = bench.play((0.9, 0.0), (1.0, 0.0), after_s=-0.05)
    assert "a would begin at +0.95 rad" in refused.reason
    assert "max_start_error_rad 0.5" in refused.reason
    assert bench.controller.state is State.HOLD
    assert "due in 0.100 s" in bench.play((0.0, -0.8), after_s=0.1).reason, "2 rad/s do not get there"
    assert bench.play((0.45, 0.0), (0.5, 0.0), after_s=-0.05) is None


def test_a_far_point_with_time_to_get_there_is_accepted():
    bench = Bench((0.0, 0.0)).connect()
    assert bench.play((1.4, -1.4), after_s=1.5) is None, "a way home: one point, some time ahead"


def test_what_lies_beyond_a_limit_counts_from_the_limit():
    bench = Bench((1.2, 0.0)).connect()
    assert bench.play((1.9, 0.0)) is None


def test_a_failed_reading_does_not_stop_the_motion():
    bench = Bench((0.0, 0.0)).connect()
    bench.play((1.0, 0.0), after_s=1.0)
    for _ in range(10):
        bench.now_ns += TICK_NS
        cycle = bench.controller.step(bench.now_ns, OFFSET_NS, None)
    assert cycle.setpoint[0] == pytest.approx(0.1, abs=0.01)


def test_two_publishers_at_once_hold_the_arm_and_are_reported():
    bench = Bench((0.0, 0.0)).connect()
    bench.play((1.0, 0.0), after_s=1.0)
    bench.run(0.3)
    for number in (50, 3, 51):
        bench.controller.heard(bench.now_ns, number, 2)
    assert bench.controller.state is State.HOLD
    assert "2 publishers" in bench.controller.reason
    assert "several publishers" in bench.play((0.0, 0.0)).reason
    trail = bench.run(0.5)
    assert trail[-1] == trail[-10]
    assert [event.severity for event in bench.events] == [Severity.ERROR]
    bench.run(1.0)
    bench.controller.heard(bench.now_ns, 52, 2)
    assert bench.play((0.0, 0.0), after_s=0.5) is None


def test_rules_must_fit_together():
    with pytest.raises(ConfigError, match="limits of 1 and stall rules of 2 joints for 2 names"):
        replace(RULES, joints=(JOINT,))
    with pytest.raises(ConfigError, match="max_start_error_rad must be above 0, not 0"):
        replace(RULES, max_start_error_rad=0.0)


moves = st.one_of(
    st.tuples(st.just("play"), st.floats(-1.9, 1.9), st.floats(-0.5, 1.0)),
    st.tuples(st.sampled_from(["stop", "resume", "reconnect", "clock", "quarrel"]), st.just(0.0), st.just(0.0)),
)


@given(st.lists(st.tuples(moves, st.integers(1, 20)), max_size=25))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_the_setpoint_never_jumps(script):
    bench = Bench((0.0, 0.0)).connect()
    number = 0
    for (move, target, after_s), steps in script:
        if move == "play":
            number += 1
            bench.controller.heard(bench.now_ns, number, 1)
            bench.play((target, 0.5 * target), (target, 0.0), after_s=after_s, gap_s=0.3)
        elif move == "stop":
            bench.controller.stop("test")
        elif move == "resume":
            bench.controller.resume()
        elif move == "clock":
            bench.offset_ns += NS_PER_S
        elif move == "quarrel":
            for other in (number + 100, number, number + 101):
                bench.controller.heard(bench.now_ns, other, 2)
        else:
            bench.start = bench.controller.setpoint
            bench.controller.disconnected("test")
            bench.connect()
        for _ in range(steps):
            before = bench.controller.setpoint
            after = bench.step()
            for was, now in zip(before, after, strict=True):
                assert abs(now - was) <= JOINT.velocity_rad_s * TICK_NS / NS_PER_S + 1e-9
                assert -1.5 <= now <= 1.5


def test_released_it_commands_nothing_goes_along_with_the_hand_and_holds_there_after_resume():
    bench = Bench().connect()
    bench.run(0.1)
    assert bench.controller.release() is None
    assert bench.controller.state is State.LIMP
    bench.held = (0.9, 0.8)  # far from the setpoint: no stall, no lost torque
    bench.load = (1.0, 1.0)
    assert bench.run(1.0) == [None] * 100
    assert "limp" in bench.play((0.9, 0.8)).reason
    assert not bench.events
    bench.load = (0.0, 0.0)
    bench.controller.revived({0: 0.9, 1: 0.8})
    assert bench.controller.resume()[0]
    assert bench.controller.state is State.HOLD
    bench.held = None
    assert bench.run(0.2) == [(0.9, 0.8)] * 20, "no leap"


def test_it_is_not_released_while_it_plays_brakes_or_is_absent():
    bench = Bench()
    assert "connecting" in bench.controller.release().reason
    bench.connect()
    bench.play((0.5, -0.2), after_s=0.2)
    bench.run(0.1)
    assert "playing a trajectory" in bench.controller.release().reason
    bench.controller.stop("by hand")
    assert "brakes" in bench.controller.release().reason
    bench.run(0.5)
    assert bench.controller.release() is None
    bench.controller.stop("again")
    assert bench.controller.state is State.LIMP, "a stop holds nothing that is limp"
    bench.controller.disconnected("the cable")
    bench.connect()
    assert bench.controller.state is State.STOPPED, "connecting switched torque on"

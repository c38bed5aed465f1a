"""The control thread against simulated servos: it connects, plays, stops, survives unplugging, and ends well."""

import threading
import time

import pytest

from arm_driver.arm import Arm, ServoSetup
from arm_driver.calibration import GRIPPER_CENTRE_RAD, load
from arm_driver.control import Controller, ControlRules, State
from arm_driver.feetech import registers
from arm_driver.limiter import JointRule
from arm_driver.loop import ControlLoop, read_clocks
from arm_driver.protection import FollowRule, Severity, StallRule
from arm_driver.trajectory import NS_PER_S, Trajectory
from vla_core.joints import SO101_JOINTS

DEADLINE_S = 30.0
REPLY_TIMEOUT_S = 0.25
"""The simulated servos share this process, and the machine may be busy."""
HOME = (0.0, 0.0, 0.0, 0.0, 0.0, GRIPPER_CENTRE_RAD)


class Driven:
    """A running loop, and waiting for what it does."""

    def __init__(self, rig, **options):
        setup = ServoSetup(rig.link, 1_000_000, REPLY_TIMEOUT_S, 16, 0, 32, 254, {}, False, 0.15)
        calibration = load(rig.calibration, SO101_JOINTS, {"gripper": GRIPPER_CENTRE_RAD})
        joints = tuple(JointRule(limits, 4.0, 40.0, 0.08) for limits in calibration.limits())
        stall = (StallRule(0.8, 0.15, 0.3),) * 6
        rules = ControlRules(SO101_JOINTS, joints, stall, FollowRule(0.35, 0.4), max_start_error_rad=0.5)
        self.news = threading.Event()
        self.loop = ControlLoop(Arm(setup, calibration), Controller(rules), 100.0, self.news.set, **options)
        self.said = []

    def until(self, condition, what):
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            while self.loop.events:
                self.said.append(self.loop.events.popleft())
            if condition():
                return
            self.news.wait(0.05)
            self.news.clear()
        raise AssertionError(f"not within {DEADLINE_S} s: {what}; state {self.loop.state}, said {self.said}")

    def until_state(self, state):
        self.until(lambda: self.loop.state[0] is state, f"state {state}")

    def until_at(self, target):
        def there():
            measured = self.loop.measured
            return measured is not None and all(
                abs(a - b) < 0.01 for a, b in zip(measured.positions, target, strict=True)
            )

        self.until(there, f"position {target}")

    def play(self, *points, after_s=0.3):
        now_ns, offset_ns = read_clocks()
        times = tuple(now_ns + int((after_s + 0.2 * i) * NS_PER_S) for i in range(len(points)))
        return self.loop.offer(Trajectory(times, points, now_ns + offset_ns, now_ns, offset_ns, 0))


@pytest.fixture
def driven(rig):
    made = Driven(rig)
    made.loop.start()
    yield made
    made.loop.close()
    assert not made.loop.alive


def moved(**joints):
    return tuple(joints.get(name, value) for name, value in zip(SO101_JOINTS, HOME, strict=True))


def test_it_plays_a_trajectory_and_reports_its_latency(driven):
    driven.until_state(State.HOLD)
    target = moved(shoulder_pan=0.4, gripper=1.2)
    assert driven.play(moved(shoulder_pan=0.2), target) is None
    driven.until_at(target)
    driven.until_state(State.HOLD)
    (latency,) = driven.loop.latencies
    assert latency.write_ms > 0.0
    assert latency.total_ms == pytest.approx(latency.write_ms, abs=1.0), "the stamp was the time of the offer"
    assert driven.loop.counters.connections == 1


def test_a_trajectory_does_not_wait_for_the_next_period(rig):
    driven = Driven(rig)
    driven.loop._period_ns = 3600 * NS_PER_S
    driven.loop.start()
    try:
        driven.until(lambda: driven.loop.counters.cycles >= 1, "a cycle")
        assert driven.play(moved(shoulder_pan=0.1)) is None
        driven.until(lambda: driven.loop.latencies, "a latency")
        assert driven.loop.counters.cycles == 1
    finally:
        driven.loop.close()


def test_a_stop_holds_until_resume(driven):
    driven.until_state(State.HOLD)
    driven.play(moved(shoulder_pan=1.0), after_s=1.0)
    driven.until_state(State.ACTIVE)
    driven.loop.stop("test")
    driven.until_state(State.STOPPED)
    assert "test" in driven.play(HOME).reason
    driven.loop.resume()
    driven.until_state(State.HOLD)
    assert driven.play(HOME) is None
    driven.until_at(HOME)


def test_unplugged_in_motion_it_reconnects_and_holds_where_the_arm_is(driven, rig):
    driven.until_state(State.HOLD)
    driven.play(moved(shoulder_pan=1.0), after_s=1.5)
    driven.until(lambda: driven.loop.measured and driven.loop.measured.positions[0] > 0.05, "motion")
    rig.unplug()
    driven.until_state(State.CONNECTING)
    driven.until(lambda: any("went away" in event.text for event in driven.said), "the reason")
    with rig.lock:
        rig.servos[0].jump(1800)
    rig.replug()
    driven.until_state(State.HOLD)
    held = (1800 - 2048) * registers.RAD_PER_TICK
    cycles = driven.loop.counters.cycles
    driven.until(lambda: driven.loop.counters.cycles > cycles + 30, "cycles")
    assert driven.loop.measured.positions[0] == pytest.approx(held, abs=0.01), "the old trajectory is gone"
    assert driven.loop.counters.connections == 2
    assert driven.play(HOME) is None
    driven.until_at(HOME)


def test_an_absent_port_is_said_once_and_tried_again(rig):
    rig.unplug()
    driven = Driven(rig)
    driven.loop.start()
    try:
        driven.until(lambda: driven.said, "a complaint")
        assert driven.said[0].severity is Severity.ERROR
        assert "parameter port" in driven.said[0].text
        assert driven.loop.state[0] is State.CONNECTING
        rig.replug()
        driven.until_state(State.HOLD)
        driven.until(lambda: driven.said[-1].severity is Severity.OK, "connected")
        assert len(driven.said) == 2
    finally:
        driven.loop.close()


def test_a_servo_that_falls_silent_is_named_and_found_again(driven, rig):
    driven.until_state(State.HOLD)
    rig.bus.silence(4, on=True)
    driven.until_state(State.CONNECTING)
    driven.until(lambda: any("servo(s) 4" in event.text or "(id 4)" in event.text for event in driven.said), "a name")
    rig.bus.silence(4, on=False)
    driven.until_state(State.HOLD)


def test_servos_of_another_arm_are_a_fault_until_resume(rig):
    with rig.lock:
        rig.servos[2].write(registers.MIN_POSITION.address, (7).to_bytes(2, "little"))
    driven = Driven(rig)
    driven.loop.start()
    try:
        driven.until_state(State.FAULT)
        assert "elbow_flex minimum position: servo 7" in driven.loop.state[1]
        with rig.lock:
            rig.servos[2].write(registers.MIN_POSITION.address, (1000).to_bytes(2, "little"))
        driven.loop.resume()
        driven.until_state(State.HOLD)
    finally:
        driven.loop.close()


def test_a_blocked_joint_is_a_fault(driven, rig):
    driven.until_state(State.HOLD)
    rig.blocked.add(1)
    driven.play(moved(shoulder_pan=1.0))
    driven.until_state(State.FAULT)
    assert "shoulder_pan" in driven.loop.state[1]


def test_a_servo_that_lost_its_torque_is_a_fault_and_resume_gives_it_back(driven, rig):
    """It was never noticed, and resume did not look: trajectories were played with a limp joint."""
    driven.until_state(State.HOLD)
    with rig.lock:
        rig.servos[1].power_cycle()
    assert driven.play(moved(shoulder_lift=0.8), after_s=0.5) is None
    driven.until_state(State.FAULT)
    assert "does not follow: shoulder_lift (load +0%" in driven.loop.state[1]
    with rig.lock:
        rig.servos[1].jump(2200)
    done, text = driven.loop.resume()
    assert (done, text) == (
        True,
        "resumed; waiting for a trajectory; torque was off and is on again: shoulder_lift",
    )
    assert driven.loop.state[0] is State.HOLD
    cycles = driven.loop.counters.cycles
    driven.until(lambda: driven.loop.counters.cycles > cycles + 30, "cycles")
    held = (2200 - 2048) * registers.RAD_PER_TICK
    assert driven.loop.measured.positions[1] == pytest.approx(held, abs=0.01), "no leap"
    assert driven.play(HOME, after_s=0.5) is None
    driven.until_at(HOME)


def test_released_joints_can_be_led_and_hold_where_they_are_left(driven, rig):
    driven.until_state(State.HOLD)
    assert driven.play(moved(shoulder_pan=1.0), after_s=2.0) is None
    driven.until_state(State.ACTIVE)
    assert not driven.loop.release()[0], "it moves"
    driven.loop.stop("enough")
    driven.until(lambda: driven.loop.release()[0], "the release, once it rests")
    assert driven.loop.state[0] is State.LIMP
    with rig.lock:
        assert not any(servo.torque_on for servo in rig.servos)
        rig.servos[1].jump(2200)
    led = (2200 - 2048) * registers.RAD_PER_TICK
    driven.until(lambda: driven.loop.measured.positions[1] == pytest.approx(led, abs=0.01), "joint states go on")
    assert "limp" in driven.play(HOME).reason
    done, text = driven.loop.resume()
    assert done
    assert "torque was off and is on again: shoulder_pan, shoulder_lift, elbow_flex" in text
    driven.until_state(State.HOLD)
    with rig.lock:
        assert all(servo.torque_on for servo in rig.servos)
    cycles = driven.loop.counters.cycles
    driven.until(lambda: driven.loop.counters.cycles > cycles + 30, "cycles")
    assert driven.loop.measured.positions[1] == pytest.approx(led, abs=0.01), "no leap"
    driven.play(HOME, after_s=1.0)
    driven.until_at(HOME)


def test_a_release_without_an_arm_is_refused(rig):
    driven = Driven(rig)
    assert driven.loop.release() == (False, "not released: the arm is not connected (not connected yet)")


def test_resume_is_refused_while_a_limp_joint_stands_outside_its_range(driven, rig):
    driven.until_state(State.HOLD)
    driven.loop.stop("by hand")
    with rig.lock:
        rig.servos[1].power_cycle()
        rig.servos[1].jump(3500)
    done, text = driven.loop.resume()
    assert not done
    assert "not resumed: " in text
    assert "shoulder_lift (id 2) by 404 ticks" in text
    assert driven.loop.state == (State.STOPPED, "by hand")
    with rig.lock:
        assert not rig.servos[1].torque_on
        rig.servos[1].jump(3000)
    assert driven.loop.resume()[0]
    driven.until_state(State.HOLD)


def test_unplugged_under_a_fault_it_connects_again_and_the_fault_stays(driven, rig):
    """The loop stayed disconnected until resume, and the reason of the fault gave way to the cable's."""
    driven.until_state(State.HOLD)
    rig.blocked.add(1)
    driven.play(moved(shoulder_pan=1.0))
    driven.until_state(State.FAULT)
    reason = driven.loop.state[1]
    rig.unplug()
    driven.until(lambda: driven.loop.measured is None, "the loss")
    rig.replug()
    driven.until(lambda: driven.loop.measured is not None, "the reconnection")
    assert driven.loop.state == (State.FAULT, reason)


def test_noise_on_the_line_does_not_stop_it(driven, rig):
    driven.until_state(State.HOLD)
    target = moved(shoulder_pan=0.5)
    driven.play(target, after_s=0.5)

    def disturbed():
        rig.bus.faults.corrupt_next = 1
        return driven.loop.arm.counters.retries > 0

    driven.until(disturbed, "a retry")
    rig.bus.faults.corrupt_next = 0
    driven.until_at(target)
    assert driven.loop.counters.connections == 1


@pytest.mark.parametrize("torque_off", [False, True])
def test_ending_in_motion_brakes_and_keeps_torque_unless_asked(rig, torque_off):
    driven = Driven(rig, torque_off_on_exit=torque_off)
    driven.loop.start()
    driven.until_state(State.HOLD)
    driven.play(moved(shoulder_pan=1.0), after_s=1.0)
    driven.until(lambda: driven.loop.measured and driven.loop.measured.positions[0] > 0.1, "motion")
    driven.loop.close()
    assert not driven.loop.alive
    with rig.lock:
        goal = registers.GOAL_POSITION.decode(rig.servos[0].read(42, 2))
        torque = rig.servos[0].read(registers.TORQUE_ENABLE.address, 1)[0]
    assert goal < 2048 + 1.0 / registers.RAD_PER_TICK
    assert torque == (0 if torque_off else 1)
    driven.loop.close()


def test_a_defect_ends_the_thread_and_lets_the_port_go(rig, monkeypatch):
    driven = Driven(rig)
    crashed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda arguments: crashed.set())
    monkeypatch.setattr(driven.loop._controller, "step", lambda *arguments: 1 / 0)
    driven.loop.start()
    driven.until(lambda: not driven.loop.alive, "the end")
    assert crashed.wait(DEADLINE_S)
    again = Driven(rig)
    again.loop.start()
    again.until_state(State.HOLD)
    again.loop.close()
    driven.loop.close()

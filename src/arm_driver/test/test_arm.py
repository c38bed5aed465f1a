"""Connecting to, reading, moving and letting go of an arm, against simulated servos."""

import math
import time
from dataclasses import replace

import pytest

from arm_driver.arm import Arm, ServoSetup
from arm_driver.calibration import GRIPPER_CENTRE_RAD, load
from arm_driver.errors import BusError, NoReplyError, OutsideRangeError, ServoMismatchError
from arm_driver.feetech import registers
from arm_driver.feetech.bus import ServoBus
from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS


def setup(rig, **changes) -> ServoSetup:
    values = {
        "port": rig.link,
        "baud": 1_000_000,
        "reply_timeout_s": 0.25,  # the simulated servos share this process
        "p_gain": 16,
        "i_gain": 0,
        "d_gain": 32,
        "acceleration": 254,
        "torque_share": {"gripper": 0.5},
        "write_calibration": False,
        "keep_goal_rad": 0.15,
    }
    return ServoSetup(**(values | changes))


def calibration(rig):
    return load(rig.calibration, SO101_JOINTS, {"gripper": GRIPPER_CENTRE_RAD})


def arm(rig, **changes) -> Arm:
    return Arm(setup(rig, **changes), calibration(rig))


def register(rig, servo_id, which) -> int:
    with rig.lock:
        return which.decode(rig.servos[servo_id - 1].read(which.address, which.size))


def settle(made: Arm, target, tolerance=0.01, deadline_s=30.0):
    """Read until the joints are there."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        measured = made.read()
        if all(abs(a - b) < tolerance for a, b in zip(measured.positions, target, strict=True)):
            return measured
    raise AssertionError(f"still at {measured.positions}")


def test_connecting_sets_the_servos_up_and_moves_nothing(rig):
    with rig.lock:
        rig.servos[1].jump(2500)
        rig.servos[1].write(registers.GOAL_POSITION.address, (1200).to_bytes(2, "little"))
    made = arm(rig)
    standing = made.connect()
    measured = standing.measured
    assert standing.limp == (0, 1, 2, 3, 4, 5)
    assert standing.setpoint == measured.positions
    assert measured.positions[1] == pytest.approx((2500 - 2048) * 2 * math.pi / 4096)
    assert measured.positions[5] == pytest.approx(GRIPPER_CENTRE_RAD)
    assert register(rig, 2, registers.GOAL_POSITION) == 2500, "the goal is the present position, then torque"
    for servo_id in range(1, 7):
        assert register(rig, servo_id, registers.TORQUE_ENABLE) == 1
        assert register(rig, servo_id, registers.P_GAIN) == 16
        assert register(rig, servo_id, registers.ACCELERATION) == 254
        assert register(rig, servo_id, registers.RETURN_DELAY) == 0
        assert register(rig, servo_id, registers.LOCK) == 1
    assert register(rig, 6, registers.MAX_TORQUE) == 500
    assert register(rig, 6, registers.PROTECTION_CURRENT) == 250
    assert register(rig, 6, registers.OVERLOAD_TORQUE) == 25
    assert register(rig, 5, registers.MAX_TORQUE) == 1000
    made.close()


def test_it_moves_reads_and_keeps_torque_when_it_lets_go(rig):
    made = arm(rig)
    made.connect()
    target = (0.3, -0.2, 0.1, 0.0, -0.4, 1.0)
    made.write(target)
    measured = settle(made, target)
    assert len(measured.velocities) == len(measured.loads) == 6
    assert measured.voltages_v[0] == pytest.approx(7.4, abs=0.5)
    assert measured.temperatures_c[0] == pytest.approx(30, abs=3)
    made.close()
    assert register(rig, 1, registers.TORQUE_ENABLE) == 1
    made.close()


def test_torque_goes_off_only_when_asked(rig):
    made = arm(rig)
    made.connect()
    made.close(torque_off=True)
    assert all(register(rig, i, registers.TORQUE_ENABLE) == 0 for i in range(1, 7))


def test_connecting_again_writes_only_goals_and_torque(rig):
    """EPROM wears out, and a raised arm must not lose its torque for a moment."""
    made = arm(rig)
    made.connect()
    made.close()
    written = []
    serve = rig.bus._serve

    def listen(request, now_ns):
        if request[4] in (0x03, 0x83):
            written.append(request[5])
        return serve(request, now_ns)

    rig.bus._serve = listen
    made.connect()
    made.close()
    assert written == [registers.GOAL_POSITION.address] + [registers.TORQUE_ENABLE.address] * 6


def put(rig, servo_id, which, value):
    with rig.lock:
        rig.servos[servo_id - 1].write(which.address, which.encode(value))


def test_connecting_again_keeps_the_goals_so_that_the_arm_does_not_sag(rig):
    """Each connection made the drooping position the goal, and the arm sank by the droop each time."""
    made = arm(rig)
    made.connect()
    made.close()
    rig.blocked.update((2, 3, 4, 6))  # they stay at 2048, below the goals that they have
    put(rig, 2, registers.GOAL_POSITION, 2048 + 60)
    put(rig, 3, registers.GOAL_POSITION, 2048 + 600)
    put(rig, 4, registers.TORQUE_ENABLE, 0)
    put(rig, 4, registers.GOAL_POSITION, 2048 + 60)
    put(rig, 6, registers.GOAL_POSITION, 2048 - 600)
    standing = made.connect()
    assert standing.setpoint[1] == pytest.approx(60 * registers.RAD_PER_TICK)
    assert standing.setpoint[2] == standing.measured.positions[2], "too far off to be a droop"
    assert standing.setpoint[3] == standing.measured.positions[3], "limp"
    assert standing.limp == (3,)
    assert register(rig, 2, registers.GOAL_POSITION) == 2048 + 60
    assert register(rig, 3, registers.GOAL_POSITION) == 2048
    assert register(rig, 6, registers.GOAL_POSITION) == 2048 - 600, "a grip is not let go"
    made.close()


@pytest.mark.parametrize(("tick", "allowed"), [(3096 + 15, True), (3096 + 60, False), (1000 - 60, False)])
def test_a_limp_joint_outside_its_range_gets_no_torque(rig, tick, allowed):
    """The first goal was cut to the range, so that switching torque on snapped the joint there."""
    with rig.lock:
        rig.servos[2].jump(tick)
    made = arm(rig)
    if allowed:
        made.connect()
    else:
        with pytest.raises(OutsideRangeError, match=r"elbow_flex \(id 3\) by 60 ticks.*Move it by hand"):
            made.connect()
    assert {register(rig, i, registers.TORQUE_ENABLE) for i in range(1, 7)} == {int(allowed)}
    made.close()


def test_a_joint_that_holds_a_little_outside_its_range_is_no_reason_to_stay_away(rig):
    made = arm(rig)
    made.connect()
    made.close()
    rig.blocked.add(3)
    with rig.lock:
        rig.servos[2].sense(3096 + 40, 0.0, 0.3)
    assert made.connect().limp == ()
    made.close()


def test_limp_servos_are_set_up_and_held_where_they_stand(rig):
    """Resume did not look at the servos: one that had lost its torque stayed limp."""
    made = arm(rig)
    made.connect()
    assert made.inspect().limp == ()
    with rig.lock:
        rig.servos[1].power_cycle()
        rig.servos[1].jump(2300)
    standing = made.inspect()
    assert standing.limp == (1,)
    assert register(rig, 2, registers.TORQUE_ENABLE) == 0
    made.revive(standing)
    assert register(rig, 2, registers.TORQUE_ENABLE) == 1
    assert register(rig, 2, registers.GOAL_POSITION) == 2300
    assert register(rig, 2, registers.ACCELERATION) == 254, "the power cycle had reset it"
    made.close()
    with pytest.raises(BusError, match="not connected"):
        made.inspect()
    with pytest.raises(BusError, match="not connected"):
        made.revive(standing)


def test_alarms_can_be_asked_for_while_the_connection_goes(rig):
    """It read its bus three times; when the control thread let go between two of them, the executor's thread died."""

    class Vanishing(Arm):
        asked = 0

        def __getattribute__(self, name):
            if name == "_bus":
                Vanishing.asked += 1
                if Vanishing.asked > 1:
                    return None
            return super().__getattribute__(name)

    made = arm(rig)
    made.connect()
    made._bus.alarms[3] = 0x04
    made.__class__ = Vanishing
    assert made.alarms == {"elbow_flex": ("too hot",)}
    made.__class__ = Arm
    made.close()


def test_a_wrong_file_is_refused_with_the_cure_and_touches_nothing(rig):
    with ServoBus(rig.link) as bus:
        bus.write(3, registers.LOCK, 0)
        bus.write(3, registers.HOMING_OFFSET, -12)
        bus.write(3, registers.LOCK, 1)
    made = arm(rig)
    with pytest.raises(
        ServoMismatchError, match=r"elbow_flex homing offset: servo -12, file 0.*write_calibration: true"
    ):
        made.connect()
    assert register(rig, 1, registers.TORQUE_ENABLE) == 0
    assert register(rig, 1, registers.P_GAIN) != 16

    made = arm(rig, write_calibration=True)
    made.connect()
    assert register(rig, 3, registers.HOMING_OFFSET) == 0
    assert register(rig, 3, registers.LOCK) == 1
    made.close()
    arm(rig).connect()


def test_a_servo_that_does_not_answer_is_named(rig):
    rig.bus.silence(4, on=True)
    with pytest.raises(NoReplyError, match=r"no answer from wrist_flex \(id 4\)") as caught:
        arm(rig).connect()
    assert caught.value.ids == (4,)


def test_no_servo_at_all_points_at_the_power_supply(rig):
    for servo_id in range(1, 7):
        rig.bus.silence(servo_id, on=True)
    with pytest.raises(NoReplyError, match="no servo answers at 1000000 baud; is the servo power supply on"):
        arm(rig).connect()


def test_another_model_is_refused(rig):
    with rig.lock:
        rig.servos[0]._memory[3:5] = (2825).to_bytes(2, "little")
    with pytest.raises(ServoMismatchError, match=r"shoulder_pan \(id 1\) is a servo of model 2825"):
        arm(rig).connect()


def test_after_a_refusal_the_port_is_free_again(rig):
    rig.bus.silence(4, on=True)
    made = arm(rig)
    with pytest.raises(NoReplyError):
        made.connect()
    rig.bus.silence(4, on=False)
    made.connect()
    made.close()


def test_coarse_velocities_are_told_by_the_phase_register(rig):
    with ServoBus(rig.link) as bus:
        bus.write(1, registers.LOCK, 0)
        bus.write(1, registers.PHASE, registers.PHASE_MULTI_TURN_BIT)
    made = arm(rig)
    made.connect()
    assert made._speed_units == (50, 1, 1, 1, 1, 1)
    assert register(rig, 1, registers.PHASE) == 0, "positions must stay within one turn"
    made.close()


def test_alarms_are_named(rig):
    made = arm(rig)
    made.connect()
    with rig.lock:
        rig.servos[2].forced_temperature_c = 90.0
        rig.servos[2].sense(2048.0, 0.0, 0.0)
    assert made.read().alarms == made.alarms
    assert made.alarms == {"elbow_flex": ("too hot",)}
    made._bus.alarms.update({6: 0x20, 5: 0x21})
    assert made.alarms["wrist_roll"] == ("supply voltage out of range", "overloaded")
    assert "gripper" not in made.alarms, "it holds something"
    made.close()
    assert made.alarms == {}


def test_an_arm_that_is_not_connected_says_so(rig):
    made = arm(rig)
    with pytest.raises(BusError, match="not connected"):
        made.read()
    with pytest.raises(BusError, match="not connected"):
        made.write((0.0,) * 6)


def test_setup_is_checked(rig):
    with pytest.raises(ConfigError, match="parameter port is empty"):
        setup(rig, port="")
    with pytest.raises(ConfigError, match="torque share of gripper"):
        setup(rig, torque_share={"gripper": 0.0})
    assert replace(setup(rig), torque_share={}).torque_share == {}

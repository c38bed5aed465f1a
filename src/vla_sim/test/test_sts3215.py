"""The servo's registers, and what they make it do."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_sim.sts3215 import (
    CENTRE_TICK,
    EEPROM_BYTES,
    MEMORY_BYTES,
    REGISTERS,
    Address,
    Mode,
    Status,
    Sts3215,
    decode_signed,
    encode_signed,
)

DT_S = 0.004


def word(servo: Sts3215, address: int) -> int:
    return int.from_bytes(servo.read(address, 2), "little")


def write_word(servo: Sts3215, address: int, value: int) -> None:
    servo.write(address, value.to_bytes(2, "little"))


def servo_at(raw: float = 2048.0, *, torque: bool = True) -> Sts3215:
    servo = Sts3215(1)
    servo.jump(raw)
    servo.write(Address.TORQUE_ENABLE, bytes([torque]))
    return servo


def follow(servo: Sts3215, ticks: int) -> list[float]:
    """Let a joint that obeys at once follow; where it was after each tick."""
    path = []
    raw = servo.present_raw
    for _ in range(ticks):
        target = servo.advance(DT_S)
        servo.sense(target, (target - raw) / DT_S, 0.0)
        raw = target
        path.append(raw)
    return path


@given(st.integers(-(2**15) + 1, 2**15 - 1))
def test_sign_magnitude_round_trips(value: int) -> None:
    assert decode_signed(encode_signed(value, 15), 15) == value


@pytest.mark.parametrize(
    ("value", "bit", "encoded"), [(-1, 11, 0x801), (5, 11, 5), (-5000, 11, 0xFFF), (1500, 10, 1023)]
)
def test_sign_magnitude_saturates(value: int, bit: int, encoded: int) -> None:
    assert encode_signed(value, bit) == encoded


def test_registers_do_not_overlap_and_fit() -> None:
    used: set[int] = set()
    for register in REGISTERS:
        span = set(range(register.address, register.address + register.size))
        assert not span & used, register
        assert max(span) < MEMORY_BYTES
        used |= span


def test_the_table_is_lerobots() -> None:
    spec = importlib.util.find_spec("lerobot")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("lerobot is not installed")
    tables = runpy.run_path(str(Path(spec.submodule_search_locations[0]) / "motors" / "feetech" / "tables.py"))
    ours = {register.address: register for register in REGISTERS}
    for name, (address, size) in tables["STS_SMS_SERIES_CONTROL_TABLE"].items():
        assert ours[address].size == size, name
    by_name = {register.name: register for register in REGISTERS}
    for name, bit in tables["STS_SMS_SERIES_ENCODINGS_TABLE"].items():
        if name in by_name:
            assert by_name[name].sign_bit == bit, name


def test_factory_values() -> None:
    servo = Sts3215(4, min_position=800, max_position=3300)
    assert word(servo, Address.MODEL_NUMBER) == 777
    assert servo.read(0, 2) == bytes((3, 10))
    assert servo.read(Address.ID, 1) == b"\x04"
    assert (word(servo, Address.MIN_POSITION), word(servo, Address.MAX_POSITION)) == (800, 3300)
    assert servo.read(Address.LOCK, 1) == b"\x01"
    assert not servo.torque_on
    assert word(servo, Address.PRESENT_POSITION) == word(servo, Address.GOAL_POSITION) == CENTRE_TICK


def test_reading_past_the_end_gives_zeros() -> None:
    assert Sts3215(1).read(MEMORY_BYTES - 1, 4) == b"\x01\0\0\0"


def test_read_only_registers_ignore_writes() -> None:
    servo = Sts3215(1)
    servo.write(Address.MODEL_NUMBER, b"\x01\x01")
    servo.write(Address.PRESENT_POSITION, b"\x01\x01")
    servo.write(MEMORY_BYTES - 1, b"\x05\x06\x07")
    assert word(servo, Address.MODEL_NUMBER) == 777
    assert word(servo, Address.PRESENT_POSITION) == CENTRE_TICK


def test_eeprom_keeps_only_what_was_written_unlocked() -> None:
    servo = Sts3215(1)
    write_word(servo, Address.MIN_POSITION, 100)  # locked, as after every power-up
    assert word(servo, Address.MIN_POSITION) == 100
    servo.power_cycle()
    assert word(servo, Address.MIN_POSITION) == 0
    servo.write(Address.LOCK, b"\0")
    write_word(servo, Address.MIN_POSITION, 200)
    servo.power_cycle()
    assert word(servo, Address.MIN_POSITION) == 200
    assert servo.read(Address.LOCK, 1) == b"\x01"


def test_a_power_cycle_makes_it_limp_where_it_is() -> None:
    servo = servo_at(1500.0)
    servo.write(Address.LOCK, b"\0")
    write_word(servo, Address.MAX_TORQUE, 500)
    write_word(servo, Address.GOAL_POSITION, 3000)
    servo.power_cycle()
    assert not servo.torque_on
    assert word(servo, Address.GOAL_POSITION) == 1500
    assert word(servo, Address.TORQUE_LIMIT) == 500


def test_restore_keeps_the_id() -> None:
    servo = Sts3215(9, min_position=500)
    servo.write(Address.LOCK, b"\0")
    servo.write(Address.ID, b"\x0c")
    write_word(servo, Address.MIN_POSITION, 900)
    servo.restore()
    assert servo.servo_id == 12
    assert word(servo, Address.MIN_POSITION) == 500
    write_word(servo, Address.MIN_POSITION, 700)
    servo.back_up()
    write_word(servo, Address.MIN_POSITION, 900)
    servo.restore()
    assert word(servo, Address.MIN_POSITION) == 700


@pytest.mark.parametrize(("offset", "reported"), [(0, 1500), (100, 1400), (-100, 1600), (1600, 3996), (-2047, 3547)])
def test_homing_offset_moves_what_is_reported(offset: int, reported: int) -> None:
    servo = servo_at(1500.0, torque=False)
    write_word(servo, Address.HOMING_OFFSET, encode_signed(offset, 11))
    assert word(servo, Address.PRESENT_POSITION) == reported


@given(raw=st.integers(200, 3900), offset=st.integers(-2047, 2047), change=st.integers(-150, 150))
def test_a_goal_means_the_same_place_as_the_report(raw: int, offset: int, change: int) -> None:
    """Whatever the offset: asking for the reported position plus some ticks turns the joint by so many."""
    servo = servo_at(float(raw))
    write_word(servo, Address.HOMING_OFFSET, encode_signed(offset, 11))
    reported = word(servo, Address.PRESENT_POSITION)
    goal = min(max(reported + change, 0), 4095)
    write_word(servo, Address.GOAL_POSITION, goal)
    assert servo.advance(DT_S) == pytest.approx(raw + goal - reported)


def test_it_never_turns_across_the_seam() -> None:
    """Position 4000 to 100 is 3900 ticks down, not 196 up, as on the real servo."""
    servo = servo_at(1000.0)
    write_word(servo, Address.HOMING_OFFSET, encode_signed(1096, 11))
    assert word(servo, Address.PRESENT_POSITION) == 4000
    write_word(servo, Address.GOAL_POSITION, 100)
    assert servo.advance(DT_S) == pytest.approx(1000.0 - 3900.0)


def test_128_makes_the_present_position_the_middle_for_good() -> None:
    servo = servo_at(1300.0, torque=False)
    servo.write(Address.TORQUE_ENABLE, b"\x80")
    assert word(servo, Address.PRESENT_POSITION) == CENTRE_TICK
    assert decode_signed(word(servo, Address.HOMING_OFFSET), 11) == 1300 - CENTRE_TICK
    assert not servo.torque_on
    servo.power_cycle()
    assert word(servo, Address.PRESENT_POSITION) == CENTRE_TICK


def test_goals_are_clipped_to_the_limits() -> None:
    servo = servo_at()
    servo.write(Address.MIN_POSITION, (1000).to_bytes(2, "little") + (3000).to_bytes(2, "little"))
    write_word(servo, Address.GOAL_POSITION, 3500)
    assert servo.advance(DT_S) == 3000.0
    write_word(servo, Address.GOAL_POSITION, 10)
    assert servo.advance(DT_S) == 1000.0
    assert word(servo, Address.GOAL_POSITION) == 10


def test_a_limp_servo_ignores_goals_and_torque_drives_to_the_goal() -> None:
    servo = servo_at(torque=False)
    write_word(servo, Address.GOAL_POSITION, 2500)
    assert servo.advance(DT_S) == 2048.0
    servo.write(Address.TORQUE_ENABLE, b"\x01")
    assert servo.advance(DT_S) == 2500.0


def test_letting_go_holds_where_it_was_let_go() -> None:
    servo = servo_at()
    servo.sense(2200.0, 0.0, 0.0)
    servo.write(Address.TORQUE_ENABLE, b"\0")
    assert servo.advance(DT_S) == 2200.0


def test_without_speed_and_acceleration_it_goes_straight_to_the_goal() -> None:
    servo = servo_at()
    write_word(servo, Address.GOAL_POSITION, 3000)
    assert servo.advance(DT_S) == 3000.0


def test_speed_zero_means_stop_where_the_phase_says_so() -> None:
    servo = servo_at()
    servo.write(Address.PHASE, b"\x04")
    write_word(servo, Address.GOAL_POSITION, 3000)
    assert follow(servo, 10)[-1] == pytest.approx(2048.0)


def test_goal_speed_is_respected() -> None:
    servo = servo_at()
    write_word(servo, Address.GOAL_SPEED, 500)
    write_word(servo, Address.GOAL_POSITION, 2548)
    path = follow(servo, 500)
    steps = [b - a for a, b in zip([2048.0, *path], path, strict=False)]
    assert max(steps) <= 500 * DT_S + 1e-9
    assert path[248] < 2548.0 <= path[251] + 1e-6
    assert path[-1] == pytest.approx(2548.0)


def test_acceleration_is_respected_without_overshoot() -> None:
    servo = servo_at()
    servo.write(Address.ACCELERATION, bytes([50]))  # 5000 ticks/s^2
    write_word(servo, Address.GOAL_SPEED, 2000)
    write_word(servo, Address.GOAL_POSITION, 3548)
    path = follow(servo, 600)
    speeds = [(b - a) / DT_S for a, b in zip([2048.0, *path], path, strict=False)]
    changes = [abs(b - a) for a, b in zip([0.0, *speeds], speeds, strict=False)]
    assert max(speeds) == pytest.approx(2000.0)
    assert max(changes) <= 5000 * DT_S * 1.02
    assert max(path) <= 3548.0 + 0.5
    assert path[-1] == pytest.approx(3548.0, abs=0.01)
    assert not servo.read(Address.MOVING, 1)[0]


@pytest.mark.parametrize(("phase", "unit"), [(0x0C, 1.0), (0x08, 50.0)])
def test_speed_mode(phase: int, unit: float) -> None:
    servo = servo_at()
    servo.write(Address.PHASE, bytes([phase]))
    servo.write(Address.OPERATING_MODE, bytes([Mode.SPEED]))
    write_word(servo, Address.GOAL_SPEED, encode_signed(-20, 15))
    assert follow(servo, 250)[-1] == pytest.approx(2048.0 - 20.0 * unit, rel=1e-6)


def test_speed_mode_waits_for_a_blocked_joint() -> None:
    servo = servo_at()
    servo.write(Address.OPERATING_MODE, bytes([Mode.SPEED]))
    write_word(servo, Address.GOAL_SPEED, 1000)
    for _ in range(1000):
        target = servo.advance(DT_S)
    assert target == pytest.approx(2048.0 + 256.0)


def test_pwm_mode_turns_with_the_duty() -> None:
    servo = servo_at()
    servo.write(Address.OPERATING_MODE, bytes([Mode.PWM]))
    write_word(servo, Address.GOAL_TIME, encode_signed(-100, 10))
    assert follow(servo, 100)[-1] < 2048.0 - 100.0


def test_step_mode_counts_from_the_present_position() -> None:
    servo = servo_at()
    servo.write(Address.OPERATING_MODE, bytes([Mode.STEP]))
    write_word(servo, Address.GOAL_POSITION, encode_signed(-30, 15))
    assert follow(servo, 5)[-1] == pytest.approx(2018.0)
    write_word(servo, Address.GOAL_POSITION, 100)
    assert follow(servo, 5)[-1] == pytest.approx(2118.0)


def test_feedback_registers() -> None:
    servo = servo_at()
    servo.sense(2000.4, -123.4, -0.25)
    assert word(servo, Address.PRESENT_POSITION) == 2000
    assert decode_signed(word(servo, Address.PRESENT_SPEED), 15) == -123
    assert decode_signed(word(servo, Address.PRESENT_LOAD), 10) == -250
    assert servo.read(Address.PRESENT_VOLTAGE, 2) == bytes((73, 30))  # sags a little under load
    assert servo.read(Address.MOVING, 1) == b"\x01"
    assert word(servo, Address.PRESENT_CURRENT) == round(0.25 * 2.7 / 0.0065)
    assert servo.read(Address.PRESENT_POSITION, 15)[9] == servo.status == 0


def test_overload_shows_after_the_protection_time_and_ends_with_the_load() -> None:
    servo = servo_at()
    servo.write(Address.PROTECTION_TIME, bytes([10]))  # 100 ms
    servo.sense(2048.0, 0.0, 0.9)
    for _ in range(24):
        servo.advance(DT_S)
    assert servo.status == 0
    servo.advance(DT_S)
    servo.advance(DT_S)
    assert servo.status == Status.OVERLOAD
    servo.sense(2048.0, 0.0, 0.1)
    servo.advance(DT_S)
    assert servo.status == 0


def test_a_hot_servo_says_so_and_goes_limp() -> None:
    servo = servo_at()
    servo.forced_temperature_c = 85.0
    servo.sense(2048.0, 0.0, 0.0)
    servo.advance(DT_S)
    assert not servo.torque_on
    assert servo.status == Status.TEMPERATURE
    assert servo.read(Address.PRESENT_TEMPERATURE, 1) == b"\x55"


def test_low_voltage_shows_but_does_not_cut_torque() -> None:
    servo = servo_at()
    servo.forced_voltage_v = 3.5
    servo.sense(2048.0, 0.0, 0.0)
    servo.advance(DT_S)
    assert servo.torque_on
    assert servo.status == Status.VOLTAGE


def test_load_warms_the_motor_slowly() -> None:
    servo = servo_at()
    servo.sense(2048.0, 0.0, 1.0)
    for _ in range(60):
        servo.advance(1.0)
    assert 36.0 < servo.temperature_c < 42.0


def test_eeprom_ends_where_the_manual_says() -> None:
    assert {register.name for register in REGISTERS if register.in_eeprom and register.address >= 38} == {
        "Over_Current_Protection_Time",
        "Velocity_closed_loop_I_integral_coefficient",
    }
    assert EEPROM_BYTES == Address.TORQUE_ENABLE

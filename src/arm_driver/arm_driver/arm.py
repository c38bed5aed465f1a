"""The arm as the control loop sees it: connect, read, write, let go. Angles here, ticks below.

Connecting never moves the arm and never switches torque off: registers are compared first and only written where
they differ, servos that hold keep their goal, limp ones get their present position as goal, and torque goes on last.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arm_driver import calibration as calibrations
from arm_driver.calibration import Calibration
from arm_driver.control import Measured
from arm_driver.errors import BusError, NoReplyError, OutsideRangeError, ServoMismatchError
from arm_driver.feetech import registers
from arm_driver.feetech.bus import Counters, GroupRead, GroupWrite, ServoBus
from arm_driver.feetech.protocol import ServoError, error_names
from arm_driver.feetech.registers import Register, from_sign_magnitude
from vla_core.errors import ConfigError

TORQUE_OFF, TORQUE_ON = 0, 1
UNLOCKED, LOCKED = 0, 1
FULL_TORQUE = 1000
"""Thousandths."""
OUTSIDE_TICKS = 20
"""A limp joint may stand this far outside its calibrated range (1.8 degrees: an end stop gives way a little) and is
drawn back when torque goes on; further out it would snap."""


@dataclass(frozen=True, slots=True)
class ServoSetup:
    """Where the servos are and how they shall be set.

    Attributes:
        port: device path or pyserial address.
        baud: bits a second.
        reply_timeout_s: beyond the time on the wire.
        p_gain, i_gain, d_gain: of the servos' position loop.
        acceleration: of the servos, 100 steps/s^2, 0..254; 254 leaves the shaping to the driver.
        torque_share: joint name to the share (0..1] of full torque that it may use; others use all.
        write_calibration: write the file's ranges and offsets to the servos instead of refusing when they differ;
            torque is off meanwhile.
        keep_goal_rad: a servo that holds keeps its goal on connecting if it stands no further from it than this.
    """

    port: str
    baud: int
    reply_timeout_s: float
    p_gain: int
    i_gain: int
    d_gain: int
    acceleration: int
    torque_share: Mapping[str, float]
    write_calibration: bool
    keep_goal_rad: float

    def __post_init__(self) -> None:
        if not self.port:
            raise ConfigError(
                "parameter port is empty; set it to the servo adapter's device"
                " (`python -m arm_driver.ports` lists the ports of this machine)"
            )
        for name, share in self.torque_share.items():
            if not 0.0 < share <= 1.0:
                raise ConfigError(f"torque share of {name} must be above 0 and at most 1, not {share}")


@dataclass(frozen=True, slots=True)
class Standing:
    """An arm that holds: where it is, and what its servos were told.

    Attributes:
        measured: the reading just before.
        setpoint: goals of the servos, rad, `(dof,)`; above the measured position by what the arm droops.
        limp: indices of the joints whose torque was off; their goal is the measured position.
    """

    measured: Measured
    setpoint: tuple[float, ...]
    limp: tuple[int, ...]


class Arm:
    """One arm on one bus; used by one thread. Every method raises BusError when the bus fails.

    Attributes:
        counters: of the bus, over all connections.
        alarms: joint name to what its servo complains about, from the latest reading.
    """

    def __init__(self, setup: ServoSetup, calibration: Calibration) -> None:
        self.calibration = calibration
        self.counters = Counters()
        self._setup = setup
        self._bus: ServoBus | None = None
        self._state: GroupRead | None = None
        self._goal: GroupWrite | None = None
        self._speed_units: tuple[int, ...] = ()

    @property
    def alarms(self) -> Mapping[str, tuple[str, ...]]:
        """Empty while all is well or nothing is connected.

        A joint with a torque share reports an overload whenever it holds on to something: that is no alarm.
        """
        bus = self._bus  # read once: the diagnostics ask in another thread than the one that connects and closes
        if bus is None or not bus.alarms:
            return {}
        names = dict(zip(self.calibration.ids, self.calibration.names, strict=True))
        found: dict[str, tuple[str, ...]] = {}
        for servo_id, bits in dict(bus.alarms).items():
            expected = ServoError.OVERLOAD if names[servo_id] in self._setup.torque_share else 0
            if alarming := bits & ~expected:
                found[names[servo_id]] = error_names(alarming)
        return found

    def connect(self) -> Standing:
        """Open the port, check and set up the servos, and switch torque on where the arm stands.

        Raises:
            BusError: the port or a servo cannot be reached; trying again may help.
            ServoMismatchError: the servos are not those of the calibration file, or a limp joint stands outside its
                range; trying again will not help.
        """
        setup, ids = self._setup, self.calibration.ids
        bus = ServoBus(setup.port, setup.baud, setup.reply_timeout_s)
        bus.counters = self.counters
        try:
            self._check_models(bus)
            self._check_calibration(bus)
            self._speed_units = tuple([self._configure(bus, servo_id) for servo_id in ids])
            self._state = bus.prepare_read(registers.STATE_ADDRESS, registers.STATE_LAYOUT, ids)
            self._goal = bus.prepare_write(registers.GOAL_POSITION.address, "H", ids)
            self._bus = bus
            standing = self._look(bus)
            self.write(standing.setpoint)
            self._switch_torque(bus, TORQUE_ON)
        except BaseException:
            self._bus = self._state = self._goal = None
            bus.close()
            raise
        return standing

    def inspect(self) -> Standing:
        """See how the arm stands, and set limp servos up again, without their torque.

        Raises:
            BusError: the bus fails.
            OutsideRangeError: a limp joint stands outside its calibrated range.
        """
        bus = self._bus
        if bus is None:
            raise BusError("the arm is not connected")
        standing = self._look(bus)
        if not standing.limp:
            return standing
        for index in standing.limp:
            self._configure(bus, self.calibration.ids[index])  # without its supply it has forgotten some of it
        return self._look(bus)  # it may have sunk meanwhile

    def revive(self, standing: Standing) -> None:
        """Switch the torque of limp servos on where `inspect` found them. Raises BusError."""
        bus = self._bus
        if bus is None:
            raise BusError("the arm is not connected")
        goals = self.calibration.to_ticks(standing.setpoint)
        for index in standing.limp:
            servo_id = self.calibration.ids[index]
            bus.write(servo_id, registers.GOAL_POSITION, goals[index])
            bus.write(servo_id, registers.TORQUE_ENABLE, TORQUE_ON)

    def release(self) -> None:
        """Switch all torque off; the arm sinks unless somebody holds it. Raises BusError."""
        if self._bus is None:
            raise BusError("the arm is not connected")
        self._switch_torque(self._bus, TORQUE_OFF)

    def read(self) -> Measured:
        """Position, velocity, load, voltage and temperature of every joint, in one exchange."""
        if self._state is None:
            raise BusError("the arm is not connected")
        raw = self._state.read()
        stamp_ns = time.time_ns()
        calibration = self.calibration
        return Measured(
            stamp_ns,
            calibration.to_rad([from_sign_magnitude(value, 15) for value in raw[0::5]]),
            calibration.velocity_rad_s(
                [
                    from_sign_magnitude(value, 15) * unit
                    for value, unit in zip(raw[1::5], self._speed_units, strict=True)
                ]
            ),
            calibration.direction([from_sign_magnitude(value, 10) * registers.LOAD_PER_UNIT for value in raw[2::5]]),
            tuple([value * registers.VOLT_PER_UNIT for value in raw[3::5]]),
            tuple(map(float, raw[4::5])),
            self.alarms,
        )

    def write(self, setpoint_rad: Sequence[float]) -> None:
        """Send the goals of all servos; nobody confirms."""
        if self._goal is None:
            raise BusError("the arm is not connected")
        self._goal.write(self.calibration.to_ticks(setpoint_rad))

    def close(self, *, torque_off: bool = False) -> None:
        """Let the last packet out and close the port; the servos keep holding unless `torque_off`."""
        bus, self._bus, self._state, self._goal = self._bus, None, None, None
        if bus is None:
            return
        try:
            if torque_off:
                self._switch_torque(bus, TORQUE_OFF)
        finally:
            bus.close()

    def _look(self, bus: ServoBus) -> Standing:
        """Read where the joints stand, which of them are limp, and the goal that each shall have."""
        calibration, setup = self.calibration, self._setup
        first, last = registers.TORQUE_ENABLE, registers.GOAL_POSITION
        blocks = bus.sync_read(first.address, last.address + last.size - first.address, calibration.ids)
        limp = tuple([index for index, block in enumerate(blocks) if block[0] != TORQUE_ON])
        goals = calibration.to_rad([last.decode(block[-last.size :]) for block in blocks])
        measured = self.read()
        self._check_reach(measured, limp)
        setpoint = []
        for index, (name, goal, actual) in enumerate(zip(calibration.names, goals, measured.positions, strict=True)):
            # What is spared squeezes: its goal lies inside of what it holds, and would be let go otherwise.
            near = abs(goal - actual) <= setup.keep_goal_rad or name in setup.torque_share
            setpoint.append(goal if near and index not in limp else actual)
        return Standing(measured, tuple(setpoint), limp)

    def _check_reach(self, measured: Measured, limp: Sequence[int]) -> None:
        """Goals are cut to the range, so a joint outside it would leap there. One that holds already cannot."""
        calibration = self.calibration
        outside = calibration.ticks_outside(measured.positions)
        if found := [index for index in limp if outside[index] > OUTSIDE_TICKS]:
            details = ", ".join(
                f"{calibration.names[index]} (id {calibration.ids[index]}) by {outside[index]} ticks" for index in found
            )
            raise OutsideRangeError(
                f"port {self._setup.port}: outside the calibrated range: {details}, allowed are {OUTSIDE_TICKS};"
                " torque stays off, since the joint would snap back. Move it by hand into its range, or recalibrate"
            )

    def _check_models(self, bus: ServoBus) -> None:
        joints = self.calibration.joints
        absent = {name: servo.id for name, servo in joints.items() if not (bus.ping(servo.id) or bus.ping(servo.id))}
        if len(absent) == len(joints):
            raise NoReplyError(
                f"port {bus.url}: no servo answers at {self._setup.baud} baud; is the servo power supply on?",
                tuple(absent.values()),
            )
        if absent:
            names = ", ".join(f"{name} (id {servo_id})" for name, servo_id in absent.items())
            raise NoReplyError(f"port {bus.url}: no answer from {names}; check the cable", tuple(absent.values()))
        for name, servo in joints.items():
            model = bus.read(servo.id, registers.MODEL_NUMBER)
            if model != registers.MODEL_NUMBER_STS3215:
                raise ServoMismatchError(
                    f"port {bus.url}: {name} (id {servo.id}) is a servo of model {model}; the driver knows the STS3215"
                    f" ({registers.MODEL_NUMBER_STS3215}) only"
                )

    def _check_calibration(self, bus: ServoBus) -> None:
        read = {
            name: (
                bus.read(servo.id, registers.MIN_POSITION),
                bus.read(servo.id, registers.MAX_POSITION),
                bus.read(servo.id, registers.HOMING_OFFSET),
            )
            for name, servo in self.calibration.joints.items()
        }
        found = calibrations.differences(self.calibration, read)
        if not found:
            return
        if not self._setup.write_calibration:
            raise ServoMismatchError(f"port {bus.url}: {calibrations.mismatch_message(found)}")
        # A new offset under torque would swing the joint by as much.
        self._switch_torque(bus, TORQUE_OFF)
        for servo in self.calibration.joints.values():
            wanted = {
                registers.HOMING_OFFSET: servo.homing_offset,
                registers.MIN_POSITION: servo.range_min,
                registers.MAX_POSITION: servo.range_max,
            }
            _write_registers(bus, servo.id, wanted)

    def _configure(self, bus: ServoBus, servo_id: int) -> int:
        """Bring one servo's registers to the setup; returns its unit of velocity, steps a second."""
        setup = self._setup
        name = self.calibration.names[self.calibration.ids.index(servo_id)]
        phase = bus.read(servo_id, registers.PHASE)
        wanted = {
            registers.RETURN_DELAY: 0,
            registers.PHASE: phase & ~registers.PHASE_MULTI_TURN_BIT,
            registers.OPERATING_MODE: registers.MODE_POSITION,
            registers.P_GAIN: setup.p_gain,
            registers.I_GAIN: setup.i_gain,
            registers.D_GAIN: setup.d_gain,
            registers.MAX_ACCELERATION: setup.acceleration,
            registers.ACCELERATION: setup.acceleration,
        }
        if name in setup.torque_share:
            wanted |= _spared(setup.torque_share[name])
        _write_registers(bus, servo_id, wanted)
        return 1 if phase & registers.PHASE_FINE_SPEED_BIT else registers.COARSE_SPEED_TICKS_S

    def _switch_torque(self, bus: ServoBus, value: int) -> None:
        for servo_id in self.calibration.ids:
            bus.write(servo_id, registers.TORQUE_ENABLE, value)


def _spared(share: float) -> dict[Register, int]:
    """LeRobot's protection of a gripper that may close on something: at a share of 0.5 these are its values."""
    return {
        registers.MAX_TORQUE: round(FULL_TORQUE * share),
        registers.TORQUE_LIMIT: round(FULL_TORQUE * share),
        registers.PROTECTION_CURRENT: round(500 * share),
        registers.OVERLOAD_TORQUE: round(50 * share),
    }


def _write_registers(bus: ServoBus, servo_id: int, wanted: Mapping[Register, int]) -> None:
    """Write what differs; EPROM registers so that they outlive a power cycle, the lock closed again in any case."""
    different = {register: value for register, value in wanted.items() if bus.read(servo_id, register) != value}
    if any(register.eprom for register in different):
        bus.write(servo_id, registers.LOCK, UNLOCKED)
    try:
        for register, value in different.items():
            bus.write(servo_id, register, value)
    finally:
        if bus.read(servo_id, registers.LOCK) != LOCKED:
            bus.write(servo_id, registers.LOCK, LOCKED)

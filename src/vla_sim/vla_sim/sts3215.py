"""One Feetech STS3215: its register table and what the registers do. No clock, no I/O, no physics engine.

Register map, initial values and units: Feetech's "STS servo memory table" (doc.feetech.cn,
FT-SMS-STS-emanual), the table that LeRobot's `lerobot.motors.feetech.tables` cites. Values are
little-endian; signed ones are sign-magnitude, with the sign bit named in `REGISTERS`.

Words used here, all in encoder ticks (4096 to a turn):
  raw       the magnetic encoder, without wrap; it knows nothing of the homing offset
  reported  what `Present_Position` says and `Goal_Position` means: raw - Homing_Offset, within one turn

Where the manual is silent, the servo does what its registers say and no more: switching torque on drives to
whatever `Goal_Position` holds, so a driver has to write the goal first.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

TICKS_PER_TURN: Final = 4096
CENTRE_TICK: Final = 2048
MEMORY_BYTES: Final = 87
EEPROM_BYTES: Final = 40
"""Addresses below this are kept over a power cycle (when the lock is open)."""

NOMINAL_VOLTAGE_V: Final = 7.4
AMBIENT_TEMPERATURE_C: Final = 30.0
REBOOT_NS: Final = 800_000_000
"""A servo is deaf for about 0.8 s after instruction 0x08 (FT-SCS protocol manual)."""

_SUPPLY_SAG_V: Final = 0.35  # at stall, over a metre of daisy-chained cable
_STALL_CURRENT_A: Final = 2.7  # STS3215-C001 data sheet, 7.4 V
_STALL_HEATING_C: Final = 35.0  # steady rise over ambient at stall: hot, but below the 70 degree limit
_THERMAL_TIME_S: Final = 240.0
_NO_LOAD_SPEED_TICKS_S: Final = 3100.0  # 45 rpm at 7.4 V
_MOVING_TICKS_S: Final = 20.0  # below this a position-held joint only trembles
_CURRENT_UNIT_A: Final = 0.0065
_ACCELERATION_UNIT_TICKS_S2: Final = 100.0
_COARSE_SPEED_UNIT_TICKS_S: Final = 50.0  # 0.732 rpm
_PHASE_FINE_SPEED: Final = 0x04
_PHASE_ZERO_SPEED_IS_MAX: Final = 0x08
_PHASE_MULTI_TURN: Final = 0x10
_MAX_OFFSET_TICKS: Final = 2047
_MAX_LEAD_TICKS: Final = 256.0  # in the modes without a goal; 22 degrees of spring are more than stall torque


class Address:
    """Addresses that this file acts on; the whole map is in `REGISTERS`. Plain numbers: they are looked up often."""

    MODEL_NUMBER = 3
    ID = 5
    BAUD_RATE = 6
    RETURN_DELAY = 7
    RESPONSE_LEVEL = 8
    MIN_POSITION = 9
    MAX_POSITION = 11
    MAX_TEMPERATURE = 13
    MAX_VOLTAGE = 14
    MIN_VOLTAGE = 15
    MAX_TORQUE = 16
    PHASE = 18
    UNLOADING_CONDITION = 19
    HOMING_OFFSET = 31
    OPERATING_MODE = 33
    PROTECTION_TIME = 35
    OVERLOAD_TORQUE = 36
    TORQUE_ENABLE = 40
    ACCELERATION = 41
    GOAL_POSITION = 42
    GOAL_TIME = 44
    GOAL_SPEED = 46
    TORQUE_LIMIT = 48
    LOCK = 55
    PRESENT_POSITION = 56
    PRESENT_SPEED = 58
    PRESENT_LOAD = 60
    PRESENT_VOLTAGE = 62
    PRESENT_TEMPERATURE = 63
    PENDING_WRITE = 64
    STATUS = 65
    MOVING = 66
    TARGET_POSITION = 67
    PRESENT_CURRENT = 69


class Mode(IntEnum):
    """Register 33."""

    POSITION = 0
    SPEED = 1
    PWM = 2
    STEP = 3


class Status:
    """Bits of register 65, and of the error byte of every reply."""

    VOLTAGE = 1
    SENSOR = 2
    TEMPERATURE = 4
    CURRENT = 8
    OVERLOAD = 32


@dataclass(frozen=True, slots=True)
class Register:
    """One entry of the memory table. `sign_bit`: the bit that holds the sign, None for an unsigned value."""

    name: str
    address: int
    size: int
    initial: int = 0
    writable: bool = True
    sign_bit: int | None = None

    @property
    def in_eeprom(self) -> bool:
        """Kept over a power cycle, if the lock was open when it was written."""
        return self.address < EEPROM_BYTES


REGISTERS: Final[tuple[Register, ...]] = (
    Register("Firmware_Major_Version", 0, 1, 3, writable=False),
    Register("Firmware_Minor_Version", 1, 1, 10, writable=False),
    Register("Endianness", 2, 1, 0, writable=False),
    Register("Model_Number", 3, 2, 777, writable=False),
    Register("ID", 5, 1, 1),
    Register("Baud_Rate", 6, 1, 0),
    Register("Return_Delay_Time", 7, 1, 250),
    Register("Response_Status_Level", 8, 1, 1),
    Register("Min_Position_Limit", 9, 2, 0),
    Register("Max_Position_Limit", 11, 2, 4095),
    Register("Max_Temperature_Limit", 13, 1, 70),
    Register("Max_Voltage_Limit", 14, 1, 80),
    Register("Min_Voltage_Limit", 15, 1, 40),
    Register("Max_Torque_Limit", 16, 2, 1000),
    Register("Phase", 18, 1, _PHASE_FINE_SPEED | _PHASE_ZERO_SPEED_IS_MAX),
    Register("Unloading_Condition", 19, 1, 44),
    Register("LED_Alarm_Condition", 20, 1, 47),
    Register("P_Coefficient", 21, 1, 32),
    Register("D_Coefficient", 22, 1, 32),
    Register("I_Coefficient", 23, 1, 0),
    Register("Minimum_Startup_Force", 24, 2, 16),
    Register("CW_Dead_Zone", 26, 1, 1),
    Register("CCW_Dead_Zone", 27, 1, 1),
    Register("Protection_Current", 28, 2, 500),
    Register("Angular_Resolution", 30, 1, 1),
    Register("Homing_Offset", 31, 2, 0, sign_bit=11),
    Register("Operating_Mode", 33, 1, 0),
    Register("Protective_Torque", 34, 1, 20),
    Register("Protection_Time", 35, 1, 200),
    Register("Overload_Torque", 36, 1, 80),
    Register("Velocity_closed_loop_P_proportional_coefficient", 37, 1, 10),
    Register("Over_Current_Protection_Time", 38, 1, 200),
    Register("Velocity_closed_loop_I_integral_coefficient", 39, 1, 10),
    Register("Torque_Enable", 40, 1, 0),
    Register("Acceleration", 41, 1, 0),
    Register("Goal_Position", 42, 2, 0, sign_bit=15),
    Register("Goal_Time", 44, 2, 0, sign_bit=10),
    Register("Goal_Velocity", 46, 2, 0, sign_bit=15),
    Register("Torque_Limit", 48, 2, 1000),
    Register("Lock", 55, 1, 1),
    Register("Present_Position", 56, 2, 0, writable=False, sign_bit=15),
    Register("Present_Velocity", 58, 2, 0, writable=False, sign_bit=15),
    Register("Present_Load", 60, 2, 0, writable=False, sign_bit=10),
    Register("Present_Voltage", 62, 1, 74, writable=False),
    Register("Present_Temperature", 63, 1, 30, writable=False),
    Register("Pending_Write", 64, 1, 0, writable=False),
    Register("Status", 65, 1, 0, writable=False),
    Register("Moving", 66, 1, 0, writable=False),
    Register("Target_Position", 67, 2, 0, writable=False, sign_bit=15),
    Register("Present_Current", 69, 2, 0, writable=False),
    Register("Goal_Position_2", 71, 2, 0, writable=False),
    Register("Moving_Velocity_Threshold", 80, 1, 1),
    Register("DTs", 81, 1, 1),
    Register("Velocity_Unit_factor", 82, 1, 1),
    Register("Hts", 83, 1, 0),
    Register("Maximum_Velocity_Limit", 84, 1, 66),
    Register("Maximum_Acceleration", 85, 1, 50),
    Register("Acceleration_Multiplier", 86, 1, 1),
)
"""The memory table. 67 holds the target on newer firmware; the rest is as LeRobot names it."""

BAUD_RATES: Final = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)
"""Meaning of register 6."""

_FEEDBACK = struct.Struct("<HHHBBBBBHH")  # 56..70, see Address
_FEEDBACK_START: Final = Address.PRESENT_POSITION
_FEEDBACK_STOP: Final = _FEEDBACK_START + _FEEDBACK.size


def _factory_memory() -> bytes:
    memory = bytearray(MEMORY_BYTES)
    for register in REGISTERS:
        initial = register.initial.to_bytes(register.size, "little")
        memory[register.address : register.address + register.size] = initial
    return bytes(memory)


def _writable_mask() -> bytes:
    mask = bytearray(MEMORY_BYTES)
    for register in REGISTERS:
        if register.writable:
            mask[register.address : register.address + register.size] = b"\x01" * register.size
    return bytes(mask)


_FACTORY_MEMORY: Final = _factory_memory()
_WRITABLE: Final = _writable_mask()


def _word(memory: bytes | bytearray, address: int) -> int:
    return memory[address] | memory[address + 1] << 8


def encode_signed(value: int, sign_bit: int) -> int:
    """Sign-magnitude; a magnitude that does not fit saturates."""
    sign = 1 << sign_bit
    if value < 0:
        return sign | (-value if -value < sign else sign - 1)
    return value if value < sign else sign - 1


def decode_signed(word: int, sign_bit: int) -> int:
    """Inverse of `encode_signed`; bits above the sign are ignored."""
    magnitude = word & ((1 << sign_bit) - 1)
    return -magnitude if word & (1 << sign_bit) else magnitude


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the written registers say, decoded once a write instead of at every tick and every reply."""

    offset: int
    multi_turn: bool
    low: int
    high: int
    mode: int
    speed_unit: float
    """Ticks/s for one unit of the speed registers."""
    goal_speed: float
    """Ticks/s; in position mode inf where the register says 0."""
    pwm: float
    """-1..1."""
    rate: float
    """Ticks/s^2; 0: no limit."""
    min_voltage: int
    max_voltage: int
    max_temperature: int
    unload_hot: bool
    overload: float
    """Share of stall torque."""
    overload_s: float

    @classmethod
    def decode(cls, memory: bytearray) -> _Settings:
        phase = memory[Address.PHASE]
        unit = 1.0 if phase & _PHASE_FINE_SPEED else _COARSE_SPEED_UNIT_TICKS_S
        speed = decode_signed(_word(memory, Address.GOAL_SPEED), 15) * unit
        mode = memory[Address.OPERATING_MODE]
        if mode != Mode.SPEED:
            speed = abs(speed)
            if speed == 0.0 and phase & _PHASE_ZERO_SPEED_IS_MAX:
                speed = math.inf
        return cls(
            offset=decode_signed(_word(memory, Address.HOMING_OFFSET), 11),
            multi_turn=bool(phase & _PHASE_MULTI_TURN),
            low=_word(memory, Address.MIN_POSITION),
            high=_word(memory, Address.MAX_POSITION),
            mode=mode,
            speed_unit=unit,
            goal_speed=speed,
            pwm=decode_signed(_word(memory, Address.GOAL_TIME), 10) / 1000.0,
            rate=memory[Address.ACCELERATION] * _ACCELERATION_UNIT_TICKS_S2,
            min_voltage=memory[Address.MIN_VOLTAGE],
            max_voltage=memory[Address.MAX_VOLTAGE],
            max_temperature=memory[Address.MAX_TEMPERATURE],
            unload_hot=bool(memory[Address.UNLOADING_CONDITION] & Status.TEMPERATURE),
            overload=memory[Address.OVERLOAD_TORQUE] / 100.0,
            overload_s=memory[Address.PROTECTION_TIME] / 100.0,
        )


class Sts3215:
    """A servo on the bus.

    Three callers, which the owner must serialise: the bus (`read`, `write`, `stage`, `action` …), the physics
    (`sense` then `advance`, once a tick) and whoever injects faults.
    """

    __slots__ = (
        "_backup",
        "_command_raw",
        "_command_speed",
        "_eeprom",
        "_feedback_stale",
        "_goal",
        "_load",
        "_memory",
        "_overload_s",
        "_present_raw",
        "_settings",
        "_speed",
        "_staged",
        "_step_goal_raw",
        "_temperature_c",
        "deaf_until_ns",
        "forced_temperature_c",
        "forced_voltage_v",
        "limp_raw",
    )

    def __init__(self, servo_id: int, *, min_position: int = 0, max_position: int = 4095) -> None:
        """Factory settings, but for the id and the position limits (ticks), which are in EEPROM."""
        if not 0 <= servo_id <= 253:
            raise ValueError(f"servo id {servo_id}: allowed is 0..253")
        eeprom = bytearray(_FACTORY_MEMORY[:EEPROM_BYTES])
        eeprom[Address.ID] = servo_id
        struct.pack_into("<HH", eeprom, Address.MIN_POSITION, min_position, max_position)
        self._eeprom = eeprom
        self._backup = bytes(eeprom)
        self._memory = bytearray(_FACTORY_MEMORY)
        self._present_raw = float(CENTRE_TICK)
        self._temperature_c = AMBIENT_TEMPERATURE_C
        self.forced_temperature_c: float | None = None
        self.forced_voltage_v: float | None = None
        self.deaf_until_ns = 0
        self._staged: tuple[int, bytes] | None = None
        self.power_cycle()

    @property
    def servo_id(self) -> int:
        """Bus address, 0..253."""
        return self._memory[Address.ID]

    @property
    def baud_rate(self) -> int:
        """The only speed at which this servo understands the line, bits/s."""
        return BAUD_RATES[min(self._memory[Address.BAUD_RATE], len(BAUD_RATES) - 1)]

    @property
    def return_delay_ns(self) -> int:
        """Pause between a request and this servo's reply."""
        return self._memory[Address.RETURN_DELAY] * 2_000

    @property
    def replies_to_writes(self) -> bool:
        """Reads and pings are answered in any case."""
        return self._memory[Address.RESPONSE_LEVEL] != 0

    @property
    def torque_on(self) -> bool:
        """Not limp."""
        return self._memory[Address.TORQUE_ENABLE] == 1

    @property
    def status(self) -> int:
        """Error byte of a reply."""
        if self._feedback_stale:
            self._refresh_feedback()
        return self._memory[Address.STATUS]

    @property
    def present_raw(self) -> float:
        """Raw ticks, as last sensed."""
        return self._present_raw

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; beyond the table there are zeros."""
        stop = address + length
        if self._feedback_stale and stop > _FEEDBACK_START and address < _FEEDBACK_STOP:
            self._refresh_feedback()
        data = bytes(self._memory[address:stop])
        return data if len(data) == length else data.ljust(length, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Bytes for read-only or unknown addresses are ignored, as the servo does."""
        memory = self._memory
        stop = min(address + len(data), MEMORY_BYTES)
        torque_before = memory[Address.TORQUE_ENABLE]
        keep = memory[Address.LOCK] == 0
        for offset in range(address, stop):
            if _WRITABLE[offset]:
                memory[offset] = data[offset - address]
                if keep and offset < EEPROM_BYTES:
                    self._eeprom[offset] = data[offset - address]
        self._feedback_stale = True
        if address <= Address.GOAL_POSITION < stop:
            self._goal = decode_signed(_word(memory, Address.GOAL_POSITION), 15)
            self._step_goal_raw = self._present_raw + self._goal
        if address != Address.GOAL_POSITION or len(data) > 2:
            self._settings = _Settings.decode(memory)
        if address <= Address.TORQUE_ENABLE < stop:
            self._switch_torque(torque_before)

    def stage(self, address: int, data: bytes) -> None:
        """REG WRITE: remember the write until `action`; a second one replaces the first."""
        self._staged = (address, data)
        self._memory[Address.PENDING_WRITE] = 1

    def action(self) -> None:
        """ACTION: do the staged write, if there is one."""
        staged, self._staged = self._staged, None
        self._memory[Address.PENDING_WRITE] = 0
        if staged is not None:
            self.write(*staged)

    def set_middle(self, reported: int = CENTRE_TICK) -> None:
        """Choose the homing offset so that the present position reads `reported`; it is kept in EEPROM."""
        turn = (round(self._present_raw) - reported) % TICKS_PER_TURN
        offset = turn - TICKS_PER_TURN if turn > _MAX_OFFSET_TICKS else turn
        encoded = struct.pack("<H", encode_signed(offset, 11))
        for memory in (self._memory, self._eeprom):
            memory[Address.HOMING_OFFSET : Address.HOMING_OFFSET + 2] = encoded
        self._settings = _Settings.decode(self._memory)
        self._hold_present()

    def back_up(self) -> None:
        """BACKUP: what a later `restore` goes back to."""
        self._backup = bytes(self._eeprom)

    def restore(self) -> None:
        """RESTORE PARAMETERS: EEPROM as backed up (at first: as delivered), keeping the id, and at once."""
        servo_id = self._memory[Address.ID]
        self._eeprom[:] = self._backup
        self._eeprom[Address.ID] = servo_id
        self._memory[:EEPROM_BYTES] = self._eeprom
        self._settings = _Settings.decode(self._memory)
        self._feedback_stale = True

    def reset_turns(self) -> None:
        """RESET: forget counted turns (an SO-101's joints turn less than once) and the overload."""
        self._overload_s = 0.0
        self._memory[Address.STATUS] = 0

    def power_cycle(self) -> None:
        """Power off and on: unlocked EEPROM writes survive, everything else starts again, limp."""
        self._memory[:EEPROM_BYTES] = self._eeprom
        self._memory[EEPROM_BYTES:] = _FACTORY_MEMORY[EEPROM_BYTES:]
        limit = self._memory[Address.MAX_TORQUE : Address.MAX_TORQUE + 2]
        self._memory[Address.TORQUE_LIMIT : Address.TORQUE_LIMIT + 2] = limit
        self._settings = _Settings.decode(self._memory)
        self._staged = None
        self._speed = 0.0
        self._load = 0.0
        self._overload_s = 0.0
        self._hold_present()

    def reboot(self, now_ns: int) -> None:
        """REBOOT: a power cycle during which the bus gets no answer."""
        self.power_cycle()
        self.deaf_until_ns = now_ns + REBOOT_NS

    def sense(self, raw: float, speed: float, load: float) -> None:
        """What the joint does now: raw ticks, ticks/s, and the motor's share of stall torque (-1..1)."""
        self._present_raw = raw
        self._speed = speed
        self._load = load
        self._feedback_stale = True

    def advance(self, dt_s: float) -> float:
        """Where the motor pulls the joint during the next `dt_s`: raw ticks. Limp: where hands hold it."""
        steady = AMBIENT_TEMPERATURE_C + _STALL_HEATING_C * self._load * self._load
        self._temperature_c += (steady - self._temperature_c) * (dt_s / _THERMAL_TIME_S)
        self._protect(dt_s)
        if self._memory[Address.TORQUE_ENABLE] != 1:
            return self.limp_raw
        mode = self._settings.mode
        if mode == Mode.POSITION:
            self._approach(self._goal_raw(), dt_s)
        elif mode == Mode.STEP:
            self._approach(self._step_goal_raw, dt_s)
        else:
            self._turn(dt_s)
        return self._command_raw

    def jump(self, raw: float) -> None:
        """The joint was put at `raw` from outside (a new episode): stay there, torque or not."""
        self._present_raw = raw
        self._speed = 0.0
        self._hold_present()

    def _reported(self, raw: float) -> int:
        settings = self._settings
        position = round(raw) - settings.offset
        return position if settings.multi_turn else position % TICKS_PER_TURN

    def _hold_present(self) -> None:
        raw = self._present_raw
        self._command_raw = raw
        self._command_speed = 0.0
        self._step_goal_raw = raw
        self.limp_raw = raw
        self._goal = self._reported(raw)
        goal = encode_signed(self._goal, 15)
        self._memory[Address.GOAL_POSITION : Address.GOAL_POSITION + 2] = goal.to_bytes(2, "little")
        self._feedback_stale = True

    def _switch_torque(self, before: int) -> None:
        """Register 40 was written: 0 off, 1 on, 2 damped (limp here), 128 set the middle."""
        memory = self._memory
        value = memory[Address.TORQUE_ENABLE]
        if value == 128:
            memory[Address.TORQUE_ENABLE] = before
            self.set_middle()
        elif value == 1 and before != 1:
            self._command_raw = self._present_raw
            self._command_speed = 0.0
            self._step_goal_raw = self._present_raw
        elif value != 1:
            if before == 1:
                self.limp_raw = self._present_raw
            self._overload_s = 0.0
            memory[Address.STATUS] &= ~Status.OVERLOAD & 0xFF

    def _goal_raw(self) -> float:
        """Goal_Position, clipped to the limits (both 0: no limits), as raw ticks of the present turn."""
        settings = self._settings
        goal, offset = self._goal, settings.offset
        if settings.low or settings.high:
            goal = min(max(goal, settings.low), settings.high)
        if settings.multi_turn:
            return float(goal + offset)
        turns = (round(self._present_raw) - offset) // TICKS_PER_TURN
        return float(goal + offset + turns * TICKS_PER_TURN)

    def _approach(self, goal: float, dt_s: float) -> None:
        """Move the commanded position towards `goal` within Goal_Velocity and Acceleration (0: no limit)."""
        top, rate = self._settings.goal_speed, self._settings.rate
        gap = goal - self._command_raw
        if (top == math.inf and rate == 0.0) or gap == 0.0:
            self._command_raw, self._command_speed = goal, 0.0
            return
        wanted = min(top, abs(gap) / dt_s)
        if rate:  # the fastest speed from which `rate` still stops at the goal, in steps of dt
            half = 0.5 * rate * dt_s
            wanted = min(wanted, math.sqrt(half * half + 2.0 * rate * abs(gap)) - half)
        wanted = math.copysign(wanted, gap)
        if rate:
            change = rate * dt_s
            wanted = min(max(wanted, self._command_speed - change), self._command_speed + change)
        self._command_speed = wanted
        self._command_raw += wanted * dt_s

    def _turn(self, dt_s: float) -> None:
        """SPEED and PWM modes: the commanded position runs; it never gets far ahead of a blocked joint."""
        settings = self._settings
        speed = settings.goal_speed if settings.mode == Mode.SPEED else settings.pwm * _NO_LOAD_SPEED_TICKS_S
        speed = min(max(speed, -_NO_LOAD_SPEED_TICKS_S), _NO_LOAD_SPEED_TICKS_S)
        if settings.rate:
            change = settings.rate * dt_s
            speed = min(max(speed, self._command_speed - change), self._command_speed + change)
        self._command_speed = speed
        ahead = self._command_raw + speed * dt_s
        self._command_raw = min(max(ahead, self._present_raw - _MAX_LEAD_TICKS), self._present_raw + _MAX_LEAD_TICKS)

    def _protect(self, dt_s: float) -> None:
        """Overload: more load than register 36 for longer than register 35. It ends with the load, or with torque.

        A servo over its temperature limit goes limp where register 19 says so.
        """
        settings, memory = self._settings, self._memory
        if settings.unload_hot and self.temperature_c > settings.max_temperature and self.torque_on:
            self.write(Address.TORQUE_ENABLE, b"\0")
        if abs(self._load) >= settings.overload and memory[Address.TORQUE_ENABLE] == 1:
            self._overload_s += dt_s
            if self._overload_s >= settings.overload_s:
                memory[Address.STATUS] |= Status.OVERLOAD
        elif self._overload_s:
            self._overload_s = 0.0
            memory[Address.STATUS] &= ~Status.OVERLOAD & 0xFF

    @property
    def voltage_v(self) -> float:
        """Supply at the servo, which sags under load."""
        if self.forced_voltage_v is not None:
            return self.forced_voltage_v
        return NOMINAL_VOLTAGE_V - _SUPPLY_SAG_V * abs(self._load)

    @property
    def temperature_c(self) -> float:
        """Motor temperature."""
        return self._temperature_c if self.forced_temperature_c is None else self.forced_temperature_c

    def _refresh_feedback(self) -> None:
        """Encode 56..70 from what was sensed last."""
        settings, memory = self._settings, self._memory
        load = self._load
        voltage = min(max(int(self.voltage_v * 10.0 + 0.5), 0), 255)
        temperature = min(max(int(self.temperature_c + 0.5), 0), 255)
        status = memory[Address.STATUS] & ~(Status.VOLTAGE | Status.TEMPERATURE)
        if not settings.min_voltage <= voltage <= settings.max_voltage:
            status |= Status.VOLTAGE
        if temperature > settings.max_temperature:
            status |= Status.TEMPERATURE
        _FEEDBACK.pack_into(
            memory,
            _FEEDBACK_START,
            encode_signed(self._reported(self._present_raw), 15),
            encode_signed(round(self._speed / settings.speed_unit), 15),
            encode_signed(round(load * 1000.0), 10),
            voltage,
            temperature,
            memory[Address.PENDING_WRITE],
            status,
            abs(self._speed) > _MOVING_TICKS_S or self._command_speed != 0.0,
            encode_signed(self._reported(self._command_raw), 15),
            min(round(abs(load) * _STALL_CURRENT_A / _CURRENT_UNIT_A), 0xFFFF),
        )
        self._feedback_stale = False

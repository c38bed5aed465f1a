"""The registers of the STS3215 that the driver uses.

Source: Feetech "STS3215 memory table" (the same addresses, sizes and sign bits as in LeRobot's
`lerobot.motors.feetech.tables`, STS/SMS series). Signed values are sign and magnitude, not two's complement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2.0 * math.pi / TICKS_PER_TURN
MODEL_NUMBER_STS3215 = 777
VOLT_PER_UNIT = 0.1
LOAD_PER_UNIT = 0.001
"""Present load is the duty cycle of the motor driver in thousandths."""


def to_sign_magnitude(value: int, sign_bit: int) -> int:
    """Encode a signed number whose sign sits in bit `sign_bit`.

    Raises:
        ValueError: the magnitude needs more than `sign_bit` bits.
    """
    magnitude = abs(value)
    if magnitude >= 1 << sign_bit:
        raise ValueError(f"{value} does not fit: the magnitude must be below {1 << sign_bit}")
    return magnitude | (1 << sign_bit if value < 0 else 0)


def from_sign_magnitude(raw: int, sign_bit: int) -> int:
    """Decode a number whose sign sits in bit `sign_bit`; higher bits are ignored."""
    magnitude = raw & ((1 << sign_bit) - 1)
    return -magnitude if raw >> sign_bit & 1 else magnitude


@dataclass(frozen=True, slots=True)
class Register:
    """Place, size in bytes and sign bit (None: unsigned) of one register."""

    name: str
    address: int
    size: int
    sign_bit: int | None = None
    eprom: bool = False

    def encode(self, value: int) -> bytes:
        """Bytes of a value.

        Raises:
            ValueError: the value does not fit; names the register.
        """
        try:
            raw = value if self.sign_bit is None else to_sign_magnitude(value, self.sign_bit)
            return raw.to_bytes(self.size, "little")
        except (ValueError, OverflowError) as error:
            raise ValueError(f"register {self.name!r} ({self.address}) cannot hold {value}: {error}") from error

    def decode(self, data: bytes) -> int:
        """Value of the bytes."""
        raw = int.from_bytes(data, "little")
        return raw if self.sign_bit is None else from_sign_magnitude(raw, self.sign_bit)


MODEL_NUMBER = Register("model number", 3, 2, eprom=True)
RETURN_DELAY = Register("return delay", 7, 1, eprom=True)
MIN_POSITION = Register("minimum position", 9, 2, eprom=True)
MAX_POSITION = Register("maximum position", 11, 2, eprom=True)
MAX_TORQUE = Register("maximum torque", 16, 2, eprom=True)
PHASE = Register("phase", 18, 1, eprom=True)
P_GAIN = Register("P gain", 21, 1, eprom=True)
D_GAIN = Register("D gain", 22, 1, eprom=True)
I_GAIN = Register("I gain", 23, 1, eprom=True)
PROTECTION_CURRENT = Register("protection current", 28, 2, eprom=True)
HOMING_OFFSET = Register("homing offset", 31, 2, sign_bit=11, eprom=True)
OPERATING_MODE = Register("operating mode", 33, 1, eprom=True)
OVERLOAD_TORQUE = Register("overload torque", 36, 1, eprom=True)
TORQUE_ENABLE = Register("torque enable", 40, 1)
ACCELERATION = Register("acceleration", 41, 1)
GOAL_POSITION = Register("goal position", 42, 2, sign_bit=15)
TORQUE_LIMIT = Register("torque limit", 48, 2)
"""Thousandths; the servo copies `MAX_TORQUE` here when it gets power."""
LOCK = Register("EPROM lock", 55, 1)
"""While it is 1, EPROM registers can be set but do not outlive a power cycle."""
PRESENT_POSITION = Register("present position", 56, 2, sign_bit=15)
PRESENT_VELOCITY = Register("present velocity", 58, 2, sign_bit=15)
"""Steps a second, or units of 50 steps a second, see `PHASE_FINE_SPEED_BIT`."""
PRESENT_LOAD = Register("present load", 60, 2, sign_bit=10)
PRESENT_VOLTAGE = Register("present voltage", 62, 1)
PRESENT_TEMPERATURE = Register("present temperature", 63, 1)
"""Degrees Celsius."""
MAX_ACCELERATION = Register("maximum acceleration", 85, 1)

PHASE_FINE_SPEED_BIT = 0x04
"""In `PHASE`: velocities are in steps a second; without it in units of `COARSE_SPEED_TICKS_S`."""
COARSE_SPEED_TICKS_S = 50
PHASE_MULTI_TURN_BIT = 0x10
"""In `PHASE`: positions count over several turns; LeRobot clears it so that they stay in 0..4095."""
MODE_POSITION = 0

STATE_ADDRESS = PRESENT_POSITION.address
STATE_LAYOUT = "HHHBB"
"""Position, velocity, load, voltage, temperature: one block, so one packet a servo."""

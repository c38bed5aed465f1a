"""Errors of the arm driver.

EvergreenError
├── BusError                  the serial port or a servo does not do its part; retried by the control loop
│   ├── PortUnavailableError  the port cannot be opened
│   │   └── PortAbsentError   there is no such device
│   ├── PortLostError         the port went away while it was open
│   ├── NoReplyError          a servo stayed silent
│   └── CorruptReplyError     what came back is no reply to what was asked
├── ServoMismatchError        the servos are not those of the calibration; only a person can put that right
│   └── OutsideRangeError     a limp joint stands outside its calibrated range
└── ConfigError
    └── CalibrationError      a calibration file that is missing, malformed or impossible

`pyserial`'s and the operating system's errors never leave `arm_driver.feetech`.
"""

from __future__ import annotations

from vla_core.errors import ConfigError, EvergreenError


class BusError(EvergreenError):
    """Something on the way to the servos failed; the message names the port and the cure."""


class PortUnavailableError(BusError):
    """The port is absent, in use, forbidden or no serial port."""


class PortAbsentError(PortUnavailableError):
    """There is no such device (yet)."""


class PortLostError(BusError):
    """The port was unplugged, or its far end closed it."""


class NoReplyError(BusError):
    """One or more servos did not answer in time; `ids` are theirs."""

    def __init__(self, message: str, ids: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class CorruptReplyError(BusError):
    """Bytes arrived, but not the status packets that were asked for."""


class ServoMismatchError(EvergreenError):
    """The servos on the bus contradict the calibration file or are of another kind."""


class OutsideRangeError(ServoMismatchError):
    """A limp joint stands outside its calibrated range, so that switching its torque on would snap it back."""


class CalibrationError(ConfigError):
    """The calibration file cannot be used."""

"""Both clocks read together: stamps come in system time, durations are measured on the monotonic clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

NS_PER_S = 1_000_000_000

STEP_NS = 50_000_000
"""Between two readings a second apart, NTP slews the system clock by half a millisecond; more than this is a step."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks, ns."""

    mono_ns: int
    system_ns: int

    def to_mono(self, stamp_ns: int) -> int:
        """The monotonic time of a stamp, by the offset that holds at this moment."""
        return stamp_ns + self.mono_ns - self.system_ns

    def to_system(self, mono_ns: int) -> int:
        """The inverse of `to_mono`."""
        return mono_ns + self.system_ns - self.mono_ns

    def step_since(self, earlier: Moment) -> int:
        """How far the system clock was set between `earlier` and now, ns; 0 where it was not."""
        moved = (self.system_ns - self.mono_ns) - (earlier.system_ns - earlier.mono_ns)
        return moved if abs(moved) > STEP_NS else 0


class Clock(Protocol):
    """Where the present comes from; logic gets Moments, never a clock."""

    def now(self) -> Moment:
        """The present."""
        ...


class SystemClock:
    """The computer's own clocks."""

    def now(self) -> Moment:
        """The present; the two readings lie well under a microsecond apart."""
        return Moment(time.monotonic_ns(), time.time_ns())

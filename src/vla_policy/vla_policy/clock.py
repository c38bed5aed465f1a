"""Both clocks read together: stamps come in system time, durations are measured on the monotonic clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

NS_PER_S = 1_000_000_000

STEP_NS = 50_000_000
"""Between two readings a second apart, NTP slews the system clock by half a millisecond; more than this is a step."""

PAIR_NS = 100_000
PAIR_ATTEMPTS = 8
"""Far more than a busy machine needs: to be preempted within a microsecond eight times in a row takes malice."""


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
        """The present; the two readings belong together within PAIR_NS.

        A thread that is preempted between them would see the system clock jump by as long as it waited.
        """
        for _ in range(PAIR_ATTEMPTS):
            before_ns, system_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
            if after_ns - before_ns <= PAIR_NS:
                break
        return Moment((before_ns + after_ns) // 2, system_ns)

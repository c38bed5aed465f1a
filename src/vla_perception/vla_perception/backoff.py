"""When to try a lost camera again."""

from __future__ import annotations

INITIAL_S = 0.5
"""Replugging a USB camera or restarting a stream server takes about this long."""

FACTOR = 2.0

MAX_S = 5.0
"""The longest a person at the robot should wait for a camera that is plugged in again."""

JITTER = 0.5
"""Share of the delay that is random, so that eight cameras of one server do not knock at once."""

STEADY_S = 5.0
"""A camera that lasted this long was back for good. One that flaps keeps its long delays, and so the log stays calm."""


class Backoff:
    """Exponential delays with jitter, from `INITIAL_S` to `MAX_S`."""

    def __init__(self) -> None:
        self._failures = 0

    def delay_s(self, lasted_s: float, random_unit: float) -> float:
        """Seconds until the next try, after one that delivered frames for `lasted_s`; `random_unit` lies in [0, 1)."""
        if lasted_s >= STEADY_S:
            self._failures = 0
        delay_s = min(MAX_S, INITIAL_S * FACTOR**self._failures)
        if delay_s < MAX_S:
            self._failures += 1
        return delay_s * (1.0 - JITTER * random_unit)

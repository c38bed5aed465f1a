"""When to read the configuration again: once, after a quiet time, however many events come.

A nucleus sends one event for every leaf that changed, repeats some, and two deployments may come within a second. What
an event says does not matter, nor the order in which events arrive: the configuration is read as it is then.
"""

from __future__ import annotations

MAX_DELAY_FACTOR = 5.0
"""Events that never cease must not put the reading off for ever: it comes after so many quiet times at the latest."""


class QuietTime:
    """Collects events; tells when it is time to read."""

    def __init__(self, quiet_time_s: float) -> None:
        self._quiet_time_s = quiet_time_s
        self._first_s: float | None = None
        self._due_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """When to read; None where nothing happened."""
        return self._due_s

    def event(self, now_s: float) -> None:
        """Something changed."""
        self._first_s = now_s if self._first_s is None else self._first_s
        latest_s = self._first_s + MAX_DELAY_FACTOR * self._quiet_time_s
        self._due_s = min(now_s + self._quiet_time_s, latest_s)

    def at_once(self, now_s: float) -> None:
        """Read without waiting: after connecting, nothing is known."""
        self._first_s = self._due_s = now_s

    def again(self, now_s: float, delay_s: float) -> None:
        """Reading failed; events that came meanwhile do not hurry it."""
        self._first_s, self._due_s = None, now_s + delay_s

    def take(self, now_s: float) -> bool:
        """Whether to read now; what comes after counts as new."""
        if self._due_s is None or now_s < self._due_s:
            return False
        self._first_s = self._due_s = None
        return True

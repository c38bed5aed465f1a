"""Keeping simulated time equal to real time, and saying how well that went. No clock here: callers pass time in."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import Final

MAX_BEHIND_S: Final = 0.5
"""Physics later than this is given up: a burst of steps longer than that would show the robot a jump."""
WINDOW_S: Final = 5.0
_SAMPLE_S: Final = 0.25
REALTIME_ENOUGH: Final = 0.95
"""Below this a run is invalid: its world was slower than its controllers' clocks."""


HARDWARE_NICENESS: Final = -5
"""For what stands for hardware: a real servo does not slow down when the computer is busy. Needs a privilege."""
DRAWING_NICENESS: Final = 2
"""Drawing is the first to lose a busy core: physics and the servo bus have deadlines."""


def set_niceness(value: int) -> None:
    """Give the calling thread another share of a busy machine, if it may have it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), value)


class Pacer:
    """Says how many physics steps are due."""

    def __init__(self, step_ns: int, now_ns: int) -> None:
        self._step_ns = step_ns
        self._origin_ns = now_ns
        self._done = 0
        self.lost_ns = 0
        """Real time for which no physics was run."""

    @property
    def done(self) -> int:
        """Steps taken so far."""
        return self._done

    def due(self, now_ns: int) -> int:
        """Steps to take now. More than `MAX_BEHIND_S` of them are forgotten, which the factor shows."""
        behind_ns = self.behind_ns(now_ns)
        if behind_ns > MAX_BEHIND_S * 1e9:
            self._origin_ns += behind_ns
            self.lost_ns += behind_ns
            return 0
        return max(0, behind_ns // self._step_ns)

    def behind_ns(self, now_ns: int) -> int:
        """How late the next step is; negative if it is not due yet."""
        return now_ns - self._origin_ns - self._done * self._step_ns

    def took(self, steps: int) -> None:
        """Note steps as done."""
        self._done += steps

    def wait_ns(self, now_ns: int, batch: int) -> int:
        """Time until `batch` steps are due."""
        return max(0, batch * self._step_ns - self.behind_ns(now_ns))


class RealTimeMeter:
    """Simulated over real time, in the last `WINDOW_S` and since the start."""

    def __init__(self, now_ns: int, simulated_ns: int = 0) -> None:
        self._start = (now_ns, simulated_ns)
        self._samples: deque[tuple[int, int]] = deque([self._start])
        self._last = self._start

    def add(self, now_ns: int, simulated_ns: int) -> None:
        """Note where simulated time stands."""
        self._last = (now_ns, simulated_ns)
        if now_ns - self._samples[-1][0] < _SAMPLE_S * 1e9:
            return
        self._samples.append(self._last)
        while len(self._samples) > 2 and now_ns - self._samples[1][0] >= WINDOW_S * 1e9:
            self._samples.popleft()

    @property
    def recent(self) -> float:
        """Real-time factor of the last seconds; 1.0 before anything was measured."""
        return self._ratio(self._samples[0])

    @property
    def total(self) -> float:
        """Real-time factor since the start."""
        return self._ratio(self._start)

    def _ratio(self, since: tuple[int, int]) -> float:
        real_ns = self._last[0] - since[0]
        return (self._last[1] - since[1]) / real_ns if real_ns > 0 else 1.0


class RateMeter:
    """Events a second over the last `WINDOW_S`."""

    def __init__(self) -> None:
        self._times: deque[int] = deque()
        self.count = 0
        """Events since the start."""

    def add(self, now_ns: int) -> None:
        """Note one event."""
        self.count += 1
        self._times.append(now_ns)
        self._trim(now_ns)

    def per_s(self, now_ns: int) -> float:
        """Rate now."""
        self._trim(now_ns)
        if len(self._times) < 2:
            return 0.0
        return len(self._times) / max((now_ns - self._times[0]) * 1e-9, 1e-3)

    def _trim(self, now_ns: int) -> None:
        while self._times and now_ns - self._times[0] > WINDOW_S * 1e9:
            self._times.popleft()

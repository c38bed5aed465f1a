"""When to ask for the next chunk, so that it arrives before the last one is played; and when to try again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vla_core.errors import ConfigError
from vla_policy.clock import NS_PER_S

MARGIN_S = 0.05
"""Beyond the usual turnaround: a garbage collection, or another process on the same core."""
FORGET = 0.1
"""A turnaround that was once long counts for about ten chunks."""
FIRST_TURNAROUND_S = 0.15
"""Before anything was measured: a frame's period and a small model's inference."""

FRESH_NS = 10_000_000
"""A picture that arrived this shortly before a request was due is as good as the next, which is a frame away."""
FRESH_PATIENCE_NS = 250_000_000
"""How long a due request waits for a newer picture: two frames at 10 Hz. Then the newest will do, if not stale."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often chunks are asked for.

    Attributes:
        open_loop_s: most of the future that a plan covers.
        request_period_s: from one request to the next; 0 asks as late as is safe.
    """

    open_loop_s: float
    request_period_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.request_period_s <= self.open_loop_s:
            raise ConfigError(
                f"request_period_s {self.request_period_s:g} must lie between 0 and open_loop_s, {self.open_loop_s:g}: "
                "between longer periods the arm would stand still"
            )

    def due_ns(self, asked_ns: int, plan_end_ns: int, turnaround_s: float, reserve_s: float = 0.0) -> int:
        """When the next request is due, monotonic.

        Args:
            asked_ns: when the last one was made.
            plan_end_ns: when the plan in force ends.
            turnaround_s: how long it takes from due to command.
            reserve_s: what else must fit before the plan ends: asking another server, should this one fail.
        """
        latest_ns = plan_end_ns - round((turnaround_s + reserve_s + MARGIN_S) * NS_PER_S)
        if self.request_period_s > 0:
            period_ns = asked_ns + round(self.request_period_s * NS_PER_S)
            return min(period_ns, latest_ns) if reserve_s else period_ns
        return latest_ns


class Turnaround:
    """How long it takes from a request that is due to its command: rises at once, falls slowly."""

    def __init__(self, first_s: float = FIRST_TURNAROUND_S) -> None:
        self.seconds = first_s

    def add(self, seconds: float) -> None:
        """One more measurement."""
        self.seconds = max(seconds, self.seconds + FORGET * (seconds - self.seconds))


class Crashes:
    """Whether a server fails so often that trying again is no cure. Times are monotonic, ns."""

    MANY = 3
    """One crash is an accident, and the next may follow from it."""
    WINDOW_S = 120.0
    """Three times the pauses between attempts, and a model that loads for half a minute."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque(maxlen=self.MANY)

    def add(self, now_ns: int) -> bool:
        """It failed once more; whether that is too often."""
        self._times_ns.append(now_ns)
        return len(self._times_ns) == self.MANY and now_ns - self._times_ns[0] <= self.WINDOW_S * NS_PER_S


class Backoff:
    """Doubling pauses between attempts; `reset` after a success."""

    FIRST_S = 0.1
    LONGEST_S = 5.0

    def __init__(self) -> None:
        self._next_s = self.FIRST_S

    def next_s(self) -> float:
        """How long to pause now."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self.LONGEST_S)
        return pause_s

    def reset(self) -> None:
        """It works again."""
        self._next_s = self.FIRST_S

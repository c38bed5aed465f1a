"""When to show a policy that looks back what happens between its chunks.

Such a policy was trained on observations one period apart. Chunks are asked for less often than that, so that its
server is sent the observations in between too: it remembers them, and answers with no actions.
"""

from __future__ import annotations

from vla_core.errors import ConfigError
from vla_policy.clock import NS_PER_S

RETRY_SHARE = 0.25
"""Of a period: how soon to look again for a newer picture. A history takes one that is half a period off."""
CLOSE_SHARE = 0.5
"""Of a period: a request this soon is itself the next observation."""


class Feeder:
    """One session's. Times are monotonic, ns; nothing reads a clock."""

    def __init__(self, n_obs_steps: int = 1, period_s: float = 0.1) -> None:
        """Take what the model wants; one that sees the present only is never fed.

        Raises:
            ConfigError: no period.
        """
        if period_s <= 0:
            raise ConfigError(f"observation_period_s {period_s:g} must be positive")
        self._looks_back = n_obs_steps > 1
        self._period_ns = round(period_s * NS_PER_S)
        self._next_ns = 0
        self._shown_ns = 0

    def wake_ns(self, due_ns: int) -> int:
        """When to do something next, where a chunk is due at `due_ns`."""
        close_ns = due_ns - round(CLOSE_SHARE * self._period_ns)
        return min(self._next_ns, due_ns) if self._looks_back and self._next_ns < close_ns else due_ns

    def is_news(self, stamp_ns: int) -> bool:
        """Whether the server has not seen the observation of `stamp_ns` yet."""
        return stamp_ns > self._shown_ns

    def put_off(self, now_ns: int) -> None:
        """There is nothing to show at `now_ns`: look again soon."""
        self._next_ns = now_ns + round(RETRY_SHARE * self._period_ns)

    def shown(self, stamp_ns: int) -> None:
        """The server has the observation of `stamp_ns`."""
        self._shown_ns = stamp_ns
        self._next_ns = stamp_ns + self._period_ns

"""The observations that a policy with a memory looks at, picked by their stamps.

LeRobot trains such a policy on observations one period apart, and repeats the first one where an episode begins. A
client's observations come when they come: some twice in a period, some after a pause. So the past is looked up by time,
and a gap is treated as the beginning of an episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from vla_core.errors import ConfigError

NS_PER_S = 1_000_000_000
TOLERANCE = 0.5
"""Of a period: an observation further from the wanted time than this belongs to another step."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Remembered(Generic[T]):
    """What the policy is to see.

    Attributes:
        steps: as many as the policy wants, oldest first; the last is the newest observation.
        seen: how many of them were observed; the rest repeat the oldest of these.
    """

    steps: tuple[T, ...]
    seen: int


class History(Generic[T]):
    """One session's memory. Knows no clock: time is the observations' own stamps."""

    def __init__(self, n_obs_steps: int, period_s: float) -> None:
        """Begin without any memory.

        Args:
            n_obs_steps: how many observations the policy looks at.
            period_s: how far apart they were in training.

        Raises:
            ConfigError: fewer than one, or no period.
        """
        if n_obs_steps < 1 or period_s <= 0:
            raise ConfigError(f"a history of {n_obs_steps} observations {period_s} s apart cannot be kept")
        self._length = n_obs_steps
        self._period_ns = round(period_s * NS_PER_S)
        self._slack_ns = round(TOLERANCE * self._period_ns)
        self._kept: list[tuple[int, T]] = []

    def add(self, stamp_ns: int, observation: T) -> None:
        """Remember one observation; one that is older than the newest begins a new history: the clock was set."""
        if self._kept and stamp_ns < self._kept[-1][0]:
            self._kept.clear()
        if self._kept and stamp_ns == self._kept[-1][0]:
            self._kept.pop()
        self._kept.append((stamp_ns, observation))
        oldest_ns = stamp_ns - (self._length - 1) * self._period_ns - self._slack_ns
        self._kept = [entry for entry in self._kept if entry[0] >= oldest_ns]

    def recall(self) -> Remembered[T]:
        """The steps that end with the newest observation.

        Raises:
            ConfigError: nothing was added yet.
        """
        if not self._kept:
            raise ConfigError("an empty history has nothing to recall")
        newest_ns, newest = self._kept[-1]
        found = [newest]
        for back in range(1, self._length):
            step = self._at(newest_ns - back * self._period_ns)
            if step is None:
                break
            found.append(step[1])
        padding = [found[-1]] * (self._length - len(found))
        return Remembered((*padding, *reversed(found)), len(found))

    def _at(self, wanted_ns: int) -> tuple[int, T] | None:
        """The observation nearest to `wanted_ns`, if it is near enough; never the newest, which is step 0."""
        past = self._kept[:-1]
        nearest = min(past, key=lambda entry: abs(entry[0] - wanted_ns), default=None)
        return nearest if nearest is not None and abs(nearest[0] - wanted_ns) <= self._slack_ns else None

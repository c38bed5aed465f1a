"""A model's first seconds: what it must show before it counts as good. Pure; times are monotonic, ns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vla_core.errors import ConfigError
from vla_policy.clock import NS_PER_S

LEAST_CHUNKS = 5
"""Fewer say little, however long they took."""
ALLOWED_GAPS = 1
"""Another process may have kept the computer busy once; a model that lets the arm stand again is too slow."""
PATIENCE_S = 60.0
"""Beyond its duration: a model that could not show itself for so long, without a camera say, has not proved good."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Not decided yet."""


@dataclass(frozen=True, slots=True)
class Passed:
    """It may stay."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It must go, and why."""

    reason: str


Verdict: TypeAlias = Pending | Passed | Failed


@dataclass(frozen=True, slots=True)
class ProbationRules:
    """How long a model is watched: at least `duration_s`, 0 to trust it after LEAST_CHUNKS chunks."""

    duration_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.duration_s <= 600:
            raise ConfigError(f"parameter probation_s is {self.duration_s:g}; it may be 0 to 600 s")


class Probation:
    """Watches one model from its first chunk on."""

    def __init__(self, rules: ProbationRules, *, patient: bool = False) -> None:
        """Begin with the first chunk; who is `patient` waits for ever for what is not the model's fault."""
        self._rules = rules
        self._patient = patient
        self.restart()

    def restart(self) -> None:
        """Forget what was seen of it."""
        self._began_ns: int | None = None
        self._idle_since_ns: int | None = None
        self._chunks = 0
        self._gaps = 0

    @property
    def began_ns(self) -> int | None:
        """When its first chunk was commanded; None before."""
        return self._began_ns

    def chunk(self, now_ns: int, gap_s: float) -> Verdict:
        """It was commanded; the arm had stood still for `gap_s` waiting for it, through no fault but the model's."""
        if self._began_ns is None:
            self._began_ns = self._idle_since_ns = now_ns
        self._chunks += 1
        self._gaps += gap_s > 0
        if self._gaps > ALLOWED_GAPS:
            return Failed(f"the arm had to wait for it {self._gaps} times within {self._chunks} chunks")
        long_enough = now_ns - self._began_ns >= self._rules.duration_s * NS_PER_S
        return Passed() if long_enough and self._chunks >= LEAST_CHUNKS else Pending()

    def idle(self, now_ns: int) -> Verdict:
        """Nothing came of it, though not through its fault: a camera is away, say."""
        limit_ns = round((self._rules.duration_s + PATIENCE_S) * NS_PER_S)
        if self._idle_since_ns is None:
            self._idle_since_ns = now_ns
        if self._patient or now_ns - self._idle_since_ns <= limit_ns:
            return Pending()
        return Failed(f"it gave {self._chunks} chunks within {limit_ns / NS_PER_S:g} s: too few to judge it by")

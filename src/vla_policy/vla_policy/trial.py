"""A model that drives on trial: who was there before, what is asked of it, and who hears how it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vla_policy.loaded import Loaded
from vla_policy.probation import Failed, Passed, Probation
from vla_policy.serving.client import PolicyClient


@dataclass(frozen=True, slots=True)
class Begun:
    """Its first trajectory was published at `at_ns`, monotonic."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The loop ended before the trial did; the model is neither proved nor faulty."""


Event: TypeAlias = Begun | Passed | Failed | Broken
"""What is reported: at most one Begun, then one of the others; of a model that is only watched also several Failed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One model on trial.

    Attributes:
        new: the model.
        probation: what it must show.
        object_to: what is wrong with an answer `(horizon, dof)` in rad, given the pose `(dof,)`; empty for nothing.
        report: hears the events, in the loop's thread.
        client: a session of its own, opened beforehand; None: open one.
        old: what drives again where it fails; None: nothing, it is judged and watched on.
        spare: a session of `old`, opened beforehand.
        expected_s: how long its answers took.
    """

    new: Loaded
    probation: Probation
    object_to: Callable[[NDArray[np.float64], NDArray[np.float64]], str]
    report: Callable[[Event], None]
    client: PolicyClient | None = None
    old: Loaded | None = None
    spare: PolicyClient | None = None
    expected_s: float = 0.0

    def discard(self) -> None:
        """Close the sessions, which nobody will use."""
        for session in (self.client, self.spare):
            if session is not None:
                session.close()


class Offer:
    """A trial on its way to the loop; any thread may put one, or take it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trial: Trial | None = None

    @property
    def waits(self) -> bool:
        """Whether there is one."""
        return self._trial is not None

    @property
    def expected_s(self) -> float:
        """How long its first answer may take."""
        return 0.0 if (trial := self._trial) is None else trial.expected_s

    def put(self, trial: Trial) -> None:
        """Offer one."""
        with self._lock:
            self._trial = trial

    def take(self) -> Trial | None:
        """Have it: nobody else will."""
        with self._lock:
            trial, self._trial = self._trial, None
            return trial

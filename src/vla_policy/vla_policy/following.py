"""Whether the arm does what it is told: by the driver's reports of what it took up, and by the measured joints."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vla_core.chunk import Plan
from vla_policy.clock import NS_PER_S

NOT_FOLLOWING = "the arm does not follow: see arm_controller on /diagnostics"
LEAST_UNANSWERED = 3
"""One trajectory may be overtaken by the next before the driver took it up; three in a row are refused."""

AWAY_RAD = 0.25
"""Gravity and friction leave a servo some hundredths of a radian short. An arm this far from the path that it was sent
along was refused, unpowered, or moved by somebody else."""
LAG_NS = 300_000_000
"""A servo may be where it should have been this long ago: at full speed that is more than AWAY_RAD."""
KEPT_PLANS = 128
"""More than LAG_NS and the wait for an answer hold even when a new plan comes every 20 ms."""
GRIPPER = "gripper"
"""This joint is meant to be stopped short, by what it holds: how far it lags says nothing."""


class Following:
    """Which of our trajectories the driver took up. Times are monotonic, ns; one thread uses it."""

    def __init__(self, timeout_s: float) -> None:
        """Give the driver `timeout_s` to report; 0 never expects a report."""
        self._timeout_ns = round(timeout_s * NS_PER_S)
        self._unanswered: deque[tuple[int, int]] = deque(maxlen=256)

    def published(self, stamp_ns: int, now_ns: int) -> None:
        """A trajectory with this stamp was published."""
        self._unanswered.append((stamp_ns, now_ns))

    def is_lost(self, reported: Collection[int], now_ns: int) -> bool:
        """Whether none of the last trajectories was taken up, though there was time.

        Args:
            reported: stamps that the driver reported of late.
            now_ns: the present.
        """
        answered = [index for index, (stamp_ns, _) in enumerate(self._unanswered) if stamp_ns in reported]
        for _ in range(answered[-1] + 1 if answered else 0):
            self._unanswered.popleft()
        if not self._timeout_ns or len(self._unanswered) < LEAST_UNANSWERED:
            return False
        return now_ns - self._unanswered[0][1] > self._timeout_ns


class Path:
    """What was commanded of late, plan after plan without a break; one thread uses it."""

    def __init__(self) -> None:
        self._plans: deque[Plan] = deque(maxlen=KEPT_PLANS)

    def follow(self, last: Plan | None, plan: Plan) -> None:
        """`plan` took over from `last`, or from wherever the driver held the arm."""
        if last is None:
            self._plans.clear()
        self._plans.append(plan)

    def is_left(self, joint_names: Sequence[str], state: NDArray[np.float64], state_ns: int) -> bool:
        """Whether the arm is not where it was sent, so that the next setpoint of the plan would be a leap for it.

        Args:
            joint_names: `(dof,)`.
            state: `(dof,)` measured positions, rad.
            state_ns: when they were measured, in the plans' time.
        """
        if not self._plans or state_ns < self._plans[0].start_ns:
            return False  # measured while the driver brought the arm to the first setpoint
        path = self._between(state_ns - LAG_NS, state_ns)
        beyond = np.maximum(path.min(axis=0) - state, state - path.max(axis=0))
        watched = np.array([name != GRIPPER for name in joint_names])
        return bool((beyond[watched] > AWAY_RAD).any())

    def _between(self, start_ns: int, end_ns: int) -> NDArray[np.float64]:
        """`(n, dof)`: the setpoints in force from `start_ns` to `end_ns`."""
        ends_ns = [*(plan.start_ns for plan in islice(self._plans, 1, None)), end_ns]
        parts = []
        for plan, until_ns in zip(self._plans, ends_ns, strict=True):
            first_ns, last_ns = max(start_ns, plan.start_ns), min(end_ns, until_ns)
            if first_ns <= last_ns:
                inside = plan.times_ns[(plan.times_ns > first_ns) & (plan.times_ns < last_ns)]
                parts.append(plan.at(np.array([first_ns, *inside, last_ns], dtype=np.int64)))
        return np.concatenate(parts)

"""Whether a deployment may replace components now: not while the arm moves.

Only the classic nucleus asks. It asks again after the time that it was told to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOVING_RAD_S = 0.03
"""A joint's speed above that is motion; the measured speed of an arm that stands is below 0.01 rad/s."""
STILL_S = 2.0
"""It must have stood for so long: a policy pauses between two motions, and a pick is one task."""
STALE_S = 1.0
"""Joint states come at 50 Hz; one that old tells nothing of now."""
ASK_AGAIN_S = 15.0
"""A pick takes 5 to 15 s; the deployment waits for a pause between two."""
LIMIT_S = 300.0
"""A robot that has not stood for five minutes will not stand soon, and a model is swapped without a stop anyway.
Greengrass itself has no limit."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How long to wait before asking again, 0 to go on, and why."""

    defer_s: float
    reason: str


class Motion:
    """Knows from joint states and the policy's status whether the arm moves."""

    def __init__(self) -> None:
        self._heard_s: float | None = None
        self._moved_s: float | None = None
        self._driving = False

    def joints(self, velocities_rad_s: Sequence[float], now_s: float) -> None:
        """A joint state came; without velocities it tells nothing."""
        if not velocities_rad_s:
            return
        self._heard_s = now_s
        if not all(abs(velocity) <= MOVING_RAD_S for velocity in velocities_rad_s):  # NaN is motion
            self._moved_s = now_s

    def policy(self, *, driving: bool) -> None:
        """The policy's status came."""
        self._driving = driving

    def reason(self, now_s: float) -> str:
        """Why the arm counts as moving; empty where it stands."""
        if self._heard_s is None or now_s - self._heard_s > STALE_S:
            return "the policy drives, and no joint state tells whether the arm stands" if self._driving else ""
        if self._moved_s is not None and now_s - self._moved_s < STILL_S:
            return "the arm moves"
        return ""


class Deferral:
    """Decides on one deployment after the other."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._deployment = ""
        self._since_s = 0.0

    def decide(self, deployment: str, busy: str, now_s: float) -> Verdict:
        """`busy` says why it had better wait; empty where it need not."""
        if deployment != self._deployment:
            self._deployment, self._since_s = deployment, now_s
        if not busy:
            self._deployment = ""
            return Verdict(0.0, "")
        waited_s = now_s - self._since_s
        if waited_s >= self._limit_s:
            self._deployment = ""
            return Verdict(0.0, f"{busy}, but deployment {deployment} has waited {waited_s:.0f} s: it goes on")
        return Verdict(min(ASK_AGAIN_S, self._limit_s - waited_s), busy)

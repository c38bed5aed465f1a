"""The trial under way in a control loop: its time limits, what it is told from outside, and how it ends.

The loop's thread uses it, except for what says otherwise. It knows no sessions: going over to a model and back is the
loop's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_core.chunk import Plan
from vla_policy.clock import NS_PER_S
from vla_policy.probation import Failed, Passed, Pending, Verdict
from vla_policy.schedule import MARGIN_S
from vla_policy.trial import Begun, Broken, Offer, Trial

LEAST_TIMES_EXPECTED = 3.0
LEAST_TIMEOUT_S = 0.25
"""A busy moment must not look like a fault: an answer may take so many times what it took while it was judged, and so
long, even where the arm would then have to wait for the former model's."""
RESERVE_SLACK_S = 0.3
"""So much earlier than need be the model on trial is asked: for busy moments, where the horizon has room for them."""


class Succession:
    """At most one trial at a time."""

    def __init__(self) -> None:
        self.offer = Offer()
        self._trial: Trial | None = None
        self._former_turnaround_s = 0.0
        self._begun = False
        self._order: Passed | Failed | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a model is on trial."""
        return self._trial is not None

    @property
    def has_former(self) -> bool:
        """Whether there is a model to go back to, which drove before."""
        return self._trial is not None and self._trial.old is not None

    @property
    def reserve_s(self) -> float:
        """What must fit before the plan ends, beyond the next answer: the former model's, should this one fail."""
        if self._trial is None or self._trial.spare is None:
            return 0.0  # its server must first be started: no reserve would cover that
        return self._former_turnaround_s + RESERVE_SLACK_S

    def can_begin(self, now_ns: int, plan: Plan | None, turnaround_s: float) -> bool:
        """Whether the plan in force outlasts the offered model's first answer and, if it fails, the present one's."""
        if plan is None or plan.end_ns <= now_ns:
            return True
        needed_s = LEAST_TIMES_EXPECTED * self.offer.expected_s + turnaround_s + RESERVE_SLACK_S + MARGIN_S
        return plan.end_ns - now_ns >= needed_s * NS_PER_S

    def begin(self, trial: Trial, turnaround_s: float) -> None:
        """This model is on trial from now on; the one before took `turnaround_s` from due to command."""
        self.end()
        self._trial, self._former_turnaround_s, self._begun, self._order = trial, turnaround_s, False, None

    def timeout_s(self, now_ns: int, plan: Plan | None, usual_s: float) -> float:
        """How long an answer may take: until the former model must be asked lest the arm stand still."""
        if self._trial is None or self._trial.spare is None or plan is None or plan.end_ns <= now_ns:
            return usual_s
        left_s = (plan.end_ns - now_ns) / NS_PER_S - self._former_turnaround_s - MARGIN_S
        least_s = max(LEAST_TIMES_EXPECTED * self._trial.expected_s, LEAST_TIMEOUT_S)
        return min(max(left_s, least_s), usual_s)

    def object_to(self, actions: NDArray[np.float64], pose: NDArray[np.float64]) -> str:
        """What is wrong with an answer on trial; empty where nothing is, or nothing is on trial."""
        return "" if self._trial is None else self._trial.object_to(actions, pose)

    def commanded(self, now_ns: int, gap_s: float, *, followed: bool) -> str:
        """A chunk of the model on trial was commanded; why it must go, or nothing. Reports what is good.

        What the arm does not follow says nothing for the model.
        """
        if self._trial is None:
            return ""
        if not self._begun:
            self._begun = True
            self._trial.report(Begun(now_ns))
        probation = self._trial.probation
        return self._settle(probation.chunk(now_ns, gap_s) if followed else probation.idle(now_ns))

    def is_decided(self, now_ns: int) -> bool:
        """Whether `settle` has something to say, though no chunk comes."""
        return self._trial is not None and not isinstance(self._standing(now_ns), Pending)

    def settle(self, now_ns: int) -> str:
        """Why the model on trial must go though it did nothing wrong just now; or nothing."""
        return self._settle(self._standing(now_ns))

    def _standing(self, now_ns: int) -> Verdict:
        if self._trial is None:
            return Pending()
        return self._order or self._trial.probation.idle(now_ns)

    def _settle(self, verdict: Verdict) -> str:
        if isinstance(verdict, Passed):
            self._finish(verdict)
        return verdict.reason if isinstance(verdict, Failed) else ""

    def decide(self, verdict: Passed | Failed) -> None:
        """From any thread: end the trial like this, soon."""
        self._order = verdict

    def recall(self, verdict: Failed) -> None:
        """From any thread: as `decide`, also where the trial is still on offer."""
        offered = self.offer.take()
        if offered is None:
            self.decide(verdict)
            return
        offered.discard()
        offered.report(verdict)

    def fail(self, reason: str) -> Trial | None:
        """The model on trial gave trouble: the trial, which is over; None where there was none.

        A model that has none to go back to stays on trial, from the beginning: none of its answers may go unjudged.
        """
        trial = self._trial
        if trial is not None and trial.old is None:
            trial.probation.restart()
            trial.report(Failed(reason))
        elif trial is not None:
            self._finish(Failed(reason))
        return trial

    def end(self) -> None:
        """The loop ends: so does the trial, undecided."""
        if self._trial is not None:
            self._finish(Broken())
        if (offered := self.offer.take()) is not None:
            offered.discard()
            offered.report(Broken())

    def _finish(self, event: Passed | Failed | Broken) -> None:
        trial, self._trial, self._order = self._trial, None, None
        if trial is None:
            return
        if trial.spare is not None and not isinstance(event, Failed):
            trial.spare.close()
        trial.report(event)

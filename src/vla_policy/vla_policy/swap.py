"""One swap from request to outcome: which stage may follow which, and when each began.

Pure; times are monotonic, ns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from vla_core.errors import ModelError
from vla_core.swap import Outcome, Stage, SwapRequest
from vla_policy.clock import NS_PER_S

ORDER = (Stage.NONE, Stage.VERIFY, Stage.START, Stage.WARM_UP, Stage.JUDGE, Stage.SWITCH, Stage.PROBATION)
AFTER_SWITCH = frozenset({Stage.PROBATION})
END = "end"


class PassingError(ModelError):
    """What keeps the model from being taken lies with its surroundings: the same request may succeed later."""


class Swap:
    """The record of one request."""

    def __init__(self, request: SwapRequest, now_ns: int) -> None:
        """It came at `now_ns`."""
        self.request = request
        self.stage = Stage.NONE
        self.outcome = Outcome.NONE
        self.reason = ""
        self.passing = False
        self._began_ns = now_ns
        self._reached = Stage.NONE
        self._timeline: dict[str, float] = {}

    def enter(self, stage: Stage, now_ns: int) -> None:
        """Go on to `stage`; stages may be left out, never gone back to."""
        if self.outcome or ORDER.index(stage) <= ORDER.index(self.stage):
            raise ValueError(f"stage {stage!r} cannot follow {self.stage!r}, outcome {self.outcome!r}")
        self.stage = self._reached = stage
        self._note(stage, now_ns)

    def end(self, outcome: Outcome, reason: str, now_ns: int, *, passing: bool = False) -> None:
        """It is over.

        What was never switched is `refused`, whoever calls it rolled back; what was switched is `rolled_back`.
        A refusal is `passing` where the same request may succeed later.
        """
        if self.outcome or outcome is Outcome.NONE:
            raise ValueError(f"outcome {outcome!r} cannot follow {self.outcome!r}")
        if outcome in (Outcome.REFUSED, Outcome.ROLLED_BACK):
            outcome = Outcome.ROLLED_BACK if self._reached in AFTER_SWITCH else Outcome.REFUSED
        self.outcome, self.reason, self.stage = outcome, reason, Stage.NONE
        self.passing = passing and outcome is Outcome.REFUSED
        self._note(END, now_ns)

    @property
    def timeline(self) -> Mapping[str, float]:
        """Stage to seconds since the request; `end` at last."""
        return dict(self._timeline)

    def values(self) -> dict[str, str]:
        """The key-value pairs on `policy/status`."""
        return {
            "stage": str(self.stage),
            "request_id": self.request.request_id,
            "outcome": str(self.outcome),
            "outcome_reason": self.reason,
            "passing": "true" if self.passing else "false",
            "timeline": json.dumps(self._timeline),
        }

    def _note(self, name: str, now_ns: int) -> None:
        self._timeline[str(name)] = round((now_ns - self._began_ns) / NS_PER_S, 4)

"""What became of one deployment, moment by moment, put together from what nucleus, bridge and policy say. Pure.

Times are monotonic seconds of this machine, which all its processes share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from vla_core.swap import NEXT_TRY, Outcome, Stage, SwapStatus


class Moment(StrEnum):
    """What happens to a deployment, in the order in which it does."""

    DEPLOYED = "deployed"
    TOLD = "configuration event"
    SEEN = "seen by the bridge"
    FETCHED = "fetched"
    ASKED = "policy asked"
    VERIFIED = "verified"
    STARTED = "started"
    WARMED = "warmed up"
    JUDGED = "judged"
    FIRST_ACTION = "first action"
    OVER = "over"
    REPORTED = "reported"


ENDS = MappingProxyType(
    {
        Moment.TOLD: "deliver",
        Moment.SEEN: "notice",
        Moment.FETCHED: "fetch",
        Moment.ASKED: "ask",
        Moment.VERIFIED: "verify",
        Moment.STARTED: "start",
        Moment.WARMED: "warm_up",
        Moment.JUDGED: "judge",
        Moment.FIRST_ACTION: "switch",
        Moment.OVER: "probation",
        Moment.REPORTED: "report",
    }
)
"""The stage that each moment ends, where it ended well."""
FAILED_AT = MappingProxyType(
    {
        Moment.SEEN: "fetch",
        Moment.FETCHED: "ask",
        Moment.ASKED: "verify",
        Moment.VERIFIED: "start",
        Moment.STARTED: "warm_up",
        Moment.WARMED: "judge",
        Moment.JUDGED: "switch",
        Moment.FIRST_ACTION: "probation",
    }
)
"""The stage that was under way when it was over, by the last moment before."""
OF_THE_POLICY = MappingProxyType(
    {
        Stage.VERIFY: Moment.ASKED,
        Stage.START: Moment.VERIFIED,
        Stage.WARM_UP: Moment.STARTED,
        Stage.JUDGE: Moment.WARMED,
        Stage.SWITCH: Moment.JUDGED,
        Stage.PROBATION: Moment.FIRST_ACTION,
    }
)
"""The moment at which each of the policy's stages begins."""


@dataclass(frozen=True, slots=True)
class Said:
    """One status of the policy and when it came."""

    at_s: float
    status: SwapStatus


@dataclass(frozen=True, slots=True)
class BridgeSaid:
    """One status of the bridge and when it came; see `gg_bridge.view.View` for the values."""

    at_s: float
    values: Mapping[str, str]

    @property
    def request_id(self) -> str:
        """Of the wish that it works on, or worked on last."""
        return self.values.get("request_id", "")

    @property
    def phase(self) -> str:
        """`idle`, `fetching`, `waiting` or `swapping`."""
        return self.values.get("phase", "")

    @property
    def outcome(self) -> Outcome:
        """How the wish ended; none while it is under way, or where a release has others."""
        found = self.values.get("outcome", "")
        return Outcome(found) if found in set(Outcome) else Outcome.NONE


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stage."""

    stage: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """One deployment.

    Attributes:
        request_id: under which bridge and policy know it; empty before the bridge has seen it.
        model: `name@version`, once it is known.
        at_s: each moment that has come, in order.
        outcome: how it ended; none while it is under way.
        reason: why it did not succeed.
    """

    request_id: str
    model: str
    at_s: Mapping[Moment, float]
    outcome: Outcome = Outcome.NONE
    reason: str = ""

    @property
    def stretches(self) -> list[Stretch]:
        """The stages that are over, one after the other."""
        found = []
        for (before, begin_s), (moment, end_s) in pairwise(self.at_s.items()):
            stage = ENDS[moment] if moment is not Moment.OVER else FAILED_AT.get(before, "probation")
            found.append(Stretch(stage, begin_s, end_s))
        return found

    @property
    def to_first_action_s(self) -> float | None:
        """From the configuration event to the first action of the new model."""
        if Moment.TOLD not in self.at_s or Moment.FIRST_ACTION not in self.at_s:
            return None
        return self.at_s[Moment.FIRST_ACTION] - self.at_s[Moment.TOLD]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times count from the deployment."""
        start_s = next(iter(self.at_s.values()), 0.0)
        whole_s = self.to_first_action_s
        return {
            "model": self.model,
            "request_id": self.request_id,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "moments_s": {str(moment): round(at_s - start_s, 3) for moment, at_s in self.at_s.items()},
            "stages_s": {part.stage: round(part.end_s - part.begin_s, 3) for part in self.stretches},
            "event_to_first_action_s": None if whole_s is None else round(whole_s, 3),
        }


def build(
    deployed_s: float,
    told_s: float | None,
    bridge: Sequence[BridgeSaid],
    policy: Sequence[Said],
    reports: Mapping[str, float],
) -> Timeline:
    """Put together what is known of the newest deployment so far.

    Args:
        deployed_s: when it was made.
        told_s: when the nucleus sent its events, if it has.
        bridge: what the bridge said, oldest first.
        policy: what the policy said, oldest first.
        reports: when a report of each outcome's id (`<request_id>-<outcome>`) reached the nucleus.
    """
    at_s = {Moment.DEPLOYED: deployed_s}
    if told_s is not None:
        at_s[Moment.TOLD] = told_s
    request_id = _request(deployed_s, bridge)
    if not request_id:
        return Timeline("", "", at_s)
    own = [said for said in bridge if said.request_id == request_id and said.at_s >= deployed_s]
    model = next((name for said in reversed(own) if (name := said.values.get("model", ""))), "")
    at_s[Moment.SEEN] = own[0].at_s
    swapping = next((said.at_s for said in own if said.phase == "swapping"), None)
    if swapping is not None:
        at_s[Moment.FETCHED] = swapping
    at_s |= _swap(request_id, policy)
    outcome, reason = _end(request_id, own, policy)
    if outcome and Moment.OVER not in at_s:
        at_s[Moment.OVER] = next(said.at_s for said in own if said.outcome)
    if (reported_s := reports.get(f"{request_id}-{outcome}")) is not None:
        at_s[Moment.REPORTED] = reported_s
    return Timeline(request_id, model, _in_order(at_s), outcome, reason)


def _request(deployed_s: float, bridge: Sequence[BridgeSaid]) -> str:
    """The id of the newest wish, if it is of after the deployment."""
    before = {said.request_id for said in bridge if said.at_s < deployed_s}
    after = [said.request_id for said in bridge if said.at_s >= deployed_s and said.request_id]
    return next((request_id for request_id in reversed(after) if request_id not in before), "")


def _swap(request_id: str, policy: Sequence[Said]) -> dict[Moment, float]:
    """Its timeline counts from the request, whose time is that of the message that was quickest to come."""
    own = _tries(request_id, policy)
    if not own:
        return {}
    asked_s = min(said.at_s - max(said.status.timeline.values(), default=0.0) for said in own)
    newest = own[-1].status.timeline
    at_s = {moment: asked_s + newest[stage] for stage, moment in OF_THE_POLICY.items() if stage in newest}
    if "end" in newest:
        at_s[Moment.OVER] = asked_s + newest["end"]
    return at_s


def _tries(request_id: str, policy: Sequence[Said]) -> list[Said]:
    """What was said of its last try; the bridge makes another, as `<request_id>:2`, of one refused for the present."""
    own = [said for said in policy if said.status.request_id.partition(NEXT_TRY)[0] == request_id]
    return [said for said in own if said.status.request_id == own[-1].status.request_id and not said.status.passing]


def _end(request_id: str, bridge: Sequence[BridgeSaid], policy: Sequence[Said]) -> tuple[Outcome, str]:
    for said in reversed(_tries(request_id, policy)):
        if said.status.is_over:
            return said.status.outcome, said.status.reason
    for heard in reversed(bridge):
        if heard.outcome:
            return heard.outcome, heard.values.get("reason", "")
    return Outcome.NONE, ""


def _in_order(at_s: Mapping[Moment, float]) -> dict[Moment, float]:
    """By the order of moments; none before the one it follows: messages on two ways may overtake each other by ms."""
    found: dict[Moment, float] = {}
    latest_s = float("-inf")
    for moment in Moment:
        if moment in at_s:
            latest_s = max(latest_s, at_s[moment])
            found[moment] = latest_s
    return found

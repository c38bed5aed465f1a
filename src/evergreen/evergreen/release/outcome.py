"""What became of a release on one device: Greengrass's word and the bridge's own report, put together.

Both are needed. Greengrass Lite calls a deployment SUCCEEDED though the robot refused the model; and the report may
come before the deployment's end. The report lies in the thing's named shadow, which tells when it came by AWS's clock:
a robot's own clock may be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gg_bridge.report import MAX_PROMPT

SETTLE_S = 120.0
"""A robot that knows the model already says nothing new. So long after the end of the deployment its earlier report
counts: the bridge's quiet time, and the restart that Lite gives a component 10 s after a change, are over by then."""
OFFLINE_S = 900.0
"""A core device tells its health at least daily, and at each change of a component; a deployment that it does not even
begin for this long says that it is offline."""
STAMP_S = 1.0
"""Shadows know whole seconds: a report of the deployment's very second came after it."""
_FAILED = frozenset({"FAILED", "TIMED_OUT", "CANCELED", "REJECTED"})
_ENDED = frozenset({"SUCCEEDED", "COMPLETED"})


class Kind(StrEnum):
    """How a device stands."""

    PENDING = "pending"
    """Greengrass has not told it yet: it is offline, or busy."""
    UPDATING = "updating"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """The robot did not take the model; the old one drives on."""
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    """Greengrass could not apply the deployment."""
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come."""
        return self not in (Kind.PENDING, Kind.UPDATING)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a robot is asked for beside the model's name and version, as its reports tell it; None is unknown."""

    prompt: str | None = None
    swap: str | None = None
    sha256: str | None = None

    def contradicts(self, other: Wish) -> bool:
        """Whether both know something, and not the same."""
        return any(None not in pair and pair[0] != pair[1] for pair in self._beside(other))

    def confirms(self, other: Wish) -> bool:
        """Whether this knows all that the other knows, and the same."""
        return all(theirs is None or mine == theirs for mine, theirs in self._beside(other))

    def _beside(self, other: Wish) -> tuple[tuple[str | None, str | None], ...]:
        """Field by field; reports tell the beginning of a long prompt."""
        return (
            (_beginning(self.prompt), _beginning(other.prompt)),
            (self.swap, other.swap),
            (self.sha256, other.sha256),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The bridge's last word.

    Attributes:
        outcome, model, running, reason, durations_s: as in `gg_bridge.report`.
        version: that the configuration asked for; the model is unknown where nothing was fetched.
        wish: what else it asked for.
        at_s: when AWS got it, seconds since 1970.
    """

    outcome: str
    model: str
    running: str = ""
    reason: str = ""
    version: str = ""
    wish: Wish = field(default_factory=Wish)
    durations_s: Mapping[str, float] = field(default_factory=dict)
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What AWS knows of one device and one deployment.

    Attributes:
        thing: the device.
        execution: Greengrass's status of the deployment there; empty: not begun.
        reason: of that status.
        changed_s: when the status last changed.
        seen_s: when the device was last heard of.
        report: the bridge's last report.
    """

    thing: str
    execution: str = ""
    reason: str = ""
    changed_s: float = 0.0
    seen_s: float = 0.0
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a deployment should bring.

    Attributes:
        label: `name@version`; empty for a component that does not report, of which Greengrass's word is enough.
        deployed_s: when the deployment was made, seconds since 1970.
        latest: whether no newer deployment took its place.
        wish: what else it asks for.
    """

    label: str
    deployed_s: float
    latest: bool = True
    wish: Wish = field(default_factory=Wish)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one device stands, and why."""

    thing: str
    kind: Kind
    reason: str = ""
    durations_s: Mapping[str, float] = field(default_factory=dict)
    running: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "thing": self.thing,
            "outcome": str(self.kind),
            "reason": self.reason,
            "running": self.running,
            "durations_s": dict(self.durations_s),
        }


def judge(facts: Facts, wanted: Wanted, now_s: float) -> Outcome:
    """How the device stands at `now_s`, seconds since 1970."""
    report = facts.report
    if report and _counts(facts, report, wanted, now_s):
        told = _by_report(facts, report)
        if told is not None:
            return told
    kind, reason = _by_status(facts, wanted, now_s)
    return Outcome(facts.thing, kind, reason, running=report.running if report else "")


def _by_status(facts: Facts, wanted: Wanted, now_s: float) -> tuple[Kind, str]:
    """As far as Greengrass alone can tell."""
    if facts.execution in _FAILED:
        return Kind.FAILED, facts.reason or f"Greengrass says {facts.execution}"
    if not wanted.latest:
        return Kind.SUPERSEDED, "a newer deployment took its place"
    if facts.execution in _ENDED:
        return (Kind.UPDATING, _progress(facts.report, wanted)) if wanted.label else (Kind.SUCCEEDED, "")
    if facts.execution == "IN_PROGRESS":
        return Kind.UPDATING, "applying the deployment"
    return Kind.PENDING, _absence(facts, wanted, now_s)


def _counts(facts: Facts, report: Report, wanted: Wanted, now_s: float) -> bool:
    """Whether it is the word on this deployment.

    A robot that was asked for the very same before says nothing new: its old report counts after a while. Asked for
    another prompt or another way to swap it does, however long loading takes.
    """
    if not _is_about(report, wanted):
        return False
    settled = facts.execution in _ENDED and now_s - facts.changed_s >= SETTLE_S
    return _is_fresh(report, wanted) or (settled and report.wish.confirms(wanted.wish))


def _is_about(report: Report, wanted: Wanted) -> bool:
    if not wanted.label or report.wish.contradicts(wanted.wish):
        return False
    name, _, version = wanted.label.partition("@")
    if report.model:
        return report.model == f"{name}@{version}"
    return report.version == version


def _is_fresh(report: Report, wanted: Wanted) -> bool:
    return report.at_s + STAMP_S > wanted.deployed_s


def _beginning(prompt: str | None) -> str | None:
    return prompt if prompt is None else prompt[:MAX_PROMPT]


def _by_report(facts: Facts, report: Report) -> Outcome | None:
    """None where the report is no end."""
    match report.outcome:
        case "refused":
            kind = Kind.REFUSED
        case "rolled_back":
            kind = Kind.ROLLED_BACK
        case "superseded":
            kind = Kind.SUPERSEDED
        case "succeeded" if facts.execution in _ENDED:
            kind = Kind.SUCCEEDED
        case _:
            return None
    return Outcome(facts.thing, kind, report.reason, report.durations_s, report.running)


def _progress(report: Report | None, wanted: Wanted) -> str:
    if report and report.outcome == "retrying" and _is_fresh(report, wanted):
        return f"tries again: {report.reason}"
    return "deployed; the robot has not reported yet"


def _absence(facts: Facts, wanted: Wanted, now_s: float) -> str:
    if now_s - wanted.deployed_s < OFFLINE_S:
        return "waits for the device"
    seen = f"; last heard of {ago(now_s - facts.seen_s)} ago" if facts.seen_s else ""
    return f"offline: it has not begun the deployment for {ago(now_s - wanted.deployed_s)}{seen}"


def ago(seconds: float) -> str:
    """`3 h 20 min`, for people."""
    minutes = int(max(0.0, seconds) // 60)
    if minutes < 1:
        return f"{int(max(0.0, seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"

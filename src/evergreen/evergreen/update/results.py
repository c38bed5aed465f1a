"""What a story found, as `update.json` holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evergreen.demo.results import Episode
from evergreen.update.timeline import Moment, Timeline
from evergreen.update.witness import Witness
from vla_core.setpoints import Span, gaps, longest_ns, periods_ns, total_ns

NS_PER_S = 1_000_000_000
NS_PER_MS = 1e6
BESIDE_S = 0.1
"""A gap this near to the first action of the new model is the handover's."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story: whether it went as told, and what happened."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Motion:
    """How the arm fared while a deployment was under way.

    Attributes:
        gap_ms: time without a setpoint, in all.
        largest_gap_ms: the longest of it.
        handover_gap_ms: the one before the first action of the new model; None where there was no such action.
        servo_period_ms: the longest from one write of goals to the next, as the servos saw it; None where unknown.
        speed_rad_s: of the fastest joint at the handover; None likewise.
    """

    gap_ms: float
    largest_gap_ms: float
    handover_gap_ms: float | None
    servo_period_ms: float | None
    speed_rad_s: float | None

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: None if value is None else round(value, 3) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Chapter:
    """One deployment of the story: how it went, how the nucleus ended it, how the arm fared."""

    timeline: Timeline
    deployment: str
    motion: Motion
    expected: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {"expected": self.expected, "deployment": self.deployment, "arm": self.motion.as_dict()}
        return self.timeline.as_dict() | facts


def motion(witness: Witness, timeline: Timeline, writes_ns: Sequence[int]) -> Motion:
    """What the arm did from the configuration event to the outcome, or as far as that has come."""
    begin_s = timeline.at_s.get(Moment.TOLD, timeline.at_s[Moment.DEPLOYED])
    end_s = max(at_s for moment, at_s in timeline.at_s.items() if moment is not Moment.REPORTED)
    window = Span(round(begin_s * NS_PER_S), round(end_s * NS_PER_S))
    found = gaps(witness.commanded, window)
    handover_ms = speed_rad_s = None
    if (first_s := timeline.at_s.get(Moment.FIRST_ACTION)) is not None:
        near = (round((first_s - BESIDE_S) * NS_PER_S), round((first_s + BESIDE_S) * NS_PER_S))
        handover_ms = longest_ns(gap for gap in found if gap.begin_ns < near[1] and gap.end_ns > near[0]) / NS_PER_MS
        speed_rad_s = max((speed for _, speed in witness.speeds(first_s - BESIDE_S, first_s + BESIDE_S)), default=None)
    return Motion(
        gap_ms=total_ns(found) / NS_PER_MS,
        largest_gap_ms=longest_ns(found) / NS_PER_MS,
        handover_gap_ms=handover_ms,
        servo_period_ms=max(periods_ns(writes_ns, window)) / NS_PER_MS if writes_ns else None,
        speed_rad_s=speed_rad_s,
    )


@dataclass(frozen=True, slots=True)
class Told:
    """A whole story.

    Attributes:
        nucleus: its character.
        models: label by part.
        steps: in order; those after one that went wrong are missing.
        updates: its deployments.
        episodes: scenes that were played, each with the cube that was to be placed.
        restarts: of processes that died, and of the component, which the nucleus restarts after a deployment on Lite.
    """

    nucleus: str
    models: dict[str, str]
    steps: Sequence[Step]
    updates: Sequence[Chapter]
    episodes: Sequence[tuple[str, Episode]] = ()
    realtime_factor_min: float = 1.0
    restarts: int = 0
    component_restarts: int = 0
    missing: Sequence[str] = field(default_factory=tuple)

    @property
    def as_told(self) -> bool:
        """Whether all of it went as it should."""
        return not self.missing and all(step.ok for step in self.steps)

    def as_dict(self) -> dict[str, Any]:
        """The content of `update.json`."""
        return {
            "as_told": self.as_told,
            "nucleus": self.nucleus,
            "models": self.models,
            "steps": [{"name": step.name, "ok": step.ok, "detail": step.detail} for step in self.steps],
            "missing": list(self.missing),
            "updates": [update.as_dict() for update in self.updates],
            "episodes": [{"target": target, **episode.as_dict()} for target, episode in self.episodes],
            "realtime_factor_min": round(self.realtime_factor_min, 4),
            "restarts": self.restarts,
            "component_restarts": self.component_restarts,
        }

    def to_json(self) -> str:
        """The text of `update.json`."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

"""What a demo run found, as `demo.json` holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from evergreen.demo.asked import Turn
from vla_core.latency import STAGES, summarise

NO_PICTURE = "newest picture when the scripted expert looked; it uses none"
MIN_REALTIME_FACTOR = 0.95
"""Below this the simulated world ran slower than the controllers' clocks: the run says nothing about a robot."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One try to put the cube on the spot.

    Attributes:
        index: from 1.
        seed: of the scene.
        success: the right cube rests on the spot, released, and none was moved that nobody had asked for.
        seconds: from start to success, or to the time limit.
        detail: why it did not succeed, else empty.
        distance_m: of the right cube from the spot at the end; None where it is not there.
        told: what was asked for, one after another, where any cube may be asked for.
        ended_ns: by the system's clock.
    """

    index: int
    seed: int
    success: bool
    seconds: float
    detail: str = ""
    distance_m: float | None = 0.0
    told: Sequence[Turn] = ()
    ended_ns: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "index": self.index,
            "seed": self.seed,
            "success": self.success,
            "seconds": round(self.seconds, 2),
            "distance_mm": None if self.distance_m is None else round(self.distance_m * 1000, 1),
            "detail": self.detail,
            **({"prompts": [turn.as_dict() for turn in self.told]} if self.told else {}),
        }


@dataclass(frozen=True, slots=True)
class ChunkLatency:
    """Durations of one action chunk in ms: stages by name, and the whole from photon to servo."""

    stamp_ns: int
    total_ms: float
    stages_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CameraCount:
    """What one camera delivered while the arm worked."""

    fps: float
    dropped: int


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """How the policy's chunks went: late and refused ones have no latency, so they are counted here.

    Attributes:
        chunks: commanded.
        gaps: times that the arm had stood still waiting for a chunk.
        longest_gap_s: the longest of these.
        holds: reasons to hold.
    """

    KEYS: ClassVar[tuple[str, ...]] = ("chunks", "gaps", "longest_gap_s", "holds")

    chunks: float = 0.0
    gaps: float = 0.0
    longest_gap_s: float = 0.0
    holds: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        counts = {key: int(getattr(self, key)) for key in ("chunks", "gaps", "holds")}
        return {**counts, "longest_gap_s": round(self.longest_gap_s, 3)}


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that a demo run measured.

    Attributes:
        policy: label of the model.
        sees: whether the model looks at pictures; the expert does not, so its latency counts from the newest frame.
        realtime_factor: simulated over real time, over all episodes.
        realtime_factor_min: the least of the simulator's own sliding window.
        restarts: of nodes that died and were started again.
    """

    policy: str
    seed: int
    episodes: Sequence[Episode]
    latencies: Sequence[ChunkLatency]
    cameras: Mapping[str, CameraCount]
    realtime_factor: float
    realtime_factor_min: float
    sees: bool = True
    chunks: ChunkCounts = field(default_factory=ChunkCounts)
    restarts: int = 0

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""
        return sum(episode.success for episode in self.episodes)

    @property
    def valid(self) -> bool:
        """Whether the figures count: the simulation kept up with real time throughout, and no node died."""
        return min(self.realtime_factor, self.realtime_factor_min) >= MIN_REALTIME_FACTOR and not self.restarts

    def as_dict(self) -> dict[str, Any]:
        """The content of `demo.json`; latencies in ms."""
        stages = {
            name: summarise(chunk.stages_ms[name] for chunk in self.latencies if name in chunk.stages_ms).as_dict()
            for name in STAGES
        }
        return {
            "policy": self.policy,
            "seed": self.seed,
            "episodes": len(self.episodes),
            "successes": self.successes,
            "latency_ms": summarise(chunk.total_ms for chunk in self.latencies).as_dict(),
            "stages_ms": stages,
            "cameras": {
                name: {"fps": round(count.fps, 2), "dropped": count.dropped} for name, count in self.cameras.items()
            },
            "latency_from": "capture of the oldest picture used" if self.sees else NO_PICTURE,
            "chunks": self.chunks.as_dict(),
            "restarts": self.restarts,
            "realtime_factor": round(self.realtime_factor, 4),
            "realtime_factor_min": round(self.realtime_factor_min, 4),
            "valid": self.valid,
            "episode_list": [episode.as_dict() for episode in self.episodes],
        }

    def to_json(self) -> str:
        """The text of `demo.json`."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Write `demo.json`."""
        path.write_text(self.to_json(), encoding="utf-8")

"""What a demo run found, as `demo.json` holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_core.latency import STAGES, summarise

MIN_REALTIME_FACTOR = 0.95
"""Below this the simulated world ran slower than the controllers' clocks: the run says nothing about a robot."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One try to put the cube on the spot.

    Attributes:
        index: from 1.
        seed: of the scene.
        success: the right cube rests on the spot, released, and the other was not moved.
        seconds: from start to success, or to the time limit.
        detail: why it did not succeed, else empty.
        distance_m: of the right cube from the spot at the end.
    """

    index: int
    seed: int
    success: bool
    seconds: float
    detail: str = ""
    distance_m: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "index": self.index,
            "seed": self.seed,
            "success": self.success,
            "seconds": round(self.seconds, 2),
            "distance_mm": round(self.distance_m * 1000, 1),
            "detail": self.detail,
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
class Results:
    """Everything that a demo run measured."""

    policy: str
    seed: int
    episodes: Sequence[Episode]
    latencies: Sequence[ChunkLatency]
    cameras: Mapping[str, CameraCount]
    realtime_factor: float

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""
        return sum(episode.success for episode in self.episodes)

    @property
    def valid(self) -> bool:
        """Whether the simulation kept up with real time."""
        return self.realtime_factor >= MIN_REALTIME_FACTOR

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
            "realtime_factor": round(self.realtime_factor, 4),
            "valid": self.valid,
            "episode_list": [episode.as_dict() for episode in self.episodes],
        }

    def to_json(self) -> str:
        """The text of `demo.json`."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Write `demo.json`."""
        path.write_text(self.to_json(), encoding="utf-8")

"""What the demo knows of the running graph: pure bookkeeping that the node feeds and the screen reads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from evergreen.demo.pictures import Shot
from evergreen.demo.results import CameraCount, ChunkLatency
from vla_core.latency import STAGES, Summary, summarise

CAMERA_STATUS = "cameras: "
"""Prefix of the camera node's statuses on `/diagnostics`."""


@dataclass(slots=True)
class _Camera:
    fps: float = 0.0
    dropped: int = 0
    frames: int = 0
    first: tuple[float, int, int] | None = None
    last: tuple[float, int, int] | None = None


@dataclass(slots=True)
class Graph:
    """The newest news from every node; any thread may call any method.

    Attributes:
        recording: whether rates and latencies count.
        filming: whether pictures for the video are kept.
        policy_reason: why the policy holds or refused, in its own words.
        active_model: label of the model that drives, empty while none does.
        policy_state: lifecycle state as the policy reports it.
        joints: newest joint positions by name, rad.
    """

    recording: bool = False
    filming: bool = False
    caption: str = ""
    policy_reason: str = ""
    active_model: str = ""
    policy_state: str = ""
    joints: dict[str, float] = field(default_factory=dict)
    _cameras: dict[str, _Camera] = field(default_factory=dict)
    _totals: dict[int, float] = field(default_factory=dict)
    _stages: dict[int, dict[str, float]] = field(default_factory=dict)
    _shots: list[Shot] = field(default_factory=list)
    _stills: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_diagnostic(self, name: str, values: Mapping[str, str], now_s: float) -> None:
        """Take one status of `/diagnostics`; `now_s` is monotonic."""
        if not name.startswith(CAMERA_STATUS):
            return
        with self._lock:
            camera = self._cameras.setdefault(name.removeprefix(CAMERA_STATUS), _Camera())
            camera.fps = float(values.get("fps") or 0.0)
            camera.frames, camera.dropped = int(values.get("frames") or 0), int(values.get("dropped") or 0)
            if self.recording:
                camera.last = (now_s, camera.frames, camera.dropped)
                camera.first = camera.first or camera.last

    def on_policy_latency(self, values: Mapping[str, str]) -> None:
        """Take the policy's stages of one chunk."""
        if not self.recording:
            return
        stages = {name: float(values[f"{name}_ms"]) for name in STAGES if values.get(f"{name}_ms")}
        with self._lock:
            self._stages[int(values["stamp_ns"])] = stages

    def on_arm_latency(self, values: Mapping[str, str]) -> None:
        """Take the arm's total of one chunk, from photon to servo, and its last stage."""
        if not self.recording:
            return
        with self._lock:
            stamp_ns = int(values["stamp_ns"])
            self._totals[stamp_ns] = float(values["total_ms"])
            self._stages.setdefault(stamp_ns, {})["write"] = float(values["write_ms"])

    def on_frame(self, camera: str, stamp_ns: int, jpeg: bytes, *, film: bool) -> None:
        """Take one picture; those of cameras to `film` are kept while filming."""
        with self._lock:
            self._stills[camera] = jpeg
            if film and self.filming:
                self._shots.append(Shot(camera, stamp_ns, jpeg, self.caption))

    def has_still(self, camera: str) -> bool:
        """Whether this camera has delivered a picture."""
        with self._lock:
            return camera in self._stills

    def stills(self) -> dict[str, bytes]:
        """The newest picture of each camera."""
        with self._lock:
            return dict(self._stills)

    def shots(self) -> list[Shot]:
        """Everything that was filmed."""
        with self._lock:
            return list(self._shots)

    def camera_rates(self) -> dict[str, float]:
        """Frames per second of each camera, as its node reports them."""
        with self._lock:
            return {name: camera.fps for name, camera in self._cameras.items()}

    def camera_counts(self) -> dict[str, CameraCount]:
        """Mean rate and drops over the time that was recorded."""
        with self._lock:
            return {name: _count(camera) for name, camera in self._cameras.items()}

    def latencies(self) -> list[ChunkLatency]:
        """All chunks that reached a servo while recording, in order of their stamps."""
        with self._lock:
            return [
                ChunkLatency(stamp_ns, total, dict(self._stages.get(stamp_ns, {})))
                for stamp_ns, total in sorted(self._totals.items())
            ]

    def latency(self) -> Summary:
        """Percentiles of the latency so far."""
        with self._lock:
            return summarise(self._totals.values())

    def newest_stamp_ns(self) -> int | None:
        """Stamp of the chunk that reached the servos last."""
        with self._lock:
            return max(self._totals, default=None)


def _count(camera: _Camera) -> CameraCount:
    if camera.first is None or camera.last is None or camera.last[0] <= camera.first[0]:
        return CameraCount(camera.fps, camera.dropped)
    seconds = camera.last[0] - camera.first[0]
    return CameraCount((camera.last[1] - camera.first[1]) / seconds, camera.last[2] - camera.first[2])

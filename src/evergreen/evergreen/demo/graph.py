"""What the demo knows of the running graph: pure bookkeeping that the node feeds and the screen reads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from evergreen.demo.pictures import Shot
from evergreen.demo.results import CameraCount, ChunkCounts, ChunkLatency
from vla_core.latency import STAGES, Summary, summarise

CAMERA_STATUS = "cameras: "
"""Prefix of the camera node's statuses on `/diagnostics`."""
CHUNK_STATUS = "policy: chunks"
SILENT_S = 2.5
"""Reports come once a second; after two that are missing a camera counts as silent."""


@dataclass(slots=True)
class _Camera:
    """Counters of one camera: `seen` is the newest report (monotonic s, frames, dropped), the rest sums what counts."""

    fps: float = 0.0
    seen: tuple[float, int, int] | None = None
    seconds: float = 0.0
    frames: int = 0
    dropped: int = 0

    def report(self, now_s: float, frames: int, dropped: int, *, counts: bool) -> None:
        """Take a report; a counter that fell began anew with its process."""
        if counts and self.seen is not None:
            then_s, old_frames, old_dropped = self.seen
            self.seconds += now_s - then_s
            self.frames += frames - old_frames if frames >= old_frames else frames
            self.dropped += dropped - old_dropped if dropped >= old_dropped else dropped
        self.seen = (now_s, frames, dropped)

    def count(self, until_s: float) -> CameraCount:
        """Mean rate up to `until_s`: a camera that fell silent delivered nothing since."""
        silent_s = max(0.0, until_s - self.seen[0]) if self.seen else 0.0
        seconds = self.seconds + (silent_s if silent_s > SILENT_S else 0.0)
        return CameraCount(self.frames / seconds if seconds else self.fps, self.dropped)


@dataclass(slots=True)
class Graph:
    """The newest news from every node; any thread may call any method.

    Attributes:
        recording: whether rates and latencies count.
        filming: whether pictures for the video are kept.
        policy_reason: why the policy holds or refused, in its own words.
        active_model: label of the model that drives, empty while none does.
        policy_state: lifecycle state as the policy reports it.
        prompt: the instruction in force.
        prompt_target: what the policy took it for; empty where it does not say.
        joints: newest joint positions by name, rad.
    """

    recording: bool = False
    filming: bool = False
    caption: str = ""
    policy_reason: str = ""
    active_model: str = ""
    policy_state: str = ""
    prompt: str = ""
    prompt_target: str = ""
    joints: dict[str, float] = field(default_factory=dict)
    _cameras: dict[str, _Camera] = field(default_factory=dict)
    _totals: dict[int, float] = field(default_factory=dict)
    _stages: dict[int, dict[str, float]] = field(default_factory=dict)
    _shots: list[Shot] = field(default_factory=list)
    _stills: dict[str, bytes] = field(default_factory=dict)
    _wanted: set[str] = field(default_factory=set)
    _chunks: ChunkCounts = field(default_factory=ChunkCounts)
    _until_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_diagnostic(self, name: str, values: Mapping[str, str], now_s: float) -> None:
        """Take one status of `/diagnostics`; `now_s` is monotonic."""
        with self._lock:
            if name == CHUNK_STATUS:
                self._chunks = ChunkCounts(*(float(values.get(key) or 0.0) for key in ChunkCounts.KEYS))
            elif name.startswith(CAMERA_STATUS):
                camera = self._cameras.setdefault(name.removeprefix(CAMERA_STATUS), _Camera())
                camera.fps = float(values.get("fps") or 0.0)
                frames, dropped = int(values.get("frames") or 0), int(values.get("dropped") or 0)
                camera.report(now_s, frames, dropped, counts=self.recording)

    def on_policy_latency(self, values: Mapping[str, str]) -> None:
        """Take the policy's stages of one chunk."""
        if not self.recording:
            return
        stages = {name: float(values[f"{name}_ms"]) for name in STAGES if values.get(f"{name}_ms")}
        with self._lock:
            self._stages.setdefault(int(values["stamp_ns"]), {}).update(stages)

    def on_arm_latency(self, values: Mapping[str, str]) -> None:
        """Take the arm's total of one chunk, from photon to servo."""
        if not self.recording:
            return
        with self._lock:
            self._totals[int(values["stamp_ns"])] = float(values["total_ms"])

    def on_frame(self, camera: str, stamp_ns: int, jpeg: bytes, *, film: bool) -> None:
        """Take one picture; those of cameras to `film` are kept while filming."""
        with self._lock:
            if camera in self._wanted:
                self._wanted.discard(camera)
                self._stills[camera] = jpeg
            if film and self.filming:
                self._shots.append(Shot(camera, stamp_ns, jpeg, self.caption))

    def want_stills(self, cameras: Iterable[str]) -> None:
        """Keep the next picture of each of these cameras: all of one moment."""
        with self._lock:
            self._wanted = set(cameras)

    def wants(self, camera: str) -> bool:
        """Whether this camera's picture has yet to come."""
        with self._lock:
            return camera in self._wanted

    def stills(self) -> dict[str, bytes]:
        """One picture of each camera, of one moment."""
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
            return {name: camera.count(self._until_s) for name, camera in self._cameras.items()}

    def tick(self, now_s: float) -> None:
        """Note how far the recording reaches; `now_s` is monotonic."""
        if self.recording:
            self._until_s = now_s

    def chunk_counts(self) -> ChunkCounts:
        """How the policy's chunks went since its node started."""
        with self._lock:
            return self._chunks

    def latencies(self) -> list[ChunkLatency]:
        """All chunks that reached a servo while recording, in order of their stamps."""
        with self._lock:
            return [
                ChunkLatency(stamp_ns, total, _with_write(self._stages.get(stamp_ns, {}), total))
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


def _with_write(stages: Mapping[str, float], total_ms: float) -> dict[str, float]:
    """The stages with the last one, `write`: from the policy's publication to the servos, what the others leave."""
    return {**stages, "write": max(0.0, total_ms - sum(stages.values()))} if stages else {}

"""What is known of a camera's health, and what to say about it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from threading import Lock

from vla_core.latency import LatencyWindow

FPS_WINDOW_NS = 5_000_000_000
"""Long enough that a whole frame more or less changes the rate by 0.2, short enough to see a camera falter."""

STALE_AGE_MS = 1000.0
"""Ten times what a policy at 10 Hz can use."""

LEAST_SHARE_OF_FPS = 0.6
"""Webcams halve their rate in the dark to expose longer: that is worth a warning, a frame less now and then is not."""

LATENCY_SAMPLES = 900
"""A minute at 15 fps."""

NS_PER_MS = 1_000_000


class State(Enum):
    """Of the connection to one camera."""

    STARTING = "starting"
    STREAMING = "streaming"
    LOST = "lost"


class Level(Enum):
    """As in `diagnostic_msgs/DiagnosticStatus`."""

    OK = 0
    WARN = 1
    ERROR = 2


class RateWindow:
    """Events a second over the last `FPS_WINDOW_NS`, or over the time since the first event where that is shorter."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque()
        self._since_ns: int | None = None

    def add(self, now_ns: int) -> None:
        """Count one event (monotonic time)."""
        if self._since_ns is None:
            self._since_ns = now_ns
        self._times_ns.append(now_ns)
        self._forget(now_ns)

    def rate_hz(self, now_ns: int) -> float:
        """Events a second at `now_ns`; 0 before a second event."""
        self._forget(now_ns)
        if self._since_ns is None or not self._times_ns:
            return 0.0
        span_ns = min(FPS_WINDOW_NS, now_ns - self._since_ns)
        opened_in_window = self._since_ns == self._times_ns[0]
        events = len(self._times_ns) - (1 if opened_in_window else 0)  # the first one only starts the clock
        return events * 1e9 / span_ns if span_ns > 0 else 0.0

    def _forget(self, now_ns: int) -> None:
        while self._times_ns and self._times_ns[0] <= now_ns - FPS_WINDOW_NS:
            self._times_ns.popleft()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One camera's health at one moment. `age_ms` and the percentiles are None before the first frame."""

    state: State
    fps: float
    frames: int
    dropped: int
    corrupt: int
    losses: int
    age_ms: float | None
    capture_p50_ms: float | None
    capture_p95_ms: float | None
    last_error: str
    notice: str


class CameraHealth:
    """Counters of one camera. Its own thread, the publishing one and the one that reports share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._state = State.STARTING
        self._frames = self._dropped = self._corrupt = self._losses = 0
        self._stamp_ns: int | None = None
        self._rate = RateWindow()
        self._capture = LatencyWindow(LATENCY_SAMPLES)
        self._last_error = ""
        self._notice = ""

    def streaming(self, notice: str) -> None:
        """Frames come in; `notice` is what the source has to say about itself."""
        with self._lock:
            self._state = State.STREAMING
            self._notice = notice

    def lost(self, reason: str) -> None:
        """The camera could not be opened, or stopped."""
        with self._lock:
            self._state = State.LOST
            self._losses += 1
            self._last_error = reason

    def count(self, dropped: int, corrupt: int = 0) -> None:
        """Frames that were never published: newer ones took their place, or they were no whole JPEG."""
        with self._lock:
            self._dropped += dropped
            self._corrupt += corrupt

    def notice(self, text: str) -> None:
        """Something that the user should put right although frames are published."""
        with self._lock:
            self._notice = text

    def published(self, stamp_ns: int, now_system_ns: int, now_ns: int) -> None:
        """One frame went out: its capture stamp, and the time by both clocks."""
        with self._lock:
            self._frames += 1
            self._stamp_ns = stamp_ns
            self._rate.add(now_ns)
            self._capture.add((now_system_ns - stamp_ns) / NS_PER_MS)

    def snapshot(self, now_system_ns: int, now_ns: int) -> Snapshot:
        """All of it, at one moment."""
        with self._lock:
            capture = self._capture.summary()
            return Snapshot(
                state=self._state,
                fps=self._rate.rate_hz(now_ns),
                frames=self._frames,
                dropped=self._dropped,
                corrupt=self._corrupt,
                losses=self._losses,
                age_ms=None if self._stamp_ns is None else (now_system_ns - self._stamp_ns) / NS_PER_MS,
                capture_p50_ms=capture.p50,
                capture_p95_ms=capture.p95,
                last_error=self._last_error,
                notice=self._notice,
            )


def judge(health: Snapshot, expected_fps: float | None) -> tuple[Level, str]:
    """Level and one line for `/diagnostics`."""
    if health.state is State.LOST:
        return Level.ERROR, health.last_error
    if health.state is State.STARTING or health.age_ms is None:
        return Level.WARN, "no frame yet"
    if health.age_ms > STALE_AGE_MS:
        return Level.WARN, f"no frame for {health.age_ms / 1000:.1f} s"
    if health.notice:
        return Level.WARN, health.notice
    if expected_fps is not None and health.fps < LEAST_SHARE_OF_FPS * expected_fps:
        return Level.WARN, f"{health.fps:.1f} fps where {expected_fps:g} are expected"
    return Level.OK, f"{health.fps:.1f} fps"

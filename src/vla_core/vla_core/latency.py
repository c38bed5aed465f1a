"""Percentiles over the newest samples of a duration, and the names of the stages from photon to servo."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

LINE_MS = 100.0
"""Below this, a robot reacts as fast as the person who watches it expects."""

STAGES: tuple[str, ...] = ("capture", "transport", "decode", "wait", "infer", "return", "join", "write")
"""In the order in which a frame passes them; their sum is the latency."""

DEFAULT_CAPACITY = 4096
"""Samples kept: more than an hour of chunks at one a second."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Percentiles of a duration, ms, and the number of samples; percentiles of no samples are None."""

    p50: float | None
    p95: float | None
    p99: float | None
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON; rounded to 10 microseconds."""
        return {key: round(value, 2) if isinstance(value, float) else value for key, value in asdict(self).items()}


def summarise(samples_ms: Iterable[float]) -> Summary:
    """Percentiles (linear interpolation) of durations in ms."""
    samples = np.fromiter(samples_ms, dtype=np.float64)
    if not samples.size:
        return Summary(None, None, None, 0)
    p50, p95, p99 = np.percentile(samples, (50, 95, 99))
    return Summary(float(p50), float(p95), float(p99), int(samples.size))


class LatencyWindow:
    """The newest `capacity` samples of one duration, ms. Not thread-safe: one owner."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._samples: deque[float] = deque(maxlen=capacity)

    def add(self, sample_ms: float) -> None:
        """Append one sample; the oldest leaves when the window is full."""
        self._samples.append(sample_ms)

    def __len__(self) -> int:
        return len(self._samples)

    def summary(self) -> Summary:
        """Percentiles of what is in the window."""
        return summarise(self._samples)

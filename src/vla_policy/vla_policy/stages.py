"""Where the time goes from photon to command, chunk by chunk, and its percentiles.

The stages are those of `vla_core.latency`; the last, `write`, is the arm driver's to measure.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from vla_core.latency import LINE_MS, STAGES, LatencyWindow, Summary
from vla_policy.observe import Snapshot
from vla_policy.serving.client import Answer

NS_PER_MS = 1e6
TOTAL = "total"
KEPT_CHUNKS = 64
"""Published chunks of which the driver may still report; it does so within a few control periods."""


@dataclass(frozen=True, slots=True)
class Marks:
    """When the loop reached each step of a chunk, monotonic, ns."""

    decode_ns: int
    asked_ns: int
    answered_ns: int
    commanded_ns: int


@dataclass(frozen=True, slots=True)
class ChunkTiming:
    """The account of one chunk.

    Attributes:
        stamp_ns: the trajectory's header stamp, by which the arm driver names it too.
        stages_ms: stage to duration, up to the command's publication; they add up to `total_ms`.
        prompt_ms: from a new prompt's arrival to the publication, where this chunk is the first that follows it.
    """

    stamp_ns: int
    stages_ms: Mapping[str, float]
    prompt_ms: float | None = None

    @property
    def total_ms(self) -> float:
        """From the stamp to the publication."""
        return sum(self.stages_ms.values())

    def values(self) -> dict[str, object]:
        """Key-value pairs of the message on `~/latency`; `age_ms` is the chunk's age when it was commanded."""
        stages: dict[str, object] = {f"{name}_ms": value_ms for name, value_ms in self.stages_ms.items()}
        values = stages | {"stamp_ns": self.stamp_ns, "age_ms": self.total_ms}
        return values if self.prompt_ms is None else values | {"prompt_ms": self.prompt_ms}


def account(snapshot: Snapshot, answer: Answer, marks: Marks, stamp_ns: int, stamp_mono_ns: int) -> ChunkTiming:
    """Split the time from the chunk's stamp to its publication into stages.

    Where the policy looked at something newer than the observation (`Answer.stamp_ns`), the time begins there.
    """
    infer_ms = answer.infer_ms
    round_trip_ms = (marks.answered_ns - marks.asked_ns) / NS_PER_MS
    join_ms = (marks.commanded_ns - marks.answered_ns) / NS_PER_MS
    oldest = snapshot.oldest
    if answer.stamp_ns is not None or oldest is None:
        before_ms = (marks.asked_ns - stamp_mono_ns) / NS_PER_MS
        stages = {"wait": max(before_ms, 0.0), "infer": max(infer_ms + min(before_ms, 0.0), 0.0)}
        stages["return"] = max((marks.answered_ns - stamp_mono_ns) / NS_PER_MS - sum(stages.values()), 0.0)
        return ChunkTiming(stamp_ns, stages | {"join": join_ms})
    received_ns = oldest.arrived.to_mono(oldest.received_ns)
    return ChunkTiming(
        stamp_ns,
        {
            "capture": (oldest.source_ns - oldest.stamp_ns) / NS_PER_MS,
            "transport": (oldest.received_ns - oldest.source_ns) / NS_PER_MS,
            "decode": (marks.asked_ns - marks.decode_ns) / NS_PER_MS,
            "wait": (marks.decode_ns - received_ns) / NS_PER_MS,
            "infer": infer_ms,
            "return": round_trip_ms - infer_ms,
            "join": join_ms,
        },
    )


class Meter:
    """Percentiles of every stage and of the whole. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows = {name: LatencyWindow() for name in (*STAGES, TOTAL)}
        self._commanded_ms: dict[int, float] = {}

    def add(self, timing: ChunkTiming) -> None:
        """Take in one chunk's stages up to its publication."""
        with self._lock:
            for name, value_ms in timing.stages_ms.items():
                self._windows[name].add(value_ms)
            self._commanded_ms[timing.stamp_ns] = timing.total_ms
            while len(self._commanded_ms) > KEPT_CHUNKS:
                del self._commanded_ms[next(iter(self._commanded_ms))]

    def add_report(self, values: Mapping[str, str]) -> int | None:
        """Take in what the arm driver reports: `total_ms` from the stamp `stamp_ns` to the first servo write.

        What lies between our publication and that write is the stage `write`. Reports of other trajectories than ours,
        and those that are none, are ignored.

        Returns:
            The stamp of the trajectory that the driver took up, whoever sent it.
        """
        try:
            stamp_ns, total_ms = int(values["stamp_ns"]), float(values["total_ms"])
        except (KeyError, ValueError):
            return None
        with self._lock:
            if (commanded_ms := self._commanded_ms.pop(stamp_ns, None)) is not None:
                self._windows[TOTAL].add(total_ms)
                self._windows["write"].add(total_ms - commanded_ms)
        return stamp_ns

    def summaries(self) -> dict[str, Summary]:
        """Stage to percentiles, ms."""
        with self._lock:
            return {name: window.summary() for name, window in self._windows.items()}


def flatten(summaries: Mapping[str, Summary]) -> dict[str, object]:
    """Key-value pairs for a diagnostic status: `total_p50_ms` and so on."""
    values: dict[str, object] = {"line_ms": LINE_MS}
    for name, summary in summaries.items():
        if summary.n:
            values |= {f"{name}_p50_ms": summary.p50, f"{name}_p95_ms": summary.p95, f"{name}_p99_ms": summary.p99}
    values["chunks"] = max(summary.n for summary in summaries.values())
    return values


def verdict(summaries: Mapping[str, Summary]) -> tuple[bool, str]:
    """Whether the total keeps below the line, and a sentence about it."""
    total = summaries[TOTAL]
    if total.p95 is None:
        return True, "no chunk has reached the arm yet"
    return total.p95 < LINE_MS, f"{total.p50:.0f} ms at p50, {total.p95:.0f} ms at p95, line {LINE_MS:.0f} ms"

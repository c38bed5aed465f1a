"""Whether an arm was without a setpoint, from the trajectories that it was sent; how evenly its servos were written.

Pure: all times are ns of one clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vla_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Commanded:
    """One trajectory: when it was published, and when its last point is due. The newest one is in force."""

    at_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time; it may not end before it begins."""

    begin_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.end_ns < self.begin_ns:
            raise ConfigError(f"a span cannot end at {self.end_ns} ns, before it begins at {self.begin_ns} ns")

    @property
    def length_ns(self) -> int:
        """How long it is."""
        return self.end_ns - self.begin_ns


def gaps(commands: Iterable[Commanded], window: Span) -> list[Span]:
    """When within `window` the newest trajectory had ended, or none had come yet; in order.

    A trajectory that comes replaces the one before, also where it ends earlier: so does the arm controller.
    """
    ordered = sorted(commands, key=lambda command: command.at_ns)
    if not ordered:
        return [window] if window.length_ns else []
    spans = [(window.begin_ns, ordered[0].at_ns)]
    spans += [(max(before.at_ns, before.end_ns), after.at_ns) for before, after in pairwise(ordered)]
    spans.append((max(ordered[-1].at_ns, ordered[-1].end_ns), window.end_ns))
    clipped = ((max(begin_ns, window.begin_ns), min(end_ns, window.end_ns)) for begin_ns, end_ns in spans)
    return [Span(begin_ns, end_ns) for begin_ns, end_ns in clipped if begin_ns < end_ns]


def total_ns(spans: Iterable[Span]) -> int:
    """Their lengths added up."""
    return sum(span.length_ns for span in spans)


def longest_ns(spans: Iterable[Span]) -> int:
    """The length of the longest, 0 where there is none."""
    return max((span.length_ns for span in spans), default=0)


def periods_ns(writes_ns: Sequence[int], window: Span) -> list[int]:
    """From the beginning of `window` to the first write in it, from each write to the next, from the last to the end.

    So a write that never came makes a long period too: what was seen of it.
    """
    within = [write_ns for write_ns in writes_ns if window.begin_ns <= write_ns <= window.end_ns]
    if not within:
        return [window.length_ns]
    return [after - before for before, after in pairwise([window.begin_ns, *within, window.end_ns])]

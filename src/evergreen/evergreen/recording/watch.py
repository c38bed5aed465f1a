"""Which topics are heard how often, and which camera fell silent. Pure; time is passed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

WINDOW_S = 3.0
"""Rates are averaged over about this long."""
SILENT_S = 2.0
"""A topic that came several times a second and then not for so long has stopped."""


@dataclass(slots=True)
class Topic:
    """One topic: when it was last heard, and how many messages since `since_s`."""

    last_s: float
    since_s: float
    count: int = 0
    rate_hz: float = 0.0
    silent: bool = False


@dataclass(slots=True)
class Watch:
    """Counts messages; `check` says what changed."""

    topics: dict[str, Topic] = field(default_factory=dict)

    def expect(self, topic: str, now_s: float) -> None:
        """From now on `topic` should come."""
        self.topics.setdefault(topic, Topic(now_s, now_s))

    def heard(self, topic: str, now_s: float) -> None:
        """A message came."""
        self.expect(topic, now_s)
        entry = self.topics[topic]
        entry.last_s = now_s
        entry.count += 1

    def check(self, now_s: float, steady: frozenset[str]) -> Iterator[str]:
        """Update the rates; a sentence for each of the `steady` topics that fell silent or came back."""
        for name, entry in self.topics.items():
            if now_s - entry.since_s >= WINDOW_S:
                entry.rate_hz = entry.count / (now_s - entry.since_s)
                entry.count, entry.since_s = 0, now_s
            silent = now_s - entry.last_s >= SILENT_S
            if name in steady and silent != entry.silent:
                entry.silent = silent
                yield f"{name} is silent: nothing for {SILENT_S:g} s" if silent else f"{name} is back"

    def rate_hz(self, topic: str, now_s: float) -> float:
        """Messages a second, lately."""
        entry = self.topics.get(topic)
        if entry is None:
            return 0.0
        if entry.rate_hz == 0.0 and now_s > entry.since_s:
            return entry.count / max(now_s - entry.since_s, 1.0)
        return entry.rate_hz

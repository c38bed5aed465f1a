"""How fast something comes, and how long the rest will take."""

from __future__ import annotations

from collections import deque

WINDOW_S = 15.0
"""A mobile line's rate changes within a minute, and its bursts last for seconds."""
MIN_SPAN_S = 0.5
"""Of less nothing can be said: the first blocks come from buffers."""
MAX_NOTES = 200


class Pace:
    """Rate over the last seconds; whoever feeds it tells the time."""

    def __init__(self) -> None:
        self._notes: deque[tuple[float, int]] = deque(maxlen=MAX_NOTES)

    def note(self, done_bytes: int, now_s: float) -> None:
        """So much has come by now; less than before means that it was begun anew."""
        if self._notes and done_bytes < self._notes[-1][1]:
            self._notes.clear()
        if len(self._notes) > 1 and now_s - self._notes[-2][0] < WINDOW_S / MAX_NOTES:
            self._notes.pop()
        self._notes.append((now_s, done_bytes))
        while self._notes[0][0] < now_s - WINDOW_S:
            self._notes.popleft()

    @property
    def bytes_s(self) -> float | None:
        """The rate; None where too little is known."""
        if len(self._notes) < 2:
            return None
        (first_s, first), (last_s, last) = self._notes[0], self._notes[-1]
        return (last - first) / (last_s - first_s) if last_s - first_s >= MIN_SPAN_S else None

    def left_s(self, left_bytes: int) -> float | None:
        """How long the rest will take at this rate; None where nobody can know."""
        rate = self.bytes_s
        return left_bytes / rate if rate else None

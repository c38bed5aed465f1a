"""How far a fetch is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is.

    Attributes:
        what: the file on its way, or what is being done.
        done_bytes: of all files, those from earlier tries and from the store included.
        total_bytes: of all files; 0 until it is known.
        resumed_bytes: of `done_bytes`, what need not be transferred (again).
    """

    what: str
    done_bytes: int = 0
    total_bytes: int = 0
    resumed_bytes: int = 0


class Meter:
    """Adds up the files of one fetch and tells of it."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._done: dict[str, int] = {}
        self._resumed: dict[str, int] = {}
        self.total_bytes = 0

    @property
    def done_bytes(self) -> int:
        """Of all files."""
        return sum(self._done.values())

    @property
    def transferred_bytes(self) -> int:
        """What came over the line."""
        return self.done_bytes - sum(self._resumed.values())

    def say(self, what: str) -> None:
        """Tell what is being done now."""
        self._tell(Progress(what, self.done_bytes, self.total_bytes, sum(self._resumed.values())))

    def reached(self, name: str, done_bytes: int) -> None:
        """`name` has grown, or shrunk, to this."""
        self._done[name] = done_bytes
        self._resumed[name] = min(self._resumed.get(name, 0), done_bytes)
        self.say(name)

    def found(self, name: str, done_bytes: int) -> None:
        """So much of `name` is here already."""
        self._resumed[name] = done_bytes
        self.reached(name, done_bytes)

"""What the graph's processes say, kept in a file; and why the graph broke down, if it did."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

from rich.console import Console

from evergreen.demo.resources import cannot_write, writing
from evergreen.launch.events import Event, Exited, Output, Respawning

TAIL_LINES = 15
"""Of a process's last words, from which the reason is taken when it dies."""
HOPELESS_ENDS = 3
"""A process that ends as often does not come up: say so at once instead of waiting."""


class Log:
    """Keeps what the nodes wrote in a file, and the first reason why the graph broke down.

    A file that cannot be written is such a reason: the results would have no room either.
    """

    def __init__(self, path: Path, console: Console, *, verbose: bool) -> None:
        """Begin the file; ConfigError where it cannot be written."""
        self._path = path
        with writing(path):
            self._stream = path.open("w", encoding="utf-8", buffering=1)
            self._stream.write(f"ROS_DOMAIN_ID={os.environ.get('ROS_DOMAIN_ID', '0')}\n")
        self._console = console
        self._verbose = verbose
        self._tail: dict[str, list[str]] = {}
        self._ends: Counter[str] = Counter()
        self.failure: str | None = None

    def __call__(self, event: Event) -> None:
        """Take one event of the launcher."""
        if isinstance(event, Output):
            self._write(f"[{event.process}] {event.line}")
            tail = self._tail.setdefault(event.process, [])
            tail.append(event.line)
            del tail[:-TAIL_LINES]
        elif isinstance(event, Exited):
            self._write(f"[{event.process}] ended with code {event.code}")
            if not event.expected:
                self._ends[event.process] += 1
                self.failure = self.failure or self._last_words(event)
        elif isinstance(event, Respawning) and self._ends[event.process] < HOPELESS_ENDS:
            self.failure = None  # it gets another chance

    @property
    def restarts(self) -> int:
        """How often a process ended though nobody had asked it to."""
        return self._ends.total()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # what could not be written has been reported
            self._stream.close()

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
        except OSError as error:
            self.failure = cannot_write(self._path, error)
        if self._verbose:
            self._console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    def _last_words(self, event: Exited) -> str:
        tail = [line for line in self._tail.get(event.process, ()) if line.strip()]
        errors = [line for line in tail if "error" in line.lower()]
        said = (errors or tail or ["it said nothing"])[-1].strip()
        return f"{event.process} ended with code {event.code}: {said}"

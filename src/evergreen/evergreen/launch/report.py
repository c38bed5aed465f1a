"""What is told of a running graph: lines for people as ros2 launch prints them, JSON for programs, a log folder."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from evergreen.launch.errors import LaunchError
from evergreen.launch.events import (
    Abandoned,
    Dropped,
    Event,
    Exited,
    GivenUp,
    Leftovers,
    NotSignalled,
    NotStarted,
    Observer,
    Output,
    Respawning,
    Signalled,
    Started,
    Stopping,
)
from evergreen.launch.plan import LaunchPlan

ON_SCREEN: Mapping[str, tuple[str, ...]] = {
    "screen": ("stdout", "stderr"),
    "both": ("stdout", "stderr"),
    "full": ("stdout", "stderr"),
    "log": ("stderr",),
    "own_log": (),
}
"""Which streams of a process reach the terminal, by its `output`; as in ros2 launch."""
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_LEVEL_COLOURS = {"WARNING": 33, "ERROR": 31}


@dataclass(frozen=True, slots=True)
class _Words:
    """What the launcher itself says about an event."""

    level: str
    source: str
    text: str

    def __str__(self) -> str:
        return f"[{self.level}] [{self.source}]: {self.text}"


def in_words(event: Event) -> _Words | None:
    """Say it as ros2 launch does; None for output lines."""
    match event:
        case Output():
            return None
        case Started() | NotStarted() | Exited() | Respawning() | GivenUp():
            return _of_a_run(event)
        case Signalled() | NotSignalled() | Abandoned() | Leftovers():
            return _of_an_end(event)
        case Dropped(lines):
            return _Words("WARNING", "launch", f"{lines} lines are not shown: they came faster than they were read")
        case Stopping(reason, urgency):
            return _Words("WARNING", "launch", reason if urgency == 1 else f"{reason} again: hurrying")


def _of_a_run(event: Started | NotStarted | Exited | Respawning | GivenUp) -> _Words:
    match event:
        case Started(process, pid):
            return _Words("INFO", process, f"process started with pid [{pid}]")
        case NotStarted(process, reason):
            return _Words("ERROR", process, f"process could not be started: {reason}")
        case Exited(process, pid, 0):
            return _Words("INFO", process, f"process has finished cleanly [pid {pid}]")
        case Exited(process, pid, code, _, command):
            return _Words("ERROR", process, f"process has died [pid {pid}, exit code {code}, cmd '{command}'].")
        case Respawning(process, delay_s):
            return _Words("INFO", process, f"process is started again in {delay_s:g} s")
        case GivenUp(process, reason):
            return _Words("ERROR", process, f"process is not started again: {reason}")


def _of_an_end(event: Signalled | NotSignalled | Abandoned | Leftovers) -> _Words:
    match event:
        case Signalled(process, "SIGINT"):
            return _Words("INFO", process, f"sending signal 'SIGINT' to process[{process}]")
        case Signalled(process, name):
            return _Words("ERROR", process, f"process[{process}] has not ended, escalating to '{name}'")
        case NotSignalled(process, pid, name, reason):
            return _Words("ERROR", process, f"signal '{name}' could not be sent to process [pid {pid}]: {reason}")
        case Abandoned(process, pids):
            return _Words("ERROR", process, f"may not be ended from here and goes on running [pids {_listed(pids)}]")
        case Leftovers(process, pids):
            return _Words("WARNING", process, f"process left others behind [pids {_listed(pids)}], ending them")


def _listed(pids: tuple[int, ...]) -> str:
    return ", ".join(map(str, pids))


class Console:
    """A graph's news for people, a line each. On a terminal each process has a colour."""

    def __init__(self, plan: LaunchPlan, *, colour: bool, everything: bool = False) -> None:
        """Make it.

        Args:
            plan: to know what each process's `output` is.
            colour: use terminal colours.
            everything: show all output whatever `output` says.
        """
        self._colour = colour
        self._shown = {
            process.name: ON_SCREEN["screen" if everything else process.output] for process in plan.processes
        }
        self._colours = {process.name: _COLOURS[i % len(_COLOURS)] for i, process in enumerate(plan.processes)}

    def __call__(self, event: Event) -> str | None:
        """The line for one event; None where it is not to be shown."""
        if isinstance(event, Output):
            if event.stream not in self._shown[event.process]:
                return None
            return f"{self._tinted(f'[{event.process}]', self._colours[event.process])} {event.line}"
        words = in_words(event)
        return None if words is None else self._tinted(str(words), _LEVEL_COLOURS.get(words.level))

    def _tinted(self, text: str, colour: int | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour is not None else text


def wants_colour(stream: TextIO, environment: Mapping[str, str] | None = None) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not (os.environ if environment is None else environment).get("NO_COLOR")


def as_json(event: Event) -> str:
    """One event as one line of JSON: `event` is its kind, the rest are its fields."""
    return json.dumps({"event": _snake(type(event).__name__), **asdict(event)})


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


class LogFolder:
    """Writes everything into a folder: `launch.log` with the launcher's words and all output, one file a process.

    Each line begins with the system time in seconds. A folder that cannot be written any more, for instance on a full
    disk, is given up with one line on standard error: the robot goes on. A context manager that closes the files.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"log folder {folder}: {error.strerror or error}; choose another") from error
        self._given_up = False
        self._folder = folder
        self._clock = clock
        self._files: dict[str, TextIO] = {}

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if self._given_up:
            return
        try:
            self._write_event(event)
        except OSError as error:
            self._given_up = True
            print(f"log folder {self._folder}: {error.strerror or error}; logging ends", file=sys.stderr)

    def _write_event(self, event: Event) -> None:
        stamp = f"{self._clock():.6f}"
        if isinstance(event, Output):
            self._write("launch.log", f"{stamp} [{event.process}] {event.line}")
            self._write(f"{event.process.replace(os.sep, '_')}.log", f"{stamp} [{event.stream}] {event.line}")
        elif (words := in_words(event)) is not None:
            self._write("launch.log", f"{stamp} {words}")

    def _write(self, name: str, line: str) -> None:
        if name not in self._files:
            self._files[name] = (self._folder / name).open("a", encoding="utf-8", buffering=1)
        self._files[name].write(f"{line}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()


def all_of(*observers: Observer) -> Observer:
    """One observer that tells several, in order."""

    def tell(event: Event) -> None:
        for observer in observers:
            observer(event)

    return tell

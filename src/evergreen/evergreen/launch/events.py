"""What happens in a running graph, as its observers hear it, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Started:
    """A process runs. `restarts` counts from 0."""

    process: str
    pid: int
    restarts: int


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A process could not be started at all."""

    process: str
    reason: str


@dataclass(frozen=True, slots=True)
class Output:
    """One line that a process wrote, without its end."""

    process: str
    stream: Literal["stdout", "stderr"]
    line: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A process ended.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        expected: the graph was already being stopped.
        command: its command line, as a shell would take it.
    """

    process: str
    pid: int
    code: int
    expected: bool
    command: str


@dataclass(frozen=True, slots=True)
class Respawning:
    """A process will be started again after a delay."""

    process: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A process that is to be respawned ended for good, for this reason. The others run on."""

    process: str
    reason: str


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal was sent to a process, by its name."""

    process: str
    signal: str


@dataclass(frozen=True, slots=True)
class NotSignalled:
    """A signal could not be sent: what a launch-prefix started may belong to another user."""

    process: str
    pid: int
    signal: str
    reason: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Processes could not be ended: they outlive the graph, or the process whose leftovers they are."""

    process: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """A process ended and left children of its own behind, which are being ended."""

    process: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Lines were not shown, because nobody read them in time. Only `Writer` tells it, where they are missing."""

    lines: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """The graph is being stopped. `urgency` 1 is the first request; 2 and 3 cut the waiting short."""

    reason: str
    urgency: int


Event = (
    Started
    | NotStarted
    | Output
    | Exited
    | Respawning
    | GivenUp
    | Signalled
    | NotSignalled
    | Abandoned
    | Leftovers
    | Dropped
    | Stopping
)
Observer = Callable[[Event], None]

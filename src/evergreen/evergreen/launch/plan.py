"""The processes that a launch file starts, worked out and ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evergreen.launch.errors import Place

OUTPUTS = ("screen", "log", "both", "own_log", "full")


@dataclass(frozen=True, slots=True)
class TemporaryFile:
    """A word of a command line that stands for a file still to be written with this content."""

    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """One process to run.

    Attributes:
        name: label in the output, for instance `cameras-1`.
        command: program and arguments.
        environment: the whole environment.
        cwd: working directory, or None for the launcher's.
        output: one of OUTPUTS.
        respawn: start it again when it ends.
        respawn_limit: how often at most; negative is for ever.
        required: its end ends the graph.
        node: full name of the ROS node where the launch file gives it, else ''.
        place: where the launch file says so.
    """

    name: str
    command: tuple[str | TemporaryFile, ...]
    environment: Mapping[str, str]
    cwd: str | None
    output: str
    respawn: bool
    respawn_delay_s: float
    respawn_limit: int
    required: bool
    sigterm_after_s: float
    sigkill_after_s: float
    node: str
    place: Place


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Everything a launch file starts, in order."""

    file: Path
    processes: tuple[ProcessPlan, ...]
    environment: Mapping[str, str]

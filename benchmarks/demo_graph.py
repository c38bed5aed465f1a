"""The demo's graph under a benchmark: started with a model, watched by a node of the benchmark's own."""

from __future__ import annotations

import contextlib
import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from evergreen.demo import stage
from evergreen.demo.session import scene_seed
from evergreen.launch.events import Event, Output
from evergreen.launch.expand import make_plan
from evergreen.launch.launcher import Launcher
from evergreen.launch.packages import find_launch_file
from vla_core.errors import ConfigError

START_TIMEOUT_S = 120.0
"""A first start compiles the scene and Python's byte code."""
SIZE, FPS = (320, 240), 15.0
"""Of the cameras, as in a demo."""
TAIL_LINES = 40
SPIN_S = 0.02

Watcher = TypeVar("Watcher", bound=Node)


class Tail:
    """Keeps the processes' last lines, for when they fail."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: Event) -> None:
        """Take one event of the launcher."""
        if isinstance(event, Output):
            self.lines.append(f"[{event.process}] {event.line}")
            del self.lines[:-TAIL_LINES]


@dataclass(frozen=True, slots=True)
class Watched(Generic[Watcher]):
    """The running graph, and the node that watches it."""

    watcher: Watcher
    launcher: Launcher
    _executor: SingleThreadedExecutor
    _tail: Tail

    def wait(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Let the node hear what is said until something is true, the time is up or the graph has ended."""
        deadline_s = time.monotonic() + timeout_s
        while not true() and time.monotonic() < deadline_s and self.launcher.running:
            self._executor.spin_once(timeout_sec=SPIN_S)
        return true()

    def wait_for_start(self, true: Callable[[], bool], what: str) -> None:
        """The same for the beginning.

        Raises:
            ConfigError: `what` did not come; the message has the last lines of the processes.
        """
        if not self.wait(true, START_TIMEOUT_S):
            end = f"within {START_TIMEOUT_S:g} s" if self.launcher.running else "before the graph ended"
            raise ConfigError(f"{what} did not come {end}:\n" + "\n".join(self._tail.lines))


@contextlib.contextmanager
def running(model: Path, seed: int, folder: Path, watch: Callable[[], Watcher]) -> Iterator[Watched[Watcher]]:
    """The demo's graph with a model's folder in the first scene of a seed, inside `stage.claimed`."""
    arguments = stage.arguments(folder, scene_seed(seed, 0), model, SIZE, FPS) | {"autostart": "true"}
    tail = Tail()
    plan = make_plan(find_launch_file("evergreen_bringup", "demo.launch.xml"), arguments)
    with contextlib.ExitStack() as stack:
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        watcher = watch()
        stack.callback(watcher.destroy_node)
        executor = SingleThreadedExecutor()
        stack.callback(executor.shutdown)
        executor.add_node(watcher)
        launcher = stack.enter_context(Launcher(plan, on_event=tail))
        yield Watched(watcher, launcher, executor, tail)

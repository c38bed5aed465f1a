"""The component `model` as the stand-in nucleus runs it: the bridge's launch file, with the nucleus's environment."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from evergreen.launch.events import Observer
from evergreen.launch.expand import make_plan
from evergreen.launch.launcher import Launcher
from evergreen.launch.packages import find_launch_file

ARGUMENTS = {"nucleus": "required", "defer_limit_s": "0.0"}
"""The story's arm never stands still, and need not: the swap is seamless, so that no deployment has to wait."""


class Component:
    """Starts with `begin`; the nucleus restarts it. A context manager that ends it for good."""

    def __init__(self, store: Path, on_event: Observer) -> None:
        self._arguments = {**ARGUMENTS, "store": str(store)}
        self._on_event = on_event
        self._environment: Mapping[str, str] = {}
        self._launcher: Launcher | None = None
        self._turn = threading.Lock()
        self._over = False
        self.restarts = 0

    def begin(self, environment: Mapping[str, str]) -> None:
        """Start it with what the nucleus gives its components.

        Raises:
            LaunchError: it cannot be started.
        """
        self._environment = environment
        with self._turn:
            self._start()

    def restart(self) -> None:
        """For the nucleus, from a thread of its own."""
        with self._turn:
            if self._over or self._launcher is None:
                return
            self._launcher.stop("the nucleus restarts its component")
            self.restarts += 1
            self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        with self._turn:
            if self._launcher is not None:
                self._launcher.stop()

    def _start(self) -> None:
        file = find_launch_file("evergreen_bringup", "gg_bridge.launch.xml")
        plan = make_plan(file, self._arguments, {**os.environ, **self._environment})
        self._launcher = Launcher(plan, on_event=self._on_event).start()

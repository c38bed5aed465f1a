"""Starts the simulator as a process of its own, for programs and tests that need one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vla_sim.control import SimClient, SimError

START_TIMEOUT_S: Final = 60.0
"""A first start compiles the scene and Python's byte code, perhaps on a busy machine."""
STOP_TIMEOUT_S: Final = 10.0
READY: Final = "simulator ready:"


class SimulatorProcess:
    """A running simulator with its serial port and control socket in `folder`."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ("--no-cameras",)) -> None:
        """Start it and wait until it serves.

        Raises:
            SimError: it ended, or did not get ready in time; the message has what it said.
        """
        self.port = folder / "servos"
        self.control = folder / "sim.sock"
        self.log = folder / "simulator.log"
        environment = dict(os.environ)
        if "--no-cameras" in arguments:
            environment["MUJOCO_GL"] = "disable"  # finding an OpenGL takes a quarter of the start
        own = ["--port-link", os.fspath(self.port), "--control", os.fspath(self.control)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vla_sim.simulator", *own, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        self._wait_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def client(self) -> SimClient:
        """A connection to the control socket."""
        return SimClient(self.control)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code. A process that does not obey is killed (-9)."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        said = b""
        stdout = self.process.stdout
        while stdout is not None and READY.encode() not in said:
            ready, _, _ = select.select([stdout], (), (), max(0.0, deadline_s - time.monotonic()))
            chunk = os.read(stdout.fileno(), 4096) if ready else b""
            if not chunk:
                code = self.stop()
                raise SimError(f"the simulator did not start (exit code {code}): {self.log.read_text().strip()}")
            said += chunk

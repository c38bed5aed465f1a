"""A policy server of our own: started as a child, watched, and ended with us.

The child gets its own session, so that Ctrl-C in a terminal reaches us first and we end it in order; should we die
without doing so, it follows by itself (`--parent-pid`). Its output is passed on line by line.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vla_core.errors import ModelError
from vla_policy.serving.address import Address
from vla_policy.serving.client import is_healthy
from vla_policy.serving.errors import ServerTimeoutError, ServerUnavailableError
from vla_policy.serving.server import API_KEY_VARIABLE, EXIT_CONFIG

HEALTH_POLL_S = 0.02
"""An ONNX model loads in a few hundred milliseconds: a longer wait would show in the time to the first motion."""
HEALTH_TIMEOUT_S = 1.0
"""A health check that takes longer says the same as one that fails."""
STOP_STEPS = ((signal.SIGINT, 1.0), (signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0))
"""Signal, and seconds until the next: a request under way may finish, a stuck one must not hold up a shutdown."""
KEPT_LINES = 20
ERROR_PREFIX = "error: "
"""How the server begins the one line with which it refuses an address or a model."""


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What to serve and how.

    Attributes:
        address: a Unix socket.
        model: folder.
        threads: compute threads; 0 leaves it to the server.
        nice: how much to lower its priority.
    """

    address: Address
    model: Path
    threads: int = 0
    nice: int = 0

    def arguments(self, parent_pid: int) -> list[str]:
        """The command line; the same interpreter as ours, so that virtual environments stay together."""
        return [
            *(sys.executable, "-m", "vla_policy.serving.server"),
            *("--listen", str(self.address)),
            *("--model", str(self.model)),
            *("--threads", str(self.threads)),
            *("--nice", str(self.nice)),
            *("--parent-pid", str(parent_pid)),
        ]


class ServerProcess:
    """One run of a server; a restart is another one."""

    def __init__(self, command: ServerCommand, log: Callable[[str], None]) -> None:
        """Start it; `log` gets its lines, in another thread."""
        self.command = command
        self._log = log
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        # A key in our environment is for servers elsewhere; this socket belongs to our user alone.
        environment = {key: value for key, value in os.environ.items() if key != API_KEY_VARIABLE}
        self._process = subprocess.Popen(
            command.arguments(os.getpid()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._pass_on, name="policy-server-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def wait_ready(self, timeout_s: float, cancelled: threading.Event) -> None:
        """Wait until its model is loaded.

        Raises:
            ModelError: it cannot serve this model; its own words.
            ServerUnavailableError: it died, was not ready in time, or `cancelled` was set.
        """
        deadline = time.monotonic() + timeout_s
        while not is_healthy(self.command.address, HEALTH_TIMEOUT_S):
            if not self.alive:
                raise self.obituary()
            if time.monotonic() > deadline:
                raise ServerTimeoutError(
                    f"the policy server did not load {self.command.model} within {timeout_s:g} s; "
                    "raise the parameter load_timeout_s where the model is that large"
                )
            if cancelled.wait(HEALTH_POLL_S):
                raise ServerUnavailableError("loading was cancelled")

    def ends_within(self, seconds: float) -> bool:
        """Whether it has ended, or does soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.alive

    def obituary(self) -> ModelError | ServerUnavailableError:
        """Why it ended, as an error to raise."""
        self._reader.join(HEALTH_TIMEOUT_S)  # its last words may still be in the pipe
        code = self._process.returncode
        last = self._lines[-1] if self._lines else "it said nothing"
        if code == EXIT_CONFIG:
            return ModelError(last.removeprefix(ERROR_PREFIX))
        if code is not None and code < 0:
            return ServerUnavailableError(f"the policy server was ended by {signal.Signals(-code).name}")
        return ServerUnavailableError(f"the policy server ended with exit code {code}: {last}")

    def stop(self) -> int:
        """End it, politely first, and return its exit code."""
        for number, patience_s in STOP_STEPS:
            if not self.alive:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        code = self._process.wait()
        self._reader.join(HEALTH_TIMEOUT_S)
        return code

    def _pass_on(self) -> None:
        stream = self._process.stdout
        if stream is None:  # never: it was asked for
            return
        with stream:
            for line in stream:
                text = line.rstrip()
                if not text:
                    continue
                self._lines.append(text)
                if not text.startswith(ERROR_PREFIX):  # its last words; whoever asks for the obituary reports them
                    self._log(text)

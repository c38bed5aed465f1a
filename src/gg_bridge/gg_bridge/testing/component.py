"""The component that the stand-in runs, if any: a program of its own, or whatever a test's callback restarts.

As under a real nucleus it starts with a token in its environment, is started again when it fails, but only a few times
an hour, and is broken afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gg_bridge.testing.character import Timing

_LOG = logging.getLogger(__name__)

Environment = Callable[[], Mapping[str, str]]


class Retries:
    """How often something may be started again."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._times_s: list[float] = []

    def allow(self, now_s: float) -> bool:
        """Count one more, unless there were too many in the window."""
        self._times_s = [then_s for then_s in self._times_s if now_s - then_s < self._timing.retry_window_s]
        if len(self._times_s) >= self._timing.retries:
            return False
        self._times_s.append(now_s)
        return True

    def forget(self) -> None:
        """Begin anew, as a deployment does."""
        self._times_s.clear()

    def __len__(self) -> int:
        return len(self._times_s)


class Component(Protocol):
    """What a nucleus does with a component. All of it runs on the server's event loop."""

    retries: Retries
    broken: asyncio.Event
    """Set once it failed too often; only a deployment starts it again."""

    async def restart(self) -> None:
        """Stop it where it runs, and start it."""

    async def stop(self) -> None:
        """Stop it."""

    def status(self) -> dict[str, object]:
        """For people to read."""


class CallbackComponent:
    """A test's callback is the restart."""

    def __init__(self, restart: Callable[[], None], timing: Timing) -> None:
        self._restart = restart
        self._restarts = 0
        self.retries = Retries(timing)
        self.broken = asyncio.Event()

    async def restart(self) -> None:
        """Call it, off the event loop."""
        self.broken.clear()
        self._restarts += 1
        await asyncio.to_thread(self._restart)

    async def stop(self) -> None:
        """Its owner stops it."""

    def status(self) -> dict[str, object]:
        """See `Component`."""
        return {"restarts": self._restarts, "broken": self.broken.is_set()}


class ProcessComponent:
    """A program in a process group of its own."""

    def __init__(self, command: Sequence[str], environment: Environment, timing: Timing) -> None:
        self._command = tuple(command)
        self._environment = environment
        self._timing = timing
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._starts = 0
        self._exit_code: int | None = None
        self._turn = asyncio.Lock()
        self.retries = Retries(timing)
        self.broken = asyncio.Event()

    async def restart(self) -> None:
        """See `Component`."""
        async with self._turn:
            await self._stop()
            self.broken.clear()
            await self._start()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to the whole group where that does not help."""
        async with self._turn:
            await self._stop()

    async def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), self._timing.stop_s)
            except TimeoutError:
                _LOG.warning("the component did not stop within %g s", self._timing.stop_s)
        _signal(process, signal.SIGKILL)  # and what it left behind
        self._exit_code = await process.wait()
        self._process = None

    def status(self) -> dict[str, object]:
        """See `Component`."""
        running = self._process is not None and self._process.returncode is None
        return {
            "command": list(self._command),
            "pid": self._process.pid if running and self._process is not None else None,
            "starts": self._starts,
            "retries": len(self.retries),
            "exit_code": self._exit_code,
            "broken": self.broken.is_set(),
        }

    async def _start(self) -> None:
        self._starts += 1
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, **self._environment()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # the stand-in's own output is for its environment
                start_new_session=True,
            )
        except OSError as error:
            _LOG.error("the component %s cannot start: %s", self._command[0], error)
            self.broken.set()
            return
        self._watch = asyncio.create_task(self._keep(self._process))

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Start it again when it fails; a good end is an end."""
        self._exit_code = await process.wait()
        if self._exit_code == 0:
            _LOG.info("the component has finished")
            return
        if not self.retries.allow(asyncio.get_running_loop().time()):
            _LOG.warning("the component ended with %d, once too often: it is broken", self._exit_code)
            self.broken.set()
            return
        _LOG.info("the component ended with %d and is started again", self._exit_code)
        await asyncio.sleep(self._timing.retry_s)
        await self._start()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)

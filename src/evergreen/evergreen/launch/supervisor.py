"""Runs the processes of a plan in an asyncio event loop: starts, respawns, stops them, and tells an observer.

A graph ends when every process has ended and none is to be respawned, when a required process ends, or when it is
asked to. Then each process gets SIGINT, after its `sigterm_timeout` SIGTERM, after its `sigkill_timeout` SIGKILL, all
processes at once; each further request to stop goes on to the next signal without waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evergreen.launch import guard
from evergreen.launch.child import Child, Stream
from evergreen.launch.events import (
    Abandoned,
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
from evergreen.launch.plan import LaunchPlan, ProcessPlan, TemporaryFile

MIN_RESPAWN_DELAY_S = 0.1
"""A process that dies at once must not keep a core busy."""
EXIT_OK = 0
EXIT_FAILED = 1
NODE_EXIT_CONFIG = 2
"""How Evergreen's nodes, argparse and Python say that they were started wrongly; the next start would be as wrong."""
URGENCIES = 3
"""Requests to stop that make a difference: SIGINT, SIGTERM, SIGKILL."""


@dataclass(slots=True)
class ProcessState:
    """How one process stands."""

    pid: int | None = None
    restarts: int = 0
    code: int | None = None


class Supervisor:
    """One run of one plan. Use it in one event loop and once."""

    def __init__(self, plan: LaunchPlan, on_event: Observer) -> None:
        self._plan = plan
        self._on_event = on_event
        self._observer_error: Exception | None = None
        self._urgency = 0
        self._requests = [asyncio.Event() for _ in range(URGENCIES)]
        self._failed = False
        self._to_start = len(plan.processes)
        self._guard: subprocess.Popen[bytes] | None = None
        self.started = asyncio.Event()
        self.states = {process.name: ProcessState() for process in plan.processes}

    @property
    def stopping(self) -> bool:
        """Whether the graph is being stopped."""
        return self._urgency > 0

    async def run(self) -> int:
        """Run the graph to its end.

        Returns:
            0 when it was stopped on request or every process ended with 0. 1 when a required process ended by itself,
            a process could not be started, was given up or had to be killed, or, in a graph that ended by itself, any
            failed.
        """
        with tempfile.TemporaryDirectory(prefix="evergreen_launch_") as folder, self._guarded():
            tasks = [asyncio.create_task(self._keep(process, Path(folder))) for process in self._plan.processes]
            if not tasks:
                self.started.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in (self._observer_error, *results):
            if error is not None:
                raise error
        if not self.stopping and any(state.code for state in self.states.values()):
            self._failed = True
        return EXIT_FAILED if self._failed else EXIT_OK

    def request_stop(self, reason: str) -> None:
        """Stop the graph; the second request sends SIGTERM at once, the third SIGKILL."""
        if self._urgency == URGENCIES:
            return
        self._requests[self._urgency].set()
        self._urgency += 1
        self._tell(Stopping(reason, self._urgency))

    # --- one process -------------------------------------------------------------------------------------------------

    async def _keep(self, process: ProcessPlan, folder: Path) -> None:
        """Run a process to its last end; a defect here stops the graph before it surfaces."""
        try:
            await self._run_again_and_again(process, folder)
        except Exception as error:
            self.request_stop(f"following {process.name} failed: {error}")
            raise

    async def _run_again_and_again(self, process: ProcessPlan, folder: Path) -> None:
        state = self.states[process.name]
        command = _write(process, folder)
        while not self.stopping:
            alive = await self._run_once(process, command, state)
            if self.stopping:
                return
            if process.required:
                self._failed = True
                how = "could not be started" if not alive else f"has ended with exit code {state.code}"
                self.request_stop(f"required process {process.name} {how}")
                return
            if not alive or not process.respawn or self._given_up(process, state):
                return
            delay_s = max(process.respawn_delay_s, MIN_RESPAWN_DELAY_S)
            self._tell(Respawning(process.name, delay_s))
            await self._stopped_within(0, delay_s)
            state.restarts += 1

    def _given_up(self, process: ProcessPlan, state: ProcessState) -> bool:
        """Whether starting it again is of no use; tells why."""
        if state.code == NODE_EXIT_CONFIG:
            reason = (
                f"exit code {NODE_EXIT_CONFIG} means that its configuration is wrong; put that right and launch again"
            )
        elif state.restarts == process.respawn_limit:
            reason = f"respawn_max_retries allows {process.respawn_limit} times"
        else:
            return False
        self._failed = self._failed or state.code != 0
        self._tell(GivenUp(process.name, reason))
        return True

    async def _run_once(self, process: ProcessPlan, command: list[str], state: ProcessState) -> bool:
        """Start a process and follow it to its end; False where it could not be started."""
        try:
            child = Child(command, process.environment, process.cwd, self._printer(process.name))
        except OSError as error:
            self._failed = True
            self._count_start()
            self._tell(NotStarted(process.name, f"{error.strerror}: {error.filename or command[0]}"))
            return False
        self._tell_guard(f"+{child.pid}")
        state.pid, state.code = child.pid, None
        self._tell(Started(process.name, child.pid, state.restarts))
        self._count_start()
        if not await self._until_dead(process, child):
            self._tell_guard(f"-{child.pid}")
            self._abandon(process, (child.pid,))
            await child.abandon()
            return True
        expected = self.stopping
        if leftovers := child.leftovers():
            self._tell(Leftovers(process.name, leftovers))
            if survivors := await child.sweep():
                self._abandon(process, survivors)
        self._tell_guard(f"-{child.pid}")
        state.code = await child.collect()
        state.pid = None
        self._tell(Exited(process.name, child.pid, state.code, expected, shlex.join(command)))
        return True

    def _count_start(self) -> None:
        self._to_start -= 1
        if self._to_start <= 0:
            self.started.set()

    def _printer(self, name: str) -> _Printer:
        return _Printer(self, name)

    async def _until_dead(self, process: ProcessPlan, child: Child) -> bool:
        """Wait for its end, which a request to stop brings about; False where it may not be ended."""
        ending = asyncio.create_task(self._end(process, child))
        dead = asyncio.create_task(child.dead())
        try:
            await asyncio.wait((ending, dead), return_when=asyncio.FIRST_COMPLETED)
            if ending.done() and not ending.result():
                return dead.done()
            await dead
            return True
        finally:
            ending.cancel()
            dead.cancel()

    async def _end(self, process: ProcessPlan, child: Child) -> bool:
        """Wait for the request to stop, then end the process with more and more force; False where nothing helps."""
        await self._requests[0].wait()
        self._signal(process, child, signal.SIGINT)
        await self._stopped_within(1, process.sigterm_after_s)
        self._signal(process, child, signal.SIGTERM)
        await self._stopped_within(2, process.sigkill_after_s)
        self._failed = True
        return self._signal(process, child, signal.SIGKILL)

    async def _stopped_within(self, urgency: int, seconds: float) -> None:
        """Return at the request of this urgency, or after this time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._requests[urgency].wait(), seconds)

    def _signal(self, process: ProcessPlan, child: Child, number: signal.Signals) -> bool:
        """Send a signal; False where that is not allowed, as with launch-prefix="sudo"."""
        try:
            child.send(number)
        except OSError as error:
            self._failed = True
            self._tell(NotSignalled(process.name, child.pid, number.name, error.strerror or str(error)))
            return False
        self._tell(Signalled(process.name, number.name))
        return True

    def _abandon(self, process: ProcessPlan, pids: tuple[int, ...]) -> None:
        self._failed = True
        self._tell(Abandoned(process.name, pids))

    # --- the observer and the guard ----------------------------------------------------------------------------------

    def tell_output(self, name: str, stream: Stream, line: str) -> None:
        """Hand on one line."""
        self._tell(Output(name, stream, line))

    def _tell(self, event: Event) -> None:
        """Tell the observer. Where it fails, the graph is stopped: nobody would see what it does."""
        if self._observer_error is not None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001  raised again at the end of run()
            self.observer_failed(error)

    def observer_failed(self, error: Exception) -> None:
        """Stop the graph because nobody sees it any more; run() raises this error at its end."""
        if self._observer_error is None:
            self._observer_error = error
            self.request_stop(f"its observer failed: {error}")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        command = [sys.executable, "-I", "-S", str(guard.__file__)]
        null = subprocess.DEVNULL
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
        ) as process:
            self._guard = process
            try:
                yield
            finally:
                self._guard = None  # leaving closes its input, and with nothing on its list it ends

    def _tell_guard(self, line: str) -> None:
        if self._guard is None or self._guard.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):  # somebody killed it: the kernel's signal remains
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()


@dataclass(frozen=True, slots=True)
class _Printer:
    """Hands a process's lines to its supervisor."""

    supervisor: Supervisor
    name: str

    def __call__(self, stream: Stream, line: str) -> None:
        self.supervisor.tell_output(self.name, stream, line)


def _write(process: ProcessPlan, folder: Path) -> list[str]:
    """The command line, with its temporary files written."""
    command = []
    for index, word in enumerate(process.command):
        if isinstance(word, TemporaryFile):
            path = folder / f"{process.name.replace(os.sep, '_')}_{index}.yaml"
            path.write_text(word.content, encoding="utf-8")
            command.append(str(path))
        else:
            command.append(word)
    return command

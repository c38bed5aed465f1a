"""A graph in the background of another program: the demo, tests, benchmarks.

with Launcher(make_plan(file, {"port": "/dev/ttyACM0"}), on_event=print) as launcher:
    ...
    code = launcher.wait(timeout_s=60)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

from evergreen.launch.errors import LaunchError
from evergreen.launch.events import Event, NotStarted, Observer
from evergreen.launch.plan import LaunchPlan
from evergreen.launch.supervisor import ProcessState, Supervisor

START_TIMEOUT_S = 30.0
"""To start every process, not to have them ready; a busy machine takes a second."""


class Launcher:
    """Runs a plan in a thread of its own. Methods may be called from any thread; `on_event` is called in that one."""

    def __init__(self, plan: LaunchPlan, on_event: Observer | None = None) -> None:
        self._plan = plan
        self._on_event = on_event
        self._not_started: list[NotStarted] = []
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._supervisor: Supervisor | None = None
        self._spawned = threading.Event()
        self._over = threading.Event()
        self._code: int | None = None
        self._error: BaseException | None = None

    def start(self) -> Self:
        """Start every process and return.

        Raises:
            LaunchError: one of them cannot be started; the others are stopped then.
        """
        self._thread.start()
        if not self._spawned.wait(START_TIMEOUT_S):
            self.stop("starting took too long")
            raise LaunchError(f"{self._plan.file}: not every process could be started within {START_TIMEOUT_S:.0f} s")
        if self._not_started:
            self.stop("a process could not be started")
            failures = "; ".join(f"{event.process}: {event.reason}" for event in self._not_started)
            raise LaunchError(f"{self._plan.file}: {failures}")
        return self

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the graph's end.

        Returns:
            Its exit code, as `Supervisor.run` defines it, or None if it still runs after the time.

        Raises:
            Exception: what `on_event` raised, if it did.
        """
        if not self._over.wait(timeout_s):
            return None
        if self._error is not None:
            raise self._error
        return self._code

    def stop(self, reason: str = "stop was asked for") -> int:
        """Stop every process and return the exit code; nothing runs any more then."""
        self.request_stop(reason)
        code = self.wait()
        return 0 if code is None else code

    def request_stop(self, reason: str) -> None:
        """Begin to stop and return; a further request uses more force at once."""
        if self._loop is not None and self._supervisor is not None and not self._over.is_set():
            with contextlib.suppress(RuntimeError):  # the loop was closed in this very moment
                self._loop.call_soon_threadsafe(self._supervisor.request_stop, reason)

    @property
    def running(self) -> bool:
        """Whether the graph has not ended yet."""
        return self._thread.is_alive() and not self._over.is_set()

    @property
    def processes(self) -> dict[str, ProcessState]:
        """How each process stands, by its label; a snapshot."""
        states = {} if self._supervisor is None else self._supervisor.states
        return {name: ProcessState(state.pid, state.restarts, state.code) for name, state in states.items()}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
            return
        self.request_stop("the program around it failed")
        self._over.wait()  # its own failure would hide the one that is on its way

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._code = asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  handed to whoever waits
            self._error = error
        finally:
            self._over.set()
            self._spawned.set()

    async def _main(self) -> int:
        supervisor = Supervisor(self._plan, self._hear)
        self._loop, self._supervisor = asyncio.get_running_loop(), supervisor
        watch = asyncio.create_task(self._announce(supervisor))
        try:
            return await supervisor.run()
        finally:
            watch.cancel()

    async def _announce(self, supervisor: Supervisor) -> None:
        await supervisor.started.wait()
        self._spawned.set()

    def _hear(self, event: Event) -> None:
        if isinstance(event, NotStarted):
            self._not_started.append(event)
        if self._on_event is not None:
            self._on_event(event)

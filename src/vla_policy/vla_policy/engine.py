"""The loaded model and, while it drives, its control loop: what transitions and swaps of `/policy` act on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from vla_core.errors import ConfigError
from vla_policy.clock import Clock
from vla_policy.inbox import Inbox
from vla_policy.loaded import Loaded
from vla_policy.loop import ControlLoop, Outlet
from vla_policy.probation import Failed, Passed
from vla_policy.settings import Settings
from vla_policy.trial import Trial


class Engine:
    """At most one model drives. Any thread may call it."""

    def __init__(self, inbox: Inbox, outlet: Outlet, clock: Clock, log: Callable[[str], None]) -> None:
        """Take what every model will use; `log` gets the lines of a local server."""
        self._inbox = inbox
        self._outlet = outlet
        self._clock = clock
        self._log = log
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._loaded: Loaded | None = None
        self._loop: ControlLoop | None = None
        self._paused = False

    @property
    def loaded(self) -> Loaded | None:
        """The model that drives, or will when it is started."""
        loop = self._loop
        return self._loaded if loop is None else loop.loaded

    @property
    def drives(self) -> bool:
        """Whether the loop runs, or would, were it not paused."""
        return self._loop is not None or self._paused

    def load(
        self,
        settings: Settings,
        folder: Path | None,
        let_go: Callable[[], object],
        cancelled: threading.Event | None = None,
    ) -> Loaded:
        """Start or find the server that `settings` ask for, and see whether its model fits the robot.

        The model that drives is not touched; with `cancelled`, which ends the attempt, the server yields to it.

        Raises:
            EvergreenError: it does not, or there is no server; nothing is loaded then, and `let_go` was not called.
        """
        link = settings.link(self._log, folder, yields=cancelled is not None)
        try:
            client = link.connect(cancelled or self._ending)
            try:
                spec = settings.identify(client, folder)
            finally:
                client.close()
            how = settings.loop(spec)  # refuses what does not fit now, not when the arm is to move
        except BaseException:
            link.close()
            raise
        return Loaded(settings.model, spec, link, how, lambda client: settings.identify(client, folder), let_go)

    def install(self, loaded: Loaded) -> None:
        """Let this be the model, where there was none; it does not drive yet."""
        with self._lock:
            former, self._loaded = self._loaded, loaded
        if former is not None and former is not loaded:
            former.close()

    def replace(self, former: Loaded, loaded: Loaded) -> bool:
        """Let `loaded` be the model instead of `former`, which is closed.

        False where a model drives, or `former` is not what is loaded: somebody started or cleaned up meanwhile.
        """
        with self._lock:
            if self._loop is not None or self._loaded is None or self._loaded.link is not former.link:
                return False
            self._loaded = loaded
        former.close()
        return True

    def start(self, trial: Trial | None = None) -> None:
        """Drive, with a new session: the policy remembers nothing of the last.

        Raises:
            ConfigError: nothing is loaded.
        """
        with self._lock:
            if self._loaded is None:
                raise ConfigError("no model is loaded; configure first")
            self._paused = False
            self._loop = ControlLoop(self._loaded, self._inbox, self._outlet, self._clock)
            if trial is not None:
                self._loop.offer(trial)
            self._loop.start()

    def try_on(self, trial: Trial) -> bool:
        """Let the loop go over to a model on trial; False where no loop runs."""
        with self._lock:
            if self._loop is None:
                return False
            self._loop.offer(trial)
            return True

    def watch(self, trial: Trial) -> None:
        """As `try_on`, unless a trial is under way."""
        with self._lock:
            if self._loop is not None and not self._loop.is_on_trial:
                self._loop.offer(trial)

    def decide(self, verdict: Passed | Failed) -> None:
        """End the trial under way like this."""
        if (loop := self._loop) is not None:
            loop.decide(verdict)

    def recall(self, verdict: Failed) -> None:
        """As `decide`, also where the trial has not begun."""
        if (loop := self._loop) is not None:
            loop.recall(verdict)

    def tell(self, prompt: str) -> None:
        """Give the loaded model another instruction."""
        with self._lock:
            if self._loop is not None:
                self._loop.tell(prompt)
            elif self._loaded is not None:
                self._loaded = self._loaded.told(prompt)

    def poke(self) -> None:
        """The prompt changed: ask again at once."""
        if (loop := self._loop) is not None:
            loop.poke()

    def stop(self) -> None:
        """Bring the arm to rest; the model stays loaded."""
        with self._lock:
            self._paused = False
            self._end_loop()

    def pause(self, reason: str) -> bool:
        """As `stop`, until `resume`; whether it drove."""
        with self._lock:
            self._paused = self._loop is not None
            self._end_loop()
            if self._paused:
                self._outlet.holding(reason)
            return self._paused

    def resume(self, trial: Trial | None = None) -> bool:
        """Drive again, unless somebody stopped it meanwhile; whether it does."""
        with self._lock:
            if not self._paused or self._loaded is None:
                return False
            self.start(trial)
            return True

    def release(self) -> None:
        """Let go of everything."""
        self.stop()
        with self._lock:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()

    def cancel(self) -> None:
        """Make a load under way, and all to come, fail soon: the process is about to end."""
        self._ending.set()

    def _end_loop(self) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._loaded, self._loop = self._loop.loaded, None

"""A loaded model and, while it drives, its control loop: what the transitions of `/policy` act on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vla_core.errors import ConfigError
from vla_policy.clock import Clock
from vla_policy.inbox import Inbox
from vla_policy.loop import ControlLoop, Outlet
from vla_policy.model import ModelSpec
from vla_policy.serving.link import Link
from vla_policy.settings import Settings


class Engine:
    """At most one model at a time. One thread calls it; `poke` and `cancel` may be called from any."""

    def __init__(self, inbox: Inbox, outlet: Outlet, clock: Clock, log: Callable[[str], None]) -> None:
        """Take what every model will use; `log` gets the lines of a local server."""
        self._inbox = inbox
        self._outlet = outlet
        self._clock = clock
        self._log = log
        self._cancelled = threading.Event()
        self._settings: Settings | None = None
        self._link: Link | None = None
        self._loop: ControlLoop | None = None
        self.spec: ModelSpec | None = None

    def load(self, settings: Settings) -> ModelSpec:
        """Start or find the server that `settings` ask for, and see whether its model fits the robot.

        Raises:
            EvergreenError: it does not, or there is no server; nothing is loaded then.
        """
        self.release()
        link = settings.link(self._log)
        try:
            client = link.connect(self._cancelled)
            try:
                spec = settings.identify(client)
            finally:
                client.close()
            settings.loop(spec)  # refuses what does not fit now, not when the arm is to move
        except BaseException:
            link.close()
            raise
        self._settings, self._link, self.spec = settings, link, spec
        return spec

    def start(self) -> None:
        """Drive, with a new session: the policy remembers nothing of the last.

        Raises:
            ConfigError: nothing is loaded.
        """
        if self._settings is None or self._link is None or self.spec is None:
            raise ConfigError("no model is loaded; configure first")
        self._loop = ControlLoop(
            spec=self.spec,
            link=self._link,
            inbox=self._inbox,
            outlet=self._outlet,
            settings=self._settings.loop(self.spec),
            clock=self._clock,
            identify=self._settings.identify,
        )
        self._loop.start()

    def poke(self) -> None:
        """The prompt changed: ask again at once."""
        if (loop := self._loop) is not None:
            loop.poke()

    def stop(self) -> None:
        """Bring the arm to rest; the model stays loaded."""
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def release(self) -> None:
        """Let go of everything."""
        self.stop()
        if self._link is not None:
            self._link.close()
        self._settings = self._link = self.spec = None

    def cancel(self) -> None:
        """Make a load under way, and all to come, fail soon: the process is about to end."""
        self._cancelled.set()

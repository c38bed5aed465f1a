"""Keeps a connection to the nucleus: connects, subscribes, connects again, and knows when only a new process helps.

A nucleus that does not run is waited for, since it would not start this component again either. A nucleus that refuses
the token has restarted: the process must end with a non-zero code, to be started with a fresh one. Greengrass Lite does
that only three times an hour, so it is done only when nothing else helps.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from gg_bridge.nucleus import Nucleus, NucleusError

T = TypeVar("T")
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 10.0
"""A nucleus takes seconds to restart; the cloud's next deployment must not wait for us for long after that."""
REFUSALS = 3
"""Greengrass Lite refuses by hanging up, and so does any nucleus that is just going down: once is no proof."""
REFUSAL_PAUSE_S = 1.0


class Connection(StrEnum):
    """How the bridge is connected."""

    NONE = "none"
    """Nobody started us as a component, or the parameter `nucleus` says so."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the session calls; all but `log` from the nucleus's thread or the session's.

    Attributes:
        connected: everything may have changed meanwhile.
        changed: a configuration event came.
        validate: judges a proposed configuration; "" accepts it.
        defer_ms: decides about a deployment.
        end: only a new process helps.
        log: a line for people; whether it is a warning.
    """

    connected: Callable[[], None]
    changed: Callable[[], None]
    validate: Callable[[Mapping[str, Any]], str]
    defer_ms: Callable[[str, bool], int]
    end: Callable[[str], None]
    log: Callable[[str, bool], None]


class Session:
    """One thread that keeps the connection; `call` may be used from any other."""

    def __init__(self, connect: Callable[[], Nucleus], hooks: Hooks) -> None:
        self._connect = connect
        self._hooks = hooks
        self._nucleus: Nucleus | None = None
        self._stopping = threading.Event()
        self._lost = threading.Event()
        self._said = ""
        self._refusals = 0
        self.connection = Connection.CONNECTING
        self.unsupported: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up, and wait for the thread's end."""
        self._stopping.set()
        self._lost.set()
        if self._thread.ident is not None:
            self._thread.join()

    def call(self, work: Callable[[Nucleus], T]) -> T:
        """Do `work` with the nucleus.

        Raises:
            NucleusError: kind `gone` where there is none at present, else what the nucleus says.
        """
        nucleus = self._nucleus
        if nucleus is None:
            raise NucleusError("no connection to the nucleus at present", "gone")
        return work(nucleus)

    def _run(self) -> None:
        try:
            self._keep()
        except Exception as error:  # noqa: BLE001  a thread that ends unnoticed is a bridge that hears nothing
            self._hooks.log(f"defect: {traceback.format_exc()}", True)
            self._hooks.end(f"the connection to the nucleus cannot be kept: {error!r}")

    def _keep(self) -> None:
        delay_s = FIRST_RETRY_S
        while not self._stopping.is_set():
            try:
                nucleus = self._connect()
            except NucleusError as error:
                if self._is_final(error):
                    self._hooks.end(str(error))
                    return
                pause_s = REFUSAL_PAUSE_S if error.kind == "denied" else delay_s
                delay_s = min(LAST_RETRY_S, 2.0 * delay_s)
                self._stopping.wait(pause_s)
                continue
            delay_s = FIRST_RETRY_S
            self._use(nucleus)

    def _is_final(self, error: NucleusError) -> bool:
        self._refusals = self._refusals + 1 if error.kind == "denied" else 0
        self._say(str(error), warn=True)
        return self._refusals >= REFUSALS

    def _use(self, nucleus: Nucleus) -> None:
        """Live with one connection until it is lost."""
        self._lost.clear()
        if self._stopping.is_set():
            nucleus.close()
            return
        try:
            self._subscribe(nucleus)
        except NucleusError as error:
            self._say(str(error), warn=True)
            self._stopping.wait(FIRST_RETRY_S)
        else:
            self._refusals = 0
            self._nucleus, self.connection = nucleus, Connection.CONNECTED
            lacks = f"; it has no {' and no '.join(self.unsupported)}" if self.unsupported else ""
            self._say(f"connected to the nucleus{lacks}", warn=False)
            self._hooks.connected()
            self._lost.wait()
        self._nucleus, self.connection = None, Connection.LOST
        nucleus.close()

    def _subscribe(self, nucleus: Nucleus) -> None:
        nucleus.on_gone(self._on_gone)
        nucleus.on_configuration(lambda _path: self._hooks.changed())
        unsupported = []
        subscriptions: dict[str, Callable[[], None]] = {
            "validation of configurations": lambda: nucleus.on_validation(self._hooks.validate),
            "deferral of updates": lambda: nucleus.on_component_update(self._hooks.defer_ms),
        }
        for what, subscribe in subscriptions.items():
            try:
                subscribe()
            except NucleusError as error:
                if error.kind != "unsupported":
                    raise
                unsupported.append(what)
        self.unsupported = tuple(unsupported)
        nucleus.report_state("RUNNING")

    def _on_gone(self, reason: str) -> None:
        if not self._stopping.is_set():
            self._say(f"{reason}; the robot works on, and the bridge connects again", warn=True)
        self._lost.set()

    def _say(self, text: str, *, warn: bool) -> None:
        if text != self._said:
            self._hooks.log(text, warn)
        self._said = text

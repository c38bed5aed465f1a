"""Delivers reports when the nucleus takes them: one thread, a queue on disk for each way, no way holds up another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from gg_bridge.nucleus import NucleusError
from gg_bridge.outbox import Outbox
from vla_core.errors import StoreError

FIRST_RETRY_S, LAST_RETRY_S = 2.0, 120.0
"""Lite fails to publish while it is offline, without saying that this is why; asking costs next to nothing."""
KEPT_IN_MEMORY = 20
"""Reports that a full disk did not take; it will not be full for many updates, as none fits on it."""
Log = Callable[[str, bool], None]


class Channel:
    """One way for reports: a queue on disk and who sends from it."""

    def __init__(self, name: str, outbox: Outbox, send: Callable[[str], None], log: Log) -> None:
        self._name, self._outbox, self._send, self._log = name, outbox, send, log
        self._unsaved: deque[str] = deque(maxlen=KEPT_IN_MEMORY)
        self._delay_s = 0.0
        self._due_s = 0.0
        self._said = ""
        self._lock = threading.Lock()

    @property
    def due_s(self) -> float | None:
        """When to try, on the monotonic clock; None where nothing waits."""
        return self._due_s if self.waiting else None

    @property
    def waiting(self) -> int:
        """How many reports wait."""
        return len(self._outbox) + len(self._unsaved)

    def put(self, text: str) -> None:
        """Queue a report."""
        with self._lock:
            try:
                dropped = self._outbox.put(text)
            except OSError as error:
                self._unsaved.append(text)
                self._log(f"a report for {self._name} is kept in memory only: {error}", True)
                return
        if dropped:
            self._log(f"{dropped} of the oldest reports for {self._name} had to go: they were never delivered", True)

    def wake(self) -> None:
        """Try at once: something is better than it was."""
        self._delay_s = self._due_s = 0.0

    def run(self, now_s: float) -> None:
        """Deliver what waits."""
        try:
            self._outbox.deliver(self._send)
            while self._unsaved:
                self._send(self._unsaved[0])
                self._unsaved.popleft()
        except NucleusError as error:
            self._delay_s = min(LAST_RETRY_S, max(FIRST_RETRY_S, 2.0 * self._delay_s))
            self._due_s = now_s + self._delay_s
            if error.kind != "gone":  # the session says that
                self._say(f"reports for {self._name} wait: {error}")
        except (OSError, StoreError) as error:
            self._due_s = now_s + LAST_RETRY_S
            self._say(f"reports for {self._name} cannot be read or removed: {error}")
        else:
            self._delay_s, self._said = 0.0, ""

    def _say(self, text: str) -> None:
        if text != self._said:
            self._log(text, True)
        self._said = text


class Delivery:
    """The thread."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = channels
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    @property
    def waiting(self) -> int:
        """How many reports wait on all ways."""
        return sum(channel.waiting for channel in self._channels)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """End; what waits stays on disk."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def put(self, text: str) -> None:
        """Queue one report for each channel."""
        for channel in self._channels:
            channel.put(text)
        self._wake.set()

    def wake(self) -> None:
        """The nucleus is there again."""
        for channel in self._channels:
            channel.wake()
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            for channel in self._channels:
                if channel.due_s is not None and channel.due_s <= time.monotonic():
                    channel.run(time.monotonic())
            dues = [due_s for channel in self._channels if (due_s := channel.due_s) is not None]
            self._wake.wait(max(0.0, min(dues) - time.monotonic()) if dues else None)

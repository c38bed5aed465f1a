"""One fetch at a time, in a thread of its own, that a newer wish can cancel."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from gg_bridge.configuration import ModelConfiguration
from vla_core.errors import EvergreenError, StoreBusy, StoreFull

FetchModel = Callable[[ModelConfiguration, Callable[[str], None], threading.Event], str]
"""Brings a model into the store and returns its label; it gets what to call with a sentence about its progress, and an
event that cancels it. Raises EvergreenError; one with a true attribute `retryable` may be over soon."""
Fetched = Callable[[str], None]
Failed = Callable[[str, bool], None]
STOP_S = 5.0
"""A download notices that it is cancelled between two blocks, a connection being made does not."""


class Fetching:
    """Runs fetches one after the other."""

    def __init__(self, fetch: FetchModel, log: Callable[[str, bool], None]) -> None:
        self._fetch, self._log = fetch, log
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self.progress = ""

    def start(self, wish: ModelConfiguration, fetched: Fetched, failed: Failed) -> None:
        """Fetch, once the fetch before has ended; exactly one of the two is called at the end, unless cancelled."""
        self.cancel()
        before, cancelled = self._thread, threading.Event()
        self._cancelled, self.progress = cancelled, ""

        def run() -> None:
            if before is not None:
                before.join()  # two at once would meet in the same staging folder
            if not cancelled.is_set():
                self._run(wish, cancelled, fetched, failed)

        self._thread = threading.Thread(target=run, name="fetch", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End it soon; what it has stays staged."""
        self._cancelled.set()
        self.progress = ""

    def stop(self) -> None:
        """Cancel, and wait a moment for the end."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self, wish: ModelConfiguration, cancelled: threading.Event, fetched: Fetched, failed: Failed) -> None:
        def note(progress: str) -> None:
            if not cancelled.is_set():
                self.progress = progress

        try:
            label = self._fetch(wish, note, cancelled)
        except EvergreenError as error:
            outcome, text, retryable = None, str(error), is_retryable(error)
        except Exception as error:  # noqa: BLE001  a defect must not leave the wish under way for ever
            self._log(f"defect while fetching: {traceback.format_exc()}", True)
            outcome, text, retryable = None, f"defect while fetching: {error!r}", False
        else:
            outcome, text, retryable = label, "", False
        if cancelled.is_set():
            return
        self.progress = ""
        if outcome is None:
            failed(text, retryable)
        else:
            fetched(outcome)


def is_retryable(error: EvergreenError) -> bool:
    """Whether the same fetch may succeed later: a busy store, a full disk, a network that is down."""
    return bool(getattr(error, "retryable", isinstance(error, StoreBusy | StoreFull)))

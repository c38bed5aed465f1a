"""Reports that wait on disk until they are delivered: in order, each at least once, and bounded.

One file a report, which appears by one rename and is removed once its delivery was confirmed. A report that was
delivered just before a power cut is delivered again: it carries an id of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from vla_core.errors import StoreError
from vla_core.store.durable import replace_text, sync_folder

MAX_REPORTS = 1000
"""About 1 MB; a robot that was offline for a thousand deployments keeps the latest."""
DIGITS = 12
SUFFIX = ".json"


class Outbox:
    """A queue of texts in `folder`. One process uses it; its methods are called by one thread at a time."""

    def __init__(self, folder: Path, limit: int = MAX_REPORTS) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be made: {error.strerror}; the bridge keeps its reports there"
            ) from error
        self._folder = folder
        self._limit = limit
        self._next = max((int(path.stem) for path in self._waiting()), default=0) + 1

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting())

    def put(self, text: str) -> int:
        """Queue one report durably; returns how many of the oldest had to go for it."""
        path = self._folder / f"{self._next:0{DIGITS}d}{SUFFIX}"
        self._next += 1
        replace_text(path, text)
        excess = self._waiting()[: -self._limit]
        for old in excess:
            old.unlink(missing_ok=True)
        return len(excess)

    def deliver(self, send: Callable[[str], None]) -> int:
        """Send what waits, the oldest first; returns how many were sent.

        Whatever `send` raises ends it, and that report and those behind it stay.
        """
        sent = 0
        for path in self._waiting():
            with contextlib.suppress(FileNotFoundError):  # it had to go for a newer one meanwhile
                send(path.read_text(encoding="utf-8"))
            path.unlink(missing_ok=True)
            sync_folder(self._folder)
            sent += 1
        return sent

    def _waiting(self) -> list[Path]:
        paths = self._folder.glob(f"{'[0-9]' * DIGITS}{SUFFIX}")
        return sorted(path for path in paths if path.is_file())

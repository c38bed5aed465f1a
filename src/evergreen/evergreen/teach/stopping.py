"""Ctrl-C, `docker stop` and a closed terminal as an event: the arm is never left half-way by an exception."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def asked() -> Iterator[threading.Event]:
    """Set when somebody asks to stop; the former handlers come back afterwards."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in NUMBERS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

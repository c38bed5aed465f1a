"""Requests and other work on their way to the swapper's thread: of requests the newest wins."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vla_core.swap import SwapRequest
from vla_policy.swap import Swap

KEPT_ANSWERS = 64
"""Whoever repeats a request does so within minutes, because an answer was lost."""

Job = Callable[[], None]


@dataclass(slots=True)
class Attempt:
    """A swap under way, and the way to end it."""

    swap: Swap
    cancelled: threading.Event = field(default_factory=threading.Event)
    abort: Callable[[], None] = lambda: None
    """Makes what is waited for fail at once."""

    def cancel(self) -> None:
        """A newer request came, or the process ends."""
        self.cancelled.set()
        self.abort()


class Queue:
    """Any thread puts; one takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._pending: Swap | None = None
        self._attempt: Attempt | None = None
        self._known: OrderedDict[str, Swap] = OrderedDict()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the process ends."""
        return self._closed

    def put(self, job: Job) -> None:
        """Do this after what is under way."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def ask(self, request: SwapRequest, now_ns: int) -> tuple[Swap | None, Swap | None]:
        """A request came.

        Returns:
            The swap of that id, where there was one already; else None, and the request is taken. Then: a swap that had
            not begun and never will.
        """
        with self._changed:
            if (known := self._known.get(request.request_id)) is not None:
                return known, None
            passed_over, self._pending = self._pending, Swap(request, now_ns)
            self._known[request.request_id] = self._pending
            while len(self._known) > KEPT_ANSWERS:
                self._known.popitem(last=False)
            if self._attempt is not None:
                self._attempt.cancel()
            self._changed.notify()
            return None, passed_over

    def take(self) -> Attempt | Job | None:
        """Wait for the next; None once closed."""
        with self._changed:
            self._attempt = None
            self._changed.wait_for(lambda: self._closed or self._pending or self._jobs)
            if self._closed:
                return None
            if self._pending is not None:
                self._attempt, self._pending = Attempt(self._pending), None
                return self._attempt
            return self._jobs.popleft()

    def close(self) -> None:
        """End what is under way, soon, and take nothing more."""
        with self._changed:
            self._closed = True
            if self._attempt is not None:
                self._attempt.cancel()
            self._changed.notify()

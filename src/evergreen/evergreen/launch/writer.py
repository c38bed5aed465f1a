"""Prints from a thread of its own: a terminal that does not read must stop neither the graph nor Ctrl-C.

What waits to be printed is bounded. Where the terminal reads more slowly than the graph talks, lines of output are
left out, and their number is printed in their place.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from evergreen.launch.events import Dropped, Event, Output

MAX_WAITING_BYTES = 1 << 20
"""Of lines that wait: many seconds of a talkative graph, and little memory. What the launcher says may take as much
again, since there is little of it and it tells why things happen."""
PIECE_BYTES = 4096
"""Written at a time, so that progress shows; what a terminal takes at once."""
STUCK_S = 1.0
"""At the end: who has not taken one piece in this time will not."""


class Writer:
    """An observer that prints what `text_of` makes of each event. A context manager; leaving prints what still waits.

    Attributes:
        on_failure: called in the writing thread with the reason why printing failed, for instance BrokenPipeError
            where nobody reads any more. The next call and the end of the context raise it as well.
    """

    def __init__(self, descriptor: int, text_of: Callable[[Event], str | None], encoding: str = "utf-8") -> None:
        self.on_failure: Callable[[OSError], None] = lambda _error: None
        self._descriptor = descriptor
        self._text_of = text_of
        self._encoding = encoding
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._written = 0
        self._ended = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __call__(self, event: Event) -> None:
        """Print one event soon; never waits. OSError where printing has failed."""
        text = self._text_of(event)
        if text is not None:
            self._put(text, MAX_WAITING_BYTES if isinstance(event, Output) else 2 * MAX_WAITING_BYTES)

    def say(self, text: str) -> None:
        """Print a line that is no event."""
        self._put(text, 2 * MAX_WAITING_BYTES)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._announce_dropped()
            self._ended = True
            self._changed.notify()
        before = -1
        while self._thread.is_alive() and self._written != before:
            before = self._written
            self._thread.join(STUCK_S)
        if self._error is not None and kind is None:
            raise self._error

    def _put(self, text: str, room: int) -> None:
        data = self._encoded(text)
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._size + len(data) > room:
                self._dropped += 1
                return
            self._announce_dropped()
            self._append(data)

    def _announce_dropped(self) -> None:
        count, self._dropped = self._dropped, 0
        if count and (text := self._text_of(Dropped(count))) is not None:
            self._append(self._encoded(text))

    def _append(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        self._changed.notify()

    def _encoded(self, text: str) -> bytes:
        return f"{text}\n".encode(self._encoding, "replace")  # a node's odd letter must not stop the robot

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while data := self._take():
                self._write(memoryview(data))
        except OSError as error:
            with self._changed:
                self._error = error
                self._waiting.clear()
            self.on_failure(error)

    def _take(self) -> bytes:
        """Everything that waits, once something does; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            return data

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                # Past Python's buffers: their locks would be held while the terminal does not read.
                count = os.write(self._descriptor, data[:PIECE_BYTES])
            except BlockingIOError:  # the terminal's other users may have made it non-blocking
                select.select([], [self._descriptor], [])
                continue
            data = data[count:]
            self._written += count

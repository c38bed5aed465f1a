"""Newest frame wins: between the camera threads and the one that publishes."""

from __future__ import annotations

from threading import Condition

from vla_perception.frame import Frame


class Mailbox:
    """At most one frame a camera. A new one replaces one that nobody has taken yet."""

    def __init__(self) -> None:
        self._frames: dict[str, Frame] = {}
        self._changed = Condition()
        self._closed = False

    def put(self, camera: str, frame: Frame) -> int:
        """Leave a frame; returns how many it pushed out unseen (0 or 1)."""
        with self._changed:
            replaced = self._frames.pop(camera, None)  # popped, so that cameras are served in order of arrival
            self._frames[camera] = frame
            if replaced is None:
                self._changed.notify()
        return 0 if replaced is None else 1

    def take(self) -> list[tuple[str, Frame]] | None:
        """Wait for frames and take all of them, the longest waiting first; None once the mailbox is closed."""
        with self._changed:
            while not self._frames and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            frames = list(self._frames.items())
            self._frames.clear()
        return frames

    def close(self) -> None:
        """Wake whoever waits; frames left inside are lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

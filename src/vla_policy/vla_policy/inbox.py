"""The newest of everything that arrives, handed from the ROS thread to the loop's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vla_policy.clock import Moment

KEPT_REPORTS = 64
"""The driver reports within a few control periods; this many chunks take many seconds."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera picture as it arrived.

    Attributes:
        jpeg: the camera's own bytes.
        stamp_ns: when it was captured, system time.
        source_ns: when it was published, system time.
        received_ns: when the middleware had it here, system time.
        arrived: when our callback ran.
    """

    jpeg: bytes
    stamp_ns: int
    source_ns: int
    received_ns: int
    arrived: Moment


@dataclass(frozen=True, slots=True)
class JointSample:
    """Measured joint positions as they arrived: one value in rad for each name."""

    names: tuple[str, ...]
    positions: tuple[float, ...]
    stamp_ns: int
    arrived: Moment


class Inbox:
    """Keeps the newest frame of each camera and joint sample, the prompt, and what the driver took up. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrivals = 0
        self._frames: dict[str, Frame] = {}
        self._joints: JointSample | None = None
        self._prompt: str | None = None
        self._prompt_ns: int | None = None
        self._taken_up: deque[int] = deque(maxlen=KEPT_REPORTS)

    def put_frame(self, camera: str, frame: Frame) -> None:
        """A picture came."""
        with self._changed:
            self._frames[camera] = frame
            self._wake()

    def put_joints(self, sample: JointSample) -> None:
        """A joint state came."""
        with self._changed:
            self._joints = sample
            self._wake()

    def put_prompt(self, prompt: str | None, now: Moment | None = None) -> None:
        """Override the model's own prompt; None ends that. `now` is when it arrived, for whom that matters."""
        with self._changed:
            self._prompt, self._prompt_ns = prompt, None if now is None else now.mono_ns
            self._wake()

    def end_override(self) -> str | None:
        """End the override of the prompt; returns it."""
        with self._changed:
            prompt, self._prompt = self._prompt, None
            return prompt

    def restore_override(self, prompt: str | None) -> None:
        """Override the prompt again, unless somebody has done so meanwhile."""
        with self._changed:
            if self._prompt is None:
                self._prompt = prompt

    def put_report(self, stamp_ns: int) -> None:
        """The driver moves the arm by the trajectory with this stamp."""
        with self._changed:
            self._taken_up.append(stamp_ns)

    def taken_up(self) -> Collection[int]:
        """Stamps of the trajectories that the driver took up of late."""
        with self._changed:
            return frozenset(self._taken_up)

    def _wake(self) -> None:
        self._arrivals += 1
        self._changed.notify_all()

    def newest(self) -> tuple[int, Mapping[str, Frame], JointSample | None]:
        """A ticket for `wait`, the newest frames by camera, and the newest joint sample."""
        with self._changed:
            return self._arrivals, dict(self._frames), self._joints

    def prompt(self, default: str) -> str:
        """The prompt in force."""
        with self._changed:
            return default if self._prompt is None else self._prompt

    def prompt_ns(self) -> int | None:
        """When the prompt in force arrived, monotonic; None where it did not come by itself."""
        with self._changed:
            return self._prompt_ns

    def wait(self, ticket: int, timeout_s: float) -> None:
        """Return once something came after `ticket` was given, somebody called `nudge`, or `timeout_s` passed."""
        with self._changed:
            if self._arrivals == ticket:
                self._changed.wait(timeout_s)

    def nudge(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._wake()

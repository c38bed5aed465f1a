"""What a camera's thread asks of the thing that frames come from."""

from __future__ import annotations

from typing import Protocol

from vla_perception.frame import Frame

STALL_TIMEOUT_S = 3.0
"""A camera that is silent for this long is lost: even one frame a second is quicker."""


class Source(Protocol):
    """One camera. `start`, `read` and `close` are called from its thread, `interrupt` from any.

    The constructor does nothing that can block, so that there always is something to interrupt.
    """

    notice: str
    """What the user should know although frames come, for example that the camera ignores a setting; or empty."""

    def start(self) -> None:
        """Open the camera and make it send. Raises SourceError, with cause and cure, where that fails."""

    def read(self) -> Frame:
        """Wait for the newest frame. Raises SourceError when the camera goes, or is silent for `STALL_TIMEOUT_S`."""
        ...

    def interrupt(self) -> None:
        """Make a running or coming `start` or `read` raise SourceError soon."""

    def close(self) -> None:
        """Release the camera; never raises."""

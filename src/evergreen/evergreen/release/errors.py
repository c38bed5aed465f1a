"""What may go wrong on a release.

ReleaseError
├── AwsError       AWS said no, or cannot be reached
├── ToolError      podman or docker is missing, or failed
├── InUseError     it may not be removed: somebody uses it
├── RefusedError   the robots did not take the model
└── WaitingError   time is up, and some robots have not answered yet
"""

from __future__ import annotations

from vla_core.errors import EvergreenError


class ReleaseError(EvergreenError):
    """A release that cannot be done."""


class AwsError(ReleaseError):
    """AWS said no, or cannot be reached.

    Attributes:
        code: AWS's own word for it, empty where there is none.
        fleeting: it may pass by itself (no network, too many requests, a fault at AWS's): asking again is worth a try,
            and whether AWS did what was asked is unknown.
    """

    def __init__(self, message: str, code: str = "", *, fleeting: bool = False) -> None:
        super().__init__(message)
        self.code, self.fleeting = code, fleeting

    @property
    def is_no(self) -> bool:
        """AWS refused: nothing was done."""
        return bool(self.code) and not self.fleeting


class ToolError(ReleaseError):
    """Podman or docker is missing, or failed."""


class InUseError(ReleaseError):
    """It may not be removed: somebody uses it."""


class RefusedError(ReleaseError):
    """The robots did not take the model."""


class WaitingError(ReleaseError):
    """Time is up, and some robots have not answered yet."""

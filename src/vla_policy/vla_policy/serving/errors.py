"""What a client of a policy server may meet.

WireError
├── ServerUnavailableError   nobody listens there, or the connection broke
│   └── ServerTimeoutError   it did not answer in time
├── ServerRefusedError       it turned us away: a wrong key, or no policy server at all
└── ServerFailedError        it answered with an error of its own
"""

from vla_core.errors import WireError


class ServerUnavailableError(WireError):
    """Nobody listens at the address, or the connection broke: trying again may help."""


class ServerTimeoutError(ServerUnavailableError):
    """The server did not answer in time."""


class ServerRefusedError(WireError):
    """The server turned the connection away: trying again does not help."""


class ServerFailedError(WireError):
    """The server reported an error; `details` holds what it sent, usually a traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details

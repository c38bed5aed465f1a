"""Why a model could not be fetched.

FetchError
├── FetchCancelled   whoever asked for it no longer wants it
├── CutError         the connection broke or the sender is unwell: the same request may succeed
└── ChangedError     the sender's file is no longer the one that was begun: start it anew
"""

from __future__ import annotations

from vla_core.errors import EvergreenError


class FetchError(EvergreenError):
    """A model that could not be fetched; `retryable` says whether the same fetch may succeed later."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class FetchCancelled(FetchError):  # noqa: N818  reads as what it is
    """The fetch was cancelled; what was downloaded stays staged."""

    def __init__(self) -> None:
        super().__init__("the fetch was cancelled; the next one goes on from there", retryable=True)


class CutError(FetchError):
    """A transfer that broke; `after_s` is how long the sender asked to be left alone."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message, retryable=True)
        self.after_s = after_s


class ChangedError(FetchError):
    """The sender has another file than the one that was begun."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)

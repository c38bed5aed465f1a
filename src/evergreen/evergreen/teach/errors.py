"""What can go wrong while teaching."""

from vla_core.errors import EvergreenError


class TeachError(EvergreenError):
    """The arm could not be taught, or could not repeat; the message says why, and what the arm does now."""

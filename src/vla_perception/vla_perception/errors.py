"""What goes wrong with cameras, beside the user's mistakes (`vla_core.errors.ConfigError`).

EvergreenError
├── ConfigError        the cameras file or a calibration file (from vla_core)
└── SourceError        a camera that cannot be opened, or that stopped; the node tries again
"""

from __future__ import annotations

from vla_core.errors import EvergreenError


class SourceError(EvergreenError):
    """A camera that cannot be opened or that stopped. The message says why and what to do about it."""

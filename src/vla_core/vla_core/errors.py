"""Every error that Evergreen raises on purpose.

EvergreenError
├── ConfigError        a parameter, a file or an address that the user can put right
├── ImageError         bytes that are no picture
├── ManifestError      a model folder whose manifest is missing, malformed or contradicted by its files
├── ModelError         a model that loads but cannot serve this robot
├── TrajectoryError    a chunk or trajectory that breaks its own rules
└── WireError          bytes or peers that do not speak the policy protocol

A message names the thing, the value it had and what to change. Command-line programs print it as one line without a
traceback.
"""


class EvergreenError(Exception):
    """Base of all expected failures; anything else is a programmer's error."""


class ConfigError(EvergreenError):
    """Something that the user configured cannot work."""


class ImageError(EvergreenError):
    """Bytes that cannot be decoded to a picture, or a picture of an impossible size."""


class ManifestError(EvergreenError):
    """A model folder whose manifest is missing, malformed or contradicted by its files."""


class ModelError(EvergreenError):
    """A model that is sound in itself but cannot serve here."""


class TrajectoryError(EvergreenError):
    """A chunk or a trajectory that breaks its own rules."""


class WireError(EvergreenError):
    """A peer or a message that does not speak the policy protocol."""

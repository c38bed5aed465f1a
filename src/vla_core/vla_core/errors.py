"""Every error that Evergreen raises on purpose.

EvergreenError
├── ConfigError        a parameter, a file or an address that the user can put right
├── DeltaError         a delta that is damaged or does not fit the model that it is applied to
├── ImageError         bytes that are no picture
├── ManifestError      a model folder whose manifest is missing, malformed or contradicted by its files
├── ModelError         a model that loads but cannot serve this robot
├── SignatureError     a model that is not signed as this robot demands
├── StoreError         a store of models that cannot do what was asked
│   ├── StoreBusy      another process is at it; try again
│   └── StoreFull      no room, and nothing left that may be evicted
├── TrajectoryError    a chunk or trajectory that breaks its own rules
└── WireError          bytes or peers that do not speak the policy protocol

A message names the thing, the value it had and what to change. Command-line programs print it as one line without a
traceback.
"""


class EvergreenError(Exception):
    """Base of all expected failures; anything else is a programmer's error."""


class ConfigError(EvergreenError):
    """Something that the user configured cannot work."""


class DeltaError(EvergreenError):
    """A difference between two models that is damaged, or does not fit the model that it is applied to."""


class ImageError(EvergreenError):
    """Bytes that cannot be decoded to a picture, or a picture of an impossible size."""


class ManifestError(EvergreenError):
    """A model folder whose manifest is missing, malformed or contradicted by its files."""


class ModelError(EvergreenError):
    """A model that is sound in itself but cannot serve here."""


class SignatureError(EvergreenError):
    """A model that is not signed by a key that this robot trusts, or was changed after it was signed."""


class StoreError(EvergreenError):
    """A store of models that cannot do what was asked of it."""


class StoreBusy(StoreError):  # noqa: N818  reads as what it is
    """Another process is doing this very thing; it can be asked again."""


class StoreFull(StoreError):  # noqa: N818  reads as what it is
    """No room for a model, though everything that may be evicted were gone."""


class TrajectoryError(EvergreenError):
    """A chunk or a trajectory that breaks its own rules."""


class WireError(EvergreenError):
    """A peer or a message that does not speak the policy protocol."""

"""Bringing a model from wherever it is into the store: resumable, verified, all or nothing."""

from gg_bridge.fetch.errors import FetchCancelled, FetchError
from gg_bridge.fetch.progress import Progress
from gg_bridge.fetch.run import fetch
from gg_bridge.fetch.source import Source

__all__ = ["FetchCancelled", "FetchError", "Progress", "Source", "fetch"]

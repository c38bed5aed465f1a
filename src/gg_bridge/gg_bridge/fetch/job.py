"""What one fetch works with."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from gg_bridge.fetch.errors import FetchError
from gg_bridge.fetch.progress import Meter
from gg_bridge.fetch.source import Source
from vla_core import signing
from vla_core.manifest import Manifest
from vla_core.store import MODEL_PART, Store


@dataclass(slots=True)
class Way:
    """How a model came, as far as it came otherwise than whole.

    Attributes:
        base, delta_bytes: the stored model that a delta was applied to, and how long that was.
        fallback: why there could be no delta though there was one.
    """

    base: str = ""
    delta_bytes: int = 0
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One fetch.

    Attributes:
        source: what is fetched.
        store: where to.
        place: the staging folder, which nobody else has.
        meter: told how far it is.
        cancelled: set by whoever no longer wants it.
        way: filled in while it goes on.
        body: digest of what the manifest must say (`signing.body_digest`); "" where that is not known.
    """

    source: Source
    store: Store
    place: Path
    meter: Meter
    cancelled: threading.Event
    way: Way = field(default_factory=Way)
    body: str = ""

    @property
    def model(self) -> Path:
        """Where the model is built."""
        return self.place / MODEL_PART

    def check_version(self, manifest: Manifest) -> None:
        """Compare the version with the one that was asked for.

        Raises:
            FetchError: it is another one.
        """
        wanted = self.source.version
        if wanted and manifest.version != wanted:
            raise FetchError(
                f"{self.source.shown} holds {manifest.label} where version {wanted} was asked for", retryable=False
            )

    def check_body(self, text: str) -> None:
        """Compare what a manifest says with what it must say.

        Raises:
            FetchError: it is another model's.
        """
        if self.body and signing.body_digest(text) != self.body:
            raise FetchError(
                f"{self.source.shown} holds another model than the delta leads to; deploy the one that is meant",
                retryable=False,
            )

    def check_hash(self, sha256: str, what: str) -> None:
        """Compare the SHA-256 of the manifest or of the archive with the one that was asked for.

        Raises:
            FetchError: it is another one.
        """
        wanted = self.source.sha256
        if wanted and sha256 != wanted:
            raise FetchError(
                f"{what} has SHA-256 {sha256} where {wanted} was asked for: it is another model", retryable=False
            )

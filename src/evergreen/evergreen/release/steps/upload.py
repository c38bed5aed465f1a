"""Upload a model's archive as an artifact."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from evergreen.release.aws.s3 import Bucket
from evergreen.release.errors import ReleaseError
from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.steps.download import STAND_IN
from evergreen.release.work import Work
from gg_bridge.recipes.facts import ARTIFACT_LIMIT_BYTES
from vla_core.store.space import human

_MARK_CHARACTERS = 8
SUFFIX = ".tar.gz"


class Upload:
    """Puts the archive into the bucket, under a name that says what is in it."""

    title = "upload the artifact"
    settles = False

    def __init__(self, work: Work, bucket: Bucket, prefix: str, limit_bytes: int = ARTIFACT_LIMIT_BYTES) -> None:
        self._work, self._bucket, self._prefix, self._limit_bytes = work, bucket, prefix, limit_bytes

    def would(self) -> Sequence[str]:
        """See `Step`."""
        return [f"upload the archive to {self._stand_in}"]

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        self._work.uri, self._work.sha256, self._work.size_bytes = self._stand_in, STAND_IN, 1
        return [
            f"whether the bucket {self._bucket.name} is there and takes it",
            f"whether the archive has {human(self._limit_bytes)} at most",
        ]

    def needless(self) -> str:
        """The same archive is there."""
        work = self._work
        if work.archive is None or work.manifest is None:
            raise ValueError("nothing is packed yet")
        size = work.archive.stat().st_size
        demand_size(work.label, size, self._limit_bytes)
        self._bucket.check()
        work.uri, work.sha256, work.size_bytes = f"s3://{self._bucket.name}/{self._key}", work.archive_sha256, size
        return f"{work.uri} is there already" if self._bucket.size(self._key) == size else ""

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        return Leftover("object", self._bucket.name, self._key)

    def run(self, view: View) -> str:
        """See `Step`."""
        work = self._work
        if work.archive is None:
            raise ValueError("nothing is packed yet")
        sent, lock = 0, threading.Lock()

        def count(block_bytes: int) -> None:
            nonlocal sent
            with lock:
                sent += block_bytes
                view.amount(sent, work.size_bytes)

        self._bucket.upload(work.archive, self._key, count)
        return f"{work.uri}, {human(work.size_bytes)}"

    @property
    def _stand_in(self) -> str:
        """For the address, which is known once the model is packed."""
        return f"s3://{self._bucket.name}/{self._prefix}{self._work.label.replace('@', '/')}-hash{SUFFIX}"

    @property
    def _key(self) -> str:
        manifest = self._work.manifest
        if manifest is None:
            raise ValueError("nothing is packed yet")
        mark = self._work.archive_sha256[:_MARK_CHARACTERS]
        return f"{self._prefix}{manifest.name}/{manifest.version}-{mark}{SUFFIX}"


def demand_size(label: str, size_bytes: int, limit_bytes: int = ARTIFACT_LIMIT_BYTES) -> None:
    """Refuse what Greengrass would.

    Raises:
        ReleaseError: it is too large; names the ways out.
    """
    if size_bytes > limit_bytes:
        raise ReleaseError(
            f"{label} has {human(size_bytes)}; Greengrass takes at most {human(limit_bytes)} as an artifact. "
            "Deliver it --by image, or put it on a server and deliver it --by download --uri https://…"
        )

"""Look for earlier releases of the same model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from evergreen.release import documents, versions
from evergreen.release.aws.greengrass import Greengrass
from evergreen.release.errors import ReleaseError
from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.work import Work

LOOKED_AT = 20
"""Component versions whose tags are read: each is a call, and a version is rarely released twice so much later."""


class Look:
    """Chooses the component's version; refuses a model version that was released with other files."""

    title = "look for earlier releases"
    settles = False

    def __init__(self, work: Work, greengrass: Greengrass, wanted: str) -> None:
        self._work, self._greengrass, self._wanted = work, greengrass, wanted

    def would(self) -> Sequence[str]:
        """See `Step`."""
        return [f"read the last {LOOKED_AT} versions of {self._work.component}: {self._work.version} is free"]

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        work = self._work
        return [f"whether {work.label} was released before, with other files"] if work.label else []

    def needless(self) -> str:
        """See `Step`."""
        return ""

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        return None

    def run(self, view: View) -> str:
        """See `Step`."""
        work = self._work
        work.present = self._greengrass.versions(work.component)
        work.version = versions.choose(self._wanted, work.present, work.component)
        if work.label:
            for version in itertools.islice(work.present, LOOKED_AT):
                view.say(version)
                self._compare(version)
        return f"{work.component} {work.version} is free"

    def _compare(self, version: str) -> None:
        tags = (self._greengrass.describe(self._work.component, version) or {}).get("tags") or {}
        if tags.get(documents.TAG_MODEL) != self._work.label:
            return
        if tags.get(documents.TAG_MANIFEST, self._work.manifest_sha256) != self._work.manifest_sha256:
            raise ReleaseError(
                f"{self._work.label} was released with other files, as {self._work.component} {version}; robots take a "
                "name and version once: give it another, --model-version 1.2.3"
            )

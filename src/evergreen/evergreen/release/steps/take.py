"""Take an image that is there: from this computer into the registry, or as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from evergreen.release import registry
from evergreen.release.errors import ReleaseError
from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.steps.build import Image
from evergreen.release.work import Work

_ID_CHARACTERS = 12


class Take:
    """Names a local image as the registry will know it; an image that is not here has to be in a registry."""

    title = "take the image"
    settles = False

    def __init__(self, work: Work, image: Image, name: str) -> None:
        """`image.base` is the image; `name` begins its tag."""
        self._work, self._image, self._name = work, image, name

    def would(self) -> Sequence[str]:
        """See `Step`."""
        return [f"take {self._image.base}: from this computer into {self._image.registry.address}, else as it is"]

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        if unknown := self._image.foresee_base():
            self._image.elsewhere = True
            return unknown
        self._name_it()
        self._work.image = self._image.reference
        return []

    def needless(self) -> str:
        """It was pushed before, or it is in a registry."""
        image = self._image
        if not image.engine.has(image.base):
            image.elsewhere = True
            self._work.image = self._resolved()
            return f"{image.base} is not on this computer: taken from its registry as {self._work.image}"
        self._name_it()
        image.pushed = image.registry.digest(image.repository, image.tag)
        self._work.image = image.exact
        return f"{image.reference} is in the registry already" if image.pushed else ""

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        if self._image.elsewhere:
            return None
        return Leftover("local_image", self._image.engine.program, self._image.reference)

    def run(self, view: View) -> str:
        """See `Step`."""
        view.say(self._image.reference)
        self._image.engine.tag(self._image.base, self._image.reference)
        return self._image.reference

    def _name_it(self) -> None:
        image = self._image
        image.tag = f"{self._name}-{image.engine.id_of(image.base)[:_ID_CHARACTERS]}"

    def _resolved(self) -> str:
        """The image in its registry, by its digest: nobody can put another behind that.

        Raises:
            ReleaseError: it names no registry, or is not there.
        """
        image = self._image
        host, repository, tag = registry.parts(image.base)
        if image.source is not None and "@" in tag:
            return image.base
        found = ""
        if image.source is not None:
            with contextlib.suppress(ReleaseError):  # who has to sign in there did it by the engine
                found = image.source.digest(repository, tag)
        if not found:
            image.fetch_base()
            found = image.engine.digest_of(image.base, f"{host}/{repository}")
        return f"{host}/{repository}@{found}"

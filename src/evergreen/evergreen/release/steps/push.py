"""Push an image into its registry."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.release.errors import ToolError
from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.steps.build import Image
from evergreen.release.work import Work


class Push:
    """Signs in and pushes; afterwards the digest names the image."""

    title = "push the image"
    settles = False

    def __init__(self, work: Work, image: Image, *, create_repository: bool) -> None:
        self._work, self._image, self._create = work, image, create_repository
        self._theirs = False

    def would(self) -> Sequence[str]:
        """See `Step`."""
        image = self._image
        if image.elsewhere:
            return ["nothing: it is in a registry already"]
        create = [f"make the repository {image.repository} in {image.registry.address} if there is none"]
        return [*(create if self._create else ()), " ".join(image.engine.push_words(image.reference))]

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        image = self._image
        if image.elsewhere:
            return []
        return [f"whether {image.registry.address} can be reached, and has or takes {image.repository}"]

    def needless(self) -> str:
        """See `Step`."""
        return "it is in a registry already" if self._image.pushed or self._image.elsewhere else ""

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        if self._theirs or self._image.elsewhere:
            return None
        return Leftover("image", self._image.registry.address, f"{self._image.repository}:{self._image.tag}")

    def run(self, view: View) -> str:
        """See `Step`."""
        image = self._image
        image.registry.prepare(image.repository, create=self._create)
        view.say(f"to {image.registry.address}")
        try:
            with image.registry.signed_in(image.engine) as engine:
                said = engine.push(image.reference)
        except ToolError:
            said = image.registry.digest(image.repository, image.tag)
            if not said:
                raise
            self._theirs = True  # another release of the same files was faster, and tags are immutable
        image.pushed = image.registry.digest(image.repository, image.tag) or said
        self._work.image = image.exact
        return image.exact

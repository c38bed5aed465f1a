"""Build the image that carries a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evergreen.release import versions
from evergreen.release.engine import Engine
from evergreen.release.errors import ReleaseError, ToolError
from evergreen.release.journal import Leftover
from evergreen.release.registry import Registry
from evergreen.release.steps import View
from evergreen.release.work import Work

BASE_ARGUMENT, MODEL_ARGUMENT = "BASE", "MODEL"
"""Of docker/Dockerfile.model."""


@dataclass(slots=True)
class Image:
    """The image on its way: where it goes and what it is made of.

    Attributes:
        engine: builds and pushes it.
        registry, repository: where it goes.
        dockerfile, base, platform: what it is made of; the base is an image.
        source: registry that the base is in; None where the base names none.
        tag: known once the model is packed; a dry run has a stand-in.
        pushed: the digest in the registry, where it is there.
        elsewhere: it is taken from another registry as it is.
    """

    engine: Engine
    registry: Registry
    repository: str
    dockerfile: Path
    base: str
    platform: str = ""
    source: Registry | None = None
    tag: str = ""
    pushed: str = ""
    elsewhere: bool = False

    @property
    def reference(self) -> str:
        """With the tag."""
        return f"{self.registry.address}/{self.repository}:{self.tag}"

    @property
    def exact(self) -> str:
        """With the digest, so that nobody can put another behind it."""
        return f"{self.registry.address}/{self.repository}@{self.pushed}" if self.pushed else self.reference

    def fetch_base(self) -> None:
        """Pull the base, signed in where it is in the account's own registry.

        Raises:
            ReleaseError: it names no registry, so that it would be anybody's image of that name; or it cannot be had.
        """
        source = self._demand_source()
        try:
            with source.signed_in(self.engine) as engine:
                engine.pull(self.base, self.platform)
        except ToolError as error:
            raise ReleaseError(
                f"image {self.base} is not on this computer and cannot be fetched ({error}); build it "
                "(docs/containers.md) or name another"
            ) from error

    def foresee_base(self) -> Sequence[str]:
        """For `Step.foresee`: whether the base can be had.

        Raises:
            ReleaseError: as `fetch_base`, as far as that is known without fetching it.
        """
        if self.engine.has(self.base):
            return []
        self._demand_source()
        return [f"whether image {self.base} can be fetched, which is not on this computer"]

    def _demand_source(self) -> Registry:
        if self.source is None:
            raise ReleaseError(
                f"image {self.base} is not on this computer: build it (docs/containers.md), or name the registry that "
                f"it is in, as in registry.example/{self.base}"
            )
        return self.source


class Build:
    """Puts the model's folder upon the base image."""

    title = "build the image"
    settles = False

    def __init__(self, work: Work, image: Image, folder: Path) -> None:
        self._work, self._image, self._folder = work, image, folder

    def would(self) -> Sequence[str]:
        """See `Step`."""
        return [" ".join(self._words())]

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        image = self._image
        image.tag = f"{self._work.label.replace('@', '-')}-hash"
        self._work.image = image.reference
        return [*image.foresee_base(), f"whether it can be built upon {image.base}"]

    def needless(self) -> str:
        """The same contents were pushed before."""
        image, work = self._image, self._work
        if work.manifest is None:
            raise ValueError("nothing is packed yet")
        base_id = self._base_id()
        recipe = image.dockerfile.read_text(encoding="utf-8")
        image.tag = versions.image_tag(
            work.manifest.name, work.manifest.version, work.manifest_sha256, base_id, recipe, image.platform
        )
        image.pushed = image.registry.digest(image.repository, image.tag)
        work.image = image.exact
        return f"{image.reference} is in the registry already" if image.pushed else ""

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        return Leftover("local_image", self._image.engine.program, self._image.reference)

    def run(self, view: View) -> str:
        """See `Step`."""
        view.say(self._image.reference)
        self._image.engine.build(self._words())
        return self._image.reference

    def _words(self) -> list[str]:
        image = self._image
        context = self._folder.resolve()
        arguments = {BASE_ARGUMENT: image.base, MODEL_ARGUMENT: "."}
        return image.engine.build_words(image.dockerfile, context, image.reference, arguments, image.platform)

    def _base_id(self) -> str:
        image = self._image
        if not image.engine.has(image.base):
            image.fetch_base()
        return image.engine.id_of(image.base)

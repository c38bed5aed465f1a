"""What the steps of one release hand on to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evergreen.release.outcome import Outcome
from evergreen.release.targets import Target
from vla_core.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment that was made.

    Attributes:
        target, deployment_id: which.
        created_s: by AWS's clock, seconds since 1970.
        label: `name@version`, if any.
        sha256: of the model, as robots report it; empty where it is unknown.
    """

    target: Target
    deployment_id: str
    created_s: float
    label: str = ""
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"target": self.target.shown, "deployment_id": self.deployment_id}


@dataclass(slots=True)
class Work:
    """Filled by the steps, in their order.

    Attributes:
        component: that gets a new version.
        label: `name@version`; empty for the robot's component.
        manifest, manifest_sha256: of the model.
        archive, archive_sha256: its file, where it travels as one.
        image: reference, with a digest once it is known.
        uri, sha256, size_bytes: of what the recipe names beside the image.
        present: versions of the component that there are.
        version: of the component.
        recipe: of that version.
        asked: targets for which AWS was asked for a deployment, and has not said no.
        deployed: what was made of it.
        outcomes: of each device, by its name.
    """

    component: str
    label: str = ""
    manifest: Manifest | None = None
    manifest_sha256: str = ""
    archive: Path | None = None
    archive_sha256: str = ""
    image: str = ""
    uri: str = ""
    sha256: str = ""
    size_bytes: int = 0
    present: list[str] = field(default_factory=list)
    version: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    asked: list[Target] = field(default_factory=list)
    deployed: list[Deployed] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def wished_sha256(self) -> str:
        """The SHA-256 by which robots report the model: of what the recipe names, else of the manifest in the image."""
        return self.sha256 or self.manifest_sha256
